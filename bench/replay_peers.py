"""Prioritised replay by others: what our replay server's throughput is compared with.

    python bench/replay_peers.py reverb|cpprb [--rows N] [--prefill N] [--batch 256]
        [--row-bytes 104] [--clients N] [--seconds S]

reverb: dm-reverb, the server in a process of its own, each client in another, gRPC over loopback.
cpprb: a buffer in this process, without any network or lock: what memory alone allows.

Rows are random bytes, one row per item, priorities to the power of 0.6, oldest row out first.
One line of JSON per operation goes to stdout, logs to stderr. rows_per_s: rows of all clients
together per second. p50_ms, p99_ms, p999_ms: milliseconds per call, which is one batch. rows_held:
rows in the table as the operation began. Each operation runs half a second before it counts.

Reverb's operations use the fastest public API for the purpose, among those tried:
- insert: StructuredWriter, flushed and so confirmed after every batch. All its rows get one
  priority; TrajectoryWriter, which takes one per row, was half as fast, Client.insert
  less than a twentieth.
- sample: TrajectoryDataset, which fetches ahead: a latency is the wait for the next batch, not a
  round trip. Client.sample was less than a tenth as fast.
- update: Client.mutate_priorities, one call per batch.

Written for the comparison; needs what replay_peers.txt lists.
"""

import argparse
import concurrent.futures
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import tempfile
import time

import numpy as np

PEERS = {"reverb": "dm-reverb", "cpprb": "cpprb"}
ALPHA = 0.6
TABLE = "rows"
WARM_UP_SECONDS = 0.5
# Distinct batches to update in turn, so that the caches do not hold one batch for good.
UPDATE_BATCHES = 64
# Longest wait for a process that starts or for a client that lags behind the others.
PATIENCE_SECONDS = 300


def random_rows(options):
    return np.random.randint(0, 256, (options.batch, options.row_bytes), dtype=np.uint8)


def measure(call, seconds):
    """Seconds of every call, one after another."""
    end = time.perf_counter() + WARM_UP_SECONDS
    while time.perf_counter() < end:
        call()
    latencies = []
    begin = now = time.perf_counter()
    while now < begin + seconds:
        call()
        latencies.append(time.perf_counter() - now)
        now += latencies[-1]
    return latencies


def cpprb_client(options):
    import cpprb

    row = {"shape": options.row_bytes, "dtype": np.uint8}
    buffer = cpprb.PrioritizedReplayBuffer(options.rows, {"row": row}, alpha=ALPHA)
    rows, priorities = random_rows(options), np.random.rand(options.batch)
    for first in range(0, options.prefill, options.batch):
        count = min(options.batch, options.prefill - first)
        buffer.add(row=rows[:count], priorities=priorities[:count])
    drawn = [buffer.sample(options.batch)["indexes"] for _ in range(UPDATE_BATCHES)]
    indexes = itertools.cycle(drawn)
    operations = [
        ("sample", "sample", lambda: buffer.sample(options.batch)),
        ("update", "update_priorities", lambda: buffer.update_priorities(next(indexes), priorities)),
        ("insert", "add", lambda: buffer.add(row=rows, priorities=priorities)),
    ]
    return [(op, f"PrioritizedReplayBuffer.{api}", buffer.get_stored_size(), measure(call, options.seconds))
            for op, api, call in operations]


def reverb_server(options, folder, ports):
    import reverb
    import tensorflow as tf

    table = reverb.Table(
        TABLE, sampler=reverb.selectors.Prioritized(ALPHA), remover=reverb.selectors.Fifo(),
        max_size=options.rows, rate_limiter=reverb.rate_limiters.MinSize(1),
        signature=tf.TensorSpec((options.row_bytes,), tf.uint8))
    server = reverb.Server([table], checkpointer=reverb.checkpointers.DefaultCheckpointer(folder))
    ports.put(server.port)
    server.wait()


def reverb_writer(client, options, priority):
    import tensorflow as tf
    from reverb import structured_writer as structured

    row = tf.TensorSpec((options.row_bytes,), tf.uint8)
    pattern = structured.pattern_from_transform(row, lambda history: history[-1])
    priority = structured.constant_priority_fn(priority)
    return client.structured_writer([structured.create_config(pattern, TABLE, priority=priority)])


