"""Results as tables."""

from __future__ import annotations

from .results import PeerRecord, Record, Results

# A figure counts as distorted if other processes used this many cores or more.
BUSY_CORES = 0.2


def brief(record: Record) -> str:
    """One figure in one line."""
    parts = [f"{name} {m.rows_per_s:,.0f} rows/s, p99 {m.p99_ms:.2f} ms" for name, m in sorted(record.parts.items())]
    return "; ".join(parts) + disturbed(record)


def disturbed(record: Record) -> str:
    used = record.usage
    if used.others < BUSY_CORES:
        return ""
    return f"  (disturbed: others used {used.others:.1f} of {used.all:.0f} cores)"


def tables(results: Results) -> list[str]:
    """Everything that the file holds."""
    return rates(results.records) + room(results.records) + peers(results.peers) + ratios(results)


def rates(records: list[Record]) -> list[str]:
    lines = ["", f"{'shards':>6} {'clients':>7} {'acks':7} {'operation':17} {'rows/s':>10} {'p50 ms':>8} {'p99 ms':>8} "
             f"{'p99.9 ms':>8} {'max ms':>8}  {'cores s/c/o':>12}"]
    for record in records:
        group, used = record.case.group, record.usage
        for name, m in sorted(record.parts.items()):
            mixed = record.case.operation.startswith("mixed")
            operation = f"{record.case.operation} {name}" if mixed else record.case.operation
            lines.append(
                f"{group.shards:>6} {group.clients:>7} {group.ack:7} {operation:17} {m.rows_per_s:>10,.0f} "
                f"{m.p50_ms:>8.2f} {m.p99_ms:>8.2f} {m.p999_ms:>8.2f} {m.max_ms:>8.2f}  "
                f"{used.shards:.1f}/{used.clients:.1f}/{used.others:.1f}")
    return [*lines, "cores s/c/o: used by shards, clients and others"]


def room(records: list[Record]) -> list[str]:
    """Memory and disk of the filled shards, once per service."""
    lines = ["", f"{'shards':>6} {'acks':7} {'rows':>10} {'resident MB':>12} {'per row':>9} {'on disk MB':>12} "
             f"{'per row':>9}"]
    services: dict[tuple[int, str, int], Record] = {}
    for record in records:
        group = record.case.group
        services.setdefault((group.shards, group.ack, group.rows), record)
    for (shards, ack, rows), record in services.items():
        taken = max(record.resident_bytes - record.resident_bytes_empty, 0)
        disk = f"{'none':>12} {'':>9}"
        if record.disk_bytes is not None:
            disk = f"{record.disk_bytes / 1e6:>12.1f} {record.disk_bytes / max(rows, 1):>9.1f}"
        lines.append(f"{shards:>6} {ack:7} {rows:>10} {record.resident_bytes / 1e6:>12.1f} "
                     f"{taken / max(rows, 1):>9.1f} {disk}")
    return lines


def peers(records: list[PeerRecord]) -> list[str]:
    return ["", *(f"{r.peer} {r.version}, {r.clients} clients, {r.op} with {r.api}: {r.rows_per_s:,.0f} rows/s, "
                  f"p50 {milliseconds(r.p50_ms)}, p99 {milliseconds(r.p99_ms)}, {r.rows_held} rows held"
                  for r in records)]


def milliseconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} ms"


def ratios(results: Results) -> list[str]:
    """Ours over theirs: one shard, the same batch and number of clients, each peer's fastest API."""
    lines = [""]
    for record in results.records:
        group, operation = record.case.group, record.case.operation
        ours = record.parts.get(operation)
        # Only inserts depend on the acknowledgement.
        if ours is None or group.shards != 1 or (group.ack == "durable" and operation != "insert"):
            continue
        ack = " durable" if group.ack == "durable" else ""
        for peer in sorted({record.peer for record in results.peers}):
            same = [r for r in results.peers if (r.peer, r.op, r.clients, r.batch)
                    == (peer, operation, group.clients, group.batch)]
            if same:
                theirs = max(same, key=lambda r: r.rows_per_s)
                lines.append(
                    f"{operation}{ack}, {group.clients} clients: {ours.rows_per_s / theirs.rows_per_s:.1f} times "
                    f"{peer} ({ours.rows_per_s:,.0f} to {theirs.rows_per_s:,.0f} rows/s with {theirs.api})")
    return lines
