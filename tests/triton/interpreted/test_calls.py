"""Calls as users write them, computed by the kernels or handed over to another implementation."""

from __future__ import annotations

import pytest
import torch
from helpers_geometries import COMMON
from lcmulti_triton import failing

import lcmulti
from lcmulti import LocalConvSpec, explain

NAMES = [*COMMON]
COMMON = COMMON | {"small": dict(input_shape=(4, 2), filters=3, kernel_size=2)}


def arrays(name, dtype=torch.float64, batch=2):
    spec = LocalConvSpec(**COMMON[name], data_format="channels_last")
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, *spec.input_shape), spec.kernel_shape
    drawn = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return spec, [each.requires_grad_() for each in drawn]


def derivatives(call, inputs, order):
    y = call(*inputs)
    found, total = [y], y.square().sum()
    for left in range(order, 0, -1):
        grads = torch.autograd.grad(total, inputs, create_graph=left > 1)
        found += grads
        total = sum(each.square().sum() for each in grads)
    return [each.detach() for each in found]


@pytest.mark.parametrize(
    ("name", "order"),
    [("small", 2), *(pytest.param(n, 1, marks=pytest.mark.slow) for n in NAMES),
     pytest.param("grouped", 2, marks=pytest.mark.slow)],
)  # fmt: skip
def test_derivatives(name, order):
    spec, inputs = arrays(name)

    def with_(implementation):
        return lambda x, w: lcmulti.local_conv(
            x, w, implementation=implementation, **spec.arguments()
        )

    ours = derivatives(with_("triton"), inputs, order)
    theirs = derivatives(with_("composed"), inputs, order)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_transposed_operation(data_format):
    spec, (_, w) = arrays("disjoint 1d")
    y = torch.randn(2, *spec.output_shape, dtype=torch.float64)
    y = y if data_format == "channels_last" else y.movedim(-1, 1).contiguous()

    def transposed(implementation):
        return lcmulti.local_conv_transpose(
            y, w, strides=spec.strides, data_format=data_format, implementation=implementation
        )

    ours, theirs = transposed("triton"), transposed("composed")
    torch.testing.assert_close(ours, theirs)
    assert ours.stride() == theirs.stride()


def test_results_lie_as_their_input():
    spec, (x, w) = arrays("disjoint 1d")
    first = x.detach().movedim(-1, 1).contiguous()
    y = lcmulti.local_conv(
        first, w, implementation="triton", **spec.arguments() | {"data_format": "channels_first"}
    )
    assert y.is_contiguous()
    y = lcmulti.local_conv(x, w, implementation="triton", **spec.arguments())
    assert y.is_contiguous()


@pytest.mark.slow
def test_transforms_are_handed_over():
    spec, inputs = arrays("disjoint 1d")
    x, w = (each.detach() for each in inputs)

    def auto(x):
        return lcmulti.local_conv(x, w, **spec.arguments())

    y = auto(x)
    value, tangent = torch.func.jvp(auto, (x,), (x,))
    torch.testing.assert_close(value, y)
    torch.testing.assert_close(tangent, y)
    torch.testing.assert_close(torch.func.vmap(auto)(x[None])[0], y)
    gradient = torch.func.grad(lambda x: auto(x).sum())(x)
    assert gradient.abs().sum() > 0


def test_auto_takes_it_and_explains_the_tile():
    spec, (x, w) = arrays("disjoint 1d", torch.float32)
    found = explain(x, w, **spec.arguments())
    assert found.implementation == "triton"
    assert found.workspace == 0


def test_what_it_cannot_do_it_declines():
    spec = LocalConvSpec((3, 3, 3, 3, 3, 2), 2, 2, padding=1, data_format="channels_last")
    found = explain(spec, backend="torch", batch=2)
    reasons = {each.name: each.reason for each in found.verdicts}
    assert "four axes" in reasons["triton"]
    assert found.implementation == "blocked"


@pytest.mark.slow
def test_more_axes_that_can_be_folded():
    spec = LocalConvSpec((2, 1, 2, 2, 3, 2), 2, (1, 1, 1, 1, 2), data_format="channels_last")
    x = torch.randn(2, *spec.input_shape)
    w = torch.randn(spec.kernel_shape)
    ours, theirs = (
        lcmulti.local_conv(x, w, implementation=each, data_format="channels_last")
        for each in ("triton", "composed")
    )
    torch.testing.assert_close(ours, theirs)


def test_a_compiler_that_fails_at_run_time(monkeypatch):
    """When Triton fails to compile, another implementation serves, and `explain` says why."""
    from lcmulti_triton import launch

    def broken(*arguments):
        raise RuntimeError("ptxas fatal: no such option\nand much more")

    launch.prepared.cache_clear()
    monkeypatch.setattr(launch, "start_of", broken)
    monkeypatch.setattr(failing, "failures", {})
    spec, inputs = arrays("disjoint 1d", torch.float32)
    x, w = (each.detach() for each in inputs)
    with pytest.warns(UserWarning, match="'blocked' serves"):
        y = lcmulti.local_conv(x, w, **spec.arguments())
    torch.testing.assert_close(
        y, lcmulti.local_conv(x, w, implementation="composed", **spec.arguments())
    )
    found = {each.name: each.reason for each in explain(x, w, **spec.arguments()).verdicts}
    assert found["triton"] == (
        "Triton failed to compile forward in float32 for windows of 2, 3 channels and 4 filters a "
        "group (RuntimeError: ptxas fatal: no such option)"
    )
    launch.prepared.cache_clear()
