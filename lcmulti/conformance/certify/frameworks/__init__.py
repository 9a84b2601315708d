"""Checks for known frameworks: their own gradient checkers, transforms and memory.

The type of the arrays tells which framework it is. The declarations of the plugin do not matter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lcmulti import plugins
from lcmulti.conformance.inputs import numpy_dtype
from lcmulti.dtypes import DTYPES

__all__ = [
    "COMPILING",
    "HURRY",
    "TRACING",
    "compiled",
    "forget",
    "framework_of",
    "keeps_subnormals",
    "programs_kept",
    "wide",
    "x64",
]

COMPILING = ("jax",)
"""Frameworks that compile for every new shape."""
TRACING = ("jax", "tensorflow")
"""Frameworks that trace for every new shape, workspace and number of threads."""

HURRY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_cpu_use_fusion_emitters": False,
}
"""Options by which XLA compiles small programs sooner; tests set them as flags, too."""

ARRAYS = {"torch": "Tensor", "jax": "Array", "tensorflow": "Tensor"}


@cache
def framework_of(backend: str) -> str | None:
    """The framework of a backend's arrays, if there is a module of checks for it."""
    array = plugins.load_backend(backend).from_numpy(np.zeros((1, 1), np.float32))
    for name, attribute in ARRAYS.items():
        module: Any = sys.modules.get(name)
        if module is not None and isinstance(array, getattr(module, attribute)):
            return name
    return None


def compiled(
    backend: str, function: Callable[..., Any], hurried: bool = False
) -> Callable[..., Any]:
    """*function* as one program, as users compile a training step, if the framework compiles.

    With *hurried*, the compiler leaves out the passes that take it longest, for a program that runs
    once or twice. What it computes is the same.
    """
    if framework_of(backend) != "jax":
        return function
    import jax

    program: Callable[..., Any] = jax.jit(function, compiler_options=_hurry() if hurried else None)
    return program


@cache
def _hurry() -> dict[str, Any]:
    """Those options of `HURRY` that this release of XLA has."""
    import jax

    known: dict[str, Any] = {}
    for name, value in HURRY.items():
        with suppress(RuntimeError):
            jax.jit(lambda number: number + 1, compiler_options={name: value})(1)
            known[name] = value
    return known


def wide(backend: str, dtype: str) -> AbstractContextManager[Any]:
    """A context in which the framework has *dtype*: JAX must be told to use 64 bits."""
    is_wide = DTYPES[dtype].roundoff == DTYPES["float64"].roundoff
    if is_wide and framework_of(backend) == "jax":
        return x64()
    return nullcontext()


def x64() -> AbstractContextManager[Any]:
    """A context in which JAX has types of 64 bits."""
    import jax
    from jax import experimental

    # Older releases have it among what is experimental.
    enable: Any = jax.enable_x64 if hasattr(jax, "enable_x64") else experimental.enable_x64
    context: AbstractContextManager[Any] = enable(True)
    return context


@cache
def keeps_subnormals(backend: str, dtype: str) -> bool:
    """Whether the framework's own product of matrices keeps subnormal numbers."""
    owner = plugins.load_backend(backend)
    tiny = {"float16": -9, "bfloat16": -64, "float32": -68, "complex64": -68}.get(dtype, -520)
    with wide(backend, dtype):
        factor = owner.from_numpy(np.full((4, 4), 2.0**tiny).astype(numpy_dtype(dtype)))
        name = framework_of(backend)
        if name is None:
            return True
        matmul = {"torch": "matmul", "jax": "numpy.matmul", "tensorflow": "matmul"}[name]
        function: Any = sys.modules[name]
        for part in matmul.split("."):
            function = getattr(function, part)
        return bool(np.all(owner.to_numpy(function(factor, factor))))


@contextmanager
def programs_kept(backend: str) -> Iterator[None]:
    """A context in which JAX keeps compiled programs in files, in a user's folder if there is one.

    Implementations compute many calls by the same program, as ``auto`` does with the one it chose.
    """
    if framework_of(backend) != "jax":
        yield
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if jax.config.jax_compilation_cache_dir is not None:
        yield
        return
    wanted = {"jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1}  # fmt: skip
    before = {name: getattr(jax.config, name) for name in wanted}
    with TemporaryDirectory() as folder:
        for name, value in (wanted | {"jax_compilation_cache_dir": folder}).items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        try:
            yield
        finally:
            for name, value in (before | {"jax_compilation_cache_dir": None}).items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def forget(backend: str) -> None:
    """Drop compiled functions: JAX keeps all of them, and becomes slower."""
    if framework_of(backend) == "jax":
        import jax

        jax.clear_caches()
