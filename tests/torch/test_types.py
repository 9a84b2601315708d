"""Type checkers know the layers, their weights and results, and refuse wrong arguments."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("torch")

import lcmulti_torch
from helpers_types import CHECKERS, verify

pytestmark = pytest.mark.torch

USER = Path(__file__).parents[1] / "data" / "types" / "user_torch.py"


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_file(checker, tmp_path):
    verify(checker, USER, ("lcmulti", "lcmulti_torch"), tmp_path)


def test_tools_see_what_a_program_finds():
    """Type checkers import each public name from the module that has it when a program runs."""
    assert (Path(lcmulti_torch.__file__).parent / "py.typed").exists()
    tree = ast.parse(Path(lcmulti_torch.__file__).read_text("utf-8"))
    (seen,) = (node.body for node in tree.body if isinstance(node, ast.If))
    found = {name.name: node.module for node in seen for name in node.names}
    assert sorted(found) == sorted(lcmulti_torch.__all__)
    for name, module in found.items():
        if name != "functional":
            assert getattr(import_module(module), name) is getattr(lcmulti_torch, name)
