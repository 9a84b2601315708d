"""Statistics of filters, pictures of them, and the command that reads files."""

import json
import re
import time

import numpy as np
import pytest

import lcmulti
from lcmulti import plot
from lcmulti.cli import main
from lcmulti.errors import ArgumentError, FileError, ShapeError
from lcmulti.plot.page import page
from lcmulti.plot.pictures import window_at
from lcmulti.plot.reading import layers_in
from lcmulti.plot.statistics import in_two_axes

pytest.importorskip("matplotlib")
SPEC = lcmulti.LocalConvSpec(
    (7, 6, 3), 4, (3, 2), padding=1, strides=2, data_format="channels_last"
)


def gratings(angles, size=9, channels=1):
    """Return the kernel of one position, with a filter of stripes at each angle.

    Angles are in degrees, counterclockwise from horizontal.
    """
    y, x = np.meshgrid(*[np.arange(size) - size // 2] * 2, indexing="ij")
    each = []
    for angle in np.radians(angles):
        across = x * np.sin(angle) + y * np.cos(angle)  # y counts downwards
        each.append(np.cos(2 * np.pi * across / 4) * np.exp(-(x**2 + y**2) / 12))
    kernel = np.stack(each, -1)[None, None, :, :, None]
    return np.repeat(kernel, channels, 4)


def test_orientation_of_gratings():
    angles = np.arange(0, 180, 15)
    kernel = gratings(angles, channels=2)
    found = plot.statistic(kernel, "orientation").ravel()
    apart = (found - angles + 90) % 180 - 90
    assert np.abs(apart).max() < 3
    assert plot.statistic(kernel, "selectivity").min() > 0.8
    blob = gratings([0]) + gratings([90])
    assert plot.statistic(blob, "selectivity").max() < 0.05


def test_norm_distance_and_functions(rng):
    kernel = rng.standard_normal(SPEC.kernel_shape)
    by_hand = np.linalg.norm(kernel.reshape(4, 4, -1, 4), axis=2)
    np.testing.assert_allclose(plot.statistic(kernel), by_hand)
    same = np.broadcast_to(kernel[:1, :1], kernel.shape)
    assert np.abs(plot.statistic(same, "distance")).max() < 1e-12
    largest = plot.statistic(kernel, lambda array: np.abs(array).max((2, 3, 4)))
    assert largest.shape == (4, 4, 4)
    with pytest.raises(ShapeError, match="name: .*returns shape"):
        plot.statistic(kernel, np.max)
    with pytest.raises(ArgumentError, match="one of norm, orientation"):
        plot.statistic(kernel, "beauty")
    with pytest.raises(ShapeError, match="kernel: "):
        plot.statistic(kernel[0])


def test_other_numbers_of_axes(rng):
    line = rng.standard_normal((5, 3, 2, 4))
    assert plot.statistic(line).shape == (1, 5, 4)
    cube = rng.standard_normal((4, 5, 6, 3, 3, 2, 1, 4))
    flat, note = in_two_axes(cube)
    np.testing.assert_array_equal(flat, cube[2, :, :, 1])
    assert "position 2, tap 1" in note


def test_mosaic_shows_each_filter_in_its_place(rng):
    kernel = rng.standard_normal((3, 2, 4, 3, 3, 6))
    image = np.asarray(plot.mosaic(kernel, sheet=(2, 3)).images[0].get_array())
    assert image.shape == (3 * 2 * 5, 2 * 3 * 4, 3)
    tile = image[2 * 10 + 5 : 2 * 10 + 9, 1 * 12 + 8 : 1 * 12 + 11]  # filter 5 of position (2, 1)
    own = kernel[2, 1, ..., 5]
    np.testing.assert_allclose(tile, 0.5 + 0.5 * own / np.abs(own).max())
    assert "6 filters on 2 x 3" in plot.mosaic(kernel, sheet=(2, 3)).get_title()
    thinned = plot.mosaic(kernel, most=20)
    assert "every second position is shown" in thinned.get_title()
    with pytest.raises(ArgumentError, match=r"sheet: .*a \* b = 6"):
        plot.mosaic(kernel, sheet=(2, 2))


def test_complex_and_broken_weights_are_told(rng):
    kernel = rng.standard_normal((3, 2, 4, 3, 3, 6))
    clean = np.asarray(plot.mosaic(kernel).images[0].get_array())
    ax = plot.mosaic(kernel + 1j)
    assert "of complex weights, the real part is shown" in ax.get_title()
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), clean)
    broken = kernel.copy()
    broken[0, 0, 0, 0, :2, 0] = np.nan, np.inf
    ax = plot.mosaic(broken)
    assert "2 weights are not finite, and shown as 0" in ax.get_title()
    assert np.isfinite(np.asarray(ax.images[0].get_array())).all()
    assert "2 weights are not finite" in page(broken)  # warnings are errors here


