"""The page of ``lcmulti view --html`` in a real browser, if one is installed."""

import re
import shutil
import subprocess
from html import escape

import numpy as np
import pytest

import lcmulti
from lcmulti.plot.page import page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SPEC = lcmulti.LocalConvSpec((12, 10, 3), 6, (3, 2), padding=1, data_format="channels_last")

pytestmark = [
    pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
]  # fmt: skip


def visited(tmp_path, html, size=(1200, 800)):
    """Return the page as it is after its scripts have run."""
    path = tmp_path / "page.html"
    path.write_text(html, "utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={size[0]},{size[1]}",
        "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def scripted(html, script):
    return html.replace("</body>", f"<script>{{{script}}}</script></body>")


@pytest.fixture(scope="module")
def html():
    rng = np.random.default_rng(0)
    return page(rng.standard_normal(SPEC.kernel_shape), SPEC, name="<b>layer", sheet=(2, 3))


def test_a_pointed_at_position_shows_its_filters_and_its_window(html, tmp_path):
    # The middle of row 7 and column 9, and what the canvases show there.
    point = """
    const map = document.getElementById("map"), box = map.getBoundingClientRect();
    const at = {clientX: box.left + box.width * 9.5 / 11, clientY: box.top + box.height * 7.5 / 12};
    map.dispatchEvent(new PointerEvent("pointermove", at));
    const pen = document.getElementById("filters").getContext("2d");
    const {width, height} = pen.canvas;
    const pixels = [...pen.getImageData(0, 0, width, height).data].join();
    document.body.dataset.seen = JSON.stringify([width, height, pixels]);
    """
    shown = visited(tmp_path, scripted(html, point))
    assert re.search(r'id="where"[^>]*>Position \(7, 9\): norm ', shown)
    assert "Sees rows 6 to 8 and columns 8 to 9 of an input of 12 x 10." in shown
    assert '<rect id="seen-window" x="8" y="6" width="2" height="3"' in shown
    width, height, pixels = re.search(
        r'data-seen="\[(\d+),(\d+),&quot;([\d,]+)&quot;\]"', shown
    ).groups()
    image = np.array(pixels.split(","), int).reshape(int(height), int(width), 4)
    kernel = np.random.default_rng(0).standard_normal(SPEC.kernel_shape)[7, 9, ..., 4]
    expected = np.round(127.5 + 127.5 * kernel / np.abs(kernel).max())
    np.testing.assert_allclose(image[4:7, 3:5, :3], expected, atol=1)  # filter 4: row 1, column 1
    assert escape("<b>layer") in shown and "<b>layer" not in shown


def test_keys_move_and_statistics_change(html, tmp_path):
    press = """
    const map = document.getElementById("map");
    for (const key of ["ArrowUp", "ArrowLeft", "ArrowLeft"])
      map.dispatchEvent(new KeyboardEvent("keydown", {key}));
    const choice = document.getElementById("statistic");
    choice.value = "orientation"; choice.dispatchEvent(new Event("change"));
    """
    shown = visited(tmp_path, scripted(html, press))
    assert "Position (5, 3):" in shown
    assert re.search(r'id="range"[^>]*>[\d.]+ to [\d.]+ degrees<', shown)


@pytest.mark.parametrize("width", [375, 1200])
def test_nothing_is_wider_than_the_screen(html, width, tmp_path):
    measure = """
    const frame = document.querySelector("iframe");
    frame.onload = () => {
      const page = frame.contentDocument, root = page.documentElement;
      const box = id => page.getElementById(id).getBoundingClientRect();
      const map = box("map"), filters = box("filters");
      document.title = JSON.stringify([root.scrollWidth, map.width, filters.top > map.bottom]);
    };
    frame.srcdoc = SOURCE;
    """
    import json

    source = json.dumps(html).replace("<", "\\u003c")
    outer = f'<!doctype html><title></title><iframe width="{width}" height="800"></iframe>'
    outer += f"<script>{measure.replace('SOURCE', source)}</script>"
    title = re.search(r"<title>(\[.*?\])</title>", visited(tmp_path, outer, (1400, 900)))[1]
    wide, map_width, beneath = json.loads(title)
    assert wide <= width
    assert map_width > 250
    assert beneath == (width == 375)


def test_a_row_of_positions_can_be_pointed_at(tmp_path):
    kernel = np.random.default_rng(0).standard_normal((900, 3, 1, 2))
    measure = """
    document.title = document.getElementById("map").getBoundingClientRect().height;
    """
    shown = visited(tmp_path, scripted(page(kernel), measure), (400, 800))
    assert float(re.search(r"<title>([\d.]+)<", shown)[1]) >= 20


def test_a_large_layer_opens_soon(tmp_path):
    spec = lcmulti.LocalConvSpec((27, 42, 3), 64, 3, data_format="channels_last")
    kernel = np.random.default_rng(0).standard_normal(spec.kernel_shape).astype("float32")
    text = page(kernel, spec)
    assert len(text) < 5 * 10**6
    took = "document.body.dataset.took = Math.round(performance.now());"

    def milliseconds(html):
        shown = visited(tmp_path, scripted(html, took))
        return int(re.search(r'data-took="(\d+)"', shown)[1])

    # The time of a page of one line is subtracted, because the machine may be busy.
    taken = [milliseconds(text) - milliseconds("<body>nothing</body>") for _ in range(3)]
    assert min(taken) < 1000
