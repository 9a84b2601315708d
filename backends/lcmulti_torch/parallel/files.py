"""Write and read the weights of layers over ranks; each rank handles its own part."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

import lcmulti
from lcmulti import plugins
from lcmulti.errors import ArgumentTypeError, ShapeError, described
from lcmulti.weights.spread import Held
from lcmulti_torch.base import LocallyConnectedNd
from lcmulti_torch.parallel.drawing import place_of

__all__ = ["held", "load_weights"]


class _Ranks:
    """`lcmulti.weights.spread.Processes` of a mesh."""

    def __init__(self, mesh: Any) -> None:
        self._mesh = mesh
        rank = 0
        for along, size in enumerate(mesh.shape):
            rank = rank * size + mesh.get_local_rank(along)
        self.rank = rank

    def tell(self, text: str) -> list[str]:
        """See `lcmulti.weights.spread.Processes.tell`."""
        told: list[str] = [text]
        for along in reversed(range(self._mesh.ndim)):  # the last dimension varies fastest
            group = self._mesh.get_group(along)
            heard: list[Any] = [None] * self._mesh.size(along)
            dist.all_gather_object(heard, told, group=group)
            told = [each for part in heard for each in part]
        return told


def held(array: Tensor) -> Held:
    """The part of a DTensor that this rank writes; of replicated parts, the first rank writes."""
    local, mesh = array.detach().to_local(), array.device_mesh
    box = _box(array)
    copies = (
        mesh.get_local_rank(along)
        for along, each in enumerate(array.placements)
        if isinstance(each, Replicate)
    )
    owner = plugins.load_backend("torch")
    pieces = [(box, owner.to_numpy(local))] if not any(copies) and local.numel() else []
    dtype = str(array.dtype).removeprefix("torch.")
    return Held(dtype, tuple(array.shape), pieces, _Ranks(mesh))


def _box(array: Tensor) -> tuple[slice, ...]:
    start = place_of(array)
    shape = array.to_local().shape
    return tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))


def load_weights(
    layer: nn.Module, path: str | os.PathLike[str], *, name: str | None = None
) -> nn.Module:
    """Fill a layer from a file of weights. Each rank reads its own part.

    Parameters
    ----------
    layer : LocallyConnected1d, 2d, 3d or their transposed
        A layer, which `shard` may have divided over any number of ranks.
    path : path-like
        A file or an index that `lcmulti.save_weights` wrote, on any number of ranks.
    name : str, optional
        Name of the layer, for a file that holds several.

    Returns
    -------
    Module
        The layer itself.

    Raises
    ------
    FileError
        If the file cannot be read, or has another geometry.
    ShapeError
        If only one of layer and file has a bias.
    """
    if not isinstance(layer, LocallyConnectedNd) or layer.rank is not None:
        expected = "a locally connected layer of full rank"
        raise ArgumentTypeError("layer", expected, layer)
    own = {"kernel": layer.weight, "bias": layer.bias}

    def part(of: str, shape: tuple[int, ...]) -> tuple[slice, ...]:
        array = own[of]
        if array is None or tuple(array.shape) != shape:
            expected = "none" if array is None else f"shape {tuple(array.shape)}, as the layer has"
            raise ShapeError(of, expected, described(f"{shape} in {path}"))
        return _box(array) if isinstance(array, DTensor) else ()

    found = lcmulti.load_weights(path, layer.spec, layer=name, part=part)
    if found.bias is None and layer.bias is not None:
        raise ShapeError("bias", f"shape {tuple(layer.bias.shape)}", described(f"none in {path}"))
    owner: Any = plugins.load_backend("torch")
    with torch.no_grad():
        for of, values in (("kernel", found.kernel), ("bias", found.bias)):
            if values is not None:
                array = own[of]
                local = array.to_local() if isinstance(array, DTensor) else array
                local.copy_(owner.adopt(values))
    return layer
