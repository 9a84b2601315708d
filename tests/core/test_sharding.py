"""A layer divided over ranks, computed by NumPy: the parts make the whole, and costs are right."""

from __future__ import annotations

import numpy as np
import pytest

import lcmulti
from lcmulti.errors import ArgumentError
from lcmulti.geometry.sharding import axis_parts, local_spec, owned
from lcmulti.geometry.sharding_costs import Sharding, sent

CASES = {
    "one row each": ((8, 3), dict(kernel_size=3, padding=1), (8,)),
    "uneven": ((11, 2), dict(kernel_size=4), (4,)),
    "empty ranks": ((6, 2), dict(kernel_size=2), (4,)),
    "more ranks than rows": ((4, 2), dict(kernel_size=3, padding="same"), (7,)),
    "windows that span several": ((12, 2), dict(kernel_size=9), (6,)),
    "long steps": ((23, 2), dict(kernel_size=2, strides=5), (3,)),
    "dilation": ((20, 2), dict(kernel_size=3, dilation=4, strides=2, padding=((5, 3),)), (5,)),
    "far into the padding": ((3, 2), dict(kernel_size=2, padding=((6, 7),)), (4,)),
    "reflect": ((9, 2), dict(kernel_size=5, padding=((4, 3),), padding_mode="reflect"), (4,)),
    "replicate": ((9, 2), dict(kernel_size=2, padding=((8, 9),), padding_mode="replicate"), (5,)),
    "circular": ((9, 2), dict(kernel_size=3, padding=((9, 7),), padding_mode="circular"), (4,)),
    "two axes": ((9, 8, 2), dict(kernel_size=(3, 2), padding="same", strides=(1, 2)), (3, 2)),
    "three": ((5, 6, 4, 2), dict(kernel_size=2, padding=1, padding_mode="circular"), (2, 3, 2)),
    "shared": ((9, 8, 2), dict(kernel_size=3, shared_axes=(0,)), (4, 2)),
}  # fmt: skip


@pytest.fixture(params=CASES.values(), ids=CASES)
def sharding(request):
    shape, arguments, parts = request.param
    spec = lcmulti.LocalConvSpec(shape, 2, data_format="channels_last", **arguments)
    return Sharding(spec, parts)


def window_of(x, part, axis):
    """Build a part's input along one axis from what it has and what other parts send."""
    pieces = [x.take(rows, axis) for rows, _ in part.pieces]
    if not pieces:
        shape = list(x.shape)
        shape[axis] = sum(part.padding)
        return np.zeros(shape)
    needed = np.concatenate(pieces, axis)
    return needed.take([*part.before, *part.inner, *part.after], axis)


def test_the_ranks_compute_the_whole(sharding):
    spec = sharding.spec
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *spec.input_shape))
    kernel = rng.standard_normal(spec.kernel_shape)
    wanted = lcmulti.local_conv(
        x, kernel, **spec.arguments(), backend="numpy",
    )  # fmt: skip
    found = np.full_like(wanted, np.nan)
    for parts in sharding:
        local = local_spec(spec, parts)
        outputs = tuple(slice(part.outputs.start, part.outputs.stop) for part in parts)
        if local is None:
            assert not wanted[(slice(None), *outputs)].size
            continue
        window = x
        for axis, part in enumerate(parts):
            window = window_of(window, part, axis + 1)
        assert window.shape[1:] == local.input_shape
        weights = kernel[
            tuple(slice(None) if a in spec.shared_axes else o for a, o in enumerate(outputs))
        ]
        assert weights.shape == local.kernel_shape or spec.shared_axes
        found[(slice(None), *outputs)] = lcmulti.local_conv(
            window, weights, strides=local.strides, padding=local.padding,
            dilation=local.dilation, data_format="channels_last", backend="numpy",
        )  # fmt: skip
    np.testing.assert_array_equal(found, wanted)


def test_what_one_sends_another_receives(sharding):
    for axis in sharding.axes:
        received = {(p.part, each.part, each.rows) for p in axis for each in p.receives}
        sent = {(each.part, p.part, each.rows) for p in axis for each in p.sends}
        assert received == sent
        for part in axis:
            for piece in part.sends:
                assert set(piece.rows) <= set(part.inputs)
            seen = [row for rows, _ in part.pieces for row in rows]
            assert seen == sorted(set(seen))  # nothing twice
            own = [row for rows, owner in part.pieces if owner is None for row in rows]
            assert set(own) <= set(part.inputs)
            assert part.needed == len(own) + part.halo


def test_rows_are_owned_as_torch_and_gspmd_cut_them():
    assert [owned(10, 4, part) for part in range(4)] == [
        range(3), range(3, 6), range(6, 9), range(9, 10),
    ]  # fmt: skip
    assert [len(owned(5, 4, part)) for part in range(4)] == [2, 2, 1, 0]


def test_a_window_of_a_thousand_ranks_costs_no_lists():
    spec = lcmulti.LocalConvSpec((20_000_000, 1), 1, 9, padding="same", data_format="channels_last")
    parts = axis_parts(spec, 0, 1024)
    assert {part.halo for part in parts[1:-1]} == {8}
    assert max(len(part.receives) for part in parts) == 2


def test_parts_are_one_per_axis():
    spec = lcmulti.LocalConvSpec((9, 8, 2), 2, 3, data_format="channels_last")
    with pytest.raises(ArgumentError, match="parts: expected 2 numbers of parts"):
        Sharding(spec, (4,))
    assert Sharding(spec, (3, 2))[5][0].part == 2
    assert Sharding(spec, (3, 2))[5][1].part == 1
    with pytest.raises(IndexError, match="there are 6 ranks"):
        Sharding(spec, (3, 2))[6]


def test_the_best_split_has_the_smallest_halo():
    wide = lcmulti.LocalConvSpec((4096, 64, 2), 2, 5, padding="same", data_format="channels_last")
    assert wide.shard(16).parts == (16, 1)
    square = lcmulti.LocalConvSpec((64, 64, 2), 2, 5, padding="same", data_format="channels_last")
    assert square.shard(16).parts == (4, 4)
    # Seven parts of six rows would leave one empty, so the other axis is divided.
    uneven = lcmulti.LocalConvSpec((6, 700, 2), 2, 3, padding="same", data_format="channels_last")
    assert uneven.shard(7).parts == (1, 7)
    for wrong in (0, -1, 1.5, "4"):
        with pytest.raises(ArgumentError, match="ranks: expected a positive integer"):
            wide.shard(wrong)


def test_costs_are_of_the_largest_rank(sharding):
    spec, told = sharding.spec, sharding.costs(batch=3)
    ranks = list(sharding)
    shares = [np.prod([len(part.outputs) for part in parts]) for parts in ranks]
    assert told.positions == max(shares)
    assert told.empty == shares.count(0)
    assert told.flops == spec.flops(3) * max(shares) // np.prod(spec.output_size)
    assert told.outputs == 3 * max(shares) * spec.filters * 4
    assert told.halo == 3 * spec.in_channels * 4 * max(sent(p)[0] for p in ranks)
    half = sharding.costs(batch=3, dtype="bfloat16")
    assert (half.weights, half.optimizer) == (told.weights // 2, told.optimizer)
    if not spec.shared_axes:
        assert told.weights * sharding.ranks >= spec.num_parameters * 4
