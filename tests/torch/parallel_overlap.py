"""No rank waits for rows of another before it has computed what it can."""

from __future__ import annotations

import lcmulti_torch as lt
import pytest
import torch
from lcmulti_torch.parallel import halves, messages, overlap, shard
from lcmulti_torch.parallel.part import raw
from parallel_layers import mesh_of
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.distributed.tensor import Shard, distribute_tensor

SHAPES = {"1d": (60,), "rows": (64, 6), "columns": (6, 64), "3d": (3, 40, 4)}
LAYERS = {1: lt.LocallyConnected1d, 2: lt.LocallyConnected2d, 3: lt.LocallyConnected3d}


def check_computes_while_rows_travel(rank):
    """Ranks have many rows, so that only a few of them are at borders."""
    for shape in SHAPES.values():
        axis = shape.index(max(shape))
        layer = shard(LAYERS[len(shape)](3, 4, 3, shape, padding=1), mesh_of(), axis)
        x = torch.randn(2, 3, *shape)
        given = distribute_tensor(x, mesh_of(), [Shard(axis + 2)]).requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            events = recorded(patch)
            y = layer(given)
            assert events[:3] == ["sent", "forward", "arrived"], events
            events.clear()
            y.sum().backward()
            assert events == ["input_grad", "sent", "kernel_grad", "arrived"], events


def check_compilers_keep_what_only_sends(rank):
    """Inductor leaves out an operation of which only a sum of no elements is used."""
    found = []

    def read(graph, inputs):
        travels = (n for n in graph.graph.nodes if "lcmulti.travel" in str(n.target))
        found.extend(node.meta["val"].numel() for node in travels)
        return make_boxed_func(graph.forward)

    layer = shard(lt.LocallyConnectedTranspose1d(2, 3, 3, 11), mesh_of())  # rows go one way
    x = distribute_tensor(torch.randn(2, 2, 11), mesh_of(), [Shard(2)])
    backend = aot_autograd(fw_compiler=read, bw_compiler=read)
    torch.compile(layer, backend=backend)(x).sum().backward()
    assert found and 0 not in found, found


def recorded(patch):
    """Return a list that grows by each map that is computed and each exchange, begun or awaited."""
    events, send, wait = [], messages._send, messages.Travel.arrived

    def sent(*arguments):
        events.append("sent")
        return send(*arguments)

    def arrived(travel):
        events.extend(["arrived"] if travel._works else [])
        return wait(travel)

    def computed(part, map_, *arguments):
        events.append(map_)
        return raw(part, map_, *arguments)

    patch.setattr(messages, "_send", sent)
    patch.setattr(messages.Travel, "arrived", arrived)
    for module in (overlap, halves):
        patch.setattr(module, "raw", computed)
    return events


def checks(ranks):
    return {
        "computes while rows travel": check_computes_while_rows_travel,
        "compilers keep what only sends": check_compilers_keep_what_only_sends,
    }
