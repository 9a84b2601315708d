"""Facts about the element types lcmulti computes in, by name; no framework is needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["DTYPES", "Dtype", "name_of"]


@lru_cache(maxsize=256)
def name_of(dtype: Any) -> str:
    """Name of a NumPy element type; kept, because NumPy builds the string at every request."""
    name: str = dtype.name
    return name


@dataclass(frozen=True, slots=True)
class Dtype:
    """One element type.

    Parameters
    ----------
    name : str
        The name NumPy and ml_dtypes give it.
    itemsize : int
        Size of an element in bytes.
    accumulator : str
        The type sums are held in before they are rounded to this one.
    roundoff : float
        Unit roundoff, half the distance from 1 to the next larger number
        (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 2.1).
    """

    name: str
    itemsize: int
    accumulator: str
    roundoff: float

    @property
    def is_half(self) -> bool:
        """Whether sums are held in a wider type than the elements."""
        return self.accumulator != self.name


DTYPES: dict[str, Dtype] = {
    dtype.name: dtype
    for dtype in (
        Dtype("float16", 2, "float32", 2.0**-11),
        Dtype("bfloat16", 2, "float32", 2.0**-8),
        Dtype("float32", 4, "float32", 2.0**-24),
        Dtype("float64", 8, "float64", 2.0**-53),
        Dtype("complex64", 8, "complex64", 2.0**-24),
        Dtype("complex128", 16, "complex128", 2.0**-53),
    )
}
