"""Checks for JAX: gradient checker, convolutions, Flax' layer, transforms, abstract arrays."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from jax import export, lax
from jax.test_util import check_grads

from lcmulti.conformance.calls import MAPS
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.check_properties import Draw, holds
from lcmulti.conformance.certify.expectation import (
    Term,
    combined,
    expectation,
    expectation_of,
    without_bias,
)
from lcmulti.conformance.certify.frameworks import x64
from lcmulti.conformance.certify.geometries import TINY, TRANSFORMED
from lcmulti.conformance.certify.large import expectation_of_any_size
from lcmulti.conformance.certify.random_geometries import Examples
from lcmulti.conformance.certify.subject import CORE_DTYPE, Subject
from lcmulti.conformance.inputs import draw
from lcmulti.operations.local_conv import local_conv
from lcmulti.types import Array

some = pytest.mark.geometries(TRANSFORMED)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", ("float64", "complex128"))
def test_check_grads(subject: Subject, name: str, dtype: str) -> None:
    """`jax.test_util.check_grads` to order 2, in every combination of forward and reverse mode."""
    subject.require(TINY[name], dtype)
    arrays = subject.arrays(draw(TINY[name], dtype))
    check_grads(subject.call(TINY[name]), arrays, order=2, modes=("fwd", "rev"))


def test_equal_to_conv_general_dilated(subject: Subject, examples: Examples) -> None:
    """With all axes shared, the result is that of JAX's convolution."""

    def check(case: Case, draw: Draw, a: int, b: int) -> None:
        spec = case.spec
        x, kernel = draw((case.batch, *spec.input_shape)), draw(spec.kernel_shape)
        axes = tuple(range(1, spec.ndim + 1))
        expected = lax.conv_general_dilated(
            x, kernel.reshape(kernel.shape[spec.ndim :]), spec.strides, spec.padding,
            rhs_dilation=spec.dilation, feature_group_count=spec.groups,
            dimension_numbers=lax.ConvDimensionNumbers(
                (0, spec.ndim + 1, *axes), (spec.ndim + 1, spec.ndim, *range(spec.ndim)),
                (0, spec.ndim + 1, *axes),
            ), precision=lax.Precision.HIGHEST,
        )  # fmt: skip
        _agree(subject, case, x, kernel, expected)

    holds(subject, examples, check, kinds=("convolution",))


def _agree(subject: Subject, case: Case, x: Array, kernel: Array, expected: Any) -> None:
    """Compare two results. Both are within a bound of the exact one, so within two bounds."""
    y = subject.owner.to_numpy(subject.call(case)(subject.array(x), subject.array(kernel)))
    _, limit = combined(case, CORE_DTYPE, Term("forward", x, kernel))
    subject.verify_host("y", y, np.asarray(expected, np.float64), 2 * limit)


def _ungrouped(case: Case) -> bool:
    return case.spec.groups == 1 and not case.spec.shared_axes


def test_equal_to_conv_general_dilated_local(subject: Subject, examples: Examples) -> None:
    """With no axis shared, the result is that of JAX's operation, with windows channels first."""

    def check(case: Case, draw: Draw, a: int, b: int) -> None:
        if not _ungrouped(case):
            return
        spec = case.spec
        x, kernel = draw((case.batch, *spec.input_shape)), draw(spec.kernel_shape)
        letters = "DHW"[-spec.ndim :]
        expected = lax.conv_general_dilated_local(
            x, _channels_then_taps(kernel, case), spec.strides, spec.padding, spec.kernel_size,
            rhs_dilation=spec.dilation, precision=lax.Precision.HIGHEST,
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        )  # fmt: skip
        _agree(subject, case, x, kernel, expected)

    holds(subject, examples, check, kinds=("any", "tiled"))


def _channels_then_taps(kernel: Array, case: Case) -> Any:
    """``(*O, *k, C, F) -> (*O, C * prod(k), F)``."""
    axes = case.spec.ndim
    return np.moveaxis(kernel, -2, axes).reshape(*kernel.shape[:axes], -1, kernel.shape[-1])


