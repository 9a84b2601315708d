"""Checks for PyTorch's transforms: vmap, compilation, export, autocast, and meta tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.expectation import expectation, expectation_of, without_bias
from lcmulti.conformance.certify.frameworks.check_torch import leaves, some
from lcmulti.conformance.certify.geometries import TRANSFORMED
from lcmulti.conformance.certify.large import expectation_of_any_size
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject
from lcmulti.operations.local_conv import local_conv
from lcmulti.types import Array

traced = pytest.mark.geometries(TRANSFORMED)


def require_transforms(subject: Subject, case: Case, dtype: str = CORE_DTYPE) -> None:
    """Skip an implementation that is declared not to be transformable."""
    if (reason := subject.transform_refusal(case, dtype)) is not None:
        pytest.skip(reason)


@some
def test_vmap(subject: Subject, case: Case, dtype: str) -> None:
    """`torch.func.vmap` over each argument, also of gradients."""
    subject.require(case, dtype)
    require_transforms(subject, case)
    case = without_bias(case)
    known = [expectation_of(replace(case, name=f"{case.name} {i}"), dtype) for i in range(3)]
    there = [each.inputs.each(subject.array) for each in known]
    x, kernel, dy = (torch.stack([each[i] for each in there]) for i in (0, 1, 3))

    def both(x: Array, kernel: Array, dy: Array) -> Any:
        value, pull_back = torch.func.vjp(subject.call(case), x, kernel)
        return value, *pull_back(dy)

    for place, got in enumerate(zip(*torch.func.vmap(both)(x, kernel, dy), strict=True)):
        for name, part in zip(("forward", "input_grad", "kernel_grad"), got, strict=True):
            value, limit = (getattr(each, name) for each in known[place][1::2])
            subject.verify_host(f"{name} of {place}", subject.owner.to_numpy(part), value, limit)
    one = known[0].inputs
    for what, axes, pair, inputs in (
        ("x", (0, None), (x, kernel[0]), [one._replace(x=each.inputs.x) for each in known]),
        ("kernel", (None, 0), (x[0], kernel),
            [one._replace(kernel=each.inputs.kernel) for each in known]),
        ("x along its last axis", (-1, None), (x.movedim(0, -1), kernel[0]),
            [one._replace(x=each.inputs.x) for each in known]),
    ):  # fmt: skip
        ys = torch.func.vmap(subject.call(case), axes)(*pair)
        for y, given in zip(ys, inputs, strict=True):
            expected = expectation_of(case, dtype, given)
            value, limit = expected.values.forward, expected.limits.forward
            subject.verify_host(f"mapped over {what}", subject.owner.to_numpy(y), value, limit)


@traced
def test_compiled(subject: Subject, case: Case, dtype: str) -> None:
    """Value and gradients under `torch.compile` with ``fullgraph=True``."""
    subject.require(case, dtype)
    require_transforms(subject, case)
    known = expectation(case.name, dtype)
    torch.compiler.reset()
    compiled = torch.compile(subject.call(case), fullgraph=True, backend="aot_eager")
    arrays = leaves(subject, case)
    y = compiled(*arrays)
    subject.verify("y", y.detach(), arrays[0].detach(), known.values.forward, known.limits.forward)
    grads = torch.autograd.grad(y, arrays, subject.array(known.inputs.dy))
    for name, got in zip(("input_grad", "kernel_grad", "bias_grad"), grads, strict=False):
        value, limit = getattr(known.values, name), getattr(known.limits, name)
        subject.verify(name, got, arrays[0].detach(), value, limit)


def export(function: Callable[..., Any], arrays: tuple[Array, ...], dynamic: Any) -> Any:
    """Export a function with `torch.export`."""

    class Module(torch.nn.Module):  # type: ignore[misc]
        def forward(self, *arrays: Array) -> Array:
            return function(*arrays)

    shapes = ((dynamic, *(None for _ in arrays[1:])),)
    return torch.export.export(Module(), arrays, dynamic_shapes=shapes).module()


BATCHES = (5, 3, 1500)
"""Batches; the first is traced, and the last exceeds the one assumed for a symbolic batch."""


@pytest.mark.parametrize("tracer", ("compile", "export"))
@traced
def test_symbolic_batch(subject: Subject, case: Case, dtype: str, tracer: str) -> None:
    """A program that is exported once with a dynamic batch is right for several batches."""
    subject.require(case, dtype)
    require_transforms(subject, case)
    torch.compiler.reset()
    known = [expectation_of_any_size(replace(case, batch=n), dtype) for n in BATCHES]
    first, *rest = subject.arrays(known[0].inputs)
    if tracer == "compile":
        torch._dynamo.mark_dynamic(first, 0)
        program = torch.compile(
            subject.call(case), fullgraph=True, dynamic=True, backend="aot_eager"
        )
    else:
        program = export(subject.call(case), (first, *rest), {0: torch.export.Dim("batch", min=2)})
    for each in known:
        x, *weights = subject.arrays(each.inputs)
        y = program(x, *weights)
        subject.verify(f"y of {len(x)}", y, x, each.values.forward, each.limits.forward)


def test_beyond_32_bits(subject: Subject) -> None:
    """Meta tensors of more than 2**31 elements give results of the right shape."""
    if subject.implementation != AUTO:
        pytest.skip("meta tensors are planned for by `auto`")
    x = torch.empty(5, 70_001, 70_003, 3, device="meta", requires_grad=True)
    kernel = torch.empty(34_999, 35_000, 5, 4, 3, 2, device="meta", requires_grad=True)
    y = local_conv(x, kernel, strides=2, data_format="channels_last")
    assert y.shape == (5, 34_999, 35_000, 2)
    y.sum().backward()
    assert (x.grad.shape, kernel.grad.shape) == (x.shape, kernel.shape)


@some
def test_autocast(subject: Subject, case: Case, dtype: str) -> None:
    """Under autocast the call computes in its type, as PyTorch's own convolutions do."""
    subject.require(case, "bfloat16")
    known = expectation_of(case, dtype)
    rounded = known.inputs.each(lambda a: subject.owner.to_numpy(subject.array(a).bfloat16()))
    half = expectation_of(case, "bfloat16", rounded)
    arrays = subject.arrays(known.inputs)
    with torch.autocast(arrays[0].device.type, torch.bfloat16):
        y = subject.call(case)(*arrays)
    assert y.dtype == torch.bfloat16
    value, limit = half.values.forward, half.limits.forward
    subject.verify_host("y", subject.owner.to_numpy(y), value, limit)
