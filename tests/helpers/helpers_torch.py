"""Geometries and calls that the tests of the PyTorch backend share, and a seed for layers."""

from __future__ import annotations

import lcmulti_torch
import pytest
import torch
from helpers_geometries import COMMON

import lcmulti
from lcmulti import plugins
from lcmulti.plugins.contract import Problem, Resources

RESOURCES = Resources(2**28)
TIGHT = Resources(2000)
GEOMETRIES = COMMON | {
    "disjoint rest": dict(input_shape=(13, 7, 3), filters=4, kernel_size=(2, 3), strides=(2, 3)),
    "few weights": dict(input_shape=(7, 9, 2), filters=2, kernel_size=(2, 3), groups=2,
                        strides=(1, 2), padding=1, dilation=(2, 1), shared_axes=(1,)),
}  # fmt: skip
LAYERS = {
    "plain": lambda: lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), padding="same"),
    "rank": lambda: lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), rank=2),
    "transposed": lambda: lcmulti_torch.LocallyConnectedTranspose2d(3, 4, 3, (7, 6), 2),
}
IMPLEMENTATIONS = ("conv", "elementwise", "disjoint", "blocked", "composed")
TRANSFORMABLE = ("conv", "disjoint", "composed")


def spec_of(name):
    return lcmulti.LocalConvSpec(**GEOMETRIES[name], data_format="channels_last")


def tensors(spec, batch=2, dtype=torch.float64, requires_grad=True):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, *spec.input_shape), spec.kernel_shape, spec.bias_shape)
    return tuple(
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_(requires_grad)
        for shape in shapes
    )


def serves(implementation, spec, batch=2, dtype="float64", transformed=False):
    entry = plugins.registry().implementations["torch", implementation]
    if transformed and not entry.transformable:
        return False
    problem = Problem(spec.computed(), batch, dtype, "cpu", transformed, RESOURCES)
    return plugins.load_implementation("torch", implementation).decline(problem) is None


def cases(names=tuple(GEOMETRIES), implementations=IMPLEMENTATIONS, transformed=False):
    return [
        pytest.param(name, implementation, id=f"{name}-{implementation}")
        for name in names
        for implementation in implementations
        if serves(implementation, spec_of(name), transformed=transformed)
    ]


def operation(spec, implementation="auto"):
    def run(x, kernel, bias=None):
        return lcmulti.local_conv(
            x, kernel, bias, implementation=implementation, **spec.arguments()
        )

    return run


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