def test_maps(rng):
    kernel = rng.standard_normal((3, 2, 5, 5, 1, 6))
    values = plot.statistic(kernel)
    over = np.asarray(plot.statistic_map(kernel).images[0].get_array())
    np.testing.assert_allclose(over, values.mean(-1))
    one = np.asarray(plot.statistic_map(kernel, filter=4).images[0].get_array())
    np.testing.assert_allclose(one, values[..., 4])
    sheet = np.asarray(plot.statistic_map(kernel, sheet=(2, 3)).images[0].get_array())
    assert sheet.shape == (6, 6) and sheet[5, 4] == pytest.approx(values[2, 1, 4])
    plot.statistic_map(kernel, "orientation", sheet=(2, 3)).figure.canvas.draw()
    plot.statistic_map(kernel, "orientation").figure.canvas.draw()


def test_receptive_field():
    assert window_at(SPEC, (0, 0)) == ((-1, 1), (-1, 0))
    assert window_at(SPEC, (3, 3)) == ((5, 7), (5, 6))
    ax = plot.receptive_field(SPEC, (3, 3))
    assert "position (3, 3) on an input of 7 x 6" in ax.get_title()
    assert [len(each.get_offsets()) for each in ax.collections] == [2, 4]  # within, in the padding
    with pytest.raises(ArgumentError, match="position: expected one of the output"):
        plot.receptive_field(SPEC, (4, 0))
    line = lcmulti.LocalConvSpec((9, 1), 1, 3, dilation=2, data_format="channels_last")
    plot.receptive_field(line, (2,)).figure.canvas.draw()


def test_variables_of_flax(rng):
    nnx = pytest.importorskip("flax.nnx")
    kernel = rng.standard_normal((3, 2, 5, 5, 1, 6)).astype("float32")
    np.testing.assert_array_equal(plot.statistic(nnx.Param(kernel)), plot.statistic(kernel))
    with pytest.raises(ArgumentError, match="kernel: expected an array"):
        plot.statistic(nnx)


def test_wrong_arguments(rng):
    kernel = rng.standard_normal((3, 2, 5, 5, 1, 6))
    for sheet in (6, (-2, -3), (2.0, 3), (2, 2)):
        with pytest.raises(ArgumentError, match="sheet: expected"):
            plot.mosaic(kernel, sheet=sheet)
    with pytest.raises(ArgumentError, match="most: expected a positive integer, got 0"):
        plot.mosaic(kernel, most=0)
    for number in ("a", -1, 6, 1.0):
        with pytest.raises(ArgumentError, match="filter: expected"):
            plot.statistic_map(kernel, filter=number)
    with pytest.raises(ArgumentError, match="filter: expected None with a sheet"):
        plot.statistic_map(kernel, sheet=(2, 3), filter=0)
    for position in (3, (1.5, 0), (-1, 0), (0,)):
        with pytest.raises(ArgumentError, match="position: expected"):
            plot.receptive_field(SPEC, position)


@pytest.fixture
def saved(tmp_path, rng):
    pytest.importorskip("safetensors")
    path = tmp_path / "weights.safetensors"
    kernel = rng.standard_normal(SPEC.kernel_shape).astype("float32")
    lcmulti.save_weights(path, kernel, spec=SPEC)
    return path


