"""Shards as processes of their own, empty at first."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

from ..command import BenchError
from ..process import Process
from ..procfs import allocated_bytes, resident_bytes

# Lines at the end of a shard's log that can explain a failure.
LOG_LINES = 20


class Shards:
    """All shards of one service; leaving the context ends them and removes their journals."""

    def __init__(self, server: Path, count: int, rows: int, scratch: Path, durable: bool,
                 more: tuple[str, ...] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="journals-", dir=scratch)
        self.journals = Path(self._folder.name) / "journals" if durable else None
        self._processes: list[Process] = []
        try:
            for number in range(count):
                command = [str(server), "serve", "--listen=127.0.0.1:0", "--log-format=json", f"--shard={number}",
                           f"--capacity={-(-rows // count)}", *more]
                if self.journals:
                    command.append(f"--journal={self.journals / f'shard-{number}'}")
                log = Path(self._folder.name) / f"shard-{number}.log"
                self._processes.append(Process(f"shard {number}", command, log))
            self.addresses = [process.address() for process in self._processes]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        self._folder.cleanup()

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def resident_bytes(self) -> int:
        return resident_bytes(self.pids())

    def disk_bytes(self) -> Optional[int]:
        """What the journals take; None without journals."""
        return None if self.journals is None else allocated_bytes(self.journals)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Adds the shards' last warnings and errors to a failure."""
        try:
            yield
        except BenchError as error:
            lines = [line for process in self._processes for line in process.lines()[-LOG_LINES:]]
            kept = [line for line in lines if '"warn"' in line or '"error"' in line]
            if not kept:
                raise
            raise BenchError("\n".join([str(error), "warnings and errors of the shards:", *kept])) from error
