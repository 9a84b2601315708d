"""Old models, written once by tf_keras, and the results of each driver on each Keras backend."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from helpers_keras import NEEDS, needs, run_driver

SAMPLES = Path(__file__).parents[1] / "data" / "legacy_models"


@pytest.fixture(autouse=True)
def inferred():
    """Let Keras on NumPy infer a layer's shape: it calls the layer on memory nobody wrote."""
    with np.errstate(over="ignore", invalid="ignore"):
        yield


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make a folder once for all workers: in ``once(name, make)``, one calls ``make(folder)``."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        try:
            folder.mkdir()
        except FileExistsError:
            end = time.monotonic() + 900
            while not done.exists():  # another worker makes it; its failure also fails this one
                assert time.monotonic() < end, f"the worker that makes {name} came to no end"
                time.sleep(0.1)
        else:
            trouble = None
            try:
                make(folder)
            except BaseException as error:
                trouble = str(error)
                raise
            finally:
                (shared / f"{name}.tmp").write_text(json.dumps(trouble))
                (shared / f"{name}.tmp").replace(done)
        assert json.loads(done.read_text()) is None, done.read_text()
        return folder

    return made


@pytest.fixture(scope="session")
def written(once):
    """Old models and the parity arrays, written by tf_keras."""
    needs("tf_keras")
    return once("legacy", lambda folder: run_driver("write_legacy.py", "tensorflow", folder))


@pytest.fixture(scope="session")
def loaded(written, once):
    """Load the old models on a backend, once, and return what the driver found."""

    def on(backend):
        needs(NEEDS[backend])

        def run(folder):
            found = run_driver("load_legacy.py", backend, SAMPLES, written)
            (folder / "found.json").write_text(json.dumps(found))

        folder = once(f"old models on {backend}", run)
        return json.loads((folder / "found.json").read_text())

    return on


@pytest.fixture(scope="session")
def checked(request, once):
    """The results of a driver's checks on a backend; the driver runs only once."""

    def on(driver, backend):
        needs(NEEDS[backend])

        def run(folder):
            compared = driver == "check_layers.py"  # with what tf_keras computes
            arrays = (
                request.getfixturevalue("written") / "parity" / "parity.npz" if compared else ""
            )
            found = run_driver(driver, backend, arrays)
            (folder / "found.json").write_text(json.dumps(found))

        folder = once(f"{driver} on {backend}", run)
        return json.loads((folder / "found.json").read_text())

    return on
