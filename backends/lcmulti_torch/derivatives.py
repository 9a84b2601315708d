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
from torch.autograd import forward_ad

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Implementation, Map, Operation, Resources
from lcmulti_torch.precision import refuse_rounding

# For each map of (a, b), which map of which arguments gives the gradient in a and in b when g
# is the gradient of the result. Gradients are conjugated, as PyTorch defines them.
_RULES: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "forward": (("input_grad", "gb"), ("kernel_grad", "ag")),
    "input_grad": (("forward", "gb"), ("kernel_grad", "ga")),
    "kernel_grad": (("input_grad", "bg"), ("forward", "ag")),
}


# Set while autograd computes batched gradients (``is_grads_batched``), with an older vmap than
# ``torch.func``'s.
_BATCHED_GRADIENTS = torch._C._dispatch_key_parse("VmapMode")


_PLAIN = {torch.Tensor, torch.nn.Parameter}


def is_transformed(*arrays: Any) -> bool:
    """Whether something other than plain eager autograd watches operations on *arrays*."""
    return (
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._dispatch_tls_is_dispatch_key_included(_BATCHED_GRADIENTS)
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_tracing()
        or not _PLAIN.issuperset(map(type, arrays))
    )


def operation(implementation: Implementation, name: Map = "forward") -> Operation:
    """Make one map of an implementation differentiable."""
    bare = getattr(implementation, name)

    def apply(x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        refuse_rounding(x)
        if is_transformed(x, kernel):
            y = bare(x, kernel, spec, resources)
        else:
            y = _run(name, x, kernel, implementation, spec, resources)
        return y if name == "kernel_grad" else _laid_out_as(x, y)

    return apply


def is_channels_first(array: Any) -> bool:
    """Whether ``(N, *size, channels)`` lies in memory with its channels apart."""
    apart = array.stride(1) == 1 and array.shape[-1] > 1  # with one position channels adjoin
    return apart or array.stride(-1) != 1


def _laid_out_as(x: Any, y: Any) -> Any:
    """*y* in memory as *x* is, as PyTorch's convolutions do, so that people may call ``view``."""
    if not is_channels_first(x):
        return y.contiguous()
    first = y.movedim(-1, 1)
    # As it is where it can be: views of it would be undone in every backward pass.
    return y if first.is_contiguous() else first.contiguous().movedim(1, -1)


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
