"""Reverb and cpprb on the same shapes."""

from __future__ import annotations

from pathlib import Path

from ..command import ROOT, BenchError, json_object, read
from .results import PeerRecord, Results, Shape

# A row with one agent and four frames, which is what our clients send.
ROW_BYTES = 104
# Whether several clients can use it.
PEERS = {"reverb": True, "cpprb": False}


def measure(python: Path, shape: Shape, clients: list[int], results: Results) -> None:
    """Measures what the file does not hold yet; `clients` replaces the shape's number."""
    missing = [(peer, asked) for peer, serves in PEERS.items() for count in (clients if serves else [1])
               for asked in [Shape(shape.rows, shape.batch, count, shape.seconds)]
               if not results.has_peer(peer, asked)]
    for index, (peer, asked) in enumerate(missing):
        print(f"[peer {index + 1}/{len(missing)}] {peer}, {asked.clients} clients")
        for record in ask(python, peer, asked):
            print(f"  {record.op} {record.api}: {record.rows_per_s:.0f} rows/s")
            results.add_peer(record)


def ask(python: Path, peer: str, asked: Shape) -> list[PeerRecord]:
    printed = read([python, ROOT / "bench/replay_peers.py", peer, f"--rows={asked.rows}", f"--batch={asked.batch}",
                    f"--row-bytes={ROW_BYTES}", f"--clients={asked.clients}", f"--seconds={asked.seconds}"])
    records = parse(printed, asked)
    if not records:
        raise BenchError(f"{peer} measured nothing")
    return records


def parse(printed: str, asked: Shape) -> list[PeerRecord]:
    """The lines that are results; libraries print messages of their own."""
    records = []
    for line in printed.splitlines():
        if line.startswith("{"):
            try:
                records.append(PeerRecord.from_json(json_object(line), asked))
            except (BenchError, KeyError, TypeError) as error:
                raise BenchError(f"bench/replay_peers.py printed {line}: {error!r}") from error
    return records
