"""How far weights move towards their mean, and whether positions or modules have the same."""

from __future__ import annotations

import math
from numbers import Real
from typing import Protocol, TypeVar

from lcmulti.errors import ArgumentError, described

__all__ = ["require_same", "shared_error", "strength_of", "tied", "tolerance_of"]

Convolution_co = TypeVar("Convolution_co", covariant=True)


class Layer(Protocol[Convolution_co]):
    """A layer that can become a convolution."""

    def to_conv(self, tolerance: float | None = ...) -> Convolution_co:
        """The convolution."""


def strength_of(value: object) -> float:
    """Check how far weights move towards their mean: a float above 0 and up to 1."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= 1:
        raise ArgumentError("strength", "a number above 0 and up to 1", value)
    return float(value)


def tolerance_of(value: object) -> float | None:
    """Check how far weights of two positions may differ: a float of at least 0, or None for any."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= 0:
        raise ArgumentError("tolerance", "a number of at least 0, or None for the mean", value)
    return float(value)


def require_same(name: str, apart: float, tolerance: float | None) -> None:
    """Raise if weights differ by more than *tolerance* between positions, or are not finite.

    Parameters
    ----------
    name : str
        Name of the parameter, for the error.
    apart : float
        The largest difference.

    Raises
    ------
    ArgumentError
    """
    if tolerance is None or apart <= tolerance:
        return
    expected = f"the same at every position within {tolerance}"
    found = f"weights that differ by up to {apart:.3g} between positions"
    if math.isnan(apart):
        found = "weights that are not finite"
    raise ArgumentError(name, f"{expected} (tolerance=None takes the mean)", described(found))


def shared_error(name: str, label: str, other: str) -> ArgumentError:
    """The error if untying one of two modules would separate weights that they share.

    Parameters
    ----------
    name, label : str
        The convolution, and which of its parameters it is.
    other : str
        The other module.
    """
    shown = described(f"{name!r}, whose {label} is that of {other!r} too")
    what = "weights of one convolution each, or of several with the same positions"
    return ArgumentError("model", what, shown)


def tied(name: str, layer: Layer[Convolution_co], tolerance: float | None) -> Convolution_co:
    """The convolution of a layer (its ``to_conv``); errors name the layer."""
    try:
        return layer.to_conv(tolerance)
    except ArgumentError as error:
        of_layer = name and error.argument != "tolerance"
        raise error.about(f"{name}.{error.argument}" if of_layer else error.argument) from None
