"""The layers on each of Keras' backends. Each has a process of its own; drivers/ has the checks."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from helpers_keras import BACKENDS, DRIVERS

CHECKS = {
    driver: re.findall(r"@(check|trained)\ndef (\w+)", (DRIVERS / driver).read_text("utf-8"))
    for driver in (
        "check_layers.py",
        "check_kinds.py",
        "check_penalties.py",
        "check_errors.py",
        "check_convolutions.py",
    )
}

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("keras"), reason="Keras is not installed"
)


FAST = ("check_errors.py", ("numpy", "torch"))  # the fast lane; each starts a process


def checks():
    for driver, found in CHECKS.items():
        for kind, name in found:
            for backend in BACKENDS:
                fast = driver == FAST[0] and backend in FAST[1]
                marks = [] if fast else [pytest.mark.slow]
                group = pytest.mark.xdist_group(f"keras-{driver}-{backend}")
                each = [driver, kind, name, backend]
                yield pytest.param(*each, id=f"{name}-{backend}", marks=[*marks, group])


@pytest.mark.parametrize(("driver", "kind", "name", "backend"), list(checks()))
def test_layers(driver, kind, name, backend, checked):
    if backend == "numpy" and kind == "trained":
        pytest.skip("Keras trains nothing on NumPy")
    trouble = checked(driver, backend)[name]
    assert trouble is None, trouble


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"} | environment,
    )  # fmt: skip


SHOW = "import lcmulti_keras, keras; print(keras.config.backend())"


@pytest.mark.slow
@pytest.mark.parametrize(
    "code, environment, backend, warned",
    [
        (SHOW, {"LCMULTI_BACKEND": "numpy"}, "numpy", False),
        (SHOW, {"LCMULTI_BACKEND": "torch", "KERAS_BACKEND": "numpy"}, "numpy", True),
        (SHOW, {"KERAS_BACKEND": "numpy"}, "numpy", False),
    ],
)
def test_which_backend(code, environment, backend, warned, tmp_path):
    done = run(code, KERAS_HOME=str(tmp_path), **environment)
    assert done.stdout.strip() == backend, done.stderr
    assert ("lcmulti is configured for" in done.stderr) == warned


def test_a_keras_backend_lcmulti_has_none_for():
    code = (
        "import sys, types; keras = types.ModuleType('keras'); sys.modules['keras'] = keras\n"
        "keras.config = types.SimpleNamespace(backend=lambda: 'openvino')\n"
        "import lcmulti_keras"
    )
    done = run(code)
    assert "for which lcmulti has no backend; set KERAS_BACKEND to one of" in done.stderr


@pytest.mark.parametrize("absent", ["tensorflow", "torch"])
def test_a_keras_backend_that_is_not_installed(absent, tmp_path):
    """The error says what to install; Keras' own error names a module that nobody imported."""
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {absent!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent)\n"
        "import lcmulti_keras"
    )
    chosen = {} if absent == "tensorflow" else {"KERAS_BACKEND": absent}
    done = run(code, KERAS_HOME=str(tmp_path), **chosen)
    expected = (
        f"lcmulti.errors.MissingBackendError: Keras is to run on {absent!r}, which is not "
        f"installed; install it with: pip install 'lcmulti[keras,{absent}]', or set KERAS_BACKEND"
    )
    assert done.stderr.strip().splitlines()[-1].startswith(expected)
