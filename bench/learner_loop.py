"""A plain PyTorch training loop of the paper's network: what `cargo xtask bench learner` compares with.

    python bench/learner_loop.py [--device cpu|cuda] [--precision f32|bf16] [--batch B] [--updates N]
    python bench/learner_loop.py --act [--device cpu|cuda]     time per acted window
    python bench/learner_loop.py --ceiling [--device cuda]     what the machine reaches at best

As somebody would write it who replaces rl-medical's single-process script, and as that does it
where it matters: uint8 frames in memory, each stored once per agent; a sample stacks four frames of
s and four of s' with numpy; bytes go to the device and are divided by 255 there; plain (unfused)
PReLU network with shared convolutions and one head per agent; Adam. Unlike it, and faster: all
agents pass the convolutions as one batch. Unlike it, and as our learner does: double DQN (s' passes
both networks), clipping by norm, smooth L1 over single agents' rows.

A batch of B rows is B pairs (stack of s, stack of s') of one agent each, B / agents steps of all
agents. ms_per_update is the median over updates; sample_ms, its part for stacking and copying to
the device; compute_ms the rest. PyTorch's default flags, but for cudnn.benchmark, which is on.
On a CPU without instructions for bf16, PyTorch 2.11's bf16 convolutions take tens of times as long as
its f32 ones (AVX2 only: 158 s against 4.6 s for an update of batch 4), so compare with its f32 there.
Prints one line of JSON. Written for the comparison; needs torch, numpy and, for --frames-from,
nibabel.
"""

import argparse
import copy
import json
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

WINDOW, HISTORY, ACTIONS = 45, 4, 6
SCALES = [(3, 9), (2, 3), (1, 1)]
GAMMA, LEARNING_RATE, CLIP_NORM, TARGET_EVERY = 0.9, 1e-4, 10.0, 200
EPISODE = 100


