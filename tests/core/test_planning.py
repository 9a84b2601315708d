"""What dispatch makes of a call before it computes: the problem, verdicts, and memory asked for."""

import numpy as np
import pytest
from strangers import implementation_entry, plugin_of

from lcmulti.choosing import dispatch, settings
from lcmulti.choosing.dispatch import choose, problem_of
from lcmulti.errors import LcmultiError
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.numpy import backend as numpy_backend
from lcmulti.numpy.backend import NumpyBlocked, NumpyOps
from lcmulti.plugins.contract import Facts, Problem, Resources

LAST = {"data_format": "channels_last"}
SPEC = LocalConvSpec((9, 8, 4), 6, (3, 2), **LAST)
F32 = Facts((2, 9, 4), "float32", "cpu")
KERNEL = Facts((7, 3, 4, 6), "float32", "cpu")
GEOMETRY = (1, "valid", "zeros", 1, 1, "channels_last")


def planned(dtype="float32", device="cpu", transformed=False, limit=10**9, batch=2):
    return Problem(SPEC, batch, dtype, device, transformed, Resources(limit))


@pytest.fixture
def specialists(install):
    """Implementations that each serve one kind of call, and one that cannot be loaded."""
    record = {"backend": "numpy", "priority": 99}
    install(
        paint=plugin_of(
            (),
            [
                implementation_entry("doubles", dtypes=("float64",), **record),
                implementation_entry("device", devices=("gpu",), **record),
                implementation_entry("absent", load="nowhere:nothing", **record),
            ],
        )
    )


def test_verdicts_to_the_letter(specialists):
    _, verdicts = choose("numpy", planned(limit=10), "reference", settings.DEFAULTS)
    held = numpy_backend.reference_implementation.workspace(planned())
    assert [tuple(each) for each in verdicts[:2]] == [
        ("absent", verdicts[0].reason, None),
        ("device", "does not run on cpu", None),
    ]
    assert "nowhere" in verdicts[0].reason
    assert tuple(verdicts[2]) == ("doubles", "does not compute in float32", None)
    assert verdicts[3].reason.endswith("bytes of workspace, over max_workspace=10")
    assert tuple(verdicts[4]) == ("reference", None, held)


def test_a_stranger_who_fails_when_asked(install, monkeypatch):
    """An implementation whose `decline` raises is passed over, and the others still serve."""

    class Failing(NumpyBlocked):
        def decline(self, problem):
            raise KeyError("groups")

    monkeypatch.setattr(numpy_backend, "failing", Failing(NumpyOps()), raising=False)
    record = implementation_entry("failing", load="lcmulti.numpy.backend:failing", priority=99)
    install(paint=plugin_of((), [record]))
    entry, verdicts = choose("numpy", planned(), "auto", settings.DEFAULTS)
    assert entry.name == "blocked"
    why = "could not tell whether it serves (KeyError: 'groups')"
    assert tuple(verdicts[0]) == ("failing", why, None)


def test_refusals_to_the_letter(specialists):
    with pytest.raises(LcmultiError) as caught:
        choose("numpy", planned(), "doubles", settings.DEFAULTS)
    assert str(caught.value) == (
        "implementation 'doubles' of backend 'numpy' cannot serve this call (does not compute in "
        "float32); implementation='auto' takes one that can"
    )
    with pytest.raises(LcmultiError) as caught:
        choose("numpy", planned(transformed=True), "auto", settings.DEFAULTS)
    reason = "cannot be transformed or traced by the framework"
    assert str(caught.value) == (
        "no implementation of backend 'numpy' can serve this call (absent: "
        f"{reason}; device: does not run on cpu; doubles: does not compute in float32; "
        f"blocked: {reason}; reference: {reason})"
    )


def test_what_arguments_become():
    frozen = dispatch.frozen
    assert frozen([1, (2, None), "same"]) == (1, (2, None), "same")
    for value in (True, 1.0, {2}, b"same", np.int64(1)):
        with pytest.raises(dispatch.UnhashableError):
            frozen(value)
    config = settings.DEFAULTS._replace(data_format="channels_first", threads=3)
    facts = F32._replace(shape=(2, 4, 9)), KERNEL, None
    found, problem = problem_of("numpy", facts, (1, "valid", "zeros", 1, 1, None), config)
    assert found.data_format == "channels_first"
    assert problem.resources == Resources(config.max_workspace, 3)
    assert problem[1:5] == (2, "float32", "cpu", False)


@pytest.mark.parametrize(
    "shape, device, padding, name, expected",
    [
        ((2, 9, 4), "cpu", 1, "forward", [("padding", (2, 11, 4)), ("padding", (2, 9, 6))]),
        ((2, 9, 4), "cpu", 0, "forward", [("x", (2, 9, 4)), ("x", (2, 7, 6))]),
        ((0, 9, 4), "cpu", 0, "forward", [("x", (1, 9, 4)), ("x", (1, 7, 6))]),
        ((None, 9, 4), "cpu", 0, "forward", [("x", (1, 9, 4)), ("x", (1, 7, 6))]),
        ((2, 9, 4), "gpu", 0, "forward", [("x", (1, 9, 4)), ("x", (1, 7, 6))]),
    ],
)
def test_arrays_that_memory_is_asked_for(monkeypatch, shape, device, padding, name, expected):
    asked = []
    monkeypatch.setattr(dispatch, "require_memory", lambda *row: asked.append(row[:2]))
    kernel = Facts((7 + 2 * padding, 3, 4, 6), "float32", device)
    facts = Facts(shape, "float32", device), kernel, None
    problem_of("numpy", facts, (1, padding, "zeros", 1, 1, "channels_last"), settings.DEFAULTS)
    assert asked == expected


def test_memory_is_not_asked_for_arrays_that_are_not_in_it(monkeypatch):
    asked = []
    monkeypatch.setattr(dispatch, "require_memory", lambda *row: asked.append(row))
    problem_of("numpy", (F32._replace(transformed=True), KERNEL, None), GEOMETRY, settings.DEFAULTS)
    monkeypatch.setattr(dispatch, "memory_for", lambda shape, dtype: (2, 1))
    problem_of("numpy", (F32, KERNEL, None), GEOMETRY, settings.DEFAULTS)
    assert not asked
    monkeypatch.setattr(dispatch, "memory_for", lambda shape, dtype: (1, 1))
    problem_of("numpy", (F32, KERNEL, None), GEOMETRY, settings.DEFAULTS)
    assert len(asked) == 2
