"""Checks for PyTorch: its gradient checkers, its convolution, memory and autograd."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lcmulti.conformance.calls import MAPS, Inputs
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.check_properties import Draw, holds
from lcmulti.conformance.certify.expectation import (
    Term,
    combined,
    expectation,
    expectation_of,
    without_bias,
)
from lcmulti.conformance.certify.geometries import GEOMETRIES, TINY
from lcmulti.conformance.certify.random_geometries import Examples
from lcmulti.conformance.certify.subject import CORE_DTYPE, Subject
from lcmulti.conformance.inputs import draw

SOME = ("2d-plain", "2d-mixed", "2d-stride_is_kernel", "2d-convolution_plain", "1d-one_by_one")
some = pytest.mark.geometries(SOME)

tiny = pytest.mark.parametrize("name", TINY)
precise = pytest.mark.parametrize("dtype", ("float64", "complex128"))


def leaves(subject: Subject, case: Case, dtype: str = CORE_DTYPE) -> tuple[torch.Tensor, ...]:
    """New tensors that require a gradient."""
    subject.require(case, dtype)
    return tuple(each.requires_grad_() for each in subject.arrays(draw(case, dtype)))


@tiny
@precise
def test_gradcheck(subject: Subject, name: str, dtype: str) -> None:
    """`torch.autograd.gradcheck`: reverse and forward mode, each also batched."""
    case = TINY[name]
    arrays = leaves(subject, case, dtype)
    forward = subject.transform_refusal(case, dtype) is None
    assert torch.autograd.gradcheck(
        subject.call(case), arrays, check_batched_grad=True, check_forward_ad=forward,
        check_batched_forward_grad=forward, nondet_tol=0.0,
    )  # fmt: skip


@tiny
def test_gradgradcheck(subject: Subject, name: str) -> None:
    """`torch.autograd.gradgradcheck`: reverse and forward over reverse, batched."""
    case = TINY[name]
    arrays = leaves(subject, case, "float64")
    forward = subject.transform_refusal(case, "float64") is None
    assert torch.autograd.gradgradcheck(
        subject.call(case), arrays, check_batched_grad=True, check_fwd_over_rev=forward,
        nondet_tol=0.0,
    )  # fmt: skip


def test_equal_to_conv_nd(subject: Subject, examples: Examples) -> None:
    """With all axes shared, the result is that of `conv1d`, `conv2d` or `conv3d`."""

    def check(case: Case, draw: Draw, a: int, b: int) -> None:
        spec = case.spec
        x, kernel = draw((case.batch, *spec.input_shape)), draw(spec.kernel_shape)
        y = subject.owner.to_numpy(subject.call(case)(subject.array(x), subject.array(kernel)))
        pads = [n for pair in reversed(spec.padding) for n in pair]
        there = torch.nn.functional.pad(torch.from_numpy(x).double().movedim(-1, 1), pads)
        weight = torch.from_numpy(kernel).double().reshape(kernel.shape[spec.ndim :])
        convolve = getattr(torch.nn.functional, f"conv{spec.ndim}d")
        expected = convolve(
            there, weight.movedim((-1, -2), (0, 1)),
            stride=spec.strides, dilation=spec.dilation, groups=spec.groups,
        )  # fmt: skip
        _, limit = combined(case, CORE_DTYPE, Term("forward", x, kernel))
        subject.verify_host("y", y, expected.movedim(1, -1).numpy(), limit)

    holds(subject, examples, check, kinds=("convolution",))


@some
def test_native_memory(subject: Subject, case: Case, dtype: str) -> None:
    """Views as PyTorch makes them: expanded, sliced, transposed, channels last, offset."""
    subject.require(case, dtype)
    case = replace(without_bias(case), batch=2)
    inputs = draw(case, dtype)
    same = inputs._replace(x=np.repeat(inputs.x[:1], 2, 0), dy=np.repeat(inputs.dy[:1], 2, 0))
    known, twice = expectation_of(case, dtype, inputs), expectation_of(case, dtype, same)

    def every_other(array: torch.Tensor) -> torch.Tensor:
        return torch.stack([array, array + 1], -1)[..., 0]

    def offset(array: torch.Tensor) -> torch.Tensor:
        return torch.cat([array[:1], array])[1:]

    def transposed(array: torch.Tensor) -> torch.Tensor:
        return array.movedim(0, -1).contiguous().movedim(-1, 0)

    def channels_outside(array: torch.Tensor) -> torch.Tensor:
        return array.movedim(-1, 1).contiguous().movedim(1, -1)

    for view in (every_other, offset, transposed, channels_outside):
        there = inputs.each(functools.partial(_seen, subject, view))
        _verify(subject, case, view.__name__, there, known)
    x, kernel, dy = (subject.array(each) for each in (inputs.x, inputs.kernel, inputs.dy))
    expanded = Inputs(x[:1].expand_as(x), kernel, None, dy[:1].expand_as(dy))
    _verify(subject, case, "expanded", expanded, twice)


def _seen(subject: Subject, view: Callable[[Any], Any], array: np.ndarray) -> Any:
    return view(subject.array(array))


def _verify(subject: Subject, case: Case, view: str, there: Inputs, known: Any) -> None:
    y, (dx, dkernel) = subject.owner.vjp(subject.call(case), (there.x, there.kernel), there.dy)
    for name, got in (("forward", y), ("input_grad", dx), ("kernel_grad", dkernel)):
        value, limit = getattr(known.values, name), getattr(known.limits, name)
        subject.verify(f"{name} of {view} arrays", got, there.x, value, limit)


@some
def test_gradient_of_a_sum(subject: Subject, case: Case, dtype: str) -> None:
    """The gradient of ``y.sum()`` is one expanded number, with strides of zero."""
    arrays = leaves(subject, case)
    inputs = draw(case, dtype)
    known = expectation_of(case, dtype, inputs._replace(dy=np.ones_like(inputs.dy)))
    subject.call(case)(*arrays).sum().backward()
    for array, name in zip(arrays, ("input_grad", "kernel_grad", "bias_grad"), strict=False):
        value, limit = getattr(known.values, name), getattr(known.limits, name)
        subject.verify(name, array.grad, array.detach(), value, limit)


@some
def test_who_asks_for_gradients(subject: Subject, case: Case, dtype: str) -> None:
    """A result requires a gradient exactly if an argument does, and not under `no_grad`."""
    subject.require(case, dtype)
    arrays = subject.arrays(draw(case, dtype))
    assert not subject.call(case)(*arrays).requires_grad
    for place in range(len(arrays)):
        given = [each.detach().requires_grad_(i == place) for i, each in enumerate(arrays)]
        y = subject.call(case)(*given)
        assert y.requires_grad, f"argument {place} asks for a gradient, the result does not"
        y.sum().backward()
        assert [each.grad is not None for each in given] == [i == place for i in range(len(given))]
        with torch.no_grad():
            assert not subject.call(case)(*given).requires_grad
        with torch.inference_mode():
            assert not subject.call(case)(*given).requires_grad
    given = [each.detach().requires_grad_() for each in arrays]
    y = subject.call(case)(*given)
    assert not y.is_leaf
    y.sum().backward(retain_graph=True)
    once = [each.grad.clone() for each in given]
    y.sum().backward()
    for each, one in zip(given, once, strict=True):
        assert torch.equal(each.grad, one + one), "a second gradient is added to the first"


@some
def test_values_without_gradients(subject: Subject, case: Case, dtype: str) -> None:
    """Results are right under `no_grad` and in inference mode, where nothing is recorded."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    value, limit = known.values.forward, known.limits.forward
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            arrays = subject.arrays(known.inputs)
            y = subject.call(case)(*arrays)
            subject.verify(f"y under {mode.__name__}", y, arrays[0], value, limit)
    outside = leaves(subject, case)
    with torch.inference_mode():
        y = subject.call(case)(*outside)
    subject.verify_host("y of outer tensors", subject.owner.to_numpy(y), value, limit)


