"""Whether the kernels can run here, without importing Triton."""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata

import torch

__all__ = [
    "FIRST", "LAST", "broken", "is_interpreted", "is_old", "on_gpu", "unavailable",
    "without_triton",
]  # fmt: skip

FIRST, LAST = (3, 6), (3, 9)
"""Versions of Triton that the kernels are known to compile with."""

CLASHES_FROM = (3, 9)
"""From this version of Triton on, its LLVM ends the process if TensorFlow's is loaded."""

INSTALL = "pip install 'lcmulti[triton]'"
OLDEST = (8, 0)
"""The lowest compute capability of a GPU of NVIDIA's that is served."""

AMD = ("gfx90a", "gfx942")
"""The architectures of AMD's GPUs that are served."""


def unavailable(device: str) -> str | None:
    """A sentence that says why no kernel runs on this kind of device, or None."""
    return without_triton() or (_on_cpu() if device == "cpu" else on_gpu())


@cache
def without_triton() -> str | None:
    """Why Triton is not used on any device, or None."""
    if importlib.util.find_spec("triton") is None:
        return f"Triton is not installed; install it with: {INSTALL}"
    try:
        found = metadata.version("triton")
    except metadata.PackageNotFoundError:
        if reason := broken():
            return reason
        found = _version_of_module()
    if FIRST <= _numbers(found) <= LAST:
        return None
    tried = f"{'.'.join(map(str, FIRST))} to {'.'.join(map(str, LAST))}"
    return f"Triton {found} is none of the versions the kernels are written for ({tried})"


@cache
def broken() -> str | None:
    """Why Triton cannot be imported, or None; asked where a call is about to need it.

    Triton 3.9 ends the process, in its LLVM, where TensorFlow has loaded another.
    """
    if "tensorflow" in sys.modules and "triton" not in sys.modules and _clashes():
        return "Triton cannot be loaded after TensorFlow; import triton before tensorflow"
    try:
        import triton  # noqa: F401
    except Exception as error:  # a library that it is linked to is missing, say
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return f"Triton is installed and cannot be imported ({said})"
    return None


def _clashes() -> bool:
    with suppress(metadata.PackageNotFoundError):
        return _numbers(metadata.version("triton")) >= CLASHES_FROM
    return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _version_of_module() -> str:
    """The version in PyTorch's builds for AMD, where the distribution has another name."""
    import triton

    return str(triton.__version__)


def is_interpreted() -> bool:
    """Whether Triton interprets kernels instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def _on_cpu() -> str | None:
    return None if is_interpreted() else "computes on CPUs only where TRITON_INTERPRET=1 is set"


@cache
def on_gpu() -> str | None:
    """Why no GPU of this machine is served, or None."""
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU of NVIDIA's or AMD's"
    reasons = [is_old(index) for index in range(torch.cuda.device_count())]
    return reasons[0] if reasons and all(reasons) else None


@cache
def is_old(index: int) -> str | None:
    """Why the GPU of this number is not served, or None."""
    found = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        architecture = found.gcnArchName.split(":")[0]
        if architecture in AMD:
            return None
        return f"{found.name} is {architecture}; the kernels are compiled for {' and '.join(AMD)}"
    if (found.major, found.minor) >= OLDEST:
        return None
    oldest = ".".join(map(str, OLDEST))
    return f"{found.name} has compute capability {found.major}.{found.minor}, under {oldest}"
