"""Layers over ranks: what people do with them, held to the layer that is whole."""

from __future__ import annotations

import copy
from functools import partial

import lcmulti_torch as lt
import torch
import torch.distributed as dist
from helpers_traffic import Traffic
from lcmulti_torch.parallel import PositionwiseParallel, shard
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import lcmulti
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError
from lcmulti.geometry.sharding import owned

CLOSE = dict(rtol=2e-4, atol=2e-5)
LAYERS = {
    "1d": lambda: lt.LocallyConnected1d(3, 4, 5, 22, padding=2),
    "2d": lambda: lt.LocallyConnected2d(3, 4, 3, (11, 6), padding=1, padding_mode="circular"),
    "2d, last": lambda: lt.LocallyConnected2d(3, 4, 3, (11, 6), data_format="channels_last"),
    "2d, no bias": lambda: lt.LocallyConnected2d(4, 4, 3, (11, 6), groups=2, bias=False),
    "3d": lambda: lt.LocallyConnected3d(2, 3, 2, (9, 4, 3), stride=(2, 1, 1)),
    "low rank": lambda: lt.LocallyConnected2d(3, 4, 3, (11, 6), padding=1, rank=2),
    "low rank, empty": lambda: lt.LocallyConnected2d(3, 4, 3, (7, 6), rank=2),
    "transposed 1d": lambda: lt.LocallyConnectedTranspose1d(3, 4, 5, 11, stride=2, padding=1),
    "transposed 2d": lambda: lt.LocallyConnectedTranspose2d(
        3, 4, 3, (9, 5), stride=2, padding=1, output_padding=1
    ),
    "transposed 2d, apart": lambda: lt.LocallyConnectedTranspose2d(3, 4, 2, (9, 5), stride=2),
    "transposed 2d, empty": lambda: lt.LocallyConnectedTranspose2d(4, 4, 3, (5, 6), groups=2),
    "transposed 2d, last": lambda: lt.LocallyConnectedTranspose2d(
        3, 4, 7, (9, 5), data_format="channels_last", bias=False
    ),
    "transposed 3d": lambda: lt.LocallyConnectedTranspose3d(2, 3, 2, (6, 4, 3)),
    "transposed, low rank": lambda: lt.LocallyConnectedTranspose1d(3, 4, 5, 11, rank=2),
}
EXACT = {name for name in LAYERS if not name.startswith(("transposed", "low"))}
EXACT |= {"transposed 2d, apart"}  # of whose sums no two ranks have parts


def mesh_of(ranks=None):
    return init_device_mesh("cpu", (ranks or dist.get_world_size(),))


def whole_and_divided(name, axis=0, **options):
    """The same layer twice, once over all ranks, and a batch."""
    layer = LAYERS[name]()
    whole = copy.deepcopy(layer)
    return whole, shard(layer, mesh_of(), axis, **options), torch.randn(4, *whole._sample_shape)


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def check_layer(name, rank, divided_input=False):
    whole, layer, x = whole_and_divided(name)
    for own, parameter in layer.named_parameters():
        assert isinstance(parameter, DTensor)
        rows = owned(parameter.shape[0], dist.get_world_size(), rank)
        assert parameter.placements == ((Replicate() if own == "basis" else Shard(0)),)
        assert own == "basis" or len(parameter.to_local()) == len(rows)
        assert torch.equal(full(parameter), getattr(whole, own))
    x.requires_grad_()
    given = x
    if divided_input:
        dim = 1 if whole.data_format == "channels_last" else 2
        given = distribute_tensor(x.detach(), mesh_of(), [Shard(dim)]).requires_grad_()
    y, wanted = layer(given), whole(x)
    assert isinstance(y, DTensor)
    if name in EXACT:
        assert torch.equal(full(y), wanted)
    torch.testing.assert_close(full(y), wanted, **CLOSE)
    y.square().sum().backward()
    wanted.square().sum().backward()
    if divided_input:
        torch.testing.assert_close(full(given.grad), x.grad, **CLOSE)
    for own, parameter in layer.named_parameters():
        torch.testing.assert_close(full(parameter.grad), getattr(whole, own).grad, **CLOSE)


