"""Layers over several devices: placement, bytes and values, in one process and in two."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

jax = pytest.importorskip("jax")

from helpers_jax_spread import EVEN, FEW, SPREADS  # noqa: E402

pytestmark = pytest.mark.jax
PROGRAM = Path(__file__).parents[1] / "helpers" / "jax_sharded_program.py"
MANY = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in SPREADS]


def started(*arguments):
    command = [sys.executable, PROGRAM, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def found_by(process, timeout=900):
    text, errors = process.communicate(timeout=timeout)
    assert text, errors[-4000:]
    return json.loads(text.splitlines()[-1])


@cache
def found(way, fast, *options):
    """What one process says of all geometries of a lane."""
    names = [n for n in (EVEN if way == "partitioned" else SPREADS) if (n in FEW) is fast]
    return found_by(started(way, *names, *options))


@pytest.mark.parametrize("name", [each for each in MANY if each.values[0] in EVEN])
def test_arrays_that_are_spread_are_computed_where_they_lie(name):
    error = found("partitioned", name in FEW)[name]
    assert error is None, error


@pytest.mark.parametrize("name", MANY)
def test_sharded_layer_of_any_size(name):
    error = found("sharded", name in FEW)[name]
    assert error is None, error


@pytest.mark.slow
@pytest.mark.parametrize("name", EVEN)
def test_gspmd_places_as_shardy_does(name):
    error = found("partitioned", name in FEW, "--gspmd")[name]
    assert error is None, error


@pytest.mark.slow
def test_two_processes_of_two_devices():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    names = ("same", "uneven", "circular, uneven", "uneven along two axes", "uneven bfloat16")
    processes = [started("sharded", *names, "--process", str(i), "--port", port) for i in range(2)]
    try:
        for process in processes:
            assert found_by(process, 300) == dict.fromkeys(names)
    finally:
        for process in processes:
            process.kill()


LAYERS = {"nnx": "flax", "equinox": "equinox", "keras": "keras", "ensemble": "lcmulti_native"}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_layers_through_what_their_frameworks_have(name):
    """Partition metadata of Flax NNX, trees of shardings, Keras' `LayoutMap`, `jax.vmap`."""
    pytest.importorskip(LAYERS[name])
    command = [sys.executable, PROGRAM.with_name("jax_sharded_layers.py"), name]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert run.stdout, run.stderr[-3000:]
    error = json.loads(run.stdout.splitlines()[-1])[name]
    assert error is None, error
