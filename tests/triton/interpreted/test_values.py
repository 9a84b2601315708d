"""What error bounds do not cover: NaN, infinities, rounding, large offsets and memory layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers_triton import MAPS, TILES, check, compute, operands, pair_of

from lcmulti.algorithms import reference
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins import load_implementation
from lcmulti.plugins.contract import Resources

SPEC = LocalConvSpec((5, 6, 2), 3, (2, 3), strides=(1, 2), padding=((1, 0), (0, 1)),
                     data_format="channels_last").computed()  # fmt: skip
FAMILIES = [(family, map_) for family, tiles in TILES.items() for map_ in tiles
            if "windows" not in family]  # fmt: skip
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "value", [float("nan"), *(pytest.param(float(v), marks=SLOW) for v in ("inf", "-inf"))]
)
@pytest.mark.parametrize(
    ("family", "map_"), [f if f[0] == "lanes" else pytest.param(*f, marks=SLOW) for f in FAMILIES]
)
def test_what_is_not_finite_reaches_what_sees_it(family, map_, value, watch):
    """As in the reference, an element is not finite if, and only if, it is a sum over the value."""
    arrays = operands(SPEC, 2)
    a, b = pair_of(map_, arrays)
    a = a.clone()
    a[0, 2, 2, 1] = value  # an inner position: no padding is multiplied with it
    found = compute(map_, SPEC, a, b, watch, TILES[family][map_])
    with np.errstate(invalid="ignore"):
        expected = getattr(reference, map_)(a.numpy(), b.numpy(), SPEC)
    assert np.array_equal(np.isfinite(found.numpy()), np.isfinite(expected))
    assert np.array_equal(np.isnan(found.numpy()), np.isnan(expected))


@pytest.mark.parametrize(
    "family", ["lanes", pytest.param("tiles", marks=SLOW), pytest.param("thin", marks=SLOW)]
)
def test_weights_that_see_only_padding_have_no_gradient(family, watch):
    spec = LocalConvSpec((3, 2), 3, 2, padding=2, data_format="channels_last").computed()
    x, _, dy = operands(spec, 2)
    dy = torch.full_like(dy, float("inf"))
    found = compute("kernel_grad", spec, x, dy, watch, TILES[family]["kernel_grad"])
    assert (found[0] == 0).all()
    assert (found[-1] == 0).all()


@pytest.mark.parametrize(
    ("family", "map_"), [f if f[0] == "lanes" else pytest.param(*f, marks=SLOW) for f in FAMILIES]
)
@SLOW
def test_the_same_bits_twice(family, map_, watch):
    a, b = pair_of(map_, operands(SPEC, 3, "float32"))
    tile = TILES[family][map_]
    once, again = (compute(map_, SPEC, a, b, watch, tile) for _ in range(2))
    assert torch.equal(once, again)


DTYPES = ("float64", "float32", "float16", "bfloat16")


@pytest.mark.parametrize(
    "dtype", [each if each == "bfloat16" else pytest.param(each, marks=SLOW) for each in DTYPES]
)
@pytest.mark.parametrize(
    ("family", "map_"), [f if f[0] == "lanes" else pytest.param(*f, marks=SLOW) for f in FAMILIES]
)
def test_every_dtype(family, map_, dtype, watch):
    check(map_, SPEC, operands(SPEC, 2, dtype), watch, TILES[family][map_], dtype)


def test_rounding_of_bfloat16_is_that_of_a_gpu(watch):
    """A single product shows that the corrected interpreter rounds to nearest, ties to even."""
    spec = LocalConvSpec((1, 1), 1, 1, data_format="channels_last").computed()
    x = torch.tensor([[[1.0078125]]], dtype=torch.bfloat16)
    w = torch.tensor([[[[1.0078125]]]], dtype=torch.bfloat16)  # 1.0156860 lies above the tie
    assert compute("forward", spec, x, w, watch).item() == 1.015625


LAYOUTS = {
    "channels first": lambda a: a.movedim(-1, 1).contiguous().movedim(1, -1),
    "every other": lambda a: a.repeat_interleave(2, 2)[:, :, ::2],
    "part of more channels": lambda a: torch.cat((a, a), -1)[..., : a.shape[-1]],
    "axes turned": lambda a: a.transpose(1, 2).contiguous().transpose(1, 2),
    "samples last": lambda a: a.movedim(0, -1).contiguous().movedim(-1, 0),
    "one sample for all": lambda a: a[:1].expand(a.shape),
}


@pytest.mark.parametrize(
    "layout",
    [each if each == "channels first" else pytest.param(each, marks=SLOW) for each in LAYOUTS],
)
@pytest.mark.parametrize("family", ["lanes", pytest.param("tiles", marks=SLOW)])
def test_memory_is_read_in_place(layout, family, watch):
    arrays = operands(SPEC, 2)
    x, w, dy = (each if i == 1 else LAYOUTS[layout](each) for i, each in enumerate(arrays))
    for map_ in MAPS:
        check(map_, SPEC, (x, w, dy), watch, TILES[family][map_])


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize(
    "family", ["lanes", pytest.param("tiles", marks=SLOW), pytest.param("thin", marks=SLOW)]
)
def test_offsets_beyond_32_bits(map_, family, watch, tmp_path):
    """Rows lie 2**31 elements apart. The arrays are in a sparse file, which takes little space."""
    far = 2**31 + 64
    spec = LocalConvSpec((2, 3, 2), 3, (2, 2), data_format="channels_last").computed()
    x, w, dy = operands(spec, 2, "float16")

    def spread(array, name):
        """Copy *array* to where its rows and samples lie far apart."""
        samples = len(array)
        size = 2 * far * samples
        held = torch.from_file(str(tmp_path / name), shared=True, size=size, dtype=torch.float16)
        view = held.as_strided(array.shape, (2 * far, far, *array.stride()[2:]))
        return view.copy_(array)

    x, dy = spread(x, "x"), spread(dy.expand(2, 1, 2, 3), "dy")
    from lcmulti_triton.launch import result_of
    from lcmulti_triton.layer import layer_of
    from lcmulti_triton.starting import start_of

    a, b = pair_of(map_, (x, w, dy))
    shape, _ = result_of(map_, spec, 2, a.stride())
    result = torch.full(shape, 7, dtype=torch.float16)
    result = result if map_ == "kernel_grad" else spread(result, "result")
    lie = {"forward": (a, result), "input_grad": (result, a), "kernel_grad": (a, b)}[map_]
    layer = layer_of(map_, spec, "float16", 2, *(each.stride() for each in lie))
    assert layer.wide
    watch.hold_to((a, b), result)
    start_of(layer, TILES[family][map_], "ieee", None, True)(a, b, result)
    watch.written = None
    expected = getattr(reference, map_)(a.numpy(), b.numpy(), spec)
    np.testing.assert_allclose(result.numpy(), expected, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("map_", ["forward", "kernel_grad"])
def test_an_axis_longer_than_32_bits_can_reach(map_, tmp_path):
    """The second window of the axis begins at element 2**31."""
    far = 2**30
    spec = LocalConvSpec((far + 2, 2), 1, 2, strides=far, data_format="channels_last").computed()
    seen = torch.randn(2, 4).half()
    x = torch.from_file(str(tmp_path / "x"), shared=True, size=2 * far + 4, dtype=torch.float16)
    x[:4], x[-4:] = seen
    x = x.view(1, far + 2, 2)
    b = torch.randn(spec.kernel_shape if map_ == "forward" else (1, 2, 1)).half()
    run = getattr(load_implementation("torch", "triton"), map_)
    found = run(x, b, spec, Resources(1)).double()
    if map_ == "forward":
        expected = (seen.double() * b.double().view(2, 4)).sum(1).view(1, 2, 1)
    else:
        expected = (seen.double() * b.double().view(2, 1)).view(2, 2, 2, 1)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-3)
