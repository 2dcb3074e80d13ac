"""Writes numbers.json: Q-values and gradients of our networks as PyTorch computes them.

Run with any PyTorch 2.x and numpy (numbers.json names the version used):

    python model/tests/reference/make_numbers.py

Inputs and parameters come from an integer hash that the Rust test repeats bit
for bit, so that no fixture holds them. Agents are looped over one by one with
per-agent tensors, as rl-medical does it: nothing is stacked or batched here.

Everything is computed in float64, in which no order of summation decides
anything. In float32 it does: where the two largest of a pooling cell, or an
activation and zero, are closer than the rounding of a convolution, CPUs with
other vector widths send the gradient to another voxel. For each gradient the
file therefore also says by how much such kinks can move it (`kinks.py`).
"""

import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

import kinks


def noise(name, count):
    """Uniform in [-1, 1): a hash of the name (FNV-1a) and the index."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) % 2**32
    x = np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(seed)
    x &= np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(13)
    return x.astype(np.float64) / 2147483648.0 - 1.0


def parameter(name, shape):
    count = int(np.prod(shape))
    values = noise(name, count)
    if "prelu" in name:
        values = values * 0.5  # negative slopes too: they distinguish PReLU before and after pooling
    elif "comm_att" not in name and name.endswith("weight"):
        values = values * np.sqrt(6.0 / np.prod(shape[1:]))
    elif name.endswith("bias"):
        values = values * 0.1
    return torch.tensor(values.astype(np.float32)).reshape(shape)


class Net:
    """A network by its spec, with parameters made when first asked for."""

    def __init__(self, spec, dtype):
        self.spec = spec
        self.dtype = dtype
        self.parameters = {}
        self.trunks = []  # of each call: windows, [Layer], features
        self.hidden = []  # the heads' sums before their activations

    def get(self, name, *shape):
        if name not in self.parameters:
            self.parameters[name] = parameter(name, shape).to(self.dtype).requires_grad_()
        return self.parameters[name]

    def activate(self, x, kind, name):
        if kind == "prelu":
            return F.prelu(x, self.get(name, 1))
        return {"leaky_relu": F.leaky_relu, "relu": F.relu, "linear": lambda x: x}[kind](x)

    def trunk(self, windows):
        x, layers = windows, []
        for i, c in enumerate(self.spec["conv"]):
            k = c["kernel"]
            weight = self.get(f"conv{i}.weight", c["channels"], x.shape[1], k, k, k)
            bias = self.get(f"conv{i}.bias", c["channels"])
            sums = F.conv3d(x, weight, bias, stride=c["stride"], padding=c["padding"])
            x = self.activate(sums, self.spec["activation"], f"prelu{i}.weight")
            if c["pool"]:
                x = F.max_pool3d(x, 2)
            layers.append((sums, x))
        features = x.flatten(1)
        if features.requires_grad:
            features.retain_grad()
        self.trunks.append((windows, layers, features))
        return features

    def features(self, windows, scale):
        x = self.trunk(windows)
        if self.spec["scales"] is not None:
            x = torch.cat([x, F.one_hot(scale, self.spec["scales"]).to(self.dtype)], 1)
        return x

    def stream(self, per_agent, outputs, prefix=""):
        """`per_agent`: {agent: features of its samples}."""
        spec = self.spec
        widths = spec["hidden"] + [outputs]
        for j, width in enumerate(widths, 1):
            if spec["kind"] == "commnet":
                team = torch.stack([per_agent[a] for a in range(spec["agents"])], dim=2)
                joined = {}
                for a, own in per_agent.items():
                    if spec["attention"]:
                        scores = self.get(f"{prefix}comm_att{j}.{a}", spec["agents"])
                        message = (team * torch.softmax(scores, 0)).sum(2)
                    else:
                        message = team.mean(2)
                    joined[a] = torch.cat([own, message], -1)
                per_agent = joined
            for a, x in per_agent.items():
                weight = self.get(f"{prefix}fc{j}.{a}.weight", width, x.shape[1])
                x = F.linear(x, weight, self.get(f"{prefix}fc{j}.{a}.bias", width))
                if j < len(widths):
                    self.hidden.append(x.detach())
                    name = f"{prefix}prelu{len(spec['conv']) + j - 1}.{a}.weight"
                    x = self.activate(x, spec["head_activation"], name)
                per_agent[a] = x
        return per_agent

    def q(self, per_agent):
        out = self.stream(dict(per_agent), self.spec["actions"])
        if self.spec["dueling"]:
            value = self.stream(dict(per_agent), 1, "value.")
            out = {a: value[a] + x - x.mean(1, keepdim=True) for a, x in out.items()}
        return out

    def rows(self, windows, agents, scale):
        x = self.features(windows, scale)
        out = self.q({a: x[[i for i, b in enumerate(agents) if b == a]] for a in sorted(set(agents))})
        taken = {a: 0 for a in out}
        result = []
        for a in agents:
            result.append(out[a][taken[a]])
            taken[a] += 1
        return torch.stack(result)

    def groups(self, windows, scale):
        count = self.spec["agents"]
        per_agent = {
            a: self.features(windows[:, a], None if scale is None else scale[:, a]) for a in range(count)
        }
        out = self.q(per_agent)
        return torch.stack([out[a] for a in range(count)], dim=1)


def conv(kernel, channels, stride, padding, pool):
    return dict(kernel=kernel, channels=channels, stride=stride, padding=padding, pool=pool)


def spec(kind, agents, **changes):
    base = dict(
        kind=kind, agents=agents, history=4, window=45,
        conv=[conv(5, 32, 1, 1, True), conv(5, 32, 1, 1, True), conv(4, 64, 1, 1, True), conv(3, 64, 1, 0, False)],
        activation="prelu", head_activation="prelu", hidden=[256, 128],
        actions=6, dueling=False, scales=None, attention=False, init="xavier",
    )
    return base | changes


SMALL = dict(
    history=1, window=24, activation="leaky_relu", head_activation="leaky_relu", init="kaiming",
    conv=[conv(5, 16, 2, 2, False), conv(3, 32, 2, 1, False), conv(3, 64, 2, 1, False)],
)
TF = dict(
    head_activation="leaky_relu", hidden=[512, 256, 128], init="he_truncated",
    conv=[conv(5, 32, 1, "same", True), conv(5, 32, 1, "same", True), conv(4, 64, 1, "same", True), conv(3, 64, 1, "same", False)],
)
CASES = [
    # (name, spec, agents of the rows or the number of groups)
    ("network3d of one agent", spec("collab", 1), [0, 0]),
    ("network3d of three agents", spec("collab", 3), [2, 0, 2, 2]),
    ("commnet", spec("commnet", 3), 2),
    ("commnet with attention", spec("commnet", 3, attention=True), 2),
    ("small with scales", spec("collab", 4, scales=3, **SMALL), [3, 1, 1, 0, 3, 3, 1]),
    ("small dueling", spec("collab", 4, scales=3, dueling=True, **SMALL), [3, 1, 2, 0, 3]),
    ("small collab in groups", spec("collab", 4, scales=3, dueling=True, **SMALL), 3),
    ("small commnet dueling with attention", spec("commnet", 4, scales=3, dueling=True, attention=True, **SMALL), 3),
    ("tensorflow single agent", spec("collab", 1, **TF), [0]),
    ("tensorflow two agents", spec("collab", 2, **(TF | dict(activation="linear", head_activation="relu"))), [1, 0]),
]


def forward(net, windows, batch, scale):
    windows = windows.to(net.dtype)
    return net.rows(windows, batch, scale) if isinstance(batch, list) else net.groups(windows, scale)


def along(gradient):
    """The projection on fixed noise distinguishes a transposed gradient from a right one."""
    return float((gradient.double().flatten() * torch.tensor(noise("gradient", gradient.numel()))).sum())


def run(name, spec, batch):
    net, single = Net(spec, torch.float64), Net(spec, torch.float32)
    n = spec["window"]
    shape = [len(batch)] if isinstance(batch, list) else [batch, spec["agents"]]
    count = int(np.prod(shape))
    cube = [spec["history"], n, n, n]
    windows = (noise("windows", count * int(np.prod(cube))) + 1.0) / 2.0
    windows = torch.tensor(windows.astype(np.float32)).reshape(shape + cube)
    scale = None
    if spec["scales"] is not None:
        scale = (torch.arange(count) % spec["scales"]).reshape(shape)
    q = forward(net, windows, batch, scale)
    loss = (q * torch.tensor(noise("loss", q.numel()).astype(np.float32)).reshape(q.shape)).sum()
    loss.backward()
    with torch.no_grad():
        forward(single, windows, batch, scale)
    kinks.check_heads(net, single)
    single = Net(spec, torch.float32)
    moved, kink_count = kinks.jumps(net, single, along)
    gradients = {
        key: [f"{along(p.grad):.12g}", f"{p.grad.norm():.12g}"] + [f"{m:.2g}" for m in moved[key]]
        for key, p in sorted(net.parameters.items())
    }
    print(f"{name}: {kink_count} kinks within reach")
    return dict(
        name=name, spec=spec, batch=batch, q=[float(f"{v:.12g}") for v in q.flatten().tolist()],
        gradients={k: [float(v) for v in g] for k, g in gradients.items()},
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    cases = [run(*case) for case in CASES]
    out = pathlib.Path(__file__).with_name("numbers.json")
    lines = ",\n".join(json.dumps(case) for case in cases)
    version = torch.__version__.split("+")[0]
    out.write_text(f'{{"torch": "{version}", "cases": [\n{lines}\n]}}\n')
