"""The pages in docs/ are right: their Python runs, command lines parse, and links lead somewhere.

The blocks of a page run one after the other. A line ``print(...)   # text`` must print the text.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lcmulti import cli

os.environ.setdefault("KERAS_BACKEND", "numpy")  # the lightest to import

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LEGACY = Path(__file__).parents[1] / "data" / "legacy_models" / "lc2_cl_i1_valid.h5"
EXAMPLE = Path(__file__).parents[1] / "example_plugin" / "src"
NEEDS = {
    "choosing.md": (),
    "coming_from/flax.md": ("jax", "flax"),
    "coming_from/keras2.md": ("tf_keras", "keras"),
    "coming_from/pytorch_recipe.md": ("torch",),
    "configuration.md": (),
    "conformance.md": (),
    "errors.md": (),
    "faq.md": (),
    "how_it_works.md": (),
    "index.md": ("torch",),
    "jax.md": ("jax", "flax", "equinox", "safetensors"),
    "keras.md": ("keras", "h5py"),
    "measuring.md": (),
    "pytorch.md": ("torch", "safetensors"),
    "sharding.md": ("torch", "jax"),
    "tensorflow.md": ("tensorflow",),
    "writing_a_backend.md": ("array_api_strict",),
    "writing_an_implementation.md": (),
}
FILES = {"keras.md": ("old.h5", "weights.h5")}  # old models a page finds in its folder
BEFORE = {
    "writing_a_backend.md": "from lcmulti_example.backend import StrictComposed, StrictOps",
    "sharding.md": (  # what a process of torchrun does first
        "import torch.distributed as dist\n"
        'dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)'
    ),
}
"""Code that must run before the blocks of a page, because the page does not show it."""
AFTER = {"sharding.md": "dist.destroy_process_group()"}
PLUGIN = {"writing_a_backend.md": "backend.py", "writing_an_implementation.md": "einsum.py"}
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if "_build" not in path.parts and "reference" not in path.parts
)
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks_of(page, language="python"):
    text = (DOCS / page).read_text("utf-8")
    return [block for found, block in FENCE.findall(text) if found == language]


def promised(block):
    """Return the texts of the comments after ``print`` lines, in order."""
    same_line = re.findall(r"^\s*print\(.*\)\s*# (.*)$|^# (.*)$", block, re.MULTILINE)
    return [one or other for one, other in same_line]


def without_native(line):
    """Return what is printed where the native kernels are not installed, as pages have it."""
    return line.replace("'native', ", "").replace("native", "blocked")


def test_every_page_with_python_is_run():
    names = {str(path.relative_to(DOCS)) for path in PAGES}
    assert {name for name in names if blocks_of(name)} == set(NEEDS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not carried over")
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")  # of tf_keras
@pytest.mark.parametrize("page", NEEDS)
def test_page_runs_and_prints_what_it_says(page, isolated, monkeypatch):
    for package in NEEDS[page]:
        pytest.importorskip(package)
    for name in FILES.get(page, ()):
        shutil.copy(LEGACY, isolated / name)
        # The page reads the file that model.to_json() had written.
        with importlib.import_module("h5py").File(LEGACY) as file:
            (isolated / "model.json").write_text(file.attrs["model_config"], "utf-8")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    names = {"__name__": "page"}
    if page in BEFORE:
        exec(BEFORE[page], names)
    for block in blocks_of(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, page, "exec"), names)
        lines = map(without_native, printed.getvalue().splitlines())
        assert [*lines] == [*map(without_native, promised(block))]
    exec(AFTER.get(page, ""), names)
    if page == "keras.md":
        assert names["local"].spec.output_shape == (16, 16, 8)
        assert (isolated / "new.keras").is_file()


SHOWN = re.compile(
    r"^```(?:python\n(?P<own>.*?)|\{literalinclude\} (?P<file>\S+)\n:language: \w+\n"
    r"(?::pyobject: (?P<name>\w+)\n)?)```$",
    re.DOTALL | re.MULTILINE,
)


def shown_code(text, folder):
    """Yield the Python blocks and the included objects of a part of a page, in order."""
    for match in SHOWN.finditer(text):
        if match["own"] is not None:
            yield match["own"]
        elif match["name"]:
            source = (folder / match["file"]).read_text("utf-8")
            tree = ast.parse(source).body
            (found,) = (each for each in tree if getattr(each, "name", None) == match["name"])
            yield ast.get_source_segment(source, found)


@pytest.mark.slow
def test_a_backend_written_to_the_letter_computes(tmp_path):
    """The blocks of the page, written to the files it names, are a plugin that works."""
    pytest.importorskip("array_api_strict")
    text = (DOCS / "writing_a_backend.md").read_text("utf-8")
    describe, compose, _, record, _ = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    package = tmp_path / "lcmulti_example"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "backend.py").write_text("\n\n".join(shown_code(describe + compose, DOCS)), "utf-8")
    (package / "plugin.py").write_text("\n\n".join(shown_code(record, DOCS)), "utf-8")
    (metadata := tmp_path / "lcmulti_example-1.0.dist-info").mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lcmulti-example\nVersion: 1\n")
    points = tomllib.loads((EXAMPLE.parent / "pyproject.toml").read_text("utf-8"))
    (point,) = points["project"]["entry-points"]["lcmulti"].items()
    (metadata / "entry_points.txt").write_text("[lcmulti]\n{} = {}\n".format(*point))
    call = (
        "import array_api_strict as xp, lcmulti\n"
        "y = lcmulti.local_conv(xp.ones((2, 5, 2)), xp.ones((3, 3, 2, 4)))\n"
        "assert type(y).__module__.startswith('array_api_strict') and y.shape == (2, 3, 4)\n"
        "assert float(y[0, 0, 0]) == 6.0\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", call]
    run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]


def command_lines():
    """Collect the calls of lcmulti in shell blocks and in indented blocks."""
    found = []
    for path in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        text = path.read_text("utf-8").replace("\\\n", " ")
        shells = [block for language, block in FENCE.findall(text) if language == "sh"]
        indented = re.findall(r"^ {4}(.*)$", FENCE.sub("", text), re.MULTILINE)
        found += [(path.name, line) for line in [*"\n".join(shells).splitlines(), *indented]]
    ours = re.compile(r"(KERAS_BACKEND=\w+ )?lcmulti [a-z]")
    return [
        pytest.param(line, id=f"{name}: {line[:60]}") for name, line in found if ours.match(line)
    ]


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_are_right_calls(line):
    words = shlex.split(line.partition("|")[0], comments=True)
    words = words[words.index("lcmulti") + 1 :]
    args, unknown = cli._parser().parse_known_args(words)
    assert not unknown or hasattr(args, "unknown")  # certify passes unknown options on to pytest


def test_links_lead_to_something():
    pages = [*PAGES, *ROOT.glob("*.md"), ROOT / "backends" / "native" / "README.md"]
    for path in pages:
        text = re.sub(r"`[^`\n]*`(?!\])", "", FENCE.sub("", path.read_text("utf-8")))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" not in target and not target.startswith("#"):
                file = path.parent / target.partition("#")[0]
                assert file.exists(), f"{path.name}: {target}"


def test_the_site_checker_finds_what_leads_nowhere(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here">1</a> <a href="b.html#there">2</a> <a href="c.html">3</a>'
        '<a href="b.html">4</a> <a href="https://example.org/x">5</a> <img src="no.svg">'
    )
    (tmp_path / "b.html").write_text('<p id="else"><a href="a.html#here">6</a>')
    script = [sys.executable, DOCS / "check_links.py", tmp_path]
    run = subprocess.run(script, check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines() == ["a.html: b.html#there", "a.html: c.html", "a.html: no.svg"]
    (tmp_path / "a.html").write_text('<p id="here">')
    assert subprocess.run(script, check=False).returncode == 0


def test_the_parser_of_command_lines_can_fail():
    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        cli._parser().parse_args(["explain", "--inputs", "3"])
    assert isinstance(cli._parser(), argparse.ArgumentParser)
    assert len(command_lines()) > 10


@pytest.mark.parametrize("page", PLUGIN)
def test_a_plugin_is_as_short_as_its_page_says(page):
    told = re.search(r"(\d+) lines", (DOCS / page).read_text())
    lines = (EXAMPLE / "lcmulti_example" / PLUGIN[page]).read_text().count("\n")
    assert int(told[1]) == lines < 100


def test_contributing_names_every_session():
    sessions = re.findall(
        r"^@nox\.session.*?^def (\w+)", (ROOT / "noxfile.py").read_text(), re.M | re.S
    )
    told = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"nox -s \"?(\w+)", told)) | set(re.findall(r"`(\w+)`", told))
    assert len(sessions) > 20
    assert not set(sessions) - named


def test_tables_are_of_the_results_kept():
    kept = runpy.run_path(str(ROOT / "asv_benches" / "kept.py"))
    for path, names in kept["PAGES"].items():
        page = path.read_text("utf-8")
        assert kept["with_tables"](page, names) == page
