"""Layers divided over ranks, used as people use layers and compared with the whole layer."""

from __future__ import annotations

import copy
import time
from functools import partial

import lcmulti_torch as lt
import pytest
import torch
import torch.distributed as dist
from helpers_traffic import POINT_TO_POINT, Traffic
from lcmulti_torch.parallel import shard
from lcmulti_torch.parallel.operations import RECENT
from parallel_cases import require_within_bounds
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import lcmulti
from lcmulti.conformance import bounds
from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.case import Case
from lcmulti.errors import UnsupportedError
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
EXACT |= {"transposed 2d, apart"}  # windows do not overlap, so one rank has each whole sum


def mesh_of(ranks=None):
    return init_device_mesh("cpu", (ranks or dist.get_world_size(),))


def integers(shape):
    """Draw numbers whose products and sums are exact, in whatever order they are added."""
    return torch.randint(-3, 4, tuple(shape)).float()


def whole_and_divided(name, axis=0, **options):
    """Return a layer, a copy of it divided over all ranks, and a batch."""
    layer = LAYERS[name]()
    whole = copy.deepcopy(layer)
    return whole, shard(layer, mesh_of(), axis, **options), torch.randn(4, *whole._sample_shape)


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_refused(name, layer, x):
    """Whether this PyTorch has no gradients of transposed layers over ranks, which is said then."""
    if RECENT or not name.startswith("transposed"):
        return False
    with pytest.raises(UnsupportedError, match=r"need PyTorch 2\.13"):
        layer(x)
    with torch.no_grad():
        assert isinstance(layer(x), DTensor)
    return True


def check_layer(name, rank):
    """Compare a divided layer with the whole one where every rank has the whole input."""
    whole, layer, x = whole_and_divided(name)
    for own, parameter in layer.named_parameters():
        assert isinstance(parameter, DTensor)
        rows = owned(parameter.shape[0], dist.get_world_size(), rank)
        assert parameter.placements == ((Replicate() if own == "basis" else Shard(0)),)
        assert own == "basis" or len(parameter.to_local()) == len(rows)
        assert torch.equal(full(parameter), getattr(whole, own))
    x.requires_grad_()
    if is_refused(name, layer, x):
        return
    y, wanted = layer(x), whole(x)
    assert isinstance(y, DTensor)
    if name in EXACT:
        assert torch.equal(full(y), wanted)
    torch.testing.assert_close(full(y), wanted, **CLOSE)
    y.square().sum().backward()
    wanted.square().sum().backward()
    for own, parameter in layer.named_parameters():
        torch.testing.assert_close(full(parameter.grad), getattr(whole, own).grad, **CLOSE)


def check_integers(name, rank):
    """Compare to the bit, with numbers whose sums are exact in any order."""
    whole = LAYERS[name]()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.copy_(integers(parameter.shape))
    layer = shard(copy.deepcopy(whole), mesh_of())
    x = integers((4, *whole._sample_shape)).requires_grad_()
    given = over_rows(x.detach(), whole).requires_grad_()
    if is_refused(name, layer, given):
        return
    with Traffic() as traffic:
        y = layer(given)
    assert traffic.calls <= POINT_TO_POINT, traffic.calls
    wanted = whole(x)
    assert torch.equal(full(y), wanted)
    dy = integers(wanted.shape)
    y.backward(over_rows(dy, whole))
    wanted.backward(dy)
    assert torch.equal(full(given.grad), x.grad)
    for own, parameter in layer.named_parameters():
        assert torch.equal(full(parameter.grad), getattr(whole, own).grad), own


def over_rows(x, layer):
    """Divide a batch, or a result, over all ranks along its first spatial axis."""
    dim = 1 if layer.data_format == "channels_last" else 2
    return distribute_tensor(x, mesh_of(), [Shard(dim)])


def check_bound(name, rank):
    """Hold a transposed layer to the bound, which is good for any order of its sums.

    The layer adds what other ranks found last.
    """
    _, layer, x = whole_and_divided(name)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    spec, x = layer.spec, over_rows(x, layer).requires_grad_()
    y, dy = layer(x), torch.randn(4, *layer.spec.input_shape)
    dx, dkernel = torch.autograd.grad(y, (x, layer.weight), over_rows(dy, layer))
    case = Case(
        name, "parallel", spec.input_shape, spec.filters, spec.kernel_size, batch=4,
        bias_shared_axes=None, options=spec.arguments(),
    )  # fmt: skip
    # The layer is the adjoint of *case*, so its value and gradients are those of the case's maps.
    inputs = Inputs(dy, full(layer.weight).detach(), None, full(x).detach())
    require_within_bounds(case, inputs, "float32", [full(dx), full(y), full(dkernel)])


