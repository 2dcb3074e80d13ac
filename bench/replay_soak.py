"""A replay shard under steady load: does its memory or its latency grow?

    cargo build --release -p replay-server --bin replay-server --example load
    python bench/replay_soak.py --minutes 15 --rate 180000 --out docs/images/replay-soak

One shard with a journal and a million rows, filled first. Then draws, updates of what was drawn
and durable inserts, each at `--rate` rows per second in batches of 256, from one client process
that is started anew every `--every` seconds. Leaves OUT.csv (per interval: seconds since the
start, resident MB of the shard, MB of its journal, rows per second, p50, p99 and p99.9 in ms of a
draw and of an insert, per cent of the machine's time that was used and that a hypervisor took for
others) and OUT.svg. Needs Python 3.9 and nothing else.
"""

import argparse
import csv
import json
import pathlib
import tempfile
import time

from harness.command import entry, read
from harness.replay.shards import Shards

FIELDS = ["seconds", "resident_mb", "journal_mb", "rows_per_s", "sample_p50_ms", "sample_p99_ms",
          "sample_p999_ms", "insert_p50_ms", "insert_p99_ms", "insert_p999_ms", "busy_pct", "stolen_pct"]


def machine():
    """Ticks of all processors since the boot: all, used, taken by the hypervisor (proc(5))."""
    user, nice, system, idle, wait, irq, softirq, stolen = map(int, open("/proc/stat").readline().split()[1:9])
    used = user + nice + system + irq + softirq
    return used + idle + wait + stolen, used, stolen


def load(binary, address, *more):
    return json.loads(read([binary, "--shards", address, "--ack", "durable", *more]))["parts"]


def interval(options, shards, begun):
    before = machine()
    parts = load(options.load, shards.addresses[0], "--operation", "mixed", "--rate", str(options.rate), "--seconds",
                 str(options.every))
    ticks, used, stolen = (after - first for after, first in zip(machine(), before))
    sample, insert = parts["sample"], parts["insert"]
    journal = sum(f.stat().st_size for f in shards.journals.rglob("*") if f.is_file())
    # Thousands of KiB, as in the figures of docs/images/replay-soak.csv.
    resident = shards.resident_bytes() / 1024e3
    figures = [round(time.monotonic() - begun, 1), round(resident, 1), round(journal / 1e6, 1),
               round(sample["rows"] / sample["seconds"])]
    for operation in (sample, insert):
        figures += [operation[key] for key in ("p50_ms", "p99_ms", "p999_ms")]
    figures += [round(100 * used / ticks, 1), round(100 * stolen / ticks, 1)]
    return dict(zip(FIELDS, figures))


def curve(rows, key, top, box):
    left, upper, width, height = box
    last = rows[-1]["seconds"]
    points = (f"{left + width * r['seconds'] / last:.1f},{upper + height * (1 - r[key] / top):.1f}" for r in rows)
    return " ".join(points)


def panel(rows, keys, title, unit, upper):
    box = (70, upper, 620, 130)
    top = 1.15 * max(row[key] for row in rows for key, _ in keys)
    out = [f'<text x="70" y="{upper - 8}" font-weight="bold">{title}</text>',
           f'<rect x="70" y="{upper}" width="620" height="130" fill="none" stroke="#999"/>']
    for share in (0, 0.5, 1):
        y = upper + 130 * (1 - share)
        out.append(f'<text x="64" y="{y + 4:.0f}" text-anchor="end">{top * share:.3g}</text>')
    for place, (key, colour) in enumerate(keys):
        out.append(f'<polyline points="{curve(rows, key, top, box)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        name = key.rsplit("_", 1)[0].replace("_", " ")
        out.append(f'<text x="{690 - 120 * place}" y="{upper - 8}" text-anchor="end" fill="{colour}">{name}</text>')
    out.append(f'<text x="18" y="{upper + 65}" transform="rotate(-90 18 {upper + 65})" text-anchor="middle">{unit}</text>')
    return out


def picture(rows, rate):
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" width="720" height="420" font-family="sans-serif" font-size="12">',
             '<rect width="720" height="420" fill="white"/>']
    title = f"256-row batches, {rate:,.0f} rows/s drawn, updated and inserted each"
    parts += panel(rows, [("sample_p99_ms", "#c03"), ("sample_p50_ms", "#06c")], title, "ms", 40)
    parts += panel(rows, [("resident_mb", "#083"), ("journal_mb", "#850")], "Memory and disk of the shard", "MB", 220)
    for share in (0, 0.25, 0.5, 0.75, 1):
        minutes = rows[-1]["seconds"] * share / 60
        parts.append(f'<text x="{70 + 620 * share:.0f}" y="370" text-anchor="middle">{minutes:.1f}</text>')
    parts += ['<text x="380" y="395" text-anchor="middle">minutes</text>', "</svg>"]
    return "\n".join(parts)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=15)
    options.add_argument("--every", type=float, default=10, help="seconds of an interval")
    options.add_argument("--rate", type=float, default=180_000, help="rows per second of each operation")
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--snapshot-s", type=int, default=300, help="seconds between two snapshots of the priorities")
    options.add_argument("--server", default="target/release/replay-server")
    options.add_argument("--load", default="target/release/examples/load")
    options.add_argument("--out", default="replay-soak")
    options = options.parse_args()
    snapshot = f"--snapshot-s={options.snapshot_s}"
    with (tempfile.TemporaryDirectory() as folder,
          Shards(options.server, 1, options.rows, pathlib.Path(folder), True, (snapshot,)) as shards):
        load(options.load, shards.addresses[0], "--operation", "fill", "--rows", str(options.rows))
        begun, rows = time.monotonic(), []
        with open(options.out + ".csv", "w", newline="") as file:
            table = csv.DictWriter(file, FIELDS)
            table.writeheader()
            while time.monotonic() - begun < 60 * options.minutes:
                rows.append(interval(options, shards, begun))
                table.writerow(rows[-1])
                file.flush()
                print(rows[-1], flush=True)
        pathlib.Path(options.out + ".svg").write_text(picture(rows, options.rate))


if __name__ == "__main__":
    entry(main)
