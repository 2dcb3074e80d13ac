"""What is measured: which service, which load."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ACKS = ("memory", "durable")
# In the order of measuring.
OPERATIONS = ("insert", "sample", "update", "mixed", "mixed-half")


@dataclass(frozen=True)
class Group:
    """One service and its clients."""

    shards: int
    clients: int
    # When an inserted batch counts as stored: in the table, or on disk.
    ack: str
    # Rows that all shards hold together.
    rows: int
    batch: int
    # Per figure.
    seconds: int

    def __str__(self) -> str:
        return f"{plural(self.shards, 'shard')}, {plural(self.clients, 'client')}, {self.ack} acknowledgements"


@dataclass(frozen=True)
class Case:
    """One figure."""

    group: Group
    operation: str

    def __str__(self) -> str:
        return f"{self.group}: {self.operation}"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self.group), "operation": self.operation}


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def selected(operations: list[str]) -> list[str]:
    """The operations to measure; half of a peak needs the peak first."""
    wanted = set(operations)
    if "mixed-half" in wanted:
        wanted.add("mixed")
    return [operation for operation in OPERATIONS if operation in wanted]