def check_twice(name, rank):
    """A gradient of gradients, as in a penalty on them."""
    whole, layer, x = whole_and_divided(name)
    found = []
    for each in (layer, whole):
        given = distribute_tensor(
            x, mesh_of(), [Shard(1 if each.data_format == "channels_last" else 2)]
        )
        given = (given if each is layer else x.clone()).requires_grad_()
        loss = each(given).square().sum()
        grads = torch.autograd.grad(loss, [given, *each.parameters()], create_graph=True)
        again = sum(each.square().sum() for each in grads)
        again.backward()
        found.append([full(p.grad) for p in (given, *each.parameters())])
    for mine, right in zip(*found, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-3 * float(right.abs().max()))


def check_replicated_input_moves_nothing(rank):
    _, layer, x = whole_and_divided("2d")
    with Traffic() as traffic:
        layer(x)
    assert traffic.calls == set()


def check_stacked_layers(rank):
    """Two layers and a model around them, by a plan, plain parts going from one to the other."""
    model = nn.Sequential(
        lt.LocallyConnected2d(3, 6, 3, (13, 6), padding=1), nn.ReLU(),
        lt.LocallyConnected2d(6, 4, 3, (13, 6), stride=2), nn.Flatten(), nn.Linear(48, 5),
    )  # fmt: skip
    whole = copy.deepcopy(model)
    plan = {
        "0": PositionwiseParallel(output_layouts=Shard(2)),
        "2": PositionwiseParallel(input_layouts=Shard(2), output_layouts=Replicate()),
    }
    parallelize_module(model, mesh_of(), plan)
    x = torch.randn(4, 3, 13, 6)
    torch.testing.assert_close(model(x), whole(x), **CLOSE)
    model(x).square().sum().backward()
    whole(x).square().sum().backward()
    for (name, mine), right in zip(model.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(full(mine.grad), right.grad, **CLOSE, msg=name)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    optimizer.step()
    rows = len(owned(13, dist.get_world_size(), rank))
    assert optimizer.state[model[0].weight]["exp_avg"].to_local().shape[0] == rows


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


def check_other_placements(rank):
    """A kernel divided by filters is DTensor's own to compute."""
    x, kernel = torch.randn(2, 8, 3), torch.randn(6, 3, 3, 4)
    placed = distribute_tensor(kernel, mesh_of(), [Shard(3)])
    y = lcmulti.local_conv(distribute_tensor(x, mesh_of()), placed)
    torch.testing.assert_close(full(y), lcmulti.local_conv(x, kernel))
    partly = DTensor.from_local(x / dist.get_world_size(), mesh_of(), ["sum" and _partial()])
    rows = distribute_tensor(kernel, mesh_of(), [Shard(0)])
    torch.testing.assert_close(
        full(lcmulti.local_conv(partly, rows)), lcmulti.local_conv(x, kernel)
    )


def _partial():

    return Partial()


def check_drawn_alike(rank):
    """The same weights on one rank, two and all, along either axis, and on two axes of a mesh."""
    found = []
    world = dist.get_world_size()
    alone = init_device_mesh("cpu", (world, 1), mesh_dim_names=("copies", "rows"))["rows"]
    twos = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "rows"))
    for mesh, axis in (
        (mesh_of(), 0), (mesh_of(), 1), (alone, 0), (twos["rows"], 1), (twos, (0, 1)),
        (twos, (1, None)),
    ):  # fmt: skip
        torch.manual_seed(5)
        layer = lt.LocallyConnected2d(3, 4, 3, (11, 7), padding=1, device="meta")
        shard(layer, mesh, axis)
        assert not layer.weight.is_meta
        found.append([full(each).detach() for each in layer.parameters()])
    for each in found[1:]:
        assert all(map(torch.equal, each, found[0]))
    weight, bound = found[0][0], 1 / 27**0.5
    assert weight.abs().max() <= bound
    assert abs(weight.std() - bound / 3**0.5) < 0.02 * bound
    assert abs(weight.mean()) < 0.02 * bound
    assert weight.unique().numel() > 0.99 * weight.numel()


