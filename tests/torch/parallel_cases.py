"""Calls of many geometries, divided over ranks and compared with the whole call.

Values must be equal to the bit and gradients within the forward error bound. The bytes sent must
be those of the halos.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from helpers_traffic import POINT_TO_POINT, Traffic
from releases import is_older
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

import lcmulti
from lcmulti.conformance import bounds, calls
from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.case import Case
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.sharding import owned
from lcmulti.geometry.sharding_costs import Sharding, sent

LAST, FIRST = {"data_format": "channels_last"}, {"data_format": "channels_first"}
REFLECT, REPLICATE, CIRCULAR = (
    {"padding_mode": mode} for mode in ("reflect", "replicate", "circular")
)
# Name: input shape, filters, kernel size, options. `AXES` has what each mesh dimension divides.
GEOMETRIES = {
    "rows": ((12, 9, 3), 4, 3, LAST),
    "rows, same": ((12, 9, 3), 4, 3, LAST | dict(padding="same")),
    "channels first": ((3, 12, 9), 4, 3, FIRST | dict(padding=1)),
    "uneven": ((11, 8, 3), 5, (2, 3), LAST),
    "uneven first": ((2, 13, 5), 3, (4, 2), FIRST | dict(padding=1)),
    "empty rank": ((6, 5, 2), 3, 2, LAST),
    "most ranks empty": ((3, 5, 2), 3, 2, LAST | dict(padding=((1, 0), (0, 0)))),
    "one row": ((3, 6, 2), 3, 3, LAST),
    "spanning": ((12, 5, 2), 3, (9, 2), LAST),
    "spanning all": ((8, 5, 2), 3, (8, 2), LAST | dict(padding=((3, 4), (0, 0)))),
    "strides": ((17, 9, 3), 4, 3, LAST | dict(strides=2)),
    "strides beyond windows": ((23, 7, 2), 3, 2, LAST | dict(strides=(5, 3))),
    "disjoint": ((12, 9, 4), 3, 3, LAST | dict(strides=3)),
    "disjoint uneven": ((15, 6, 4), 3, 3, LAST | dict(strides=3)),
    "dilation": ((20, 9, 2), 3, 3, LAST | dict(dilation=(4, 2))),
    "dilation and strides": ((26, 9, 2), 3, 3, LAST | dict(dilation=(3, 1), strides=(2, 2))),
    "padded far": ((3, 4, 2), 3, 2, LAST | dict(padding=((6, 7), (1, 1)))),
    "padding alone": ((11, 2), 3, 1, LAST | dict(padding=3)),
    "padded unevenly": ((10, 6, 2), 3, 3, LAST | dict(padding=((2, 1), (0, 2)))),
    "reflect": ((11, 8, 3), 4, 3, LAST | REFLECT | dict(padding=1)),
    "reflect far": ((9, 5, 2), 3, 5, LAST | REFLECT | dict(padding=4)),
    "replicate": ((11, 8, 3), 4, 3, LAST | REPLICATE | dict(padding=1)),
    "replicate far": ((5, 4, 2), 3, 2, LAST | REPLICATE | dict(padding=((7, 6), (1, 1)))),
    "circular": ((12, 8, 3), 4, 3, LAST | CIRCULAR | dict(padding=1)),
    "circular first": ((3, 11, 8), 4, 3, FIRST | CIRCULAR | dict(padding=1)),
    "circular far": ((9, 5, 2), 3, 3, LAST | CIRCULAR | dict(padding=((9, 7), (1, 0)))),
    "groups": ((12, 6, 4), 6, 3, LAST | dict(groups=2)),
    "depthwise": ((12, 6, 4), 8, 3, LAST | dict(groups=4, padding="same")),
    "one filter": ((12, 6, 3), 1, 3, LAST),
    "pixels": ((12, 6, 3), 4, 1, LAST),
    "1D": ((29, 3), 4, 5, LAST),
    "1D causal": ((29, 3), 4, 5, LAST | dict(padding="causal", dilation=2)),
    "1D keras": ((22, 2), 3, 5, LAST | dict(padding="keras_same", strides=2)),
    "1D first": ((3, 30), 4, 3, FIRST | dict(padding="same")),
    "3D": ((9, 5, 6, 2), 3, 2, LAST | dict(padding=1)),
    "3D first": ((2, 8, 4, 5), 3, (3, 2, 2), FIRST | dict(strides=(1, 2, 1))),
    "4D": ((6, 3, 4, 3, 2), 2, 2, LAST),
    "float64": ((12, 6, 3), 4, 3, LAST | dict(padding=1)),
    "complex64": ((12, 6, 3), 4, 3, LAST | dict(padding=1)),
    "complex64, few weights": ((47, 2), 8, 3, LAST | dict(groups=2)),
    "bfloat16": ((12, 6, 3), 4, 3, LAST | dict(padding=1)),
    "float16": ((12, 6, 3), 4, 3, LAST),
    "columns": ((7, 14, 3), 4, 3, LAST | dict(padding=1)),
    "columns first": ((3, 7, 13), 4, 3, FIRST | dict(padding=1)),
    "depth of 3D": ((4, 5, 10, 2), 3, 2, LAST | CIRCULAR | dict(padding=1)),
    "both axes": ((11, 12, 3), 4, 3, LAST | dict(padding="same")),
    "both circular": ((3, 9, 10), 4, 3, FIRST | CIRCULAR | dict(padding=1)),
    "both, spanning": ((9, 8, 2), 3, (6, 5), LAST),
    "both, one row": (
        (4, 13, 1), 2, (2, 5), LAST | REPLICATE | dict(padding="same", strides=5)),
    "both, unused rows": ((16, 14, 2), 3, 3, LAST | dict(strides=(4, 1))),
    "both, reversed": ((11, 12, 3), 4, (3, 5), LAST | dict(padding="same", strides=(2, 1))),
    "batch and rows": ((11, 8, 3), 4, 3, LAST | dict(padding="same")),
    "shared rows": ((12, 6, 3), 4, 3, LAST),
    "shared columns": ((12, 6, 3), 4, 3, LAST),
    "shared columns, a row each": ((6, 6, 3), 4, 3, LAST),
    "convolution": ((12, 6, 3), 4, 3, LAST | dict(padding=1)),
    "no bias": ((12, 6, 3), 4, 3, LAST),
    "channel bias": ((12, 6, 3), 4, 3, LAST),
    "batch smaller than the mesh": ((11, 8, 3), 4, 3, LAST | dict(padding="same")),
    "large": ((64, 20, 4), 8, 3, LAST | dict(padding="same")),
    "large first": ((4, 66, 20), 8, 5, FIRST | dict(padding=2)),
    "large circular": ((64, 20, 4), 8, 3, LAST | CIRCULAR | dict(padding=1)),
    "large strides": ((130, 9, 4), 8, 5, LAST | dict(padding=2, strides=(2, 1))),
}  # fmt: skip
AXES = {"columns": (1,), "columns first": (1,), "depth of 3D": (2,), "both axes": (0, 1),
        "both circular": (0, 1), "both, spanning": (0, 1), "both, one row": (0, 1),
        "both, unused rows": (0, 1), "both, reversed": (1, 0),
        "batch and rows": (None, 0),
        "batch smaller than the mesh": (None, 0)}  # fmt: skip
SHARED = {"shared rows": (0,), "shared columns": (1,), "shared columns, a row each": (1,),
          "convolution": (0, 1)}  # fmt: skip
BIAS = {"no bias": None, "channel bias": (0, 1)}
BATCH = {"batch smaller than the mesh": 1}
OTHER_DTYPES = ("float64", "complex64", "bfloat16", "float16")


def case_of(name):
    shape, filters, kernel, options = GEOMETRIES[name]
    return Case(
        name, "parallel", shape, filters, kernel, BATCH.get(name, 4), SHARED.get(name, ()),
        BIAS.get(name, ()), options,
    )  # fmt: skip


def dtype_of(name):
    dtype = name.partition(",")[0]
    return dtype if dtype in OTHER_DTYPES else "float32"


def inputs_of(case, dtype):
    rng = np.random.default_rng(7)
    spec = case.spec

    def draw(shape):
        values = rng.standard_normal(shape)
        if dtype.startswith("complex"):
            values = values + 1j * rng.standard_normal(shape)
        return torch.from_numpy(values).to(getattr(torch, dtype))

    shape = case.bias_shape
    return Inputs(
        draw((case.batch, *spec.input_shape)), draw(spec.kernel_shape),
        None if shape is None else draw(shape), draw((case.batch, *spec.output_shape)),
    )  # fmt: skip


def mesh_of(axes, ranks):
    return init_device_mesh("cpu", (ranks,) if len(axes) == 1 else (2, ranks // 2))


def placed(array, mesh, axes, offset):
    """Distribute *array* over *mesh*, divided along *axes*.

    *offset* is the dimension of the first spatial axis. The axis None stands for the batch, which
    an array has where *offset* is not 0. A dimension of size 1 is replicated.
    """
    if array is None:
        return None
    places = []
    for axis in axes:
        dim = 0 if axis is None else axis + offset
        divided = offset if axis is None else array.shape[dim] > 1
        places.append(Shard(dim) if divided else Replicate())
    told = {} if is_older("torch", 2, 7) else {"src_data_rank": None}
    return distribute_tensor(array, mesh, places, **told)


def halo_bytes(spec, axes, sizes, rank, batch, itemsize):
    """Compute from *spec* alone how many bytes and messages *rank* has to send."""
    at = np.unravel_index(rank, sizes)
    places = zip(axes, sizes, at, strict=True)
    parts = {axis: (n, place) for axis, n, place in places if axis is not None}
    sharding = Sharding(spec, tuple(parts.get(axis, (1, 0))[0] for axis in range(spec.ndim)))
    mine = [sharding.axes[axis][parts.get(axis, (1, 0))[1]] for axis in range(spec.ndim)]
    batch = len(owned(batch, sizes[0], at[0])) if None in axes else batch
    rows, messages = sent(tuple(mine))
    return rows * batch * spec.in_channels * itemsize, messages if batch else 0


def check_geometry(name, rank):
    require_as_whole(case_of(name), dtype_of(name), AXES.get(name, (0,)), rank)


def require_as_whole(case, dtype, axes, rank):
    """Compare a call divided along *axes*, and its gradients, with the whole call.

    Values, placements and the bytes sent are compared.
    """
    spec = case.spec
    mesh, inputs = mesh_of(axes, dist.get_world_size()), inputs_of(case, dtype)
    at = 2 if spec.data_format == "channels_first" else 1
    leaves = [each.clone().requires_grad_() for each in inputs if each is not None][:-1]
    wanted = whole_result(leaves, case, axes)
    divided = [placed(inputs.x, mesh, axes, at)]
    divided += [placed(each, mesh, axes, 0) for each in inputs[1:3] if each is not None]
    for each in divided:
        each.requires_grad_()
    with Traffic() as forward:
        y = lcmulti.local_conv(*divided, **case.options)
    dims = [0 if axis is None else axis + at for axis in axes]
    assert y.placements == tuple(map(Shard, dims))
    assert y.shape == wanted.shape
    value = y.full_tensor()
    if set(axes) & set(spec.shared_axes):  # fewer rows of one kernel: sums in another order
        torch.testing.assert_close(value, wanted)
    else:
        assert torch.equal(value, wanted), f"differs by {(value - wanted).abs().max()}"
    halo, messages = halo_bytes(
        spec, axes, tuple(mesh.shape), rank, case.batch, inputs.x.element_size()
    )
    assert forward.calls <= POINT_TO_POINT, forward.calls
    assert (forward.bytes, forward.messages) == (halo, messages)
    dy = placed(inputs.dy, mesh, axes, at)
    with Traffic() as backward:
        grads = torch.autograd.grad(y, divided, dy)
    assert backward.calls <= POINT_TO_POINT, backward.calls
    half = inputs.x.element_size() == 2
    # A rank sends back the gradients it found for rows of others; those of half types in float32.
    assert over_ranks(backward.bytes) <= over_ranks(halo) * (2 if half else 1)
    for grad, of in zip(grads, divided, strict=True):
        for mine, theirs in zip(grad.placements, of.placements, strict=True):
            assert mine == theirs or isinstance(mine, Partial), (grad.placements, of.placements)
    found = [each.full_tensor() for each in grads]
    whole = torch.autograd.grad(wanted, leaves, inputs.dy)
    for mine, right in zip(found, whole, strict=True):
        if not half:  # half types are rounded at other places
            torch.testing.assert_close(mine, right)
    parted = [False, *(any(isinstance(p, Partial) for p in each.placements) for each in grads)]
    parts = [mesh.size() if each and half else 1 for each in parted]
    require_within_bounds(case, inputs, dtype, [value, *found], parts)


def whole_result(leaves, case, axes):
    if None not in axes:
        return lcmulti.local_conv(*leaves, **case.options)
    # A smaller batch may be summed in another order, so each half is computed by itself.
    parts = leaves[0].chunk(2)
    return torch.cat([lcmulti.local_conv(each, *leaves[1:], **case.options) for each in parts])


def require_within_bounds(case, inputs, dtype, found, parts=(1, 1, 1, 1)):
    """Hold each result in *found* to the forward error bound.

    *parts* says of each result over how many ranks DTensor adds it up in a half type. DTensor then
    rounds each part and each sum, and the bound is wider by these roundings.
    """
    as_numpy = inputs.each(numpy_of)
    exact = bounds.expect(case, as_numpy)
    limits = bounds.bounds(case, exact, as_numpy.bias, dtype)
    if dtype.startswith("complex"):  # PyTorch conjugates these gradients; the maps do not
        found = found[:1]
    for name, mine, n in zip(calls.MAPS, found, parts, strict=False):
        right, limit = getattr(exact.values, name), getattr(limits, name)
        if n > 1:
            limit = limit + n * DTYPES[dtype].roundoff * getattr(exact.magnitudes, name)
        deviation = bounds.compare(numpy_of(mine), right, limit)
        assert deviation.ok, (name, deviation)


def over_ranks(number):
    """Add up *number* over all ranks."""
    total = torch.tensor(number)
    dist.all_reduce(total)
    return int(total)


def numpy_of(tensor):
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy()
    return tensor.numpy()


def check_on_paper(rank):
    """Compare `spec.shard(...).costs` with what the largest rank holds and sends."""
    ranks = dist.get_world_size()
    for name in ("uneven", "circular", "large strides", "both axes", "spanning"):
        case = case_of(name)
        axes, spec = AXES.get(name, (0,)), case.spec
        mesh, inputs = mesh_of(axes, ranks), inputs_of(case, "float32")
        at = 2 if spec.data_format == "channels_first" else 1
        x, kernel = placed(inputs.x, mesh, axes, at), placed(inputs.kernel, mesh, axes, 0)
        bias = placed(inputs.bias, mesh, axes, 0)
        with Traffic() as traffic:
            y = lcmulti.local_conv(x, kernel, bias, **case.options)
        parts = tuple(mesh.size(axes.index(a)) if a in axes else 1 for a in range(spec.ndim))
        told = spec.shard(parts).costs(case.batch)
        local = [each.to_local() for each in (x, kernel, bias, y)]
        found = torch.tensor([
            traffic.bytes, traffic.messages, local[0].nbytes,
            local[1].nbytes + local[2].nbytes, local[3].nbytes,
        ])  # fmt: skip
        dist.all_reduce(found, dist.ReduceOp.MAX)
        on_paper = [told.halo, told.messages, told.inputs, told.weights, told.outputs]
        assert found.tolist() == on_paper, (name, found.tolist(), on_paper)


def checks(ranks):
    found = {f"on paper, {ranks} ranks": check_on_paper}
    if ranks == 4:
        found |= {f"geometry: {name}": partial(check_geometry, name) for name in GEOMETRIES}
    return found
