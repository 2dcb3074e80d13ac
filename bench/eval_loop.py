"""A plain PyTorch loop that evaluates as rl-medical does: what `cargo xtask bench eval` compares with.

    python bench/eval_loop.py WEIGHTS.safetensors SCAN.nii.gz ... [--starts N] [--threads N]

One agent, f32, one window stack per forward pass, all starts one after another: the
19 published ones in our order. Prints JSON: steps, seconds of inference, seconds per step, and
the final voxel of each start, so that both sides can be seen to do the same work. Written for
the comparison; needs torch, numpy and nibabel.
"""

import argparse
import itertools
import json
import struct
import time

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F

WINDOW, HISTORY, MAX_STEPS = 45, 4, 200
SCALES = [(3, 9), (2, 3), (1, 1)]
MOVES = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]])


def read_weights(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        body = file.read()
    tensors = {}
    for name, info in header.items():
        if name != "__metadata__":
            begin, end = info["data_offsets"]
            values = np.frombuffer(body[begin:end], dtype=np.float32).reshape(info["shape"])
            tensors[name] = torch.from_numpy(values.copy())
    return tensors


def q_values(w, x):
    for i in range(3):
        x = F.prelu(F.conv3d(x, w[f"conv{i}.weight"], w[f"conv{i}.bias"], padding=1), w[f"prelu{i}.weight"])
        x = F.max_pool3d(x, 2)
    x = F.prelu(F.conv3d(x, w["conv3.weight"], w["conv3.bias"]), w["prelu3.weight"]).flatten(1)
    x = F.prelu(F.linear(x, w["fc1.0.weight"], w["fc1.0.bias"]), w["prelu4.0.weight"])
    x = F.prelu(F.linear(x, w["fc2.0.weight"], w["fc2.0.bias"]), w["prelu5.0.weight"])
    return F.linear(x, w["fc3.0.weight"], w["fc3.0.bias"])


def read_scan(path):
    data = np.asarray(nib.load(path).dataobj, dtype=np.float32)
    low, high = np.percentile(data, 10), np.percentile(data, 99)
    data = np.clip(data, low, high)
    return ((data - data.min()) * (255.0 / (data.max() - data.min()))).astype(np.float32)


def window(volume, place, stride):
    out = np.zeros((WINDOW,) * 3, dtype=np.float32)
    source, target = [], []
    for p, size in zip(place, volume.shape):
        half = WINDOW * stride // 2
        low, high = (p - half, p + half) if stride % 2 == 0 else (p - half - 1, p + half)
        first = max(low, 0)
        begin = WINDOW - -(-high // stride) if low < 0 else 0
        count = -(-(min(high, size) - first) // stride)
        source.append(slice(first, first + count * stride, stride))
        target.append(slice(begin, begin + count))
    part = volume[tuple(source)]
    out[tuple(slice(t.start, t.start + n) for t, n in zip(target, part.shape))] = part
    return out


def oscillates(places):
    filler = 20 - len(places)
    counts = {}
    for place in places:
        counts[place] = counts.get(place, 0) + 1
    most = max(counts.values())
    if filler >= most:
        return most >= 4 and len(counts) + 1 >= 4
    return most >= 4


def trajectory(weights, volume, start):
    place, scale, steps = tuple(start), 0, 0
    frames = [np.zeros((WINDOW,) * 3, dtype=np.float32)] * HISTORY
    frames = frames[1:] + [window(volume, place, SCALES[0][0])]
    history = []
    while steps < MAX_STEPS:
        with torch.no_grad():
            q = q_values(weights, torch.from_numpy(np.stack(frames)[None]) / 255.0)[0]
        action, best = int(q.argmax()), float(q.max())
        moved = np.array(place) + MOVES[action] * SCALES[scale][1]
        blocked = (moved <= 0) & (MOVES[action] < 0) | (moved >= volume.shape) & (MOVES[action] > 0)
        place = place if blocked.any() else tuple(int(v) for v in moved)
        history = (history + [(place, best)])[-20:]
        steps += 1
        if oscillates([p for p, _ in history]):
            place = min(history[-4:], key=lambda t: t[1])[0]
            scale, history = scale + 1, []
            if scale == len(SCALES):
                break
        frames = frames[1:] + [window(volume, place, SCALES[scale][0])]
    return place, steps


def main():
    options = argparse.ArgumentParser()
    options.add_argument("weights")
    options.add_argument("scans", nargs="+")
    options.add_argument("--starts", type=int, default=19)
    options.add_argument("--threads", type=int, default=2)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    weights = read_weights(options.weights)
    parts = [p for p in itertools.product((0.5, 0.75, 0.25), repeat=3) if 0.5 in p][: options.starts]
    total, seconds, ends = 0, 0.0, {}
    for path in options.scans:
        volume = read_scan(path)
        for part in parts:
            start = [int(f * (n - 1)) for f, n in zip(part, volume.shape)]
            begin = time.perf_counter()
            place, steps = trajectory(weights, volume, start)
            seconds += time.perf_counter() - begin
            total += steps
            ends.setdefault(path, []).append(place)
    print(json.dumps({"torch": torch.__version__, "steps": total, "seconds": seconds,
                      "seconds_per_step": seconds / total, "ends": ends}))


main()