@pytest.mark.geometries(
    ("1d-plain", "2d-plain", "2d-same_even_strided", "2d-dilation_strided", "2d-stride_is_kernel",
        "2d-padding_asymmetric", "3d-plain")
)  # fmt: skip
def test_equal_to_flax(subject: Subject, case: Case, dtype: str) -> None:
    """The result is that of Flax' ``ConvLocal`` with the same weights."""
    if importlib.util.find_spec("flax") is None:
        pytest.skip("Flax is not installed")
    from flax import linen

    spec = case.spec
    inputs, _, _, limits = expectation(case.name, dtype)
    layer = linen.ConvLocal(
        spec.filters, spec.kernel_size, spec.strides, spec.padding,
        kernel_dilation=spec.dilation, precision=lax.Precision.HIGHEST,
    )  # fmt: skip
    weights = {"kernel": _channels_then_taps(inputs.kernel, case), "bias": inputs.bias}
    expected = layer.apply({"params": weights}, inputs.x)
    y = subject.owner.to_numpy(subject.call(case)(*subject.arrays(inputs)))
    subject.verify_host("y", y, np.asarray(expected, np.float64), 2 * limits.forward)


@some
def test_jit(subject: Subject, case: Case, dtype: str) -> None:
    """Value and gradients under ``jax.jit``; results have the strong type of ``x``."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    arrays, dy = subject.arrays(known.inputs), subject.array(known.inputs.dy)
    call = subject.call(case)
    value, grads = jax.jit(lambda dy, *a: _vjp(call, a, dy))(dy, *arrays)
    for name, got in zip(MAPS, (value, *grads), strict=False):
        limit = getattr(known.limits, name)
        subject.verify(name, got, arrays[0], getattr(known.values, name), limit)
        assert not got.weak_type, f"{name} has a weak type"


def _vjp(call: Any, arrays: tuple[Array, ...], dy: Array) -> Any:
    value, pull_back = jax.vjp(call, *arrays)
    return value, pull_back(dy)


@some
def test_64_bits_enabled(subject: Subject, case: Case, dtype: str) -> None:
    """With ``jax_enable_x64`` and strict type promotion, float32 stays float32."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    arrays, dy = subject.arrays(known.inputs), subject.array(known.inputs.dy)
    with x64(), jax.numpy_dtype_promotion("strict"):
        value, grads = _vjp(subject.call(case), arrays, dy)
    for name, got in zip(MAPS, (value, *grads), strict=False):
        limit = getattr(known.limits, name)
        subject.verify(name, got, arrays[0], getattr(known.values, name), limit)


@some
def test_vmap(subject: Subject, case: Case, dtype: str) -> None:
    """`jax.vmap` of value and gradients, over both arguments and over each one alone."""
    subject.require(case, dtype)
    case = without_bias(case)
    known = [expectation_of(replace(case, name=f"{case.name} {i}"), dtype) for i in range(3)]
    x, kernel = (np.stack([getattr(k.inputs, n) for k in known]) for n in ("x", "kernel"))
    dy = np.stack([each.inputs.dy for each in known])
    call = subject.call(case)
    value, grads = jax.vmap(lambda *a: _vjp(call, a[:2], a[2]))(
        *map(subject.array, (x, kernel, dy))
    )
    for place, each in enumerate(known):
        names = ("forward", "input_grad", "kernel_grad")
        for name, got in zip(names, (value, *grads), strict=True):
            there, limit = getattr(each.values, name), getattr(each.limits, name)
            subject.verify_host(f"{name} of {place}", np.asarray(got[place]), there, limit)
    one = known[0].inputs
    for what, axes, pair, inputs in (
        ("x", (0, None), (x, kernel[0]), [one._replace(x=a) for a in x]),
        ("kernel", (None, 0), (x[0], kernel), [one._replace(kernel=a) for a in kernel]),
        ("x along its last axis", (-1, None), (np.moveaxis(x, 0, -1), kernel[0]),
            [one._replace(x=a) for a in x]),
    ):  # fmt: skip
        ys = jax.vmap(call, axes)(*map(subject.array, pair))
        for y, given in zip(ys, inputs, strict=True):
            expected = expectation_of(case, dtype, given)
            value, limit = expected.values.forward, expected.limits.forward
            subject.verify_host(f"mapped over {what}", np.asarray(y), value, limit)


