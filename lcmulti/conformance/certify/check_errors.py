"""Wrong calls: every backend raises the same error, naming the argument and what was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lcmulti.conformance.certify import wrong_calls
from lcmulti.conformance.certify.subject import Subject
from lcmulti.conformance.certify.wrong_calls import RIGHT, WRONG, WrongCall, converted
from lcmulti.errors import LcmultiError
from lcmulti.operations.local_conv import local_conv


def test_the_right_call(backend: Subject) -> None:
    """The call that the rows make wrong is right itself."""
    arguments = converted(RIGHT, backend.backend)
    y = local_conv(**arguments, backend=backend.backend)
    backend.verify_kind("y", y, arguments["x"], (2, 7, 7, 6))
    assert (backend.owner.to_numpy(y) == 25).all(), "24 products of ones and a bias of one"


@pytest.mark.parametrize("row", WRONG, ids=wrong_calls.named)
def test_wrong_call(backend: Subject, row: WrongCall) -> None:
    """Each row of the table raises its error."""
    for value in row.changes.values():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fc":
            name = value.dtype.name
            if name not in backend.entry.dtypes:
                pytest.skip(f"{backend.backend}: has no {name}")
    arguments: dict[str, Any] = {"backend": backend.backend} | converted(
        RIGHT | row.changes, backend.backend
    )
    with pytest.raises(LcmultiError) as caught:
        local_conv(**arguments)
    error, message = caught.value, str(caught.value)
    assert type(error) is row.error, f"{type(error).__name__}: {message}"
    assert getattr(error, "argument", None) == row.argument, message
    assert message.startswith(f"{row.argument}: expected "), message
    assert row.shown in message.split(", got ", 1)[1], message
