import os
from pathlib import Path

import pytest

SABOTEURS = Path(__file__).parent / "saboteurs"


@pytest.fixture
def saboteurs(monkeypatch, fresh):
    """The saboteurs' distribution as if it were installed, here and in child processes."""
    monkeypatch.syspath_prepend(str(SABOTEURS))
    monkeypatch.setenv("PYTHONPATH", str(SABOTEURS), prepend=os.pathsep)
