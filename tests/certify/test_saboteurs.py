"""Every saboteur fails the check that is named for it, and an honest implementation passes it.

The saboteurs of one check run together, each until its first failure, so that the expected values
of a geometry are computed once. test_certify.py tests that one failed check is enough for the
verdict, and that a certificate needs all checks.
"""

import contextlib
import ctypes
import gc
import io
import platform
import runpy
from pathlib import Path

import pytest

from lcmulti.conformance.certify import session
from lcmulti.conformance.certify.frameworks import framework_of
from lcmulti.conformance.certify.plugin import Suite
from lcmulti.conformance.certify.random_geometries import CI, Examples
from lcmulti.conformance.certify.result import Result

TABLE = runpy.run_path(str(Path(__file__).parent / "saboteurs" / "saboteurs_table.py"))
IMPLEMENTATIONS, BACKENDS, FRAMEWORKS = (
    TABLE[name] for name in ("IMPLEMENTATIONS", "BACKENDS", "FRAMEWORKS")
)
ALONE = {
    "subnormals_off", "garbage_kept", "threads_left", "talks", "warns", "errors_silenced",
    "random_state_used", "expects_to_fail", "skips_itself", "skips_its_gradient",
}  # fmt: skip
"""These change the process or pytest, so no other saboteur may run after them."""

FAST = (
    ("numpy", "test_value", "window_order"),
    ("numpy", "test_every_size", "wrong_over_64_groups"),
    ("numpy", "test_published_layers", "wrong_for_3x3_padded"),
    ("numpy", "test_sums_that_just_fit", "three_products"),
    ("numpy", "test_results_are_new_arrays", "scratch_returned"),
    ("tangentzero", "test_forward_mode", None),
)
"""One saboteur of each kind: layout, size, layer, range, contract and derivatives."""


@pytest.fixture(scope="module", autouse=True)
def only_new_garbage():
    """Freeze existing objects: each run of pytest collects garbage ten times, over all of them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@contextlib.contextmanager
def process_restored():
    """Undo afterwards what saboteurs did to the process."""
    library, arithmetic = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    library.fegetenv(arithmetic)
    try:
        yield
    finally:
        library.fesetenv(arithmetic)
        gc.enable()


def run_check(backend, check, names=None):
    """Run one check on the implementations *names*, each until its first failure."""
    files = [*session.SUITE.glob("check_*.py")]
    files += session.SUITE.glob(f"frameworks/check_{framework_of(backend)}*.py")
    nodes = [
        f"{path}::{name}"
        for path in files
        for name in session.checks_in(path)
        if name.startswith(check)
    ]
    assert nodes, f"there is no check {check}"
    result = Result(backend)
    suite = Suite(result, set(), Examples(*CI, 0), names, once=True)
    with process_restored(), contextlib.redirect_stdout(io.StringIO()):
        session.run(suite, nodes)
    return result


def failed_by(result, subject):
    """Return the checks that a subject has failed."""
    return [each for each in result.failures if f"[{subject}-" in f"{each.check[:-1]}-"]


def groups():
    """Group saboteurs by framework and check. The saboteurs of a group can run together."""
    found = {}
    rows = [("numpy", name, check) for name, check in IMPLEMENTATIONS.items()]
    rows += [(backend, name, check) for (backend, name), check in FRAMEWORKS.items()]
    for backend, name, check in rows:
        found.setdefault((backend, check, name if name in ALONE else ""), []).append(name)
    return [(backend, check, names) for (backend, check, _), names in found.items()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend, check, names", groups(), ids=lambda value: value if isinstance(value, str) else "-"
)
def test_implementations_that_are_wrong(saboteurs, backend, check, names):
    pytest.importorskip(backend)
    if "subnormals_off" in names and platform.machine() != "x86_64":
        pytest.skip("the saboteur can turn subnormal numbers off on x86-64 only")
    is_alone = names[0] in ALONE
    honest = run_check(backend, check, ["honest"]) if is_alone else None
    result = run_check(backend, check, names if is_alone else ["honest", *names])
    missed = [name for name in names if not failed_by(result, f"{backend}-{name}")]
    assert not missed, f"{check} misses {missed}"
    assert not failed_by(honest or result, f"{backend}-honest"), result.failures[:3]


@pytest.mark.slow
def test_backends_that_are_wrong(saboteurs):
    missed = [
        name for name, check in BACKENDS.items() if not run_check(name.lower(), check).failures
    ]
    assert not missed
    for check in dict.fromkeys(BACKENDS.values()):
        result = run_check("tape", check)
        assert result.passed, check
        assert not result.failures, result.failures[:3]


@pytest.mark.parametrize("backend, check, name", FAST, ids=str)
def test_some_that_are_wrong(saboteurs, backend, check, name):
    assert run_check(backend, check, None if name is None else [name]).failures


def test_there_are_saboteurs_enough():
    assert len(IMPLEMENTATIONS) + len(BACKENDS) + len(FRAMEWORKS) >= 200
    assert {name for _, _, name in FAST} - {None} <= IMPLEMENTATIONS.keys()
    assert all(check in BACKENDS.values() for _, check, name in FAST if name is None)
