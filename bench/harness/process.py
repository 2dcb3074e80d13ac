"""Services as child processes: started, watched, ended."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Optional

from .command import BenchError, Words, ended, show

# A shard with an empty journal listens at once; the rest is for a slow disk.
START_SECONDS = 30.0


class Process:
    """A child process whose output goes to a log file."""

    def __init__(self, name: str, command: Words, log: Path) -> None:
        self.name, self.log, self.line = name, log, show(command)
        with open(log, "wb") as file:
            try:
                self._child = subprocess.Popen(
                    list(map(str, command)), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
            except OSError as error:
                raise BenchError(f"cannot start `{self.line}`: {error}") from error

    @property
    def pid(self) -> int:
        return self._child.pid

    def status(self) -> Optional[str]:
        """How the process ended; None while it runs."""
        code = self._child.poll()
        return None if code is None else ended(code)

    def lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def address(self, patience: float = START_SECONDS) -> str:
        """The address that the process logs, as JSON, once it listens."""
        give_up = time.monotonic() + patience
        while True:
            # Read before the lines: whatever a process that has ended logged is then there.
            status = self.status()
            for line in self.lines():
                found = _address(line)
                if found is not None:
                    return found
            if status is None and time.monotonic() > give_up:
                status = f"no address within {patience:.0f} s"
            if status is not None:
                last = "\n".join(self.lines()[-20:])
                raise BenchError(f"`{self.line}` does not serve ({status}):\n{last}")
            time.sleep(0.01)

    def terminate(self, patience: float) -> None:
        """Asks the process to end and waits until it has."""
        self._child.terminate()
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} does not end within {patience:.0f} s of SIGTERM") from None

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()


def _address(line: str) -> Optional[str]:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    address = entry.get("address") if isinstance(entry, dict) else None
    return address if isinstance(address, str) else None
