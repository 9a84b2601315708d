"""Old models, written once by tf_keras, and what each driver found on each of Keras' backends."""

import pytest
from helpers_keras import NEEDS, needs, run_driver


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Old models and the parity arrays, written by tf_keras."""
    needs("tf_keras")
    folder = tmp_path_factory.mktemp("legacy")
    run_driver("write_legacy.py", "tensorflow", folder)
    return folder


@pytest.fixture(scope="session")
def checked(written):
    """What came of a driver's checks on a backend, which runs them once."""
    found = {}

    def on(driver, backend):
        needs(NEEDS[backend])
        if (driver, backend) not in found:
            arrays = written / "parity" / "parity.npz"
            found[driver, backend] = run_driver(driver, backend, arrays)
        return found[driver, backend]

    return on
