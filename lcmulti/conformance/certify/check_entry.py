"""What a plugin declares, and the conversions that a backend must do."""

from __future__ import annotations

import numpy as np
import pytest

from lcmulti.choosing import framework
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.geometries import GEOMETRIES
from lcmulti.conformance.certify.subject import CORE_DTYPE, Subject, lacks
from lcmulti.conformance.inputs import draw
from lcmulti.dtypes import DTYPES

PLAIN: Case = GEOMETRIES["2d-plain"]
CAPABILITIES = {"reverse", "forward", "fork"}


@pytest.mark.core
def test_backend_record(backend: Subject) -> None:
    """The record has known names only, and at least those that the core needs."""
    assert set(backend.entry.dtypes) <= set(DTYPES), f"dtypes={backend.entry.dtypes}"
    assert CORE_DTYPE in backend.entry.dtypes, f"dtypes={backend.entry.dtypes}: no {CORE_DTYPE}"
    assert lacks(backend.backend, CORE_DTYPE) is None
    kind = type(backend.array(np.zeros((1, 1), CORE_DTYPE)))
    owner, _ = framework.backend_of((kind, kind, type(None)), None, framework.NUMPY)
    assert owner == backend.backend, (
        f"array_types={backend.entry.array_types}: arrays of {kind.__module__}.{kind.__qualname__} "
        f"belong to {owner!r}"
    )
    capabilities = set(backend.entry.capabilities)
    assert capabilities <= CAPABILITIES, f"capabilities={backend.entry.capabilities}"


@pytest.mark.core
def test_implementation_record(named: Subject) -> None:
    """The record has known names only, and at least those that the core needs."""
    entry = named.implementation_entry
    assert set(entry.dtypes) <= set(DTYPES), f"dtypes={entry.dtypes}"
    assert CORE_DTYPE in entry.dtypes, f"dtypes={entry.dtypes}: no {CORE_DTYPE}"
    assert set(entry.devices) <= {"cpu", "gpu"}, f"devices={entry.devices}"
    assert entry.summary, "a summary for users"


@pytest.mark.parametrize("size", ["small", "symbolic batch", "beyond 32 bits"])
def test_planning(named: Subject, size: str) -> None:
    """`decline` returns text or None, `workspace` a number of bytes; both compute nothing."""
    case = PLAIN
    if size == "beyond 32 bits":
        case = Case("huge", "2d", (70_001, 70_003, 3), 64, (3, 5), batch=5)
    problem = named.problem(case, CORE_DTYPE)
    if size == "symbolic batch":
        problem = problem._replace(batch=None)
    reason = named.maps.decline(problem)
    assert reason is None or (isinstance(reason, str) and reason), f"decline gave {reason!r}"
    if reason is None:
        held = named.maps.workspace(problem)
        assert type(held) is int, f"workspace gave {held!r}"
        assert held >= 0, f"workspace gave {held!r}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(backend: Subject, dtype: str) -> None:
    """`from_numpy`, `facts` and `to_numpy` fit together, bit for bit."""
    backend.require(PLAIN, dtype)
    for array in (draw(PLAIN, dtype).x, draw(PLAIN, dtype).x[:0], draw(PLAIN, dtype).kernel):
        there = backend.array(array)
        for batched in (False, True):
            facts = backend.owner.facts(there, batched)
            assert (facts.shape, facts.dtype) == (array.shape, dtype), f"{facts}"
            assert not facts.transformed, f"{facts}"
        if backend.device is not None:
            assert facts.device == backend.device, f"{facts}"
        again = backend.owner.from_numpy(array, like=there)
        backend.verify_kind("from_numpy", again, there, array.shape)
        back = backend.owner.to_numpy(again)
        assert back.dtype == array.dtype, f"to_numpy gave {back.dtype}"
        assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_around_an_implementation(backend: Subject, dtype: str) -> None:
    """`prepare` keeps arrays; `move_axis`, `take` and `add` do what NumPy's functions do."""
    backend.require(PLAIN, dtype)
    owner, array = backend.owner, draw(PLAIN, dtype).x
    there, indices = backend.array(array), np.array([2, 0, 0, 3])
    bias = array[0, :1]
    prepared, kernel, none = owner.prepare((there, backend.array(draw(PLAIN, dtype).kernel), None))
    assert none is None, f"prepare made {none!r} of no bias"
    pairs = {
        "prepare": (prepared, array),
        "prepare of a kernel": (kernel, draw(PLAIN, dtype).kernel),
        "move_axis": (owner.move_axis(there, -1, 1), np.moveaxis(array, -1, 1)),
        "move_axis back": (owner.move_axis(there, 1, -1), np.moveaxis(array, 1, -1)),
        "take": (owner.take(there, indices, 2), np.take(array, indices, 2)),
        "add": (owner.add(there, backend.array(bias)), array + bias),
    }
    for name, (got, expected) in pairs.items():
        backend.verify_kind(name, got, there, expected.shape)
        assert np.array_equal(owner.to_numpy(got), expected), name


def test_devices(backend: Subject) -> None:
    """`devices` returns names."""
    devices = backend.owner.devices()
    assert devices, "no device"
    assert all(isinstance(device, str) and device for device in devices), f"{devices}"


def test_modes_not_declared(backend: Subject) -> None:
    """A missing mode of differentiation raises, rather than returning a wrong number."""
    x = backend.array(np.ones(2, CORE_DTYPE))
    modes = {"reverse": backend.owner.vjp, "forward": backend.owner.jvp}
    for capability, mode in modes.items():
        if capability not in backend.entry.capabilities:
            other = x if capability == "reverse" else (x,)
            with pytest.raises(NotImplementedError):
                mode(lambda array: array, (x,), other)
