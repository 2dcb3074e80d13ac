"""Rates and latencies of one operation, of several clients as one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Iterable

from ..command import BenchError, number


@dataclass(frozen=True)
class Measure:
    """Rows per second, and milliseconds per batch."""

    rows_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Measure:
        return cls(*(number(found, key) for key in cls.__annotations__))


def joined(parts: Iterable[dict[str, Any]]) -> Measure:
    """Adds the clients' rates and joins their latencies, which come as (microseconds, batches)."""
    counts: Counter[int] = Counter()
    rows_per_s = max_ms = 0.0
    for part in parts:
        rows_per_s += number(part, "rows_per_s")
        max_ms = max(max_ms, number(part, "max_ms"))
        for micros, batches in part["histogram_us"]:
            counts[micros] += batches
    p50, p99, p999 = (quantile_ms(counts, per_mille) for per_mille in (500, 990, 999))
    return Measure(rows_per_s, p50, p99, p999, max_ms)


def quantile_ms(counts: Counter[int], per_mille: int) -> float:
    """The latency that so many of 1000 batches do not exceed."""
    left = max(-(-sum(counts.values()) * per_mille // 1000), 1)
    for micros, batches in sorted(counts.items()):
        if left <= batches:
            return micros / 1e3
        left -= batches
    return 0.0


def joined_parts(printed: list[dict[str, Any]]) -> dict[str, Measure]:
    """By operation, what all clients did together."""
    try:
        names = sorted({name for client in printed for name in client["parts"]})
        return {name: joined(client["parts"][name] for client in printed if name in client["parts"])
                for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(f"a client printed an unexpected result: {error!r}") from error