class Network(nn.Module):
    """rl-medical's Network3d: (rows, agents, frames, 45, 45, 45) to (rows, agents, actions)."""

    def __init__(self, agents):
        super().__init__()
        sizes = [(HISTORY, 32, 5, 1), (32, 32, 5, 1), (32, 64, 4, 1), (64, 64, 3, 0)]
        layers = []
        for i, (inputs, outputs, kernel, padding) in enumerate(sizes):
            layers += [nn.Conv3d(inputs, outputs, kernel, padding=padding), nn.PReLU()]
            layers += [nn.MaxPool3d(2)] if i < 3 else []
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(512, 256), nn.PReLU(), nn.Linear(256, 128), nn.PReLU(),
                          nn.Linear(128, ACTIONS))
            for _ in range(agents))
        for module in self.modules():
            if isinstance(module, (nn.Conv3d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, frames):
        features = self.trunk(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return torch.stack([head(features[:, i]) for i, head in enumerate(self.heads)], dim=1)


class Memory:
    """Frames of all agents in the order they were seen, each once."""

    def __init__(self, size, agents, volume, rng):
        self.frames = np.empty((agents, size, WINDOW, WINDOW, WINDOW), dtype=np.uint8)
        for agent in range(agents):
            for at, frame in zip(range(size), random_steps(volume, rng)):
                self.frames[agent, at] = frame
        self.action = rng.integers(0, ACTIONS, (agents, size), dtype=np.int64)
        self.reward = rng.uniform(-1, 1, (agents, size)).astype(np.float32)
        self.over = np.broadcast_to(np.arange(size) % EPISODE == EPISODE - 1, (agents, size))

    def stack(self, agent, at):
        """Frames at to at + 3, those of an earlier episode dark."""
        frames = self.frames[agent, at:at + HISTORY]
        ended = np.flatnonzero(self.over[agent, at:at + HISTORY - 1])
        if ended.size:
            frames = frames.copy()
            frames[:ended[-1] + 1] = 0
        return frames

    def sample(self, rng, steps):
        agents, size = self.frames.shape[:2]
        states, following = [], []
        places = rng.integers(0, size - HISTORY, steps)
        for at in places:
            states.append([self.stack(agent, at) for agent in range(agents)])
            following.append([self.stack(agent, at + 1) for agent in range(agents)])
        newest = places + HISTORY - 1
        return (np.array(states), np.array(following), self.action[:, newest].T,
                self.reward[:, newest].T, self.over[:, newest].T)


def random_steps(volume, rng):
    """Frames of endless episodes of random steps, at each scale in turn."""
    margin = WINDOW // 2 * SCALES[0][0]
    padded = np.pad(volume, margin)
    step = 0
    while True:
        if step % EPISODE == 0:
            place = np.array([rng.integers(0, size) for size in volume.shape])
        stride, length = SCALES[step * len(SCALES) // EPISODE % len(SCALES)]
        low = place + margin - WINDOW // 2 * stride
        yield padded[tuple(slice(a, a + WINDOW * stride, stride) for a in low)]
        axis, sign = rng.integers(0, 3), rng.choice([-1, 1])
        place[axis] = np.clip(place[axis] + sign * length, 0, volume.shape[axis] - 1)
        step += 1


def smooth_volume(rng, size=160, coarse=20):
    """Smooth blobs with a little noise: neither zeros nor white noise."""
    at = np.linspace(0, coarse - 1, size)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(coarse)[None]))
    volume = np.einsum("xyz,ax,by,cz->abc", rng.random((coarse,) * 3), *[weights] * 3, optimize=True)
    return (255 * np.clip(volume + rng.normal(0, 0.02, volume.shape), 0, 1)).astype(np.uint8)


def read_scan(path):
    import nibabel as nib
    data = np.asarray(nib.load(path).dataobj, dtype=np.float32)
    low, high = np.percentile(data, 10), np.percentile(data, 99)
    return (255 * (np.clip(data, low, high) - low) / max(high - low, 1e-6)).astype(np.uint8)


class Clock:
    """Milliseconds between calls, once the device has finished its work."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"

    def now(self):
        if self.cuda:
            torch.cuda.synchronize()
        return 1000.0 * time.perf_counter()


class Learner:
    def __init__(self, options, device):
        self.device, self.low = device, options.precision == "bf16"
        self.layout = torch.channels_last_3d if options.channels_last else torch.contiguous_format
        self.online = Network(options.agents).to(device, memory_format=self.layout)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=LEARNING_RATE)
        self.updates = 0

    def autocast(self):
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low)

    def to_device(self, batch):
        return [torch.from_numpy(np.ascontiguousarray(part)).to(self.device) for part in batch]

    def windows(self, frames):
        """Bytes to numbers, in the memory layout of the convolutions."""
        rows, agents = frames.shape[:2]
        flat = (frames / 255.0).flatten(0, 1).contiguous(memory_format=self.layout)
        return flat.unflatten(0, (rows, agents))

    def update(self, state, following, action, reward, over):
        state, following = self.windows(state), self.windows(following)
        with self.autocast():
            taken = self.online(state).gather(-1, action[..., None]).squeeze(-1)
            with torch.no_grad():
                best = self.online(following).argmax(-1, keepdim=True)
                value = self.target(following).gather(-1, best).squeeze(-1).float()
        wanted = reward.clamp(-1, 1) + GAMMA * value * (~over)
        loss = F.smooth_l1_loss(taken.float(), wanted)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.online.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.updates += 1
        if self.updates % TARGET_EVERY == 0:
            self.target.load_state_dict(self.online.state_dict())
        return loss

    def gflop(self, batch):
        """Of one update without the optimizer's share: counted, not estimated."""
        with FlopCounterMode(display=False) as counter:
            self.update(*batch)
        return counter.get_total_flops() / 1e9


def named(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return models[0] if models else "cpu"


def about(options, device, side):
    return {"side": side, "torch": torch.__version__, "device": options.device,
            "device_name": named(device), "threads": options.threads,
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32}


def train(options, device):
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    volume = read_scan(options.frames_from) if options.frames_from else smooth_volume(rng)
    memory = Memory(options.memory, options.agents, volume, rng)
    learner, clock = Learner(options, device), Clock(device)
    steps = options.batch // options.agents
    once = learner.to_device(memory.sample(rng, 1))
    gflop = learner.gflop(once) * steps
    sampling, computing = [], []
    for update in range(options.warmup + options.updates):
        begin = clock.now()
        batch = learner.to_device(memory.sample(rng, steps))
        sampled = clock.now()
        loss = learner.update(*batch)
        done = clock.now()
        if update >= options.warmup:
            sampling.append(sampled - begin)
            computing.append(done - sampled)
    whole = [a + b for a, b in zip(sampling, computing)]
    return about(options, device, "pytorch") | {
        "precision": options.precision, "channels_last": options.channels_last,
        "batch": options.batch, "agents": options.agents, "updates": options.updates,
        "seconds": sum(whole) / 1000.0, "ms_per_update": statistics.median(whole),
        "ms_mean": statistics.mean(whole), "sample_ms": statistics.median(sampling),
        "compute_ms": statistics.median(computing), "final_loss": loss.item(),
        "gflop_per_update": gflop}


def act(options, device):
    """One environment at a time, as in rl-medical: all agents' stacks in one pass per step."""
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    volume = read_scan(options.frames_from) if options.frames_from else smooth_volume(rng)
    learner, clock = Learner(options, device), Clock(device)
    count = options.warmup + options.updates + HISTORY
    # Steps of an episode, not copies of one frame; rendering them is not timed.
    seen = [[frame.copy() for _, frame in zip(range(count), random_steps(volume, rng))]
            for _ in range(options.agents)]
    times = []
    for step in range(options.warmup + options.updates):
        begin = clock.now()
        stacks = np.array([[frames[step:step + HISTORY] for frames in seen]])
        with torch.no_grad(), learner.autocast():
            values = learner.online(learner.windows(torch.from_numpy(stacks).to(device)))
        values.float().cpu().numpy().argmax(-1)
        if step >= options.warmup:
            times.append(clock.now() - begin)
    median = statistics.median(times)
    return about(options, device, "pytorch-act") | {
        "precision": options.precision, "channels_last": options.channels_last,
        "agents": options.agents, "steps": options.updates, "seconds": sum(times) / 1000.0,
        "ms_per_step": median, "ms_per_window": median / options.agents}


def median_seconds(clock, work, warmup=3, rounds=10, limit_ms=20_000):
    """Fewer rounds where they take long: some processors have no fast bf16 product."""
    started, times = clock.now(), []
    for round in range(warmup + rounds):
        begin = clock.now()
        work()
        done = clock.now()
        late = done - started > limit_ms
        if round >= warmup or late:
            times.append(done - begin)
        if late:
            break
    return statistics.median(times) / 1000.0


def ceiling(options, device):
    clock, cuda = Clock(device), device.type == "cuda"
    size = 8192 if cuda else 2048

    def tflops(dtype):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        return 2.0 * size**3 / median_seconds(clock, lambda: a @ b) / 1e12

    found = about(options, device, "ceiling") | {"size": size}
    torch.backends.cuda.matmul.allow_tf32 = False
    found["f32_tflops"] = tflops(torch.float32)
    found["bf16_tflops"] = tflops(torch.bfloat16)
    found["tf32_tflops"] = None
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = True
        found["tf32_tflops"] = tflops(torch.float32)
    source = torch.randn((256 if cuda else 64) << 20, device=device)
    copied = torch.empty_like(source)
    seconds = median_seconds(clock, lambda: copied.copy_(source))
    # Every byte is read and written.
    found["copy_gb_per_s"] = 2.0 * source.numel() * source.element_size() / seconds / 1e9
    return found


def arguments():
    options = argparse.ArgumentParser(
        description="A plain PyTorch training loop of the paper's network; prints one line of JSON.")
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--precision", choices=["f32", "bf16"], default="f32",
                         help="bf16: autocast, with f32 master weights")
    options.add_argument("--batch", type=int, default=16, help="rows: state pairs of one agent each")
    options.add_argument("--updates", type=int, default=10, help="timed updates, or steps with --act")
    options.add_argument("--warmup", type=int, default=2)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--agents", type=int, default=2)
    options.add_argument("--memory", type=int, default=2000, help="frames of each agent")
    options.add_argument("--frames-from", metavar="SCAN.nii.gz", help="else smooth random volumes")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--channels-last", action="store_true",
                         help="a layout that a plain script would not choose")
    what = options.add_mutually_exclusive_group()
    what.add_argument("--act", action="store_true", help="time acting instead")
    what.add_argument("--ceiling", action="store_true", help="time matrix products and copies instead")
    found = options.parse_args()
    if found.agents < 1 or found.batch < 1 or found.batch % found.agents:
        options.error("--batch must be a multiple of --agents")
    if found.memory <= HISTORY or min(found.updates, found.threads) < 1 or found.warmup < 0:
        options.error("--memory must exceed 4, --updates and --threads be at least 1")
    if found.device == "cuda" and not torch.cuda.is_available():
        options.error(f"torch {torch.__version__} finds no CUDA device")
    return found


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    device = torch.device(options.device)
    work = ceiling if options.ceiling else act if options.act else train
    print(json.dumps(work(options, device)))


main()
