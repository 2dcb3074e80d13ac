"""The file of results: one JSON object per line, appended as soon as each is there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ..command import BenchError, append, number, read_text
from ..procfs import Cores
from .cases import Case, Group
from .measures import Measure


@dataclass(frozen=True)
class Record:
    """One figure of ours."""

    case: Case
    # By operation: one, or the three of a mixed load.
    parts: dict[str, Measure]
    # Memory of all shards before the first row, once filled, and after the load.
    resident_bytes_empty: int
    resident_bytes: int
    resident_bytes_after: int
    # Journals once filled and after the load; None without journals.
    disk_bytes: Optional[int]
    disk_bytes_after: Optional[int]
    usage: Cores

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        del found["case"]
        return {"kind": "replay", **self.case.as_json(), **found}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Record:
        group = Group(**{key: found[key] for key in Group.__annotations__})
        empty, filled, after = (int(number(found, f"resident_bytes{end}")) for end in ("_empty", "", "_after"))
        parts = {name: Measure.from_json(part) for name, part in found["parts"].items()}
        usage = Cores(*(number(found["usage"], key) for key in Cores.__annotations__))
        return cls(Case(group, found["operation"]), parts, empty, filled, after, found["disk_bytes"],
                   found["disk_bytes_after"], usage)


@dataclass(frozen=True)
class Shape:
    """What a peer is measured with."""

    rows: int
    batch: int
    clients: int
    seconds: int


@dataclass(frozen=True)
class PeerRecord:
    """One figure of a peer, as bench/replay_peers.py prints it."""

    peer: str
    version: str
    op: str
    # Which API of the peer.
    api: str
    clients: int
    batch: int
    rows_held: int
    rows_per_s: float
    p50_ms: Optional[float]
    p99_ms: Optional[float]
    p999_ms: Optional[float]
    # Absent in records of early versions.
    asked: Optional[Shape]

    def as_json(self) -> dict[str, Any]:
        return {"kind": "peer", **asdict(self)}

    @classmethod
    def from_json(cls, found: dict[str, Any], asked: Optional[Shape] = None) -> PeerRecord:
        number(found, "rows_per_s")
        if asked is None and found.get("asked") is not None:
            asked = Shape(**found["asked"])
        fields = {key: found[key] for key in cls.__annotations__ if key != "asked"}
        return cls(**fields, asked=asked)


class Results:
    """All results, of this run and those before it."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path = path
        self.records: list[Record] = []
        self.peers: list[PeerRecord] = []
        append(path, "")
        if fresh:
            path.write_bytes(b"")
        for index, line in enumerate(read_text(path).splitlines()):
            try:
                self._keep(json.loads(line))
            except (BenchError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise BenchError(f"{path}, line {index + 1} is no result of this version ({error!r}); "
                                 "--fresh begins anew") from error

    def _keep(self, found: dict[str, Any]) -> None:
        if found["kind"] == "replay":
            self.records.append(Record.from_json(found))
        elif found["kind"] == "peer":
            self.peers.append(PeerRecord.from_json(found))
        else:
            raise ValueError(f"unknown kind {found['kind']!r}")

    def find(self, case: Case) -> Optional[Record]:
        """The figure, the newest if there are several."""
        return next((record for record in reversed(self.records) if record.case == case), None)

    def has_peer(self, peer: str, asked: Shape) -> bool:
        return any(record.peer == peer and record.asked == asked for record in self.peers)

    def add(self, record: Record) -> None:
        append(self.path, json.dumps(record.as_json()) + "\n")
        self.records.append(record)

    def add_peer(self, record: PeerRecord) -> None:
        append(self.path, json.dumps(record.as_json()) + "\n")
        self.peers.append(record)
