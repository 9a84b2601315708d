"""The PyTorch backend: every way PyTorch differentiates, traces and transforms the operation."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers_torch import (  # noqa: E402
    GEOMETRIES,
    TRANSFORMABLE,
    cases,
    operation,
    serves,
    spec_of,
    tensors,
)

import lcmulti  # noqa: E402
from lcmulti import plugins  # noqa: E402
from lcmulti.algorithms import reference  # noqa: E402
from lcmulti.choosing import framework  # noqa: E402
from lcmulti.errors import UnsupportedError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.sampled]


@pytest.mark.parametrize(("name", "implementation"), cases())
def test_gradcheck_with_forward_ad_and_batched_gradients(name, implementation):
    spec = spec_of(name)
    forward = implementation in TRANSFORMABLE and serves(implementation, spec, transformed=True)
    assert torch.autograd.gradcheck(
        operation(spec, implementation),
        tensors(spec),
        check_forward_ad=forward,
        check_batched_grad=True,
        check_batched_forward_grad=forward,
        fast_mode=True,
    )


@pytest.mark.parametrize(("name", "implementation"), cases())
def test_gradgradcheck(name, implementation):
    spec = spec_of(name)
    assert torch.autograd.gradgradcheck(
        operation(spec, implementation), tensors(spec), check_batched_grad=True, fast_mode=True
    )


def test_complex_gradients():
    spec = spec_of("grouped")
    args = tensors(spec, dtype=torch.complex128)
    assert torch.autograd.gradcheck(operation(spec), args, fast_mode=True)
    assert torch.autograd.gradgradcheck(operation(spec), args, fast_mode=True)


@pytest.mark.parametrize(
    ("name", "implementation"),
    [*cases(implementations=TRANSFORMABLE, transformed=True), *((n, "auto") for n in GEOMETRIES)],
)
def test_forward_ad_has_right_values(name, implementation):
    """Values are compared, because a custom operator silently returns zero tangents here."""
    spec = spec_of(name)
    args = tensors(spec, requires_grad=False)
    tangents = tuple(torch.randn_like(each) for each in args)
    _, tangent = torch.func.jvp(operation(spec, implementation), args, tangents)
    x, kernel, _ = (each.numpy() for each in args)
    dx, dkernel, dbias = (each.numpy() for each in tangents)
    computed = spec.computed()
    expected = (
        reference.forward(dx, kernel, computed) + reference.forward(x, dkernel, computed) + dbias
    )
    np.testing.assert_allclose(tangent.numpy(), expected, rtol=1e-11, atol=1e-11)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(args[0], tangents[0])
        out = operation(spec, implementation)(dual, args[1])
        found = torch.autograd.forward_ad.unpack_dual(out).tangent
    np.testing.assert_allclose(
        found.numpy(), reference.forward(dx, kernel, computed), rtol=1e-11, atol=1e-11
    )


def test_eager_forward_then_backward_under_forward_ad():
    """The value is computed before forward AD begins; only the gradient given is dual."""
    spec = spec_of("grouped")
    x, kernel, _ = tensors(spec)
    y = operation(spec)(x, kernel)
    dy, direction = torch.randn_like(y), torch.randn_like(y)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(dy, direction)
        (dx,) = torch.autograd.grad(y, x, dual)
        tangent = torch.autograd.forward_ad.unpack_dual(dx).tangent
    expected = reference.input_grad(direction.numpy(), kernel.detach().numpy(), spec.computed())
    np.testing.assert_allclose(tangent.detach().numpy(), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("argument", [0, 1, 2])
@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_vmap_over_each_argument(name, argument):
    spec = spec_of(name)
    args = list(tensors(spec, requires_grad=False))
    args[argument] = torch.stack([args[argument], 2 * args[argument], -args[argument]])
    dims = tuple(0 if i == argument else None for i in range(3))
    batched = torch.vmap(operation(spec), in_dims=dims)(*args)
    for i in range(3):
        single = [a[i] if j == argument else a for j, a in enumerate(args)]
        torch.testing.assert_close(batched[i], operation(spec)(*single), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_per_sample_gradients(name):
    spec = spec_of(name)
    x, kernel, bias = tensors(spec, batch=3, requires_grad=False)

    def loss(kernel, sample):
        return operation(spec)(sample[None], kernel, bias).square().sum()

    per_sample = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(kernel, x)
    for i in range(3):
        torch.testing.assert_close(per_sample[i], torch.func.grad(loss)(kernel, x[i]))


def test_hessian():
    spec = lcmulti.LocalConvSpec((4, 2), 2, 2, data_format="channels_last")
    x, kernel, _ = tensors(spec, requires_grad=False)
    hessian = torch.func.hessian(lambda k: operation(spec)(x, k).pow(3).sum())(kernel)
    eager = torch.autograd.functional.hessian(lambda k: operation(spec)(x, k).pow(3).sum(), kernel)
    assert hessian.abs().max() > 0
    torch.testing.assert_close(hessian, eager)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ["grouped", "disjoint 1d", "disjoint rest", "convolution"])
def test_compile_fullgraph(name, dynamic):
    spec = spec_of(name)
    args = tensors(spec)
    torch._dynamo.reset()
    framework._named.cache_clear()  # as if the compiled call were the first of the process
    compiled = torch.compile(operation(spec), fullgraph=True, dynamic=dynamic, backend="aot_eager")
    y = compiled(*args)
    expected = operation(spec)(*args)
    torch.testing.assert_close(y, expected)
    dy = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(y, args, dy), torch.autograd.grad(expected, args, dy), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_compile_by_inductor_with_padding_modes(mode):
    x, kernel = torch.randn(3, 4, 7, 6), torch.randn(7, 1, 3, 2, 4, 5)

    def run(x, kernel):
        return lcmulti.local_conv(
            x, kernel, padding=((1, 1), (1, 0)), padding_mode=mode, data_format="channels_first"
        )

    torch.testing.assert_close(torch.compile(run, fullgraph=True)(x, kernel), run(x, kernel))


@pytest.mark.parametrize("strict", [False, True], ids=["nonstrict", "strict"])
def test_export_with_dynamic_batch(strict):
    spec = spec_of("grouped")
    x, kernel, bias = tensors(spec, dtype=torch.float32, requires_grad=False)

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel, self.bias = torch.nn.Parameter(kernel), torch.nn.Parameter(bias)

        def forward(self, x):
            return operation(spec)(x, self.kernel, self.bias)

    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = torch.export.export(Layer(), (x,), dynamic_shapes=({0: batch},), strict=strict)
    other = torch.randn(5, *spec.input_shape)
    torch.testing.assert_close(exported.module()(other), operation(spec)(other, kernel, bias))


def test_autocast_sums_in_float32():
    spec = lcmulti.LocalConvSpec((6, 300), 2, 5, data_format="channels_last")
    x, kernel, bias = tensors(spec, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = operation(spec)(x, kernel, bias)
        assert y.dtype == torch.bfloat16
    exact = operation(spec)(
        x.bfloat16().double(), kernel.bfloat16().double(), bias.bfloat16().double()
    )
    # One rounding of the sum and one after the bias, not one for each of 1,500 terms.
    assert ((y.double() - exact).abs() <= 2 * 2**-8 * (exact.abs() + 1e-2)).all()
    y.sum().backward()
    assert x.grad.dtype == kernel.grad.dtype == torch.float32


def test_only_needed_gradients_are_computed(monkeypatch):
    spec = spec_of("grouped").computed()
    maps = plugins.load_implementation("torch", "blocked")
    monkeypatch.setattr(type(maps), "input_grad", lambda *_: pytest.fail("dx was not asked for"))
    x, kernel, _ = tensors(spec)
    operation(spec, "blocked")(x.detach(), kernel).sum().backward()
    assert kernel.grad is not None


def test_named_implementation_that_cannot_be_transformed_raises():
    spec = spec_of("grouped")
    x, kernel, _ = tensors(spec, requires_grad=False)
    with pytest.raises(UnsupportedError, match="'blocked' .*cannot be transformed"):
        torch.vmap(operation(spec, "blocked"), in_dims=(0, None))(x[None], kernel)


def test_checkpoint_and_saved_tensor_hooks():
    spec = spec_of("grouped")
    x, kernel, bias = tensors(spec)
    plain = torch.autograd.grad(operation(spec)(x, kernel, bias).sum(), (x, kernel))
    y = torch.utils.checkpoint.checkpoint(operation(spec), x, kernel, bias, use_reentrant=False)
    for ours, theirs in zip(torch.autograd.grad(y.sum(), (x, kernel)), plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_in_place_change_of_a_saved_input_is_noticed():
    x, kernel = torch.randn(2, 5, 3), torch.randn(4, 2, 3, 4, requires_grad=True)
    y = lcmulti.local_conv(x, kernel)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
