"""No framework is imported before it is needed, and nothing warns.

Each test starts a new interpreter, in which a warning is an error.
"""

import statistics
import subprocess
import sys
import time

import pytest

FRAMEWORKS = {"torch", "jax", "jaxlib", "tensorflow", "keras", "tf_keras", "flax", "equinox"}
REPORT = f"""
import sys
import time
print(*sorted(set(sys.modules) & {FRAMEWORKS!r}))
"""


def run(code, *arguments):
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import lcmulti",
        "import lcmulti.cli",
        "import lcmulti.conformance",
        "import lcmulti.bench",
        "from lcmulti.plugins import registry; registry()",
        "import lcmulti; lcmulti.LocalConvSpec((9, 2), 3, 2); lcmulti.config.backend",
        "import lcmulti, numpy as n; lcmulti.local_conv(n.ones((1, 2, 1)), n.ones((2, 1, 1, 1)))",
    ],
)
def test_imports_no_framework(code):
    assert run(code + REPORT).strip() == ""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["backends", "--help"], ["parity", "--help"], ["config"],
     ["bench", "--help"], ["bench", "--list"],
     ["config", "set", "--help"],
     ["explain", "--input", "9x2", "--kernel", "3", "--filters", "4", "--backend", "numpy"]],
    ids=" ".join,
)  # fmt: skip
def test_the_command_line_imports_no_framework(arguments):
    code = f"""
import sys
import time
from lcmulti.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code
{REPORT}"""
    assert run(code).splitlines()[-1] == ""


@pytest.mark.torch
@pytest.mark.slow
def test_calls_in_pytorch_import_no_compiler():
    """Dynamo takes seconds to import, and a program that compiles has imported it already."""
    code = """
import lcmulti, sys, torch
x, kernel = torch.ones(1, 2, 3, requires_grad=True), torch.ones(2, 2, 2, 4)
lcmulti.local_conv(x, kernel, data_format="channels_first").sum().backward()
print("torch._dynamo" in sys.modules)
"""
    assert run(code).split() == ["False"]


MISSING = {
    "from lcmulti_torch import LocallyConnected2d": "torch",
    "from lcmulti_torch import functional": "torch",
    "import lcmulti_torch.functional": "torch",
    "from lcmulti_torch.parallel import shard": "torch",
    "from lcmulti_torch import untie": "torch",
    "from lcmulti_jax import sharded": "jax",
    "from lcmulti_jax.nnx import untie": "flax",
    "from lcmulti_jax.equinox import untie": "equinox",
    "lcmulti.local_conv(x, x, backend='torch')": "torch",
    "lcmulti.local_conv(x, x, backend='jax')": "jax",
    "lcmulti.local_conv(x, x, backend='tensorflow')": "tensorflow",
}


def test_a_missing_framework_is_told_with_what_installs_it():
    """One process for all: in each, ``None`` stands for a package that cannot be found."""
    code = f"""
import importlib.util, sys, lcmulti
import numpy as np
x, find = np.ones((1, 2, 1, 1)), importlib.util.find_spec
gone = {{name: None for name in {FRAMEWORKS!r}}}
importlib.util.find_spec = lambda name, *rest: None if name in gone else find(name, *rest)
sys.modules.update(gone)
for line in {list(MISSING)!r}:
    try:
        exec(line)
    except ImportError as error:
        print(type(error).__mro__[1].__name__, error)
"""
    said = run(code).splitlines()
    assert len(said) == len(MISSING)
    for line, extra in zip(said, MISSING.values(), strict=True):
        assert line.startswith("LcmultiError ")
        assert line.endswith(f"install it with: pip install 'lcmulti[{extra}]'")


def test_the_test_can_fail():
    assert run("import sys; sys.modules['torch'] = sys" + REPORT).strip() == "torch"


@pytest.mark.slow
def test_import_time_beyond_numpys_own():
    """Measure processor time in new interpreters. It repeats, because other load adds time."""
    code = (
        "import numpy, time\n"
        "start = time.process_time()\n"
        "import lcmulti\n"
        "print(time.process_time() - start)"
    )
    run(code)
    seconds, end = [float(run(code))], time.monotonic() + 30
    while min(seconds) >= 0.080 and time.monotonic() < end:
        seconds.append(float(run(code)))
    assert min(seconds) < 0.080, f"{statistics.median(seconds) * 1e3:.0f} ms in the median"
