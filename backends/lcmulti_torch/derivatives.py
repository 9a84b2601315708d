"""The derivative rules, closed once for every implementation.

The operation is bilinear, and so are its two adjoints; the derivatives of each of the three
maps are the other two. In eager mode one `torch.autograd.Function` says so and PyTorch nests
it to any order in reverse mode.

That Function must not be seen by anything else: under forward AD it would drop the tangent in
silence, and ``torch.func`` and fullgraph compilation refuse one or the other form of it. There,
maps made of PyTorch's own differentiable operations run bare and PyTorch differentiates them.
"""

from __future__ import annotations

from typing import Any

import torch

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Implementation, Map, Operation, Resources
from lcmulti_torch.memory import laid_out_as
from lcmulti_torch.precision import refuse_rounding
from lcmulti_torch.watched import is_transformed

# For each map of (a, b), which map of which arguments gives the gradient in a and in b when g
# is the gradient of the result. Gradients are conjugated, as PyTorch defines them.
_RULES: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "forward": (("input_grad", "gb"), ("kernel_grad", "ag")),
    "input_grad": (("forward", "gb"), ("kernel_grad", "ga")),
    "kernel_grad": (("input_grad", "bg"), ("forward", "ag")),
}


def operation(implementation: Implementation, name: Map = "forward") -> Operation:
    """Make one map of an implementation differentiable."""
    bare = getattr(implementation, name)

    def apply(x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        refuse_rounding(x)
        if is_transformed(x, kernel):
            y = bare(x, kernel, spec, resources)
        else:
            y = _run(name, x, kernel, implementation, spec, resources)
        return y if name == "kernel_grad" else laid_out_as(x, y)

    return apply


def _run(
    name: str, a: Any, b: Any, implementation: Implementation, spec: Any, resources: Any
) -> Any:
    """A map of plain tensors, recorded where a gradient may be asked for."""
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _Map.apply(a, b, name, implementation, spec, resources)
    return getattr(implementation, name)(a.resolve_conj(), b.resolve_conj(), spec, resources)


class _Map(torch.autograd.Function):
    """One of the three maps, by name."""

    @staticmethod
    def forward(
        ctx: Any, a: Any, b: Any, name: str, implementation: Implementation,
        spec: LocalConvSpec, resources: Resources,
    ) -> Any:  # fmt: skip
        ctx.save_for_backward(a, b)
        ctx.name, ctx.rest = name, (implementation, spec, resources)
        return getattr(implementation, name)(a.resolve_conj(), b.resolve_conj(), spec, resources)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        a, b = ctx.saved_tensors
        operands = {"a": a.conj(), "b": b.conj(), "g": grads[0]}
        derived = (
            _derived(name, operands[pair[0]], operands[pair[1]], *ctx.rest) if needed else None
            for (name, pair), needed in zip(_RULES[ctx.name], ctx.needs_input_grad, strict=False)
        )
        return (*derived, None, None, None, None)


def _derived(
    name: str, a: Any, b: Any, implementation: Implementation, spec: Any, resources: Any
) -> Any:
    """A map within a derivative, which may be transformed though the value was not."""
    refuse_rounding(a)
    if not is_transformed(a, b):
        return _run(name, a, b, implementation, spec, resources)
    from lcmulti_torch.composed import composed  # which serves every geometry under any transform

    return getattr(composed, name)(a, b, spec, resources)
