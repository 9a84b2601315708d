"""The rows of the support matrix of PyTorch: an operation and three layers, with a batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import lcmulti_torch
import torch
import torch._dynamo.testing
from torch import nn


class Example(NamedTuple):
    row: str
    module: nn.Module
    x: Any  # (5, 3, 7, 6)

    def loss(self, x=None):
        return self.module(self.x if x is None else x).square().sum()


class Operation(nn.Module):
    """`local_conv` as people call it in a module of their own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4, 2, 3, 3, 4))
        self.bias = nn.Parameter(torch.randn(6, 4, 4))

    def forward(self, x):
        return lcmulti_torch.functional.local_conv2d(x, self.weight, self.bias)


MODULES = {
    "`local_conv`": Operation,
    "`LocallyConnected2d`": lambda: lcmulti_torch.LocallyConnected2d(
        3, 4, 3, (7, 6), stride=2, padding=1
    ),
    "`LocallyConnected2d(rank=2)`": lambda: lcmulti_torch.LocallyConnected2d(
        3, 4, 3, (7, 6), padding="same", rank=2
    ),
    "`LocallyConnectedTranspose2d`": lambda: lcmulti_torch.LocallyConnectedTranspose2d(
        3, 4, 3, (7, 6), stride=2, padding=1
    ),
}


def make(name):
    torch.manual_seed(0)
    return Example(name, MODULES[name](), torch.randn(5, 3, 7, 6))


def gradients(function, example):
    """Return the value, and the gradients in all parameters."""
    y = function(example.x)
    return y, torch.autograd.grad(y.square().sum(), list(example.module.parameters()))
