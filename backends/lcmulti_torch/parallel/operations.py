"""`lcmulti.local_conv` and related operations on DTensors: each rank computes its positions.

Nothing is gathered. A kernel that is divided along output positions stays where it is. Only rows of
the input at the borders travel. The result is divided like the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

import lcmulti
from lcmulti import plugins
from lcmulti.choosing import dispatch
from lcmulti.choosing.preparing import cast
from lcmulti.choosing.settings import Settings, current
from lcmulti.errors import ArgumentError, UnsupportedError
from lcmulti.geometry.arguments import choice
from lcmulti.geometry.sharding import axis_parts
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.operations import calling
from lcmulti.operations.low_rank import axes_and_rank
from lcmulti.plugins.contract import Map
from lcmulti_torch.parallel.exchange import Cut, gather
from lcmulti_torch.parallel.layout import Layout, Placements, layout_of, require_one_mesh
from lcmulti_torch.parallel.overlap import local_conv, local_conv_transpose
from lcmulti_torch.parallel.part import Part, blank, closed
from lcmulti_torch.precision import refuse_rounding
from lcmulti_torch.watched import is_transformed

__all__ = ["OPERATIONS"]

RECENT = torch.__version__ >= (2, 13)
"""Whether DTensor is as the rules of this package need it. Of older releases, 2.6 alone was tried.

