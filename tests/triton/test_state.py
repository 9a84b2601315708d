"""Where Triton cannot serve, because it or a fit GPU is missing, another does, with a reason."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

import torch
from lcmulti_triton import state

import lcmulti
from lcmulti import LocalConvSpec

SPEC = LocalConvSpec((9, 8, 4), 6, 3, data_format="channels_last")


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch, fresh):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    caches = state.without_triton, state.on_gpu, state.is_old, state.broken
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def explained(device):
    found = lcmulti.explain(SPEC, batch=2, backend="torch", device=device)
    return found.implementation, {each.name: each.reason for each in found.verdicts}["triton"]


def test_without_triton(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "triton" else find(name)
    )
    serves, reason = explained("gpu")
    assert serves == "blocked"
    assert reason == "Triton is not installed; install it with: pip install 'lcmulti[triton]'"


@pytest.mark.parametrize("version", ["3.5.1", "3.10.0", "4.0"])
def test_a_version_never_compiled_with(monkeypatch, version):
    pytest.importorskip("triton")
    monkeypatch.setattr(state.metadata, "version", lambda name: version)
    serves, reason = explained("gpu")
    assert serves == "blocked"
    assert reason == (
        f"Triton {version} is none of the versions the kernels are written for (3.6 to 3.9)"
    )


@pytest.fixture
def gpus(monkeypatch):
    def have(*found):
        monkeypatch.setattr(state, "without_triton", lambda: None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(found))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found[index])

    return have


def nvidia(name, major, minor):
    return SimpleNamespace(name=name, major=major, minor=minor)


def test_no_gpu(gpus):
    gpus()
    assert explained("gpu") == ("blocked", "PyTorch sees no GPU of NVIDIA's or AMD's")


def test_a_gpu_too_old(gpus):
    gpus(nvidia("Tesla V100", 7, 0))
    assert explained("gpu") == ("blocked", "Tesla V100 has compute capability 7.0, under 8.0")


def test_one_of_two_is_new_enough(gpus):
    gpus(nvidia("Tesla V100", 7, 0), nvidia("H200", 9, 0))
    assert state.unavailable("gpu") is None
    assert state.is_old(0)
    assert state.is_old(1) is None


def test_amd(gpus, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    gpus(SimpleNamespace(name="MI100", gcnArchName="gfx908:sramecc+"))
    assert state.unavailable("gpu") == (
        "MI100 is gfx908; the kernels are compiled for gfx90a and gfx942"
    )
    state.on_gpu.cache_clear()
    state.is_old.cache_clear()
    gpus(SimpleNamespace(name="MI300X", gcnArchName="gfx942:sramecc+:xnack-"))
    assert state.unavailable("gpu") is None


def test_triton_that_cannot_be_imported(gpus, monkeypatch):
    gpus(nvidia("H200", 9, 0))
    monkeypatch.setitem(sys.modules, "triton", None)  # its import fails
    reason = (
        "Triton is installed and cannot be imported "
        "(ModuleNotFoundError: import of triton halted; None in sys.modules)"
    )
    assert explained("gpu") == ("blocked", reason)


def test_tensorflow_came_first(gpus, monkeypatch):
    """Triton is not imported after TensorFlow: the two LLVMs would end the process."""
    gpus(nvidia("H200", 9, 0))
    monkeypatch.setattr(state.metadata, "version", lambda name: "3.9.0")
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace())
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    reason = "Triton cannot be loaded after TensorFlow; import triton before tensorflow"
    assert explained("gpu") == ("blocked", reason)
    assert "triton" not in sys.modules


LARGE = {
    "more samples or positions than 32 bits can count": (
        dict(input_shape=(2**31, 1), filters=1, kernel_size=1, strides=2**20),
        1,
    ),
    "the weights of one position need offsets of more than 32 bits": (
        dict(input_shape=(2**16, 2**8), filters=2**8, kernel_size=2**16),
        1,
    ),
}


@pytest.mark.parametrize("reason", LARGE)
def test_what_is_too_large_to_count(gpus, reason):
    gpus(nvidia("H200", 9, 0))
    call, batch = LARGE[reason]
    found = lcmulti.explain(LocalConvSpec(**call, data_format="channels_last"),
                            batch=batch, backend="torch", device="gpu")  # fmt: skip
    assert {each.name: each.reason for each in found.verdicts}["triton"] == reason


def test_cpu():
    pytest.importorskip("triton")
    assert explained("cpu")[1] == "computes on CPUs only where TRITON_INTERPRET=1 is set"


def test_backends_says_it():
    from lcmulti.cli.backends import describe
    from lcmulti.plugins import registry

    found = describe(registry().backends["torch"])["implementations"]
    said = {each["name"]: each["unavailable"] for each in found}
    assert said["triton"] is not None
    assert said["blocked"] is None


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys, torch, lcmulti; x = torch.ones(1, 4, 2)\n"
        "lcmulti.local_conv(x, torch.ones(3, 2, 2, 5))\n"
        "assert not {'triton', 'lcmulti_triton.launch'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
