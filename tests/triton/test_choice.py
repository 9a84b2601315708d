"""Which tile, which precision, and what is measured and kept."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="needs Triton: pip install 'lcmulti[triton]'")

from lcmulti_triton import choice, tuned
from lcmulti_triton.decision import decided
from lcmulti_triton.estimate import estimate, roofline
from lcmulti_triton.kept import figures_of
from lcmulti_triton.layer import Tile, layer_of

import lcmulti

MAPS = ("forward", "input_grad", "kernel_grad")
PINNED = ("ieee", "pinned")


def layer(
    map_="forward", size=(30, 30), channels=64, filters=64, batch=32, dtype="float32", **more
):
    spec = lcmulti.LocalConvSpec((*size, channels), filters, 3, data_format="channels_last", **more)
    return layer_of(map_, spec.computed(), dtype, batch)


@pytest.mark.parametrize("map_", MAPS)
def test_neither_sizes_nor_the_batch_decide(map_):
    first = decided(layer(map_), None, PINNED)
    for other in (layer(map_, (90, 7)), layer(map_, batch=17), layer(map_, (8, 8), batch=64)):
        assert decided(other, None, PINNED) == first


def test_families():
    assert decided(layer(channels=1, filters=2), None, PINNED).tile.family == "lanes"
    assert decided(layer(batch=1), None, PINNED).tile.family == "thin"
    apart = layer("input_grad", strides=3)
    assert decided(apart, None, PINNED).tile.family == "windows"
    assert decided(layer(), None, PINNED).tile.family == "tiles"


def test_tf32x3_only_where_the_bound_admits_it():
    asked = ("tf32x3", "pinned")

    def precision(*arguments, **more):
        return decided(layer(*arguments, **more), None, asked).precision

    assert precision() == "tf32x3"  # 576 terms
    assert precision(channels=7) == "ieee"  # 63
    assert precision("input_grad", filters=7) == "ieee"
    assert precision("input_grad") == "tf32x3"
    assert precision("kernel_grad", batch=1024) == "ieee"
    assert precision(dtype="float64") == "ieee"
    assert precision(batch=1) == "ieee"  # no dot
    assert decided(layer(), None, PINNED).precision == "ieee"


SIX = {
    "deepface_l5": ((63, 63), 16, 7, 2, 16, 32),
    "keras_2": ((30, 30), 64, 3, 1, 32, 32),
    "large": ((8, 8), 256, 3, 1, 256, 512),
    "snp": ((160000,), 4, 16, 16, 4, 32),
    "grid": ((256, 256), 1, 3, 1, 2, 8),
}
CASES = [*((name, "float32") for name in SIX), ("large", "bfloat16")]


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_estimates_are_within_reach_of_the_roofline(name, dtype, map_):
    """At most 2.2 times it for an H200; an estimate, of the tile that is chosen."""
    size, channels, kernel, stride, filters, batch = SIX[name]
    spec = lcmulti.LocalConvSpec(
        (*size, channels), filters, kernel, strides=stride, data_format="channels_last"
    )
    found = layer_of(map_, spec.computed(), dtype, batch)
    tile = decided(found, None, PINNED).tile
    figures = figures_of(map_, dtype, tile)
    assert figures is not None, tile
    assert estimate(found, tile, figures).seconds <= 2.2 * roofline(found)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(tuned, "file_of", lambda device: tmp_path / "kept" / "gpu.json")
    monkeypatch.setattr(tuned.torch.cuda, "is_current_stream_capturing", lambda: False)
    return tmp_path / "kept" / "gpu.json"


def measured(seconds):
    def measure(layer, device, *rest):
        tiles = choice.candidates(choice.nominal(layer))
        return [tuned.Measured(t, next(seconds, None)) for t in tiles]

    return measure


def test_what_was_measured_is_kept_and_taken(cache, monkeypatch):
    found = layer()
    times = iter((3e-6, 1e-6, 2e-6))
    monkeypatch.setattr(tuned, "measure", measured(times))
    assert tuned.look_up(found, 0, False) == (None, "")  # not unless it may
    best = choice.candidates(choice.nominal(found))[1]
    tile, source = tuned.look_up(found, 0, True)
    assert tile == best
    assert str(cache) in source
    monkeypatch.setattr(tuned, "measure", None)  # not a second time
    other_size = layer(size=(12, 50), batch=20)
    assert decided(other_size, 0, ("ieee", "tuned")).tile == best
    assert decided(found, 0, PINNED).source == "estimated for an H200"


def test_nothing_is_measured_within_a_capture(cache, monkeypatch):
    monkeypatch.setattr(tuned.torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(tuned, "measure", None)
    assert tuned.look_up(layer(), 0, True) == (None, "")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"forward": 3}'])
def test_a_damaged_cache_is_as_none(cache, text):
    cache.parent.mkdir()
    cache.write_text(text)
    assert tuned.look_up(layer(), 0, False) == (None, "")


def test_a_kept_tile_that_is_no_candidate_is_not_taken(cache):
    best = tuned.Measured(Tile("tiles", 1024, 1024, 1024, 64, 9), 1e-9)
    tuned.keep(layer(), 0, [best])
    assert tuned.look_up(layer(), 0, False) == (None, "")
