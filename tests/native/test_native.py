"""The native library: what it accepts and refuses, threads and forks, instruction sets.

``lcmulti certify numpy --implementation native`` tests the values of the maps.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lcmulti_native")

from helpers_native import (
    CALL,
    CHILD,
    KERNEL,
    RESOURCES,
    SPEC,
    X,
    close,
    everything,
)
from lcmulti_native import library

import lcmulti
from lcmulti import plugins
from lcmulti.errors import DtypeError, ShapeError

pytestmark = pytest.mark.sampled

HELPERS = str(Path(__file__).parents[1] / "helpers")


def test_auto_takes_it_and_says_so(backend):
    owner = plugins.load_backend(backend)
    arrays = owner.from_numpy(X), owner.from_numpy(KERNEL)
    explained = lcmulti.explain(*arrays, **CALL)
    assert explained.implementation == "native"
    assert "native" in str(explained)


def test_a_window_beyond_the_cache_is_declined():
    spec = lcmulti.LocalConvSpec(
        (600, 600, 600), 1, 2, dilation=599, padding=300, data_format="channels_last",
    )  # fmt: skip
    assert library.workspace(spec.computed(), 64, "float32", 1) < 0


def test_filters_beyond_the_cache_are_declined():
    """Of growing numbers of filters, the accepted ones are computed, channels first too.

    The first that is too large is declined.
    """
    torch = pytest.importorskip("torch")
    door = plugins.load_implementation("torch", "native")
    for filters in (20_000, 40_000, 80_000):
        spec = lcmulti.LocalConvSpec((2, 1), filters, 1, data_format="channels_last").computed()
        if library.workspace(spec, 64, "float32", None) < 0:
            break
        x, dy = torch.rand(64, 1, 2).movedim(1, -1), torch.rand(64, filters, 2).movedim(1, -1)
        dw = door.kernel_grad(x, dy, spec, RESOURCES)
        close(dw, torch.einsum("nio,nif->iof", x, dy)[:, None])
    else:
        pytest.fail("none was declined")


@pytest.mark.parametrize(
    ("batch", "dtype", "shared", "filters", "kernel_size"),
    [
        (20, "float32", (), 24, 5),
        (3, "bfloat16", (), 24, 5),
        (70, "float32", (0,), 24, 5),
        (20, "float32", (), 4, 1),  # windows that abut
    ],
)
def test_results_do_not_depend_on_the_number_of_threads(batch, dtype, shared, filters, kernel_size):
    pytest.importorskip("ml_dtypes")
    spec = lcmulti.LocalConvSpec((40, 40, 8), filters, kernel_size, data_format="channels_last")
    spec = spec.sharing(shared).computed()
    door = plugins.load_implementation("numpy", "native")
    alone = everything(door, 1, spec, batch, dtype)
    for other in (2, 3, 20, None):
        for one, many in zip(alone, everything(door, other, spec, batch, dtype), strict=True):
            np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("isa", ["plain", "avx2", "avx512", "avx512bf16", "amx", "neon"])
def test_every_instruction_set_this_processor_has(isa):
    code = (
        "import ml_dtypes, numpy as np\n"
        f"{CHILD}"
        "door = plugins.load_implementation('numpy', 'native')\n"
        "print(library.library().lcmulti_isa().decode())\n"
        "slow = plugins.load_implementation('numpy', 'reference')\n"
        "wide = lcmulti.LocalConvSpec((9, 8, 3), 16, 3, data_format='channels_last').computed()\n"
        "odd = lcmulti.LocalConvSpec((7, 6, 5), 35, 2, data_format='channels_last').computed()\n"
        "slid = lcmulti.LocalConvSpec((4, 37, 1), 1, 3, padding=1, data_format='channels_last')\n"
        "for spec in (SPEC, wide, odd, slid):\n"
        "    for batch in (1, 3, 5, 33, 140):\n"
        "        for dtype in ('float32', 'float64', 'bfloat16', 'float16'):\n"
        "            given = None, spec, batch, dtype\n"
        "            ours, expected = everything(door, *given), everything(slow, *given)\n"
        "            all_close(ours, expected, ROUNDING.get(dtype, 1e-4))\n"
        # Below 2**-126: products, and each factor. Processors' instructions flush them.
        "    for sizes in ((2**-64,) * 3, (2**-130, 2**9, 2**9), (2**9, 2**-130, 2**-130)):\n"
        "        for batch in (3, 33):\n"
        "            given = None, spec, batch, 'bfloat16', sizes\n"
        "            ours, expected = everything(door, *given), everything(slow, *given)\n"
        "            all_close(ours, expected, ROUNDING['bfloat16'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LCMULTI_NATIVE_ISA": isa, "PYTHONPATH": HELPERS},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if done.stdout.strip() != isa:
        pytest.skip(f"chose {done.stdout.strip()}")


@pytest.mark.parametrize("wish", ["", "AVX2", "avx-2"])
def test_an_instruction_set_that_is_none_is_an_error(wish):
    """A wrong name is an error, rather than slow plain code without a word."""
    call = (
        "import numpy as np, lcmulti; lcmulti.local_conv(np.ones((2, 5, 3)), np.ones((4, 2, 3, 7)))"
    )
    env = os.environ | {"LCMULTI_NATIVE_ISA": wish}
    done = subprocess.run(
        [sys.executable, "-c", call], env=env, capture_output=True, text=True, check=False
    )
    message = (
        "LCMULTI_NATIVE_ISA: expected one of 'amx', 'avx512bf16', 'avx512', 'avx2', 'neon', "
        f"'plain', or not set at all, got {wish!r}"
    )
    assert message in done.stderr
    command = [sys.executable, "-m", "lcmulti"]
    explain = [*command, "explain", "--input", "5x3", "--kernel", "2", "--filters", "7"]
    done = subprocess.run(explain, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"lcmulti: {message}\n")


def test_which_instruction_set_runs_is_told():
    env = os.environ | {"LCMULTI_NATIVE_ISA": "plain"}
    command = [sys.executable, "-m", "lcmulti", "explain", "--input", "5x3", "--kernel", "2"]
    done = subprocess.run(
        [*command, "--filters", "7"], env=env, capture_output=True, text=True, check=True
    )
    assert "instruction set plain" in done.stdout
    door = plugins.load_implementation("numpy", "native")
    chosen = library.library().lcmulti_isa().decode()
    assert library.isa("bfloat16") == chosen
    assert door.hardware().startswith(library.isa("float32"))


def test_callers_on_many_threads_at_once():
    door = plugins.load_implementation("numpy", "native")
    spec = lcmulti.LocalConvSpec((20, 20, 8), 16, 3, data_format="channels_last").computed()
    expected, wrong = everything(door, None, spec), []

    def call():
        for _ in range(20):
            ours = everything(door, None, spec)
            wrong.append(any((a != b).any() for a, b in zip(ours, expected, strict=True)))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(wrong) == 80
    assert not any(wrong)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("first", [True, False])
def test_a_forked_child_computes(backend, first):
    """A forked child has none of its parent's threads, of which OpenMP knows nothing.

    The parent is a process of its own, which has called the kernels before the fork or has not.
    """
    code = (
        f"{CHILD}"
        f"owner = plugins.load_backend({backend!r})\n"
        f"door = plugins.load_implementation({backend!r}, 'native')\n"
        "spec = lcmulti.LocalConvSpec((40, 40, 8), 16, 3, data_format='channels_last').computed()\n"
        "shapes = (5, *spec.input_shape), spec.kernel_shape, (5, *spec.output_shape)\n"
        "x, kernel, dy = (owner.from_numpy(RNG.random(shape)) for shape in shapes)\n"
        "(x + x) @ x.swapaxes(-1, -2)\n"
        "def run():\n"
        "    maps = [door.forward(x, kernel, spec, RESOURCES)]\n"
        "    maps.append(door.input_grad(dy, kernel, spec, RESOURCES))\n"
        "    maps.append(door.kernel_grad(x, dy, spec, RESOURCES))\n"
        "    return b''.join(owner.to_numpy(each).tobytes() for each in maps)\n"
        f"first = run() if {first} else None\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if first in (None, run()) and run() else 1)\n"
        "assert os.waitpid(child, 0) == (child, 0)\n"
    )
    if backend == "torch":
        pytest.importorskip("torch")
    path = {"PYTHONPATH": HELPERS}
    subprocess.run([sys.executable, "-c", code], env=os.environ | path, check=True, timeout=120)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_without_a_compiler_the_build_says_what_to_do(tmp_path):
    source = Path(__file__).parents[2] / "backends" / "native"
    done = subprocess.run(
        ["cmake", "-S", str(source), "-B", str(tmp_path)],
        env=os.environ | {"CXX": str(tmp_path / "none")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "No C++ compiler was found" in done.stderr
    assert "apt install g++" in done.stderr


def test_auto_takes_it_only_where_it_is_quicker():
    def taken(backend, batch, size, filters, window, **rest):
        spec = lcmulti.LocalConvSpec(size, filters, window, data_format="channels_last", **rest)
        return lcmulti.explain(spec, batch=batch, backend=backend).implementation

    assert taken("numpy", 64, (1, 1, 2048), 2048, 1) == "blocked"  # one matrix product
    assert taken("numpy", 8, (1, 1, 64), 64, 1) == "native"  # a small one
    for backend in {"torch", "jax"} & {*plugins.registry().backends}:
        if not plugins.is_installed(plugins.registry().backends[backend]):
            continue
        assert taken(backend, 1, (9, 9, 64), 64, 3, groups=64) != "native"
        assert taken(backend, 32, (9, 9, 64), 64, 3, groups=64) == "native"
    assert taken("numpy", 1, (9, 9, 64), 64, 3, groups=64) == "native"


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_door_refuses_arrays_that_are_not_those_of_its_geometry(name):
    """The library receives addresses, so it would read beyond the end of a smaller array."""
    if name not in sys.modules:
        pytest.importorskip(name)
    owner, door = plugins.load_backend(name), plugins.load_implementation(name, "native")
    shapes = {"x": X.shape, "kernel": SPEC.kernel_shape, "dy": (len(X), *SPEC.output_shape)}
    for map_, pair in library.OPERANDS.items():
        for wrong in pair:
            for change, kind in (
                (lambda a, wrong=wrong: a[:-1] if wrong == "kernel" else a[:, :-1], ShapeError),
                (lambda a: a[..., :1], ShapeError),
                (lambda a: a[0], ShapeError),
                (lambda a: a.astype("float64"), DtypeError),
            ):
                arrays = {each: np.ones(shapes[each], "float32") for each in pair}
                arrays[wrong] = change(arrays[wrong])
                converted = [owner.from_numpy(each) for each in arrays.values()]
                with pytest.raises(kind):
                    getattr(door, map_)(*converted, SPEC, RESOURCES)
    if name == "torch":
        import torch

        x, kernel = torch.empty(X.shape, device="meta"), torch.empty(KERNEL.shape, device="meta")
        with pytest.raises(TypeError, match="x: expected a tensor on the CPU, got meta"):
            door.forward(x, kernel, SPEC, RESOURCES)
