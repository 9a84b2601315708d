"""How the tensors of a call are placed on a mesh, and which positions each rank computes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from lcmulti.errors import ArgumentError, ArgumentTypeError, described

__all__ = ["Layout", "layout_of", "require_one_mesh"]

Placements = tuple[Placement, ...]


class Layout(NamedTuple):
    """The placement of every tensor; one entry for each dimension of the mesh.

    Parameters
    ----------
    axes : tuple
        The spatial axis whose output positions this mesh dimension divides, or None.
    x, kernel, bias, y : tuple of Placement
    x_grad, kernel_grad, bias_grad : tuple of Placement
        Placement of the gradients: what each rank's part of them is.
    """

    axes: tuple[int | None, ...]
    x: Placements
    kernel: Placements
    bias: Placements
    y: Placements
    x_grad: Placements
    kernel_grad: Placements
    bias_grad: Placements


def require_one_mesh(names: tuple[str, ...], arrays: tuple[Tensor, ...]) -> None:
    """Raise if DTensors are used together with local tensors, or with those of another mesh.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        Names both.
    """
    known, first = next((n, a) for n, a in zip(names, arrays, strict=True) if type(a) is DTensor)
    for name, array in zip(names, arrays, strict=True):
        if array is None:
            continue
        if type(array) is not DTensor:
            raise ArgumentTypeError(
                name,
                f"a DTensor, as {known} is",
                described(
                    "a tensor of this process alone; "
                    f"DTensor.from_local({name}, mesh, placements) says what part it is, "
                    f"distribute_tensor({name}, mesh, placements) divides it"
                ),
            )
        if array.device_mesh != first.device_mesh:
            shown = described(f"{array.device_mesh}")
            raise ArgumentError(name, f"the mesh of {known}, {first.device_mesh}", shown)


@lru_cache(maxsize=1024)
def layout_of(
    x: Placements, kernel: Placements, positions: tuple[int, ...], bias: tuple[int, ...] | None,
    first: bool,
) -> Layout | None:  # fmt: skip
    """Decide what each dimension of a mesh divides.

    Parameters
    ----------
    x, kernel : tuple of Placement
        As the caller has them.
    positions, bias : tuple of int
        Leading sizes of the kernel and of the bias: 1 where they are shared.
    first : bool
        Whether *x* has channels first.

    Returns
    -------
    Layout or None
        None if the kernel is divided in another way than by positions (by filters, say), or if two
        dimensions of the mesh divide one axis. Then this module is of no use.
    """
    axes, rank = len(positions), len(positions) + 2
    columns: list[tuple[Any, ...]] = []
    taken: set[int] = set()
    for of_x, of_kernel in zip(x, kernel, strict=True):
        along = _dim(of_x, rank)
        spatial = along - (2 if first else 1) if along is not None else -1
        axis = _dim(of_kernel, 2 * axes + 2)
        if axis is None and not isinstance(of_kernel, Replicate):
            return None
        if axis is None and 0 <= spatial < axes:
            axis = spatial
        if axis is None:
            batch = along == 0
            place: Placement = Shard(0) if batch else Replicate()
            summed: Placement = Partial() if batch else Replicate()
            columns.append((None, place, Replicate(), Replicate(), place, place, summed, summed))
            continue
        if axis >= axes or axis in taken:
            return None
        taken.add(axis)
        rows = Shard(axis + (2 if first else 1))
        replicated = isinstance(of_x, Replicate)
        shared = positions[axis] == 1 or isinstance(of_kernel, Replicate)
        shared_bias = bias is None or bias[axis] == 1
        columns.append(
            (
                axis,
                Replicate() if replicated else rows,
                Replicate() if shared else Shard(axis),
                Replicate() if shared_bias else Shard(axis),
                rows,
                Partial() if replicated else rows,
                Partial() if shared else Shard(axis),
                Partial() if shared_bias else Shard(axis),
            )
        )
    return Layout(*zip(*columns, strict=True))


def _dim(placement: Placement, rank: int) -> int | None:
    """The dimension that a placement divides; None if it divides none; *rank* for other kinds."""
    if type(placement) is Shard:
        return placement.dim % rank
    return None if isinstance(placement, Replicate | Partial) else rank
