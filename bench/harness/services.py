"""Shards, a learner and actors as processes of this machine."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional

from .command import BenchError, Words, number, read, read_text
from .process import Process
from .weights_latency import Latencies

# How long a process may take to end after SIGTERM.
END_SECONDS = 30.0
# Characters of a log that are shown of a process that failed.
LOG_END = 2000


@dataclass(frozen=True)
class Setup:
    """What runs, and with which configuration."""

    bins: Path
    # For journals, logs and the run folder.
    scratch: Path
    config: Path
    # Further settings of learner and actors.
    settings: list[str]
    shards: int
    actors: int


def free_address() -> str:
    """An address that is free at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
    return f"{host}:{port}"


class Services:
    """All processes; leaving the context ends them."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.learner = setup, free_address()
        # The versions that are published while measuring: the first, and the one after the last.
        self.first_version, self.end_version = 0, 0
        self.processes: list[Process] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        setup = self.setup
        addresses = [free_address() for _ in range(setup.shards)]
        # Shards share the capacity among as many as the learner counts.
        shards = f"cluster.shards={json.dumps(addresses)}"
        config = str(setup.config)
        for index, address in enumerate(addresses):
            self._add(f"shard-{index}", "replay-server", [
                "serve", "--listen", address, "--shard", str(index), "--config", config, "--set", shards,
                "--journal", str(setup.scratch / f"rows-{index}")])
        # Their own limits would end the measurement.
        settings = [*setup.settings, f"cluster.learner={self.learner}", "learner.max_minutes=0.0",
                    "learner.updates=1000000"]
        common = ["--config", config, *(word for setting in settings for word in ("--set", setting))]
        self._add("learner", "learner", [
            "run", "--run-dir", str(setup.scratch / "run"), *common, "--set", "log.level=info,learner=debug",
            "--set", shards])
        for index in range(setup.actors):
            self._add(f"actor-{index}", "actor", [
                "run", "--log-format", "json", *common, "--set", "log.level=info,actor=debug"])

    def _add(self, name: str, program: str, arguments: Words) -> None:
        self.processes.append(
            Process(name, [self.setup.bins / program, *arguments], self.setup.scratch / f"{name}.log"))

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self.processes:
            process.kill()

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def check(self) -> None:
        """Fails once a process has ended."""
        for process in self.processes:
            status = process.status()
            if status is not None:
                raise BenchError(f"{process.name} ended early ({status})")

    def status(self) -> Optional[dict[str, Any]]:
        """The learner's status; None while it reads scans and does not listen."""
        try:
            printed = read([self.setup.bins / "learner", "status", "--json", "--address", self.learner])
        except BenchError:
            return None
        try:
            found = json.loads(printed)
        except ValueError as error:
            raise BenchError(f"the learner's status is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise BenchError(f"the learner's status is no object: {printed.strip()}")
        return found

    def updates(self) -> int:
        """Updates done; 0 as long as the learner does not respond."""
        found = self.status()
        return 0 if found is None else int(number(found, "updates"))

    def version(self) -> int:
        """The version that was published last."""
        found = self.status()
        if found is None:
            raise BenchError("the learner does not respond to `learner status`")
        return int(number(found, "weights_version"))

    def begin(self) -> None:
        """Versions published from now on are measured."""
        self.first_version = self.version() + 1

    def end(self) -> None:
        """Versions published from now on are not measured, because actors that end leave their cores
        to others; nor is the last one before, with which not all may have acted."""
        self.end_version = self.version()

    def stop(self) -> None:
        """Ends all, actors first."""
        for process in reversed(self.processes):
            process.terminate(END_SECONDS)

    def latencies(self) -> Latencies:
        found = Latencies()
        for process in self.processes:
            if process.name.startswith("actor"):
                found.add(read_text(process.log), range(self.first_version, self.end_version))
        return found

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Adds to a failure the ends of the logs of the learner and of whatever ended."""
        try:
            yield
        except BenchError as error:
            parts = [str(error)]
            for process in self.processes:
                if process.name == "learner" or process.status() is not None:
                    parts.append(f"end of the log of {process.name}:\n{log_end(process.log)}")
            raise BenchError("\n".join(parts)) from error


def log_end(log: Path) -> str:
    with open(log, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - LOG_END, 0))
        return file.read().decode(errors="replace")