def check_bound_of_low_rank(rank):
    """Hold a low-rank layer to the bound of a sum of all its products.

    This bound is right whether the layer forms the kernel or not.
    """
    whole, layer, x = whole_and_divided("low rank")
    nn.init.zeros_(layer.bias)
    given = [each.detach().double().numpy() for each in (x, whole.basis, whole.coefficients)]

    def exact(x, basis, coefficients):
        kernel = lcmulti.low_rank_kernel(basis, coefficients)
        return lcmulti.local_conv(x, kernel, **whole.spec.arguments())

    magnitude = exact(*map(abs, given))
    limit = bounds.dot_bound(whole.spec.terms + whole.rank, magnitude, 2.0**-24, False)
    found = full(layer(over_rows(x, whole))).detach().numpy()
    deviation = bounds.compare(found, exact(*given), limit)
    assert deviation.ok, deviation


def check_twice(name, rank):
    """Compare gradients of gradients, as a gradient penalty needs them.

    With a PyTorch whose DTensor loses parts of them, they must be refused.
    """
    whole, layer, x = whole_and_divided(name)
    if not RECENT:
        loss = layer(over_rows(x, whole)).square().sum()
        with pytest.raises(UnsupportedError, match=r"need PyTorch 2\.13"):
            torch.autograd.grad(loss, [*layer.parameters()], create_graph=True)
        return
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


def check_other_placements(rank):
    """A kernel divided by filters, and an input of partial sums, give the right values."""
    x, kernel = torch.randn(2, 8, 3), torch.randn(6, 3, 3, 4)
    placed = distribute_tensor(kernel, mesh_of(), [Shard(3)])
    y = lcmulti.local_conv(distribute_tensor(x, mesh_of()), placed)
    torch.testing.assert_close(full(y), lcmulti.local_conv(x, kernel))
    partly = DTensor.from_local(x / dist.get_world_size(), mesh_of(), [Partial()])
    rows = distribute_tensor(kernel, mesh_of(), [Shard(0)])
    torch.testing.assert_close(
        full(lcmulti.local_conv(partly, rows)), lcmulti.local_conv(x, kernel)
    )


def check_drawn_alike(rank):
    """Initial weights do not depend on the number of ranks, the axis, or the mesh's dimensions."""
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


def check_frozen(rank):
    """Compare layers of which only the input, the weights, the bias or nothing wants a gradient.

    In inference mode there is no graph at all.
    """
    for name in ("2d", "transposed 2d", "low rank, empty"):
        for wanted in ("x", "weights", "bias", ""):
            whole, layer, x = whole_and_divided(name)
            given = over_rows(x, whole)
            for each, of_x in ((whole, x), (layer, given)):
                of_x.requires_grad_(wanted == "x")
                for own, parameter in each.named_parameters():
                    parameter.requires_grad_(wanted == ("bias" if own == "bias" else "weights"))
                y = each(of_x)
                assert y.requires_grad == bool(wanted)
                if wanted:
                    y.square().sum().backward()
            pairs = [(given, x), *zip(layer.parameters(), whole.parameters(), strict=True)]
            for mine, right in pairs:
                assert (mine.grad is None) == (right.grad is None)
                if right.grad is not None:
                    torch.testing.assert_close(full(mine.grad), right.grad, **CLOSE)
            with torch.inference_mode():
                again = layer(over_rows(x.detach(), whole))
                torch.testing.assert_close(full(again), whole(x), **CLOSE)


def check_a_slow_rank(rank):
    """The other ranks wait for the rows of a slow one."""
    whole, layer, x = whole_and_divided("2d")
    for slow in range(2):
        if rank == slow:
            time.sleep(0.3)
        assert torch.equal(full(layer(over_rows(x, whole))), whole(x))


def checks(ranks):
    found = {f"layer: {name}": partial(check_layer, name) for name in LAYERS}
    found |= {f"integers: {name}": partial(check_integers, name) for name in LAYERS}
    transposed = [name for name in LAYERS if name.startswith("transposed") and "low" not in name]
    found |= {f"bound: {name}": partial(check_bound, name) for name in transposed}
    twice = ("2d", "2d, last", "low rank", "transposed 2d", "transposed 2d, empty")
    found |= {f"twice: {name}": partial(check_twice, name) for name in twice}
    found |= {
        name[6:].replace("_", " "): check
        for name, check in globals().items()
        if name.startswith("check_") and check.__code__.co_argcount == 1
    }
    return found
