"""The Python blocks of ``docs/keras.md``, in order, as one program."""

import os
import re
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # the lightest to import
pytest.importorskip("keras")

TESTS = Path(__file__).parent
DATA = TESTS / "data" / "legacy_models" / "lc2_cl_i1_valid.h5"


@pytest.mark.filterwarnings("ignore:.*not carried over")
def test_blocks_run(isolated):
    text = (TESTS.parent / "docs" / "keras.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    for name in ("old.h5", "weights.h5"):
        shutil.copy(DATA, isolated / name)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/keras.md", "exec"), names)
    assert names["local"].spec.output_shape == (16, 16, 8)
    assert (isolated / "new.keras").is_file()
