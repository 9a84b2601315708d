"""A user's file. `tests/torch/test_types.py` compares what type checkers say of each line."""

from typing import reveal_type

import lcmulti_torch
import torch
from lcmulti_torch import (
    LazyLocallyConnected2d,
    LocallyConnected2d,
    LocallyConnectedTranspose2d,
    ShareEvery,
    fuse_bn,
    retie,
    untie,
)
from lcmulti_torch.functional import local_conv2d
from torch import nn

import lcmulti

layer = LocallyConnected2d(3, 8, 3, input_size=12)
reveal_type(LocallyConnected2d)  # R: type[LocallyConnected2d]
reveal_type(layer)  # R: LocallyConnected2d
reveal_type(layer.weight)  # R: Parameter
reveal_type(layer.bias)  # R: Parameter | None
reveal_type(layer.kernel_size)  # R: tuple[int, ...]
reveal_type(layer.padding)  # R: str | int | Sequence[int] | Sequence[tuple[int, int]]
reveal_type(layer.full_kernel())  # R: Tensor
reveal_type(layer.share_())  # R: LocallyConnected2d
reveal_type(layer(torch.zeros(1, 3, 12, 12)))  # R: Tensor
reveal_type(local_conv2d(torch.zeros(1), layer.weight))  # R: Tensor
reveal_type(lcmulti.local_conv(torch.zeros(1), torch.zeros(1)))  # R: Tensor
reveal_type(lcmulti.LocalConvSpec((3, 3), 4, 3))  # R: LocalConvSpec
reveal_type(fuse_bn(layer, nn.BatchNorm2d(8)))  # R: LocallyConnected2d
reveal_type(LocallyConnectedTranspose2d(3, 8, 3, 12).to_conv())  # R: ConvTranspose2d
reveal_type(LocallyConnected2d.from_conv(nn.Conv2d(3, 8, 3), 12))  # R: LocallyConnected2d
lazy = LazyLocallyConnected2d(8, (3, 3), stride=2, padding="same", device="cpu")
reveal_type(lazy(torch.zeros(1, 3, 12, 12)))  # R: Tensor
conv: nn.Conv2d = layer.to_conv()
net, x = nn.Sequential(conv, nn.ReLU()), torch.zeros(1, 3, 12, 12)
untied = untie(net, x, where=["0", nn.Conv2d], memory="1GiB", tell=None, inplace=True)
reveal_type(untied)  # R: Sequential
reveal_type(untie(net, (x,), dry_run=True, shared_axes=(0,)))  # R: Untying
reveal_type(untie(net, x, dry_run=bool(conv.bias)))  # R: Sequential | Untying
reveal_type(untie(conv, x, rank=2))  # R: LocallyConnectedNd[Any]
reveal_type(retie(untied, tolerance=None))  # R: Sequential
reveal_type(retie(layer))  # R: Conv2d
reveal_type(ShareEvery(net, 10, (0,), where="0").step())  # R: bool

LocallyConnected2d(3, 8, 3, inptu_size=12)  # E
LocallyConnected2d(3, "8", 3, 12)  # E
LocallyConnected2d(3, 8, "3", 12)  # E
LocallyConnected2d(3, 8, 3, 12, dtype="float32")  # E
LocallyConnectedTranspose2d(3, 8, 3, 12, padding_mode="circular")  # E
LazyLocallyConnected2d(8, 3, 12, rank="2")  # E
layer("image.png")  # E
local_conv2d(torch.zeros(1), layer.weight, strides=2)  # E
lcmulti.local_conv(torch.zeros(1), torch.zeros(1), stride=2)  # E
wrong: nn.Conv3d = layer.to_conv()  # E
LocallyConnected2d.from_conv(nn.Conv1d(3, 8, 3), 12)  # E
LocallyConnectedTranspose2d.from_conv(nn.Conv2d(3, 8, 3), 12)  # E
untie(net, x, mermory="1GiB")  # E
ShareEvery(net, 10, "rows")  # E
ShareEvery(net, 10, where=3)  # E
untie(net, x, where=3)  # E
retie(net, tolerance="all")  # E
lcmulti.config(max_workspce="64MiB")  # E
lcmulti.config(max_workspace=0.5)  # E
lcmulti_torch.LocalyConnected2d  # E
