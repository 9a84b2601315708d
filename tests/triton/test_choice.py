"""How the tile and the precision are chosen, and how measured tiles are kept."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="needs Triton: pip install 'lcmulti[triton]'")

import torch
from lcmulti_triton import choice, tuned
from lcmulti_triton.decision import decided
from lcmulti_triton.estimate import estimate, roofline
from lcmulti_triton.kept import figures_of
from lcmulti_triton.layer import layer_of

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


ROOT = Path(__file__).parents[2]
ESTIMATES = runpy.run_path(str(ROOT / "asv_benches" / "gpu_estimates.py"))


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize("row", ESTIMATES["LAYERS"], ids=lambda row: row[0])
def test_estimates_are_within_reach_of_the_roofline(row, map_):
    """For an H200, the chosen tile's estimate is at most 2.2 times the roofline's."""
    found = ESTIMATES["layer_of_row"](row, map_)
    tile = decided(found, None, PINNED).tile
    figures = figures_of(map_, found.dtype, tile)
    assert figures is not None, tile
    assert estimate(found, tile, figures).seconds <= 2.2 * roofline(found)


def test_the_page_has_these_estimates():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "\n".join(ESTIMATES["table"]()) in page


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(tuned, "_here", {})
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
    assert tuned.look_up(found, 0, False) == (None, "")  # it may not measure
    best = choice.candidates(choice.nominal(found))[1]
    tile, source = tuned.look_up(found, 0, True)
    assert tile == best
    assert str(cache) in source
    monkeypatch.setattr(tuned, "measure", None)  # a second measurement would fail
    other_size = layer(size=(12, 50), batch=20)
    assert decided(other_size, 0, ("ieee", "tuned")).tile == best
    assert decided(found, 0, PINNED).source == "estimated for an H200"


def test_nothing_is_measured_within_a_capture(cache, monkeypatch):
    monkeypatch.setattr(tuned.torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(tuned, "measure", None)
    assert tuned.look_up(layer(), 0, True) == (None, "")


KEY = tuned.known_by(layer())
DAMAGED = [
    "", "{", "[1]", "null", "\x00", '{"forward": 3}',
    *(json.dumps({KEY: row}) for row in (
        3, None, [], {}, {"tile": 3}, {"tile": None}, {"tile": []}, {"tile": ["tiles", 32]},
        {"tile": ["tiles", "32", 16, 16, 1, 3]}, {"tile": [["tiles"], 32, 16, 16, 1, 3]},
        {"tile": ["tiles", 1024, 1024, 1024, 64, 9]}, {"tile": ["thin", 8, 8, 32, 1, 2]},
    )),
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_cache_is_as_none(cache, text):
    """A damaged cache leaves estimates to decide, and the next measurement replaces it."""
    cache.parent.mkdir()
    cache.write_text(text)
    assert tuned.look_up(layer(), 0, False) == (None, "")
    best = choice.candidates(choice.nominal(layer()))[1]
    assert tuned.keep(layer(), 0, [tuned.Measured(best, 1e-6)]) == ((best, 1e-6, None), None)
    assert tuned.look_up(layer(), 0, False)[0] == best


def test_bytes_that_are_no_text_are_a_damaged_cache(cache):
    cache.parent.mkdir()
    cache.write_bytes(b"\xff\xfe{}")
    assert tuned.look_up(layer(), 0, False) == (None, "")


def test_numbers_of_a_cache_are_those_of_a_tile(cache):
    """A file that says 32.0 chooses the tile of 32, whose numbers are integers for the compiler."""
    best = choice.candidates(choice.nominal(layer()))[1]
    cache.parent.mkdir()
    kept = [float(n) if isinstance(n, int) else n for n in best]
    cache.write_text(json.dumps({KEY: {"tile": kept}}))
    found, _ = tuned.look_up(layer(), 0, False)
    assert all(type(a) is type(b) for a, b in zip(found, best, strict=True))


def test_a_cache_that_cannot_be_written(cache, monkeypatch):
    """A cache that cannot be written is reported, and a tile is measured once in a process."""
    cache.parent.write_text("a file where a folder belongs")
    monkeypatch.setattr(tuned, "measure", measured(iter((3e-6, 1e-6, 2e-6))))
    found = layer()
    best = choice.candidates(choice.nominal(found))[1]
    assert tuned.look_up(found, 0, True) == (best, "measured here")
    monkeypatch.setattr(tuned, "measure", None)  # a second measurement would fail
    assert tuned.look_up(found, 0, True) == (best, "measured here")
    _, failed = tuned.keep(found, 0, [tuned.Measured(best, 1e-6)])
    assert failed.startswith("kept for this process alone: ")


def test_no_memory_to_measure_in(cache, monkeypatch):
    def measure(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tuned, "measure", measure)
    assert tuned.look_up(layer(), 0, True) == (None, "")