def test_view_writes_pictures(saved, capsys):
    assert main(["view", str(saved)]) == 0
    assert saved.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().out.strip() == f"wrote {saved.with_suffix('.png')}"
    assert main(["view", str(saved)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    svg = saved.with_suffix(".svg")
    assert main(["view", str(saved), "-o", str(svg), "--map", "orientation", "--sheet", "2x2"]) == 0
    assert "<svg" in svg.read_text()
    assert main(["view", str(saved), "--overwrite", "--map", "beauty"]) == 2
    assert "--map: expected one of 'norm', 'orientation'" in capsys.readouterr().err
    for wrong in (["--sheet", "2,2"], ["--layer", "x"], ["-o", "x.gif"], ["--sheet", "3x2"]):
        assert main(["view", str(saved), "--overwrite", *wrong]) == 2


def test_view_reads_state_dicts(tmp_path, rng):
    torch = pytest.importorskip("torch")
    from lcmulti_torch import LocallyConnected1d, LocallyConnected2d

    net = torch.nn.Sequential(
        torch.nn.Conv1d(1, 2, 3), LocallyConnected1d(2, 3, 3, 8), torch.nn.Conv2d(1, 1, 1),
        LocallyConnected2d(2, 3, 3, 6, rank=2), LocallyConnected2d(3, 2, 2, 4, bias=False),
    )  # fmt: skip
    path = tmp_path / "state.pt"
    torch.save({"state_dict": net.state_dict()}, path)
    found = layers_in(path)
    assert [each.name for each in found] == ["1", "3", "4"]
    for each in found:
        kernel = net[int(each.name)].kernel().detach().numpy()
        np.testing.assert_allclose(each.kernel, kernel, rtol=1e-5, atol=1e-6)
    torch.save(net, tmp_path / "pickled.pt")  # a pickle of classes is not loaded
    with pytest.raises(FileError, match="weights_only"):
        layers_in(tmp_path / "pickled.pt")
    for name, reason in (("none.pt", "is not a file"), ("x.txt", "ends in none of")):
        (tmp_path / "x.txt").write_text("")
        with pytest.raises(FileError, match=reason):
            layers_in(tmp_path / name)


def test_view_reads_parameters_and_other_layouts(tmp_path, rng):
    torch = pytest.importorskip("torch")
    kernel = torch.tensor(rng.standard_normal((4, 4, 3, 3, 2, 5)), dtype=torch.float32)
    path = tmp_path / "state.pt"
    stored = {
        "a.weight": torch.nn.Parameter(kernel), "b.weight": kernel.to_sparse(),
        "c.weight": kernel.bfloat16(), "d.weight": kernel.to("meta"),
    }  # fmt: skip
    torch.save(stored, path)
    a, b, c = layers_in(path)
    np.testing.assert_array_equal(a.kernel, kernel)
    np.testing.assert_array_equal(b.kernel, kernel)
    np.testing.assert_allclose(c.kernel, kernel, rtol=1e-2)
    for wrong in (b"", b"\x80no pickle"):
        path.write_bytes(wrong)
        with pytest.raises(FileError, match=r"weights_only \(\w") as caught:
            layers_in(path)
        assert "will likely succeed" not in str(caught.value)


def test_view_reads_archives_of_arrays(tmp_path, rng):
    kernel, basis = (
        rng.standard_normal((4, 4, 3, 3, 2, 5)),
        rng.standard_normal((2, 1, 1, 3, 3, 2, 5)),
    )
    mixed = rng.standard_normal((4, 4, 2))
    np.savez(tmp_path / "good.npz", **{
        "text.kernel": np.full((2,) * 6, "no weight"),
        "a.kernel": kernel, "b.basis": basis, "b.coefficients": mixed, "bias": np.zeros(3)
    })  # fmt: skip
    a, b = layers_in(tmp_path / "good.npz")
    assert (a.name, b.name) == ("a", "b")
    np.testing.assert_array_equal(a.kernel, kernel)
    np.testing.assert_allclose(b.kernel, np.einsum("rcdhwif,abr->abhwif", basis, mixed))


def test_view_refuses_damaged_archives(tmp_path, capsys):
    np.savez_compressed(tmp_path / "whole.npz", kernel=np.arange(1e4).reshape(10, 10, 10, 10, 1, 1))
    whole = (tmp_path / "whole.npz").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "changed.npz").write_bytes(whole[:middle] + b"0123" + whole[middle + 4 :])
    (tmp_path / "cut.npz").write_bytes(whole[:middle])
    (tmp_path / "text.npz").write_bytes(b"words")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "objects.npz", kernel=np.array([{}], object))
    with (tmp_path / "one.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    for name in ("changed", "cut", "text", "empty", "objects", "one"):
        assert main(["view", str(tmp_path / f"{name}.npz")]) == 2
        assert "is not an archive of arrays" in capsys.readouterr().err
    mixture = {"basis": np.zeros((2, 1, 1, 3, 3, 1, 4)), "coefficients": np.zeros((5, 5, 3))}
    np.savez(tmp_path / "ranks.npz", **mixture)
    with pytest.raises(FileError, match="of another rank"):
        layers_in(tmp_path / "ranks.npz")


def test_a_thousand_positions_are_a_small_page_soon(tmp_path, rng):
    spec = lcmulti.LocalConvSpec((27, 42, 3), 64, 3, data_format="channels_last")
    kernel = rng.standard_normal(spec.kernel_shape).astype("float32")
    assert np.prod(spec.output_size) == 1000
    start = time.process_time()
    text = page(kernel, spec, name="<script>x</script>")
    assert time.process_time() - start < 10
    assert len(text) < 5 * 10**6
    assert "<script>x" not in text and "&lt;script&gt;x" in text
    assert "thinned" not in text
    assert "thinned: one of 2" in page(kernel, spec, most=10**6)
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_page_of_very_many_positions():
    """A canvas has a largest size, and browsers refuse functions of very many arguments."""
    text = page(np.ones((20_000, 2, 1, 1), "float32"), name="@WEIGHTS@ and @DATA@")
    data = json.loads(re.search(r"^const data = (.*);$", text, re.MULTILINE)[1])
    assert (data["rows"], data["columns"], data["step"]) == (1, 2000, 10)
    assert data["name"] == "@WEIGHTS@ and @DATA@"
    assert "thinned: one of 10" in text
    assert len(page(np.ones((300, 300, 1, 1, 1, 1), "float32"), most=10**5)) < 2 * 10**5


@pytest.mark.slow
def test_view_reads_old_and_new_models_of_keras(tmp_path):
    import os
    import subprocess
    import sys
    from pathlib import Path

    pytest.importorskip("keras")
    old = Path(__file__).parents[1] / "data" / "legacy_models" / "lc2_cl_i1_valid.h5"
    code = f"""
import keras, lcmulti_keras
from pathlib import Path
from lcmulti.cli import main
from lcmulti import plot
from lcmulti.plot.reading import layers_in
model = keras.Sequential([keras.Input((6, 5, 2)),
    lcmulti_keras.LocallyConnected2D(4, 3, name="a"),
    lcmulti_keras.LocallyConnected2DTranspose(2, 2)])
model.save({str(tmp_path / "new.keras")!r})
(a, b) = layers_in(Path({str(tmp_path / "new.keras")!r}))
assert (a.kernel == keras.ops.convert_to_numpy(model.layers[0].kernel)).all()
assert b.transposed and a.name == "a" and a.spec.output_size == (4, 3)
assert (plot.statistic(model.layers[0].kernel) == plot.statistic(a.kernel)).all()
assert main(["view", {str(old)!r}, "--html", "-o", {str(tmp_path / "old.html")!r}]) == 0
"""
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Position" in (tmp_path / "old.html").read_text()
