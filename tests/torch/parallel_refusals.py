"""Every rank refuses a wrong layer, input or argument, with the same reason."""

from __future__ import annotations

import lcmulti_torch as lt
import torch
import torch.distributed as dist
from lcmulti_torch.parallel import shard
from parallel_layers import LAYERS, full, mesh_of, whole_and_divided
from torch import nn
from torch.distributed.tensor import Shard, distribute_tensor

import lcmulti
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError
from lcmulti.geometry.sharding import owned


def check_unbatched_and_wrong_input(rank):
    whole, layer, x = whole_and_divided("2d")
    assert torch.equal(full(layer(x[0])), whole(x[0]))
    style = shard(LAYERS["2d"](), mesh_of(), input_layouts=Shard(2))
    rows = len(owned(11, dist.get_world_size(), rank))
    assert style(x.narrow(2, 0, rows)).shape == (4, 4, 11, 6)
    for wrong, error in ((x[:, :, : rows + 1], ShapeError), ("x", ArgumentTypeError)):
        try:
            style(wrong)
        except error as caught:
            assert str(caught).startswith("input: expected ")
        else:
            raise AssertionError("nothing was raised")


def check_wrong_arguments(rank):
    mesh = mesh_of()
    wrong = [
        (nn.Conv2d(3, 4, 3), mesh, 0, "layer: expected a locally connected layer"),
        (lt.LazyLocallyConnected2d(4, 3), mesh, 0, "layer: expected a layer whose sizes are known"),
        (LAYERS["2d"](), "mesh", 0, "mesh: expected a DeviceMesh"),
        (LAYERS["2d"](), mesh, 2, "axis: expected distinct spatial axes below 2"),
        (LAYERS["2d"](), mesh, (0, 1), "axis: expected 1 axes (or None)"),
    ]
    for layer, over, axis, message in wrong:
        try:
            shard(layer, over, axis)
        except ArgumentError as caught:
            assert str(caught).startswith(message), caught
        else:
            raise AssertionError(message)


def check_mixed_tensors(rank):
    x, kernel = torch.randn(2, 8, 3), torch.randn(6, 3, 3, 4)
    placed = distribute_tensor(kernel, mesh_of(), [Shard(0)])
    for arguments, name in (
        ((x, placed), "x"),
        ((distribute_tensor(x, mesh_of()), kernel), "kernel"),
    ):
        try:
            lcmulti.local_conv(*arguments)
        except ArgumentTypeError as caught:
            assert str(caught).startswith(f"{name}: expected a DTensor, as ")
            assert "distribute_tensor" in str(caught)
        else:
            raise AssertionError("nothing was raised")


def check_settings_and_names(rank):
    """A layer over ranks uses the implementation it names, and refuses a name nobody has."""
    whole, layer, x = whole_and_divided("2d")
    layer.implementation = whole.implementation = "composed"
    assert torch.equal(full(layer(x)), whole(x))
    layer.implementation = "nonsense"
    try:
        layer(x)
    except ArgumentError as caught:
        assert "'nonsense'" in str(caught)
    else:
        raise AssertionError("nothing was raised")


def checks(ranks):
    return {
        name[6:].replace("_", " "): check
        for name, check in globals().items()
        if name.startswith("check_")
    }
