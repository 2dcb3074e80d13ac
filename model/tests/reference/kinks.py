"""How far the rounding of float32 can move gradients at the kinks of a network.

The sums of a convolution differ by a few 1e-6 between CPUs, because vector
width and cache sizes decide the order of summation. Almost everywhere the
gradients then differ as little. But where the two largest values of a pooling
cell, or a sum and zero, are closer than that, the gradient of the cell goes to
another voxel, or is multiplied by another slope. `jumps` finds these kinks and
adds up how far each of them can move the gradient of each parameter.
"""

import torch

# Sums may be off by this many times the largest difference between float32 and
# float64 on the CPU that runs this.
MARGIN = 2.0


def slope(net, layer):
    kind = net.spec["activation"]
    if kind == "prelu":
        return float(net.parameters[f"prelu{layer}.weight"].detach())
    return {"leaky_relu": 0.01, "relu": 0.0, "linear": 1.0}[kind]


def cells(x):
    """`[1, C, n, n, n]` → the eight entries of each pooling cell, `[cells, 8]`."""
    even = x.shape[2] // 2 * 2
    x = x[:, :, :even, :even, :even]
    for axis in (2, 3, 4):
        x = x.unfold(axis, 2, 2)
    return x.reshape(-1, 8)


def flips(sums, error, slope, pool, upstream):
    """The kinks of a layer whose sums may be off by `error`.

    `upstream` is the gradient of the layer's output. Each kink is what its flip
    adds to the gradient of the sums, {place: change}, and to the slope's.
    """
    places = torch.arange(sums.numel()).reshape(sums.shape)
    places = cells(places) if pool else places.reshape(-1, 1)
    sums, upstream = sums.flatten(), upstream.flatten()
    rise = torch.where(sums > 0, 1.0, slope)
    values = (sums * rise)[places]
    largest, winner = values.max(1, keepdim=True)
    winner = places.gather(1, winner)
    if slope != 1.0:
        for cell in torch.nonzero(sums[winner[:, 0]].abs() < error).flatten().tolist():
            yield {int(winner[cell]): float(upstream[cell]) * (1.0 - slope)}, 0.0
    reach = error * (rise[winner].abs() + rise[places].abs())
    for cell, at in torch.nonzero((largest - values < reach) & (places != winner)).tolist():
        old, new, u = int(winner[cell]), int(places[cell, at]), float(upstream[cell])
        below = sums[[old, new]].clamp(max=0.0)
        yield {old: -u * float(rise[old]), new: u * float(rise[new])}, u * float(below[1] - below[0])


def jumps(net, single, along):
    """How far the kinks of the trunk can move each parameter's gradient:
    {name: (its projection, its norm)}, and the number of kinks.

    `net` is a float64 network after `backward`, `single` the same in float32,
    `along` the projection. Each kink may flip or not, so what they do is added up.
    """
    moved, count = {name: Moved(p.grad.float()) for name, p in net.parameters.items()}, 0
    for windows, layers, features in net.trunks:
        for i in range(len(windows)):
            own, upstream = record(single, windows[i : i + 1], features.grad[i : i + 1])
            for layer, (sums, gradient) in enumerate(zip(own, upstream)):
                exact = layers[layer][0][i : i + 1].detach()
                error = MARGIN * float((exact - sums.detach()).abs().max())
                pool = net.spec["conv"][layer]["pool"]
                for change, of_slope in flips(exact, error, slope(net, layer), pool, gradient):
                    count += 1
                    for name, jump in jump_of(single, layer, sums, change).items():
                        moved[name].add(jump, along)
                    if net.spec["activation"] == "prelu":
                        moved[f"prelu{layer}.weight"].add(torch.tensor([of_slope]), along)
    return {name: m.bounds() for name, m in moved.items()}, count


class Moved:
    """Bounds of the sum of any of some jumps of a gradient g: its norm grows by
    at most Σ |g·j| / |g| + (Σ |j|)² / 2 |g|."""

    def __init__(self, gradient):
        self.gradient, self.norm = gradient, float(gradient.norm())
        self.along, self.across, self.total = 0.0, 0.0, 0.0

    def add(self, jump, along):
        self.along += abs(along(jump))
        self.across += abs(float((jump * self.gradient).sum()))
        self.total += float(jump.norm())

    def bounds(self):
        return self.along, (self.across + self.total**2 / 2.0) / self.norm


def record(single, window, gradient):
    """Each layer's sums for one window, and the gradients of its output."""
    single.trunk(window.float())
    _, layers, features = single.trunks.pop()
    outputs = [output for _, output in layers]
    upstream = torch.autograd.grad(features, outputs, gradient.float(), retain_graph=True)
    return [sums for sums, _ in layers], upstream


def jump_of(single, layer, sums, change):
    """What a change of the gradient of a layer's sums adds to those of parameters."""
    names = list(single.parameters)
    names = names[: names.index(f"conv{layer}.bias") + 1]
    delta = torch.zeros_like(sums)
    for place, amount in change.items():
        delta.view(-1)[place] = amount
    tensors = [single.parameters[name] for name in names]
    return dict(zip(names, torch.autograd.grad(sums, tensors, delta, retain_graph=True)))


def check_heads(net, single):
    """Heads have so few activations that none is near zero; says so if one is."""
    for exact, rounded in zip(net.hidden, single.hidden, strict=True):
        error = MARGIN * float((exact - rounded).abs().max())
        nearest = float(exact.abs().min())
        if nearest <= error and net.spec["head_activation"] != "linear":
            raise SystemExit(f"a head's activation at {nearest:.1e} has a kink within {error:.1e}")
