"""State dicts as PyTorch itself writes them: torch_zip.pt and torch_legacy.pt beside this file.

    python make_torch_files.py

rl-medical's Network3d for one agent with two channels per convolution, its numbers counted up
(value k is k / 4096), so that a reader can be checked without a copy. One tensor is a
transposed view, one is stored as half: both are what state dicts may hold. Made with PyTorch
2.11.0 (CPU).
"""

import pathlib

import torch

SHAPES = {
    "conv0.weight": (2, 4, 5, 5, 5), "conv0.bias": (2,), "prelu0.weight": (1,),
    "conv1.weight": (2, 2, 5, 5, 5), "conv1.bias": (2,), "prelu1.weight": (1,),
    "conv2.weight": (2, 2, 4, 4, 4), "conv2.bias": (2,), "prelu2.weight": (1,),
    "conv3.weight": (2, 2, 3, 3, 3), "conv3.bias": (2,), "prelu3.weight": (1,),
    "fc1.0.weight": (3, 16), "fc1.0.bias": (3,), "prelu4.0.weight": (1,),
    "fc2.0.weight": (3, 3), "fc2.0.bias": (3,), "prelu5.0.weight": (1,),
    "fc3.0.weight": (6, 3), "fc3.0.bias": (6,),
}

state, count = {}, 0
for name, shape in SHAPES.items():
    numel = int(torch.tensor(shape).prod())
    values = torch.arange(count, count + numel, dtype=torch.float32) / 4096
    count += numel
    if name == "fc1.0.weight":
        state[name] = values.reshape(shape[::-1]).t()
    elif name == "prelu0.weight":
        state[name] = values.half()
    else:
        state[name] = values.reshape(shape)
folder = pathlib.Path(__file__).parent
torch.save(state, folder / "torch_zip.pt")
torch.save(state, folder / "torch_legacy.pt", _use_new_zipfile_serialization=False)
