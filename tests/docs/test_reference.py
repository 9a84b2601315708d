"""The reference in docs/reference has an entry for everything that is public."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # the lightest to import

DOCS = Path(__file__).parents[2] / "docs"

PUBLIC = {
    "lcmulti": (),
    "lcmulti.backend": (),
    "lcmulti.bench": (),
    "lcmulti.composed": (),
    "lcmulti.conformance": (),
    "lcmulti.errors": (),
    "lcmulti.layouts": (),
    "lcmulti_torch": ("torch",),
    "lcmulti_torch.functional": ("torch",),
    "lcmulti_torch.parallel": ("torch",),
    "lcmulti_jax": ("jax",),
    "lcmulti_jax.nnx": ("flax",),
    "lcmulti_jax.equinox": ("equinox",),
    "lcmulti_keras": ("keras",),
}
"""Modules whose ``__all__`` is the public API, and the packages needed to import them."""


def documented():
    """Return the full name of everything the reference has an entry for."""
    names = set()
    for path in (DOCS / "reference").glob("*.md"):
        text = path.read_text("utf-8")
        for entry in re.findall(r"^\.\. \S+:: ([\w.]+(?:\n {6,}[\w.]+)*)", text, re.MULTILINE):
            names.update(entry.split())
        for module in re.findall(r"^\.\. automodule:: (\S+)\n   :members:", text, re.MULTILINE):
            names.update(f"{module}.{name}" for name in importlib.import_module(module).__all__)
    return names


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_has_the_whole_public_api(module):
    for package in PUBLIC[module]:
        pytest.importorskip(package)
    imported, found = importlib.import_module(module), documented()
    for name in set(imported.__all__) - {"__version__"}:
        home = getattr(getattr(imported, name), "__module__", module)
        assert {f"{module}.{name}", f"{home}.{name}"} & found, name
