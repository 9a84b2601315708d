"""Type checkers know Keras' layers, and refuse wrong arguments."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from helpers_types import CHECKERS, verify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("keras"), reason="Keras is not installed"),
]

TYPES = Path(__file__).parents[1] / "data" / "types"


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_file(checker, tmp_path):
    verify(checker, TYPES / "user_keras.py", ("lcmulti", "lcmulti_keras"), tmp_path)
