"""Divide layers over a mesh: `shard`, and a style for `parallelize_module`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import (
    DTensor,
    Placement,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import ParallelStyle

from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, described
from lcmulti.geometry.arguments import integer, is_sequence
from lcmulti.geometry.sharding import owned
from lcmulti_torch.base import LocallyConnectedNd

__all__ = ["PositionwiseParallel", "shard"]

TELLS_SOURCE = "src_data_rank" in signature(distribute_tensor).parameters
"""From PyTorch 2.7 on; before, the first rank's values are always sent."""

Layouts: TypeAlias = Placement | Sequence[Placement] | None


def shard(
    layer: nn.Module,
    mesh: DeviceMesh,
    axis: int | Sequence[int | None] | None = 0,
    *,
    input_layouts: Layouts = None,
    output_layouts: Layouts = None,
    use_local_output: bool = False,
) -> nn.Module:
    """Divide a locally connected layer over a mesh by output positions.

    Each rank holds the weights of its positions, their gradients and their optimiser state, and
    computes their outputs. Only input rows at the borders travel.

    Parameters
    ----------
    layer : LocallyConnected1d, 2d, 3d or their transposed
        Changed in place. A layer on the meta device gets memory on the mesh's device, and each rank
        draws its own weights. Their values depend on the seed, not on the number of ranks.
    mesh : DeviceMesh
    axis : int, None or a sequence of them, default 0
        The spatial axis that each dimension of *mesh* divides: an axis of the output, or for a
        transposed layer of the input. None: weights are replicated along this dimension, for
        example because it divides the batch. Sizes need not be divisible; ranks may be empty.
    input_layouts : Placement or sequence of Placement, optional
        How to interpret an input that is an ordinary tensor. `Replicate` (the default): it is the
        whole input. ``Shard(dim)``: it is this rank's rows or samples. Not used for a DTensor.
    output_layouts : Placement or sequence of Placement, optional
        Placement of the output. None leaves it divided like the weights; `Replicate` gathers it.
    use_local_output : bool, default False
        Whether the output is an ordinary tensor, this rank's part, instead of a DTensor.

    Returns
    -------
    Module
        The layer itself.

    Raises
    ------
    ArgumentError
        (`ArgumentTypeError`) For a layer, an axis or a layout that is not allowed.
    """
    style = PositionwiseParallel(
        axis, input_layouts=input_layouts, output_layouts=output_layouts,
        use_local_output=use_local_output,
    )  # fmt: skip
    layer = style._apply(layer, mesh)
    if any(each.is_meta for each in layer.parameters()):
        layer.to_empty(device=mesh.device_type)
        layer.reset_parameters()
    return layer


