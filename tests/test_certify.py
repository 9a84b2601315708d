"""The conformance suite: it passes the honest, and fails every saboteur by the check named."""

import sys
from pathlib import Path

import pytest

SABOTEURS = Path(__file__).parent / "saboteurs"
sys.path.insert(0, str(SABOTEURS))
from saboteurs_table import BACKENDS, IMPLEMENTATIONS  # noqa: E402

sys.path.remove(str(SABOTEURS))

from lcmulti.conformance import certify  # noqa: E402


@pytest.fixture
def saboteurs(monkeypatch, fresh):
    """The saboteurs' distribution as if it were installed, here and in child processes."""
    monkeypatch.syspath_prepend(str(SABOTEURS))
    monkeypatch.setenv("PYTHONPATH", str(SABOTEURS))


def checks(result):
    """Names of the checks that failed."""
    return {failure.check.split("::")[-1].split("[")[0] for failure in result.failures}


@pytest.mark.parametrize("name, check", IMPLEMENTATIONS.items())
def test_implementation_that_is_wrong(saboteurs, name, check):
    result = certify("numpy", implementation=name, arguments=["-x", "-k", check])
    assert not result.ok
    assert [each for each in checks(result) if each.startswith(check)], result.summary()
    assert "NOT CERTIFIED" in result.verdict


@pytest.mark.parametrize("name, check", BACKENDS.items())
def test_backend_that_is_wrong(saboteurs, name, check):
    result = certify(name, arguments=["-x", "-k", check])
    assert not result.ok
    assert [each for each in checks(result) if each.startswith(check)], result.summary()


def test_what_is_honest(saboteurs):
    """The suite whole, on an implementation without differentiation and a backend with it."""
    result = certify("numpy", implementation="honest")
    assert result.ok, result.failures[:3]
    assert (result.failed, result.not_run) == (0, 0)
    assert result.core_passed > 500


def test_honest_derivatives(saboteurs):
    result = certify("tape", arguments=["-k", "derivatives or gradients or record"])
    assert not result.failures
    assert not any("capability" in reason for reason in result.skipped)


def test_there_are_saboteurs_enough_and_each_is_one():
    assert len(IMPLEMENTATIONS) + len(BACKENDS) >= 25