There `DTensor.to_local` cuts the graph of its gradient, so parts of gradients of gradients are lost
without a word; and in the backward pass of a transposed layer, ranks wait for each other for ever.
"""


class _Call(NamedTuple):
    """The part of a call, and of its arrays, that this rank has."""

    part: Part
    layout: Layout
    mesh: DeviceMesh
    x: Tensor
    weights: Tensor
    bias: Tensor | None


def _local_conv(x: Tensor, kernel: Tensor, bias: Tensor, arguments: tuple[Any, ...]) -> Tensor:
    return _bilinear("local_conv", "forward", x, kernel, bias, arguments)


def _local_conv_transpose(
    x: Tensor, kernel: Tensor, bias: Tensor, arguments: tuple[Any, ...]
) -> Tensor:
    arrays = (each for each in (x, kernel, bias) if each is not None)
    if not RECENT and torch.is_grad_enabled() and any(each.requires_grad for each in arrays):
        raise _too_old("gradients of a transposed layer")
    return _bilinear("local_conv_transpose", "input_grad", x, kernel, bias, arguments)


def _bilinear(
    name: str, map_: Map, x: Tensor, kernel: Tensor, bias: Tensor, arguments: tuple[Any, ...]
) -> Tensor:
    x, kernel, bias = _prepared(name, (x, kernel, bias))
    call = _laid_out(map_, x, kernel, tuple(kernel.shape), bias, arguments)
    if call is None:
        return calling.OPERATIONS[name].run("torch", x, kernel, bias, arguments)
    run = local_conv if map_ == "forward" else local_conv_transpose
    y = run(call.x, call.weights, call.part, is_transformed(call.x, call.weights))
    return _result(call, y, x, map_)


def _local_conv_low_rank(
    x: Tensor, basis: Tensor, coefficients: Tensor, bias: Tensor, arguments: tuple[Any, ...]
) -> Tensor:
    name = "local_conv_low_rank"
    x, basis, coefficients, bias = _prepared(name, (x, basis, coefficients, bias))
    axes, _ = axes_and_rank(tuple(basis.shape), tuple(coefficients.shape))
    shape = (*coefficients.shape[:-1], *basis.shape[axes + 1 :])
    call = _laid_out("forward", x, coefficients, shape, bias, arguments)
    if call is None:
        return calling.OPERATIONS[name].run("torch", x, basis, coefficients, bias, arguments)
    part, spec = call.part, call.part.spec
    everywhere = (Replicate(),) * x.device_mesh.ndim
    summed = tuple(
        Replicate() if axis is None and isinstance(place, Replicate) else Partial()
        for axis, place in zip(call.layout.axes, call.layout.x, strict=True)
    )
    basis = _local(basis, everywhere, summed)
    w = blank(gather(call.x, part.cuts), part.cuts)
    if spec is None:
        y = closed(part, "forward", w, call.weights, True) + basis.sum() * 0
        return _result(call, y, x, "forward")
    y = lcmulti.local_conv_low_rank(
        part.last(w), basis, call.weights, strides=spec.strides, padding=spec.padding,
        dilation=spec.dilation, groups=spec.groups, data_format="channels_last",
        implementation=arguments[-1],
    )  # fmt: skip
    return _result(call, part.back(y), x, "forward")


def _low_rank_kernel(basis: Tensor, coefficients: Tensor, arguments: tuple[Any, ...]) -> Tensor:
    basis, coefficients = _prepared("low_rank_kernel", (basis, coefficients))
    axes, _ = axes_and_rank(tuple(basis.shape), tuple(coefficients.shape))
    mesh = coefficients.device_mesh
    kept = tuple(
        each if type(each) is Shard and each.dim < axes else Replicate()
        for each in coefficients.placements
    )
    summed = tuple(Partial() if isinstance(each, Shard) else each for each in kept)
    basis = _local(basis, (Replicate(),) * mesh.ndim, summed)
    kernel = lcmulti.low_rank_kernel(basis, _local(coefficients, kept, kept))
    shape = torch.Size((*coefficients.shape[:-1], *basis.shape[axes + 1 :]))
    return _spread(kernel, mesh, kept, shape, range(len(shape)))


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "local_conv": _local_conv,
    "local_conv_transpose": _local_conv_transpose,
    "local_conv_low_rank": _local_conv_low_rank,
    "low_rank_kernel": _low_rank_kernel,
}
"""Replaces `lcmulti.operations.calling.OPERATIONS` for calls with DTensors."""


def _prepared(name: str, arrays: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    names = calling.OPERATIONS[name].names
    require_one_mesh(names, arrays)
    # Three at a time: `Backend.prepare` takes an input, weights and a bias.
    return (*cast(plugins.load_backend("torch"), names, arrays[:3]), *arrays[3:])


def _laid_out(
    map_: Map,
    x: Tensor,
    kernel: Tensor,
    shape: tuple[int, ...],
    bias: Tensor,
    arguments: tuple[Any, ...],
) -> _Call | None:
    """The part of a call that this rank has; None if the arrays are divided in another way.

    *kernel* has positions along its first axes; *shape* is that of the kernel that it represents.
    """
    settings = current()
    backend = plugins.load_backend("torch")
    of_x, of_kernel = backend.facts(x, True), backend.facts(kernel)._replace(shape=shape)
    of_bias = None if bias is None else backend.facts(bias)
    spec = _spec((of_x, of_kernel, of_bias), arguments[:-1], settings, map_)
    first, axes = spec.data_format == "channels_first", spec.ndim
    bias_shape = None if bias is None else tuple(bias.shape)
    layout = layout_of(x.placements, kernel.placements, shape[:axes], bias_shape, first)
    if layout is None:
        return None
    refuse_rounding(x)
    # PyTorch may have given *x* the mesh of an earlier call, which is equal but another object, and
    # its compilers tell meshes apart by the object.
    mesh, at = kernel.device_mesh, 2 if first else 1
    local_x = _local(x, layout.x, layout.x_grad)
    weights = _local(kernel, layout.kernel, layout.kernel_grad)
    cuts = []
    for axis in range(axes):
        along = layout.axes.index(axis) if axis in layout.axes else None
        parts, mine = (1, 0) if along is None else (mesh.size(along), mesh.get_local_rank(along))
        own = axis_parts(spec, axis, parts)[mine]
        whole_x = along is None or isinstance(layout.x[along], Replicate)
        here = along is None or (whole_x and map_ == "forward")
        group = None if here else mesh.get_group(along).group_name
        cuts.append(Cut(axis + at, spec.input_size[axis], own, group))
        if along is None:
            continue
        outputs = own.outputs
        if isinstance(layout.kernel[along], Replicate) and shape[axis] > 1:
            weights = weights.narrow(axis, outputs.start, len(outputs))
        if whole_x and map_ == "input_grad":
            local_x = local_x.narrow(axis + at, outputs.start, len(outputs))
    batch = None if of_x.shape[0] is None else local_x.shape[0]
    part = Part(spec, tuple(cuts), batch, _name(arguments[-1]), settings)
    local_bias = None if bias is None else _local(bias, layout.bias, layout.bias_grad)
    return _Call(part, layout, mesh, local_x, weights, local_bias)


def _name(implementation: Any) -> str:
    """Check the name of an implementation, because a rank without positions chooses none."""
    entries = plugins.registry().implementations_of("torch")
    known = ("auto", *(entry.name for entry in entries))
    return choice("implementation", implementation, known)


def _spec(facts: Any, geometry: Any, settings: Settings, map_: Map) -> LocalConvSpec:
    try:
        return _cached_spec(facts, dispatch.frozen(geometry), settings, map_)
    except (dispatch.UnhashableError, ArgumentError, RecursionError):
        pass  # so that the error is about the arguments as the caller wrote them
    return _cached_spec.__wrapped__(facts, geometry, settings, map_)


@lru_cache(maxsize=1024)
def _cached_spec(facts: Any, geometry: Any, settings: Settings, map_: Map) -> LocalConvSpec:
    return dispatch.problem_of("torch", facts, geometry, settings, map_)[0]


def _local(array: Tensor, placements: Placements, grads: Placements) -> Tensor:
    """The part of an array that this rank has, with *grads* as the placement of its gradient."""
    if tuple(array.placements) != placements:
        array = array.redistribute(placements=placements)
    local = array.to_local(grad_placements=grads)
    if not (RECENT or torch.compiler.is_compiling()) and local.requires_grad:
        local.register_hook(_refuse_twice)
    return local


def _refuse_twice(_: Tensor) -> None:
    """Raise in a backward pass whose gradients will be differentiated again."""
    if torch.is_grad_enabled():
        raise _too_old("gradients of gradients of a layer")


def _too_old(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what} over ranks need PyTorch 2.13 or newer, got {torch.__version__}"
    )


def _result(call: _Call, y: Tensor, x: Tensor, map_: Map) -> Tensor:
    whole = call.part.whole
    if call.bias is not None:
        y = y + (call.bias.movedim(-1, 0) if call.part.first else call.bias)
    sample = whole.output_shape if map_ == "forward" else whole.input_shape
    shape = torch.Size((x.shape[0], *sample))
    # The memory order of x.
    order = sorted(range(x.dim()), key=x.stride().__getitem__, reverse=True)
    return _spread(y, call.mesh, call.layout.y, shape, order)


def _spread(
    local: Tensor, mesh: Any, placements: Placements, shape: torch.Size, order: Any
) -> Tensor:
    steps, step = [0] * len(shape), 1
    for dim in reversed(order):
        steps[dim], step = step, step * max(shape[dim], 1)
    return DTensor.from_local(
        local, mesh, placements, run_check=False, shape=shape, stride=tuple(steps)
    )
