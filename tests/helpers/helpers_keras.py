"""Run a driver in a new process for each backend of Keras, and read what it prints."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVERS = Path(__file__).parents[1] / "keras" / "drivers"
BACKENDS = ("numpy", "torch", "jax", "tensorflow")
NEEDS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow", "numpy": "scipy"}


def needs(package):
    if not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed")


def run_driver(name, backend, *arguments):
    """Run a driver and return what it printed as JSON, as Python objects."""
    environment = os.environ | {"KERAS_BACKEND": backend}
    command = [sys.executable, str(DRIVERS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None
