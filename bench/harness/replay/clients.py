"""Load clients as processes that begin together."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ..command import BenchError, ended, json_object, number, show
from .cases import Group
from .measures import Measure, joined_parts


@dataclass(frozen=True)
class Run:
    """What all clients did together."""

    parts: dict[str, Measure]
    processor_s: float


@dataclass(frozen=True)
class Load:
    """A load on running shards."""

    program: Path
    group: Group
    addresses: list[str]

    def fill(self) -> None:
        """Fills the shards: one client, all rows."""
        together([self._command("fill", 0) + [f"--rows={self.group.rows}"]])

    def run(self, operation: str, rate: Optional[float]) -> Run:
        """All clients at once; `rate` is of all together."""
        more = [f"--seconds={self.group.seconds}"]
        if rate is not None:
            more.append(f"--rate={rate / self.group.clients}")
        name = "mixed" if operation == "mixed-half" else operation
        printed = together([self._command(name, client) + more for client in range(self.group.clients)])
        return Run(joined_parts(printed), sum(number(client, "processor_s") for client in printed))

    def _command(self, operation: str, client: int) -> list[str]:
        return [str(self.program), f"--shards={','.join(self.addresses)}", f"--operation={operation}",
                f"--batch={self.group.batch}", f"--ack={self.group.ack}", f"--client={client}",
                "--histogram", "--wait"]


def together(commands: list[list[str]]) -> list[dict[str, Any]]:
    """Runs clients that begin at the same moment; what each printed."""
    with ExitStack() as stack:
        clients = []
        for command in commands:
            clients.append(Client(command))
            stack.callback(clients[-1].kill)
        for client in clients:
            client.wait_until_ready()
        for client in clients:
            client.begin()
        return [client.result() for client in clients]


class Client:
    """A client that says `ready` on standard error and begins on a line of standard input."""

    def __init__(self, command: list[str]) -> None:
        self.line = show(command)
        pipe = subprocess.PIPE
        try:
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        except OSError as error:
            raise BenchError(f"cannot start `{self.line}`: {error}") from error
        assert self._child.stdin and self._child.stdout and self._child.stderr
        self._stdin, self._stdout, self._stderr = self._child.stdin, self._child.stdout, self._child.stderr

    def wait_until_ready(self) -> None:
        first = self._stderr.readline()
        if first.strip() != "ready":
            raise BenchError(f"`{self.line}` failed: {(first + self._stderr.read()).strip()}")

    def begin(self) -> None:
        try:
            self._stdin.write("\n")
            self._stdin.close()
        except BrokenPipeError:
            raise BenchError(f"`{self.line}` ended before it began: {self._stderr.read().strip()}") from None

    def result(self) -> dict[str, Any]:
        printed, errors = self._stdout.read(), self._stderr.read()
        code = self._child.wait()
        if code != 0:
            raise BenchError(f"`{self.line}` failed ({ended(code)}): {errors.strip()}")
        try:
            return json_object(printed)
        except BenchError as error:
            raise BenchError(f"`{self.line}` {error}") from error

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._stdout, self._stderr):
            pipe.close()
        if not self._stdin.closed:
            try:
                self._stdin.close()
            except BrokenPipeError:
                pass