def reverb_insert(writer, rows):
    for row in rows:
        writer.append(row)
    writer.flush()


def reverb_prefill(address, options):
    import reverb

    client = reverb.Client(address)
    priorities = np.linspace(0.1, 1.0, 10)
    writers = itertools.cycle([reverb_writer(client, options, p) for p in priorities])
    rows = random_rows(options)
    for first in range(0, options.prefill, options.batch):
        reverb_insert(next(writers), rows[: options.prefill - first])


def start_client(barrier):
    global meeting
    meeting = barrier
    # Reverb warns once per ten rows of a batch this large. Exceptions reach the first process all the same.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def reverb_client(address, options):
    import reverb

    client = reverb.Client(address)
    # In flight: twice the batch, as the documentation advises.
    samples = iter(reverb.TrajectoryDataset.from_table_signature(
        address, TABLE, max_in_flight_samples_per_worker=2 * options.batch).batch(options.batch))
    drawn = [next(samples).info.key.numpy().tolist() for _ in range(UPDATE_BATCHES)]
    keys = itertools.cycle(drawn)
    priorities = np.random.rand(options.batch).tolist()
    writer = reverb_writer(client, options, 1.0)
    rows = random_rows(options)
    operations = [
        ("sample", "TrajectoryDataset", lambda: next(samples)),
        ("update", "Client.mutate_priorities",
         lambda: client.mutate_priorities(TABLE, updates=dict(zip(next(keys), priorities)))),
        ("insert", "StructuredWriter", lambda: reverb_insert(writer, rows)),
    ]
    results = []
    for op, api, call in operations:
        meeting.wait()
        held = client.server_info()[TABLE].current_size
        results.append((op, api, held, measure(call, options.seconds)))
    return results


def reverb_clients(options):
    """The results of each client."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    barrier = context.Barrier(options.clients, timeout=PATIENCE_SECONDS)
    with (tempfile.TemporaryDirectory() as folder,
          concurrent.futures.ProcessPoolExecutor(options.clients, context, start_client, (barrier,)) as pool):
        context.Process(target=reverb_server, args=(options, folder, ports), daemon=True).start()
        address = f"localhost:{ports.get(timeout=PATIENCE_SECONDS)}"
        pool.submit(reverb_prefill, address, options).result()
        clients = [pool.submit(reverb_client, address, options) for _ in range(options.clients)]
        return [client.result() for client in clients]


def parse_options():
    about, _usage, *more = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog="\n\n".join(more) + "\nExample:\n\n"
        "    python bench/replay_peers.py reverb --prefill 100000 --clients 4 --seconds 10\n",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows the table can hold (default: %(default)s)")
    parser.add_argument("--prefill", type=int,
                        help="rows put in before measuring (default: --rows; reverb, slow at it: 20000)")
    parser.add_argument("--batch", type=int, default=256, help="rows per call (default: %(default)s)")
    parser.add_argument("--row-bytes", type=int, default=104, help="bytes per row (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=1,
                        help="client processes at once, 1 for cpprb (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="per operation (default: %(default)s)")
    options = parser.parse_args()
    if options.prefill is None:
        options.prefill = min(options.rows, 20_000) if options.peer == "reverb" else options.rows
    if not 1 <= options.prefill <= options.rows:
        parser.error("--prefill is between 1 and --rows")
    if options.peer == "cpprb" and options.clients != 1:
        parser.error("cpprb is a buffer in one process: --clients 1")
    return options


def main():
    options = parse_options()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    clients = reverb_clients(options) if options.peer == "reverb" else [cpprb_client(options)]
    for results in zip(*clients):
        op, api, held, _ = results[0]
        latencies = [latency for result in results for latency in result[3]]
        p50, p99, p999 = np.percentile(latencies, (50, 99, 99.9)) * 1e3
        print(json.dumps({
            "peer": options.peer, "version": importlib.metadata.version(PEERS[options.peer]), "op": op, "api": api,
            "clients": options.clients, "batch": options.batch, "rows_held": held,
            "rows_per_s": round(sum(options.batch * len(result[3]) / sum(result[3]) for result in results), 1),
            "p50_ms": round(p50, 4), "p99_ms": round(p99, 4), "p999_ms": round(p999, 4)}))


if __name__ == "__main__":
    main()
