"""Files that name versions of packages and of Python agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOUND = re.compile(r"([\w.-]+)>=([\w.]+)")
EXTRAS = ("torch", "jax", "tensorflow", "keras", "flax", "equinox", "weights", "report")
NATIVE = ROOT / "backends" / "native" / "pyproject.toml"
PLUGIN = ROOT / "tests" / "example_plugin" / "pyproject.toml"


def project(path=ROOT / "pyproject.toml"):
    return tomllib.loads(path.read_text("utf-8"))["project"]


def bounds(requirements):
    return {match[1].lower(): match[2] for each in requirements if (match := BOUND.match(each))}


def pinned():
    lines = (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_oldest_versions_are_the_bounds():
    """The pins of `nox -s "versions(oldest)"` are the lower bounds in pyproject.toml."""
    found = project()
    extras = found["optional-dependencies"]
    wanted = bounds(found["dependencies"])
    for name in (*EXTRAS, "conformance", "test"):
        wanted |= bounds(extras[name])
    assert pinned() == wanted


@pytest.mark.parametrize("path", [NATIVE, PLUGIN], ids=["native", "plugin"])
def test_packages_beside_it_have_the_same_bounds(path):
    ours, theirs = bounds(project()["dependencies"]), bounds(project(path)["dependencies"])
    assert {name: theirs[name] for name in theirs.keys() & ours.keys()} == {
        name: ours[name] for name in theirs.keys() & ours.keys()
    }
    assert project(path)["requires-python"] == project()["requires-python"]


def test_every_upper_bound_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    section = text[text.index("dependencies = ") : text.index("[project.scripts]")]
    for line in section.splitlines():
        if re.search(r"[\w\]]<=?\d|!=\d|,<", line):
            assert "#" in line, line


def test_pythons_are_the_same_everywhere():
    """The classifiers, the linter's target and the sessions of nox name the same versions."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    declared = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    oldest = project()["requires-python"].removeprefix(">=")
    assert declared[0] == oldest
    assert f'target-version = "py{oldest.replace(".", "")}"' in text
    sessions = (ROOT / "noxfile.py").read_text("utf-8")
    assert f"PYTHONS = {declared}".replace("'", '"') in sessions
