"""Milliseconds from the publication of weights to their use, from the actors' logs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .command import BenchError

# Messages of the actor, at level debug.
RECEIVED = "new weights"
ACTED = "first step with new weights"

# Each stage with the field of the message in which it ends: the actor has checked all bytes,
# is done with the step before, has read the network, is done with the first step with it.
STAGES = {"received": (RECEIVED, "received_ms"), "begun": (ACTED, "begun_ms"), "taken": (ACTED, "taken_ms"),
          "acted": (ACTED, "acted_ms")}


@dataclass(frozen=True)
class Summary:
    """Of the milliseconds of all versions and actors."""

    median: float
    p90: float
    max: float
    count: int
    # Values if every actor had acted with every version.
    possible: int


@dataclass
class Latencies:
    values: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    versions: set[int] = field(default_factory=set)
    actors: int = 0

    def add(self, log: str, measured: range) -> None:
        """Adds what the log of one actor says of the measured versions."""
        self.actors += 1
        for line in log.splitlines():
            found = parsed(line)
            version = found.get("version")
            if not isinstance(version, int) or version not in measured:
                continue
            if found.get("message") == RECEIVED and "received_ms" in found:
                self.versions.add(version)
            for stage, (message, key) in STAGES.items():
                if found.get("message") == message and isinstance(found.get(key), (int, float)):
                    self.values[stage].append(found[key])

    def stages(self) -> dict[str, Summary]:
        return {stage: self._summary(sorted(values)) for stage, values in self.values.items()}

    def _summary(self, ordered: list[float]) -> Summary:
        if not ordered:
            raise BenchError("no actor acted with new weights: measure for longer")
        count = len(ordered)
        median, p90 = (ordered[min(count * share // 100, count - 1)] for share in (50, 90))
        return Summary(median, p90, ordered[-1], count, len(self.versions) * self.actors)


def parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
