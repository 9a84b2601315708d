"""The arrays of a case: random ones seeded by its name, or a user's own input from a file."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from lcmulti.conformance.calls import Inputs
from lcmulti.conformance.case import Case
from lcmulti.errors import ArgumentError, DtypeError, LcmultiError, ShapeError, described

__all__ = ["draw", "from_file", "numpy_dtype"]


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype of a name in `lcmulti.dtypes.DTYPES`.

    Raises
    ------
    LcmultiError
        For bfloat16 if ml_dtypes, which adds it to NumPy, is not installed.
    """
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise LcmultiError(
                "bfloat16 arrays in NumPy need ml_dtypes; install it with: pip install ml_dtypes"
            ) from error
        return np.dtype(ml_dtypes.bfloat16)  # type: ignore[no-any-return]
    return np.dtype(name)


def draw(case: Case, dtype: str, x: np.ndarray | None = None) -> Inputs:
    """Standard normal arrays for a case, rounded to *dtype*; a given *x* is used unchanged."""
    generator = np.random.default_rng(zlib.crc32(case.name.encode()))
    kind, spec = numpy_dtype(dtype), case.spec

    def normal(shape: tuple[int, ...]) -> np.ndarray:
        if kind.kind == "c":
            both = generator.standard_normal((*shape, 2))
            return both.view(complex)[..., 0].astype(kind)
        return generator.standard_normal(shape).astype(kind)

    drawn = normal((case.batch, *spec.input_shape)) if x is None else x.astype(kind)
    bias = None if case.bias_shape is None else normal(case.bias_shape)
    return Inputs(drawn, normal(spec.kernel_shape), bias, normal((case.batch, *spec.output_shape)))


def from_file(path: str | Path, dtype: str) -> tuple[Case, np.ndarray]:
    """Read a user's array ``(N, *size, C)`` from a ``.npy`` file, and make a case for it.

    Raises
    ------
    ArgumentError
        (`ShapeError`, `DtypeError`) If the file is missing or damaged, or holds anything but
        finite numbers with at least three axes.
    """
    try:
        x = np.load(path, allow_pickle=False)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except (ValueError, EOFError) as error:
        # NumPy goes on to advise loading the file unsafely.
        raise _unreadable(path, str(error).partition(". ")[0]) from error
    if not isinstance(x, np.ndarray):  # an .npz archive
        x.close()
        raise _unreadable(path, "an archive of several arrays")
    complex_to_real = x.dtype.kind == "c" and numpy_dtype(dtype).kind != "c"
    if x.dtype.kind not in "biufc" or complex_to_real:
        raise DtypeError("input", f"numbers that fit {dtype}", described(f"dtype {x.dtype}"))
    if x.ndim < 3 or min(x.shape[1:]) < 1 or min(x.shape[1:-1]) < 3:
        expected = "an array (N, *size, C) with every spatial axis at least 3, the window's size"
        raise ShapeError("input", expected, described(f"shape {x.shape} in {path}"))
    with np.errstate(over="ignore"):  # an overflow gives Inf, which is refused below
        x = x.astype(numpy_dtype(dtype))
    if not np.isfinite(x).all():
        came = described(f"NaN or Inf in {path}")
        raise ArgumentError("input", f"finite numbers as {dtype}", came)
    name = f"input:{Path(path).name}"
    return Case(name, "input", x.shape[1:], 8, 3, batch=len(x)), x


def _unreadable(path: str | Path, why: str) -> ArgumentError:
    return ArgumentError("input", "a readable .npy file of numbers", described(f"{path}: {why}"))