@pytest.mark.parametrize("name", TINY)
def test_jacobians(subject: Subject, name: str) -> None:
    """`jax.jacfwd` and `jax.jacrev` agree, and `jax.hessian` is the mixed derivative."""
    case = without_bias(TINY[name])
    subject.require(case, CORE_DTYPE)
    x, kernel = subject.arrays(draw(case, CORE_DTYPE))
    call = subject.call(case)
    forward = jax.jit(jax.jacfwd(call, (0, 1)))(x, kernel)
    reverse = jax.jit(jax.jacrev(call, (0, 1)))(x, kernel)
    for ours, other in zip(forward, reverse, strict=True):
        # Both are products of the other argument with 1, without any rounding.
        assert np.array_equal(np.asarray(ours), np.asarray(other))
    hessian = jax.jit(jax.hessian(lambda x, k: call(x, k).sum(), (0, 1)))(x, kernel)
    assert not np.asarray(hessian[0][0]).any()
    assert not np.asarray(hessian[1][1]).any()
    mixed, turned = np.asarray(hessian[0][1]), np.asarray(hessian[1][0])
    assert np.array_equal(mixed, np.moveaxis(turned, range(-x.ndim, 0), range(x.ndim)))
    assert mixed.any()


def test_beyond_32_bits(backend: Subject) -> None:
    """Abstract arrays of more than 2**31 elements give results of the right shape."""
    x = jax.ShapeDtypeStruct((5, 70_001, 70_003, 3), np.float32)
    kernel = jax.ShapeDtypeStruct((34_999, 35_000, 5, 4, 3, 2), np.float32)

    def value_and_gradients(x: Array, kernel: Array) -> Any:
        call = lambda x, k: local_conv(x, k, strides=2, data_format="channels_last")  # noqa: E731
        y, pull_back = jax.vjp(call, x, kernel)
        return y, *pull_back(y)

    y, dx, dkernel = jax.eval_shape(value_and_gradients, x, kernel)
    assert y.shape == (5, 34_999, 35_000, 2)
    assert (dx.shape, dkernel.shape) == (x.shape, kernel.shape)


@some
def test_symbolic_batch(subject: Subject, case: Case, dtype: str) -> None:
    """A function exported once with a symbolic batch is right for several batches."""
    subject.require(case, dtype, batch=None)
    (batch,) = export.symbolic_shape("batch")
    exported = None
    for samples in (case.batch, 1500):
        known = expectation_of_any_size(replace(case, batch=samples), dtype)
        x, *weights = subject.arrays(known.inputs)
        if exported is None:
            shape = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
            exported = export.export(jax.jit(subject.call(case)))(shape, *weights)
        y = exported.call(x, *weights)
        subject.verify(f"y of {samples}", y, x, known.values.forward, known.limits.forward)


SWITCHES = {
    "matmul precision bfloat16": lambda: jax.default_matmul_precision("bfloat16"),
    "matmul precision tensorfloat32": lambda: jax.default_matmul_precision("tensorfloat32"),
    "nothing compiled": jax.disable_jit,
    "rank promotion refused": lambda: jax.numpy_rank_promotion("raise"),
    "NaN looked for": lambda: jax.debug_nans(True),
}


@some
def test_switches(subject: Subject, case: Case, dtype: str) -> None:
    """Switches of JAX that a user may set do not change results."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    arrays, dy = subject.arrays(known.inputs), subject.array(known.inputs.dy)
    for what, switch in SWITCHES.items():
        with switch():
            value, grads = _vjp(subject.call(case), arrays, dy)
        for name, got in zip(MAPS, (value, *grads), strict=False):
            limit = getattr(known.limits, name)
            subject.verify(
                f"{name} with {what}", got, arrays[0], getattr(known.values, name), limit
            )


@some
def test_nested_vmap(subject: Subject, case: Case, dtype: str) -> None:
    """`jax.vmap` of `jax.vmap`: every input with every kernel, and the gradient of each."""
    subject.require(case, dtype)
    case = without_bias(case)
    known = [expectation_of(replace(case, name=f"{case.name} {i}"), dtype) for i in range(2)]
    x, kernel = (
        subject.array(np.stack([getattr(k.inputs, n) for k in known])) for n in ("x", "kernel")
    )
    dy = subject.array(known[0].inputs.dy)
    call = subject.call(case)
    crossed = jax.vmap(jax.vmap(lambda a, b: _vjp(call, (a, b), dy), (None, 0)), (0, None))
    value, grads = crossed(x, kernel)
    for i in range(2):
        for j in range(2):
            pair = known[0].inputs._replace(x=known[i].inputs.x, kernel=known[j].inputs.kernel)
            expected = expectation_of(case, dtype, pair)
            for name, got in zip(MAPS, (value, *grads), strict=False):
                there, limit = getattr(expected.values, name), getattr(expected.limits, name)
                subject.verify_host(f"{name} of {i}, {j}", np.asarray(got[i, j]), there, limit)
