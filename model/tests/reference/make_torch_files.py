"""State dicts as PyTorch itself writes them: torch_*.pt and torch_half.safetensors beside this file.

    python make_torch_files.py

rl-medical's Network3d for one agent with two channels per convolution, its numbers counted up
(value k is k / 4096), so that a reader can be checked without a copy. One tensor is a
transposed view, one is stored as half: both are what state dicts may hold. Made with PyTorch
2.11.0 and safetensors 0.8.0.

torch_latest.pt has the entries of rl-medical's latest_checkpoint.pt, its numbers negated in the
target network; torch_wrapped.pt is saved from a compiled DataParallel, inside Lightning's entry.
torch_module.pt and torch_script.pt hold no state dict.
"""

import argparse
import pathlib

import torch
from safetensors.torch import save_file

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

trained = {name: value.float() for name, value in state.items()}
target = {name: -value for name, value in trained.items()}
torch.save(
    {
        "target_network_state_dict": target, "q_network_state_dict": trained,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]},
        "episode": 7, "eps": 0.9, "acc_steps": 9, "args": argparse.Namespace(lr=1e-3),
    },
    folder / "torch_latest.pt",
)
wrapped = {"_orig_mod.module." + name: value for name, value in trained.items()}
torch.save({"state_dict": wrapped, "epoch": 3}, folder / "torch_wrapped.pt")
halves = {"module." + name: value.half().contiguous() for name, value in trained.items()}
save_file(halves, folder / "torch_half.safetensors")


class Network3D(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = torch.nn.Conv3d(1, 1, 1)

    def forward(self, x):
        return self.conv0(x)


torch.save(Network3D(), folder / "torch_module.pt")
torch.jit.save(torch.jit.trace(Network3D(), torch.zeros(1, 1, 1, 1, 1)), folder / "torch_script.pt")
