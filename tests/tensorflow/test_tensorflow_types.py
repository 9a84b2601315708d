"""Type checkers know the operations of TensorFlow's users."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

from helpers_types import CHECKERS, verify

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

TYPES = Path(__file__).parents[1] / "data" / "types"


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_file(checker, tmp_path):
    verify(checker, TYPES / "user_tensorflow.py", ("lcmulti", "lcmulti_tensorflow"), tmp_path)