def check_checkpointed(rank):
    whole, layer, x = whole_and_divided("2d")
    x.requires_grad_()
    y = checkpoint(
        layer,
        distribute_tensor(x.detach(), mesh_of(), [Shard(2)]).requires_grad_(),
        use_reentrant=False,
    )
    y.square().sum().backward()
    whole(x).square().sum().backward()
    torch.testing.assert_close(full(layer.weight.grad), whole.weight.grad, **CLOSE)


def check_autocast(rank):
    whole, layer, x = whole_and_divided("2d")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, wanted = layer(distribute_tensor(x, mesh_of(), [Shard(2)])), whole(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(full(y), wanted)
    y.float().square().sum().backward()
    wanted.float().square().sum().backward()
    torch.testing.assert_close(full(layer.weight.grad), whole.weight.grad, rtol=2e-2, atol=2e-2)


def check_compiled(rank):
    for name in ("2d", "transposed 2d", "low rank"):
        whole, layer, x = whole_and_divided(name)
        given = distribute_tensor(x, mesh_of(), [Shard(2)]).requires_grad_()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=False)
        y = compiled(given)
        torch.testing.assert_close(full(y), whole(x), **CLOSE)
        y.square().sum().backward()
        whole(x).square().sum().backward()
        for own, parameter in layer.named_parameters():
            torch.testing.assert_close(full(parameter.grad), getattr(whole, own).grad, **CLOSE)


def two_by_two():
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "rows"))


def check_ddp(rank):
    """Ranks of two copies, each copy over two ranks; gradients are means over the copies."""
    whole, mesh = LAYERS["2d"](), two_by_two()
    layer = shard(copy.deepcopy(whole), mesh["rows"], use_local_output=True)
    model = DistributedDataParallel(layer, device_mesh=mesh["data"])
    x = torch.randn(4, *whole._sample_shape)
    mine = x.chunk(2)[mesh.get_local_rank("data")]
    model(mine).square().sum().backward()
    (whole(x).square().sum() / 2).backward()
    rows = owned(11, 2, mesh.get_local_rank("rows"))
    for name, parameter in model.module.named_parameters():
        right = getattr(whole, name).grad[rows.start : rows.stop]
        found = parameter.grad
        found = found.to_local() if isinstance(found, DTensor) else found
        torch.testing.assert_close(found, right, **CLOSE)


def check_fsdp(rank):
    """FSDP2 over copies of what is divided by positions: it gathers a rank's share, not a layer."""
    whole, mesh = lt.LocallyConnected2d(3, 4, 3, (12, 6), padding=1), two_by_two()
    layer = shard(copy.deepcopy(whole), mesh["rows"], use_local_output=True)
    fully_shard(layer, mesh=mesh["data"])
    assert layer.weight.to_local().numel() * 4 == whole.weight.numel()
    x = torch.randn(4, *whole._sample_shape)
    layer(x.chunk(2)[mesh.get_local_rank("data")]).square().sum().backward()
    (whole(x).square().sum() / 2).backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(full(parameter.grad), getattr(whole, name).grad, **CLOSE)
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def check_settings_and_names(rank):
    """A named implementation is taken; a workspace that is too small for a rank is said."""
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
    found = {f"layer: {name}": partial(check_layer, name) for name in LAYERS}
    found |= {f"rows in: {n}": partial(check_layer, n, divided_input=True) for n in LAYERS}
    twice = ("2d", "2d, last", "low rank", "transposed 2d", "transposed 2d, empty")
    found |= {f"twice: {name}": partial(check_twice, name) for name in twice}
    found |= {
        name[6:].replace("_", " "): check
        for name, check in globals().items()
        if name.startswith("check_") and name not in ("check_layer", "check_twice")
    }
    return found
