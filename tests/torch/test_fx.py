"""`torch.fx` records layers and operations of lcmulti as single nodes."""

from __future__ import annotations

import copy
import io
import pickle

import pytest

torch = pytest.importorskip("torch")

import lcmulti_torch  # noqa: E402
from helpers_torch import LAYERS, seeded  # noqa: E402, F401 - a fixture
from lcmulti_torch import functional  # noqa: E402
from torch import nn  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti.errors import (  # noqa: E402
    UnsupportedError,
)

pytestmark = [pytest.mark.torch, pytest.mark.sampled]


FX_LAYERS = LAYERS | {
    "rank, transposed": lambda: lcmulti_torch.LocallyConnectedTranspose2d(3, 4, 3, (7, 6), rank=2),
}


@pytest.mark.parametrize("kind", FX_LAYERS)
def test_fx_sees_one_node(kind):
    """FX records a layer of a model as a module, like a convolution.

    Of a layer that is traced alone it records the operation, whose weights stay trainable.
    """
    layer, x = FX_LAYERS[kind](), torch.randn(2, 3, 7, 6)
    model = nn.Sequential(layer, nn.ReLU(inplace=True))
    traced = torch.fx.symbolic_trace(model)
    called = [node.op for node in traced.graph.nodes]
    assert called == ["placeholder", "call_module", "call_module", "output"]
    for each in (x, x[0]):
        torch.testing.assert_close(traced(each), model(each), rtol=0, atol=0)
    alone = torch.fx.symbolic_trace(layer)
    assert "call_function" in [node.op for node in alone.graph.nodes]
    for each in (x, x[0]):
        torch.testing.assert_close(alone(each), layer(each), rtol=0, atol=0)
    alone(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def lazy_layer():
    layer = lcmulti_torch.LazyLocallyConnected2d(4, 3, padding=1)
    layer(torch.randn(2, 3, 7, 6))
    return layer


class Operations(nn.Module):
    """Calls one operation on a weight of its own."""

    def __init__(self, operation, *shapes, **arguments):
        super().__init__()
        self.operation, self.arguments = operation, arguments
        self.weights = nn.ParameterList([torch.randn(shape) for shape in shapes])

    def forward(self, x):
        return self.operation(x, *self.weights, **self.arguments)


WHOLE, BASIS = (5, 4, 3, 3, 3, 4), (2, 1, 1, 3, 3, 3, 4)
FX_MODULES = FX_LAYERS | {
    "lazy": lazy_layer,
    "unbatched 3D": lambda: lcmulti_torch.LocallyConnected3d(2, 4, 3, (3, 7, 6), bias=False),
    "local_conv": lambda: Operations(
        lcmulti.local_conv, WHOLE, data_format="channels_first", padding_mode="circular"
    ),
    "local_conv_low_rank": lambda: Operations(
        lcmulti.local_conv_low_rank, BASIS, (5, 4, 2), (5, 4, 4), data_format="channels_first"
    ),
    "local_conv_transpose": lambda: Operations(
        lcmulti.local_conv_transpose, (7, 6, 3, 3, 4, 3), data_format="channels_first", strides=2
    ),
    "low_rank_kernel": lambda: Operations(
        lambda x, basis, mixed: lcmulti.local_conv(
            x, lcmulti.low_rank_kernel(basis, mixed), data_format="channels_first"
        ), BASIS, (5, 4, 2),
    ),
    "functional": lambda: Operations(functional.local_conv2d, WHOLE, (5, 4, 4), dilation=1),
    "functional, transposed": lambda: Operations(
        functional.local_conv_transpose2d, (7, 6, 3, 3, 4, 3), stride=2, output_padding=1
    ),
}  # fmt: skip
KEPT = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda traced: pickle.loads(pickle.dumps(traced)),
    "torch.save": lambda traced: torch.load(saved(traced), weights_only=False),
}


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", FX_MODULES)
def test_a_traced_model_can_be_kept(kind):
    """PyTorch traces a pickled graph again, with proxies for the weights too."""
    module = FX_MODULES[kind]()
    x = torch.randn(2, 3, 7, 6)
    for root in (module, nn.Sequential(module, nn.ReLU())):
        traced = torch.fx.symbolic_trace(root)
        for how, keep in KEPT.items():
            again = keep(keep(traced))
            assert torch.equal(again(x), root(x)), how
            again(x).sum().backward()
            assert all(each.grad is not None for each in again.parameters()), how


def test_a_lone_layer_is_traced_to_the_function_of_its_name():
    layer, x = lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6)), torch.randn(3, 7, 6)
    traced = torch.fx.symbolic_trace(layer)
    (node,) = [node for node in traced.graph.nodes if node.op == "call_function"]
    assert node.target is functional.local_conv2d
    assert torch.equal(traced(x), layer(x))


def test_what_fx_cannot_trace_says_what_to_do():
    spec = lcmulti.LocalConvSpec((3, 7, 6), 4, 3, data_format="channels_first")
    penalty = Operations(lambda x, kernel: x + lcmulti.smoothness(kernel, spec), WHOLE)
    with pytest.raises(UnsupportedError, match=r"lcmulti\.smoothness.*torch\.fx\.wrap"):
        torch.fx.symbolic_trace(penalty)
