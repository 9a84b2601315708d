"""Layers over several devices: placement, bytes and values, in one process and in two."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

jax = pytest.importorskip("jax")

from helpers_jax_spread import EVEN, SPREADS  # noqa: E402

pytestmark = pytest.mark.jax
PROGRAM = Path(__file__).parents[1] / "helpers" / "jax_sharded_program.py"
TRANSPOSED = ("same, stride 2", "channels first", "uneven", "uneven along two axes", "batch too")
GSPMD = ("same", "groups", "two axes", "batch too", "circular")
CHECKS = [f"partitioned:{name}" for name in EVEN]
CHECKS += [f"gspmd:{name}" for name in GSPMD]
CHECKS += [f"sharded:{name}" for name in SPREADS if name not in EVEN]
CHECKS += [f"transposed:{name}" for name in TRANSPOSED]
FAST = {"partitioned:batch too", "partitioned:circular", "sharded:circular, uneven"}
FRAMEWORKS = {"nnx": "flax", "equinox": "equinox", "keras": "keras", "ensemble": "lcmulti_native",
              "orbax": "orbax"}  # fmt: skip


def started(*arguments, program=PROGRAM):
    command = [sys.executable, program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def found_by(*processes, timeout=600):
    """Wait for the processes, end them, and return what each printed as JSON."""
    try:
        told = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for text, errors in told:
        assert text, errors[-4000:]
    return [json.loads(text.splitlines()[-1]) for text, _ in told]


def selected(request, test, argument):
    """Return the values of a test's parameter that this run has selected."""
    items = [item for item in request.session.items if getattr(item, "originalname", "") == test]
    return [item.callspec.params[argument] for item in items]


@pytest.fixture(scope="module")
def outcomes(request):
    """Run all selected checks in one process; return the error of each, or None."""
    return found_by(started(*selected(request, "test_on_four_devices", "check")))[0]


@pytest.mark.parametrize(
    "check",
    [pytest.param(each, marks=() if each in FAST else pytest.mark.slow) for each in CHECKS],
)
def test_on_four_devices(outcomes, check):
    if outcomes[check]:
        pytest.fail(outcomes[check], pytrace=False)


def test_the_fast_ones_are_checks():
    assert set(CHECKS) >= FAST


@pytest.mark.slow
def test_two_processes_of_two_devices():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    names = ("uneven along two axes", "circular, uneven", "uneven bfloat16")
    checks = [f"sharded:{name}" for name in names]
    ranks = [started(*checks, "--process", str(i), "--port", port) for i in range(2)]
    assert found_by(*ranks, timeout=200) == [dict.fromkeys(checks)] * 2


@pytest.fixture(scope="module")
def by_framework(request):
    """Run the selected frameworks that are installed in one process; return their errors."""
    names = selected(request, "test_through_what_frameworks_have", "name")
    there = [name for name in names if importlib.util.find_spec(FRAMEWORKS[name])]
    return found_by(started(*there, program=PROGRAM.with_name("jax_sharded_layers.py")))[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_through_what_frameworks_have(by_framework, name):
    """Layers are sharded by NNX metadata, trees of shardings, Keras' `LayoutMap` and others."""
    pytest.importorskip(FRAMEWORKS[name])
    if by_framework[name]:
        pytest.fail(by_framework[name], pytrace=False)
