import importlib.metadata
import os
from pathlib import Path

import pytest

SABOTEURS = Path(__file__).parent / "saboteurs"
OURS = ("lcmulti", "saboteurs")


@pytest.fixture(autouse=True)
def only_ours(monkeypatch, fresh):
    """Hide third-party plugins, so that counts do not depend on what is installed."""
    found = importlib.metadata.entry_points

    def ours(**selected):
        points = found(**selected)
        if selected.get("group") != "lcmulti":
            return points
        return [each for each in points if each.dist is None or each.dist.name in OURS]

    monkeypatch.setattr(importlib.metadata, "entry_points", ours)


@pytest.fixture
def saboteurs(monkeypatch, only_ours):
    """Make the saboteurs' distribution seem installed, here and in child processes."""
    monkeypatch.syspath_prepend(str(SABOTEURS))
    monkeypatch.setenv("PYTHONPATH", str(SABOTEURS), prepend=os.pathsep)