class PositionwiseParallel(ParallelStyle):
    """Divides a locally connected layer by output positions, in a plan of `parallelize_module`.

    As `shard`, with two exceptions. The output is an ordinary tensor, as in PyTorch's own styles.
    And weights on the meta device stay there until ``to_empty`` and ``reset_parameters`` are
    called.

    Parameters
    ----------
    axis, input_layouts, output_layouts, use_local_output
        As for `shard`.

    Examples
    --------
    >>> plan = {"local1": PositionwiseParallel(), "local2": PositionwiseParallel()}
    >>> parallelize_module(model, mesh, plan)  # doctest: +SKIP
    """

    def __init__(
        self,
        axis: int | Sequence[int | None] | None = 0,
        *,
        input_layouts: Layouts = None,
        output_layouts: Layouts = None,
        use_local_output: bool = True,
    ) -> None:
        super().__init__()
        self.axis: tuple[Any, ...] = tuple(axis) if is_sequence(axis) else (axis,)
        for each in self.axis:
            if each is not None:
                integer("axis", each, 0)
        self.input_layouts = _placements("input_layouts", input_layouts or Replicate(), self.axis)
        self.output_layouts = (
            None if output_layouts is None
            else _placements("output_layouts", output_layouts, self.axis)
        )  # fmt: skip
        self.use_local_output = use_local_output

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        self._check(module, device_mesh)
        return distribute_module(
            module, device_mesh, self._divide, partial(_take_in, self), partial(_give_out, self)
        )

    def _check(self, module: nn.Module, mesh: DeviceMesh) -> None:
        if not isinstance(module, LocallyConnectedNd):
            raise ArgumentTypeError("layer", "a locally connected layer of lcmulti_torch", module)
        if any(map(nn.parameter.is_lazy, module.parameters())):
            lazy = described("a lazy one; run a batch through it first")
            raise ArgumentError("layer", "a layer whose sizes are known", lazy)
        if not isinstance(mesh, DeviceMesh):
            raise ArgumentTypeError("mesh", "a DeviceMesh", mesh)
        if len(self.axis) != mesh.ndim:
            expected = f"{mesh.ndim} axes (or None), one for each dimension of the mesh"
            raise ArgumentError("axis", expected, self.axis)
        axes = [axis for axis in self.axis if axis is not None]
        if len(set(axes)) != len(axes) or any(axis >= module.ndim for axis in axes):
            expected = f"distinct spatial axes below {module.ndim}, or None"
            raise ArgumentError("axis", expected, self.axis)

    def _divide(self, name: str, module: nn.Module, mesh: DeviceMesh) -> None:
        for own, parameter in list(module.named_parameters(recurse=False)):
            positions = own != "basis"
            placements = [
                Shard(axis)
                if positions and axis is not None and parameter.shape[axis] > 1
                else Replicate()
                for axis in self.axis
            ]
            source = None if parameter.is_meta else getattr(self, "src_data_rank", 0)
            told = {"src_data_rank": source} if TELLS_SOURCE else {}
            placed = distribute_tensor(parameter.detach(), mesh, placements, **told)
            if source is None and not parameter.is_meta:  # release the whole weights
                placed = DTensor.from_local(
                    placed.to_local().clone(), mesh, placements, run_check=False,
                    shape=placed.shape, stride=placed.stride(),
                )  # fmt: skip
            module.register_parameter(own, nn.Parameter(placed, parameter.requires_grad))

    def __repr__(self) -> str:
        shown = ("axis", "input_layouts", "output_layouts", "use_local_output")
        return f"PositionwiseParallel({', '.join(f'{n}={getattr(self, n)}' for n in shown)})"


def _placements(argument: str, value: Any, axis: tuple[Any, ...]) -> tuple[Placement, ...]:
    given = (value,) * len(axis) if isinstance(value, Placement) else value
    if not isinstance(given, Sequence) or not all(isinstance(p, Placement) for p in given):
        raise ArgumentTypeError(argument, "a Placement, or one for each mesh dimension", value)
    if len(given) != len(axis):
        raise ArgumentError(argument, f"{len(axis)} placements, one for each mesh dimension", value)
    return tuple(given)


def _take_in(style: PositionwiseParallel, module: Any, inputs: Any, mesh: DeviceMesh) -> Any:
    x, *rest = inputs
    if not isinstance(x, torch.Tensor) or isinstance(x, DTensor):
        return inputs
    rank, single = module.ndim + 2, x.dim() == module.ndim + 1
    if x.dim() not in (rank, rank - 1):
        return inputs  # the layer raises the error
    sample = module._sample_shape
    shape = [*sample] if single else [x.shape[0], *sample]
    for along, place in enumerate(style.input_layouts):
        if isinstance(place, Shard) and place.dim % x.dim() == 0 and not single:
            shape[0] = shape[0] * mesh.size(along)
    _require_part(x, shape, style.input_layouts, mesh)
    steps = [1] * len(shape)
    for dim in reversed(range(len(shape) - 1)):
        steps[dim] = steps[dim + 1] * max(shape[dim + 1], 1)
    whole = DTensor.from_local(
        x, mesh, style.input_layouts, run_check=False, shape=torch.Size(shape), stride=tuple(steps)
    )
    return (whole, *rest)


def _require_part(
    x: torch.Tensor, shape: list[int], placements: Sequence[Placement], mesh: DeviceMesh
) -> None:
    """Raise if a tensor is not this rank's part of a whole of *shape*."""
    part = list(shape)
    for along, place in enumerate(placements):
        if isinstance(place, Shard):
            rows = owned(part[place.dim], mesh.size(along), mesh.get_local_rank(along))
            part[place.dim] = len(rows)
    if list(x.shape) != part:
        expected = f"shape {tuple(part)}, this rank's part of {tuple(shape)} placed {placements}"
        raise ShapeError("input", expected, described(str(tuple(x.shape))))


def _give_out(style: PositionwiseParallel, module: Any, output: Any, mesh: DeviceMesh) -> Any:
    if not isinstance(output, DTensor):
        return output
    if style.output_layouts is not None and output.placements != style.output_layouts:
        output = output.redistribute(placements=style.output_layouts)
    return output.to_local() if style.use_local_output else output