@some
def test_parameters(subject: Subject, case: Case, dtype: str) -> None:
    """A call uses the current weights, however they were changed since the last call."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    x, *weights = subject.arrays(known.inputs)
    dy = subject.array(known.inputs.dy)

    def by_a_step(parameter: Any, weight: torch.Tensor) -> None:
        with torch.no_grad():
            parameter.add_(weight)

    def unnoticed(parameter: Any, weight: torch.Tensor) -> None:
        parameter.data.add_(weight)  # PyTorch's version counter does not change

    for change in (by_a_step, unnoticed):
        parameters = [torch.nn.Parameter(torch.zeros_like(each)) for each in weights]
        subject.call(case)(x, *parameters).backward(dy)
        for parameter, weight in zip(parameters, weights, strict=True):
            change(parameter, weight)
        given = x.clone().requires_grad_()
        y = subject.call(case)(given, *parameters)
        (dx,) = torch.autograd.grad(y, given, dy)
        for name, got in (("forward", y.detach()), ("input_grad", dx)):
            value, limit = getattr(known.values, name), getattr(known.limits, name)
            subject.verify(f"{name}, changed {change.__name__}", got, x, value, limit)


@some
def test_other_defaults(subject: Subject, case: Case, dtype: str) -> None:
    """The arrays determine dtype and device, not PyTorch's defaults."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    arrays, dy = subject.arrays(known.inputs), subject.array(known.inputs.dy)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = subject.owner.vjp(subject.call(case), arrays, dy)
    finally:
        torch.set_default_dtype(usual)
    for name, got in zip(MAPS, (found[0], *found[1]), strict=False):
        value, limit = getattr(known.values, name), getattr(known.limits, name)
        subject.verify(name, got, arrays[0], value, limit)


@some
def test_changed_before_its_gradient(subject: Subject, case: Case, dtype: str) -> None:
    """If a tensor that a gradient needs was changed, PyTorch raises; there is no wrong gradient."""
    for place in (0, 1):
        arrays = leaves(subject, case)
        held = [each * 1 for each in arrays]
        y = subject.call(case)(*held)
        held[place].detach().mul_(3)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(y.sum(), arrays[1 - place])


def test_nothing_of_torch_is_changed(subject: Subject) -> None:
    """A call does not change random state, threads, default dtype, precision or gradient mode."""

    def state() -> bytes:
        return pickle.dumps((
            torch.get_rng_state().numpy().tobytes(), torch.get_num_threads(),
            str(torch.get_default_dtype()), torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled,
            torch.are_deterministic_algorithms_enabled(),
        ))  # fmt: skip

    for name in SOME:
        case = GEOMETRIES[name]
        if subject.refusal(case, CORE_DTYPE) is not None:
            continue
        before = state()
        subject.results(case, draw(case, CORE_DTYPE))
        assert state() == before, "a setting of PyTorch was changed"
