"""PyTorch's backward: the derivative rules, written once for every implementation.

The operation is bilinear, and so are its two adjoints. So the derivatives of each of the three maps
are the other two. In eager mode, one `torch.autograd.Function` implements this, and PyTorch nests
it to any order in reverse mode. It takes the caller's arrays directly (channels first, or padded by
reflection) and adds the bias. So the graph has one node for a call, and the result is not a view.

This Function is not for anything else. Under forward AD it would silently drop the tangent, and
``torch.func`` and fullgraph compilation refuse it in one form or another. There, maps that consist
of PyTorch's own differentiable operations are called without it, and PyTorch differentiates them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import (
    DERIVATIVES,
    Call,
    Implementation,
    Map,
    Problem,
    Resources,
    Steps,
)
from lcmulti_torch.memory import (
    are_channels_apart,
    laid_out,
    owned,
    require_memory,
    summed,
    to_first,
    to_last,
)
from lcmulti_torch.padding import padded, unpadded
from lcmulti_torch.precision import refuse_rounding
from lcmulti_torch.watched import is_transformed


class ClosedMap:
    """One differentiable map of an implementation; a `lcmulti.plugins.contract.WholeOperation`."""

    def __init__(self, implementation: Implementation, name: Map = "forward") -> None:
        self.implementation, self.name = implementation, name

    def __call__(
        self, x: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.plugins.contract.Operation`."""
        maps = _CallersMaps(self.implementation, spec, resources, Steps())
        transformed = is_transformed(x, kernel)
        if not transformed:  # of a planned call, `TorchBackend.facts` has done this
            require_memory("x", x)
            require_memory("kernel", kernel)
        return _call(self.name, x, kernel, None, maps, transformed)

    def whole(self, problem: Problem, steps: Steps) -> Call:
        """See `lcmulti.plugins.contract.WholeOperation`."""
        name, transformed = self.name, problem.transformed
        maps = _CallersMaps(self.implementation, problem.spec, problem.resources, steps)

        def call(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
            return _call(name, x, kernel, bias, maps, transformed)

        return call


class _CallersMaps:
    """The three maps on the caller's arrays. They are adjoint to each other, like those within."""

    def __init__(
        self, within: Implementation, spec: LocalConvSpec, resources: Resources, steps: Steps
    ) -> None:
        self.within, self.spec, self.resources, self.steps = within, spec, resources, steps
        self.channels_first, self.taken = steps.channels_first, steps.padding_indices
        self.rounds = not getattr(within, "never_rounds", False)

    def bare(self, name: Map, a: Tensor, b: Tensor) -> Tensor:
        """A map by name; its result has channels last."""
        if self.channels_first:
            a = to_last(a)
            b = to_last(b) if name == "kernel_grad" else b
        if name != "input_grad":
            a = padded(a, self.taken)
        result: Tensor = getattr(self.within, name)(a, b, self.spec, self.resources)
        return unpadded(result, self.taken) if name == "input_grad" else result

    def plain(
        self, name: Map, a: Tensor, b: Tensor, bias: Tensor | None, channels_apart: bool
    ) -> Tensor:
        """A map, with the bias added in place. The result is a new array."""
        result = self.bare(name, a.resolve_conj(), b.resolve_conj())
        if name == "kernel_grad":
            return owned(result.contiguous())
        result = owned(laid_out(result, channels_apart, self.channels_first))
        return result if bias is None else result.add_(self._placed(bias, channels_apart))

    def watched(
        self, name: Map, a: Tensor, b: Tensor, bias: Tensor | None, channels_apart: bool
    ) -> Tensor:
        """The same as `plain`, in operations that any transform can see through."""
        result = self.bare(name, a, b)
        if name == "kernel_grad":
            return result
        result = laid_out(result, channels_apart, self.channels_first)
        if bias is not None:
            return result + self._placed(bias)
        return result.clone() if result._is_view() else result

    def through(self, other: Implementation) -> _CallersMaps:
        """The same maps of another implementation."""
        return _CallersMaps(other, self.spec, self.resources, self.steps)

    def lies_apart(self, array: Tensor) -> bool:
        """Whether the channels of a caller's array are not adjacent in memory."""
        return are_channels_apart(array, self.channels_first)

    def bias_grad(self, g: Tensor, shape: torch.Size) -> Tensor:
        """The adjoint of adding a bias of *shape*."""
        g = to_last(g) if self.channels_first else g
        axes = (0, *(axis for axis, size in enumerate(shape[:-1], 1) if size == 1))
        if is_transformed(g):
            return g.sum(axes).reshape(shape).contiguous()
        total = summed(g, axes).reshape(shape).contiguous()
        return total if torch.is_grad_enabled() else owned(total)

    def _placed(self, bias: Tensor, channels_apart: bool = False) -> Tensor:
        """The bias ``(*output_size, filters)``, with its filters moved to the caller's channels.

        With *channels_apart*, it is also so in memory: each sample reads it again.
        """
        first = bias.movedim(bias.dim() - 1, 0)
        if channels_apart:
            first = first.contiguous()
        return first if self.channels_first else first.movedim(0, bias.dim() - 1)


def _call(
    name: Map, x: Tensor, kernel: Tensor, bias: Tensor | None, maps: _CallersMaps, transformed: bool
) -> Tensor:
    """Run a user's call. The result has the memory layout of *x*."""
    if maps.rounds:
        refuse_rounding(x)
    if transformed:
        return maps.watched(name, x, kernel, bias, maps.lies_apart(x))
    return _run(name, x, kernel, bias, maps, maps.lies_apart(x))


def _run(
    name: Map, a: Tensor, b: Tensor, bias: Tensor | None, maps: _CallersMaps, channels_apart: bool
) -> Tensor:
    """A map of ordinary tensors, recorded in the graph if a gradient may be needed."""
    if torch.is_grad_enabled() and (
        a.requires_grad or b.requires_grad or (bias is not None and bias.requires_grad)
    ):
        result: Tensor = LocalConv.apply(a, b, bias, name, maps, channels_apart)
        return result
    return maps.plain(name, a, b, bias, channels_apart)


class LocalConv(torch.autograd.Function):
    """One of the three maps, by name."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None, name: Map, maps: _CallersMaps,
        channels_apart: bool,
    ) -> Tensor:  # fmt: skip
        """Compute, and save what the derivatives need."""
        ctx.save_for_backward(a, b)
        ctx.name, ctx.maps = name, maps
        ctx.bias_shape = None if bias is None else bias.shape
        return maps.plain(name, a, b, bias, channels_apart)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The other two maps, recorded again if a second derivative may be needed."""
        (g,), (a, b) = grads, ctx.saved_tensors
        operands = {"a": a.conj(), "b": b.conj(), "g": g}  # PyTorch's gradients are conjugated
        derived = [
            _derived(name, operands[pair[0]], operands[pair[1]], ctx.maps, like) if needed else None
            for (name, pair), like, needed in zip(
                DERIVATIVES[ctx.name], (a, b), ctx.needs_input_grad[:2], strict=True
            )
        ]
        dbias = ctx.maps.bias_grad(g, ctx.bias_shape) if ctx.needs_input_grad[2] else None
        return (*derived, dbias, None, None, None)


def _derived(name: Map, a: Tensor, b: Tensor, maps: _CallersMaps, like: Tensor) -> Tensor:
    """A map within a derivative. A transform may see it even if none has seen the value.

    The gradient has the memory layout of *like*, the array that it belongs to.
    """
    transformed = is_transformed(a, b)
    if transformed or maps.rounds:
        refuse_rounding(a)
    if not transformed:
        for each in (a, b):
            require_memory("a tensor of the backward pass", each)
        return _run(name, a, b, None, maps, name != "kernel_grad" and maps.lies_apart(like))
    from lcmulti_torch.composed import composed  # it serves every geometry under any transform

    result = maps.through(composed).bare(name, a, b)
    return to_first(result) if maps.channels_first and name != "kernel_grad" else result


def register(operation: Any, map_: Map, operations: Mapping[Map, Callable[..., Tensor]]) -> None:
    """Give an operation of `torch.library` its derivatives, which are those of the other two maps.

    Compilers see an operation where eager mode has a `ClosedMap`.

    Parameters
    ----------
    operation : torch.library.CustomOpDef
        A map, as an operation of ``(a, b, call)``. *call* is a list of integers.
    map_ : str
    operations : mapping of str to callable
        The operations of all three maps. Those that do not exist yet may be added later.
    """

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, b, ctx.call = inputs
        ctx.save_for_backward(a, b)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        operands = {"a": a, "b": b, "g": grad}
        derived = (
            operations[name](operands[pair[0]], operands[pair[1]], ctx.call) if needed else None
            for (name, pair), needed in zip(DERIVATIVES[map_], ctx.needs_input_grad, strict=False)
        )
        return (*derived, None)

    operation.register_autograd(backward, setup_context=setup)
