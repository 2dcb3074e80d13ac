"""Memory and processor time, as the kernel counts them (proc(5))."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from .command import BenchError, read_text

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def kib_field(text: str, name: str, source: str) -> int:
    """Bytes of a line such as `VmRSS:  1234 kB`."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == f"{name}:" and words[1].isdigit():
            return int(words[1]) * 1024
    raise BenchError(f"{source} has no {name}: the process has ended")


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of the processes, each by itself."""
    paths = [Path(f"/proc/{pid}/status") for pid in pids]
    return sum(kib_field(read_text(path), "VmRSS", str(path)) for path in paths)


@dataclass
class MemoryPeak:
    """The largest sums over the processes that were seen."""

    processes: int
    # A page that several processes share counts in each of them.
    resident: int = 0
    # Such a page counts once.
    proportional: int = 0

    def sample(self, pids: Iterable[int]) -> None:
        resident = proportional = 0
        for pid in pids:
            path = Path(f"/proc/{pid}/smaps_rollup")
            text = read_text(path)
            resident += kib_field(text, "Rss", str(path))
            proportional += kib_field(text, "Pss", str(path))
        self.resident = max(self.resident, resident)
        self.proportional = max(self.proportional, proportional)


@dataclass(frozen=True)
class Cores:
    """Cores in use on average between two readings."""

    all: float
    shards: float
    clients: float
    # Their load distorts a figure.
    others: float


@dataclass(frozen=True)
class ProcessorTime:
    """A reading of the counters of the machine and of the shards."""

    at: float
    machine_s: float
    shards_s: float

    @classmethod
    def now(cls, shards: Iterable[int]) -> ProcessorTime:
        shards_s = sum(process_seconds(read_text(Path(f"/proc/{pid}/stat"))) for pid in shards)
        return cls(time.monotonic(), machine_seconds(read_text(Path("/proc/stat"))), shards_s)

    def until(self, later: ProcessorTime, clients_s: float) -> Cores:
        seconds = max(later.at - self.at, 1e-9)
        shards = (later.shards_s - self.shards_s) / seconds
        clients = clients_s / seconds
        machine = (later.machine_s - self.machine_s) / seconds
        return Cores(float(len(os.sched_getaffinity(0))), shards, clients, max(machine - shards - clients, 0.0))


def machine_seconds(stat: str) -> float:
    """Busy seconds of all processors since the boot: all but idle and waiting for disks."""
    for line in stat.splitlines():
        if line.startswith("cpu "):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
    raise BenchError("/proc/stat has no line of all processors")


def process_seconds(stat: str) -> float:
    """Processor seconds of one process, all its threads together."""
    # The name, in parentheses, may hold anything; the fields follow it.
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 13:
        raise BenchError(f"a process's stat has too few fields: {stat.strip()}")
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def allocated_bytes(folder: Path) -> int:
    """Blocks that all files below a folder take, reserved ones too."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                # A journal may drop a segment while we look.
                continue
    return total
