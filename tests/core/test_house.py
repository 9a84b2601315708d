"""Imports form no circles, and no room imports the private files or names of another."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    path.name: path
    for folder in (ROOT, ROOT / "backends", ROOT / "backends" / "native")
    for path in sorted(folder.glob("lcmulti*"))
    if (path / "__init__.py").exists()
}
# In the order of docs/design.md: a room imports only from the rooms before it.
ROOMS = ("geometry", "plugins", "choosing", "algorithms", "weights", "operations", "numpy")


def files(packages: dict[str, Path]) -> dict[str, Path]:
    """Return the path of every module by its full name, in the order of names.

    What an editor keeps beside a file (a copy, a lock, a hidden folder) cannot be imported, and so
    is no module.
    """
    found = {}
    for name, folder in packages.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            if all(part.isidentifier() for part in parts):
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: set[str]) -> dict[str, set[str]]:
    """Return the modules of ours that a file imports, and the names it imports from each."""
    found: dict[str, set[str]] = defaultdict(set)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in known:
                    found[alias.name].update()
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative import"
            for alias in node.names:
                if f"{node.module}.{alias.name}" in known:
                    found[f"{node.module}.{alias.name}"].update()
                elif node.module in known:
                    found[node.module].add(alias.name)
    return found


MODULES = files(PACKAGES)
IMPORTS = {name: imported(path, set(MODULES)) for name, path in MODULES.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of two or more nodes (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = [stack.pop()]
            while component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert circles(graph) == [["a", "b", "c"]]


def test_what_editors_leave_is_no_module(tmp_path):
    for name in ("__init__.py", "room.py", "room (copy).py", ".hidden/room.py", "room.orig.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".#room.py").symlink_to("nowhere")  # how Emacs locks a file
    assert list(files({"house": tmp_path})) == ["house", "house.room"]


def test_no_circle_of_files():
    # ``lcmulti`` itself collects the public names, so importing it means importing one of those.
    graph = {name: set(found) - {"lcmulti"} for name, found in IMPORTS.items()}
    found = circles(graph)
    steps = [f"{a} imports {b}" for circle in found for a in circle for b in graph[a] & {*circle}]
    assert not found, "\n".join(sorted(steps))


ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [each for each in sys.modules if each.partition(".")[0] == "lcmulti"]:
        del sys.modules[known]
    importlib.import_module(name)
"""


def test_every_room_can_be_imported_first():
    """A circle through the files ``__init__`` of packages depends on what is imported first."""
    rooms = [n for n, path in MODULES.items() if path.name == "__init__.py" and "lcmulti." in n]
    assert "lcmulti.bench" in rooms
    subprocess.run([sys.executable, "-c", ALONE, *rooms], check=True)


def test_a_room_imports_from_those_before_it():
    wrong = []
    for name, found in IMPORTS.items():
        room = name.split(".")[1] if name.startswith("lcmulti.") else ""
        for other in found:
            target = other.split(".")[1] if other.startswith("lcmulti.") else ""
            if room in ROOMS and target in ROOMS and ROOMS.index(target) > ROOMS.index(room):
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_private_files_and_names_stay_in_their_room():
    wrong = []
    for name, found in IMPORTS.items():
        for other, names in found.items():
            room = other.rpartition(".")[0]
            private_file = other.rpartition(".")[2].startswith("_")
            if private_file and not name.startswith(room):
                wrong.append(f"{name} imports {other}")
            wrong += [
                f"{name} takes {each} from {other}"
                for each in names
                if each.startswith("_") and not each.startswith("__") and not name.startswith(room)
            ]
    assert wrong == []


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("lcmulti.")])
def test_the_core_imports_no_framework(name):
    """Imports within functions count, too, except from conformance and bench."""
    if name.split(".")[1] in ("conformance", "bench", "cli"):
        pytest.skip("runs frameworks")
    frameworks = {"torch", "jax", "tensorflow", "keras", "flax", "equinox"}
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert not frameworks & {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.module.split(".")[0] not in frameworks


HEADERS = sorted((ROOT / "backends" / "native" / "src").rglob("*"))


def test_no_circle_of_headers():
    graph: dict[str, set[str]] = {}
    for path in HEADERS:
        if path.suffix in (".h", ".cc"):
            lines = path.read_text("utf-8").splitlines()
            included = [line.split('"')[1] for line in lines if line.startswith('#include "')]
            graph[path.name] = {each.rpartition("/")[2] for each in included}
    assert graph
    assert circles(graph) == []


def test_hooks_run_the_versions_of_ci():
    wanted = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").split()
        if "==" in line
    )
    hooks = re.findall(r"([\w-]+)==([\w.]+)", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert hooks
    for name, version in hooks:
        assert wanted[name] == version, name


@pytest.mark.parametrize(
    "path", [".github/workflows/ci.yml", ".github/workflows/release.yml", ".ci/run"]
)
def test_ci_calls_what_there_is(path):
    """Sessions of nox, extras, test folders and constraints that CI names exist."""
    text = re.sub(r"\$\{\{.*?\}\}", "", (ROOT / path).read_text("utf-8"))
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for words in re.findall(r"nox -s (.*?)(?: -- .*)?$", text, re.M):
        for session in re.findall(r"\w+", words):
            assert f"\ndef {session}(session: nox.Session" in noxfile, session
    for words in re.findall(r"\.\[([\w, ]+)\]|extras: (.*)", text):
        for extra in filter(None, "".join(words).split(",")):
            assert extra in project["optional-dependencies"], extra
    named = re.findall(r"(?:tests|constraints)[\w/.-]*\b", "\n".join(
        line for line in text.splitlines() if "pytest " in line or "constraints" in line
    ))  # fmt: skip
    for each in {name for name in named if "/" in name or name.startswith("constraints")}:
        assert (ROOT / each).exists(), each


@pytest.mark.parametrize(
    "package",
    ["lcmulti", "lcmulti_torch", "lcmulti_jax", "lcmulti_tensorflow", "lcmulti_keras"],
)
def test_type_checkers_may_read_each_package(package):
    assert (PACKAGES[package] / "py.typed").exists()


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow", "keras"])
def test_the_design_says_what_each_file_of_a_backend_is_for(framework):
    """Each file is in the table of jobs or in the text below it, and each in the table exists."""
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    lines = page.partition("## The backends")[2].partition("## Two seams")[0].splitlines()
    head, _, *rows = [line.split("|") for line in lines if line.startswith("|")]
    column = [title.strip().lower().replace("py", "") for title in head].index(framework)
    in_table = set(re.findall(r"`(\w+)", " ".join(row[column] for row in rows)))
    in_text = set(re.findall(r"`(\w+)", " ".join(line for line in lines if line[:1] != "|")))
    entries = [each for each in PACKAGES[f"lcmulti_{framework}"].iterdir() if each.name[0] != "_"]
    files = {
        each.stem for each in entries if each.suffix == ".py" or (each / "__init__.py").exists()
    }
    assert files <= in_table | in_text
    assert in_table <= files
