"""Where the channels of an array stand: the data formats, and the one that is configured."""

from __future__ import annotations

from collections.abc import Callable

from lcmulti.errors import ShapeError
from lcmulti.geometry.arguments import choice

__all__ = ["DATA_FORMATS", "channels_and_size", "data_format_of", "read_default_from"]

DATA_FORMATS = ("channels_last", "channels_first")

_default: Callable[[], str] = lambda: "channels_last"  # noqa: E731


def read_default_from(source: Callable[[], str]) -> None:
    """Make *source* tell the data format of calls that name none.

    The settings hand themselves in, for they are read by rooms that import this one.
    """
    global _default  # noqa: PLW0603
    _default = source


def data_format_of(value: str | None) -> str:
    """*value* checked, or the configured data format where it is None.

    Raises
    ------
    ArgumentError
        If *value* is no data format.
    """
    return choice("data_format", _default() if value is None else value, DATA_FORMATS)


def channels_and_size(shape: tuple[int, ...], data_format: str) -> tuple[int, tuple[int, ...]]:
    """Channels and spatial sizes of one sample of *shape*.

    Raises
    ------
    ShapeError
        If *shape* has no spatial axis.
    """
    last = data_format == "channels_last"
    if len(shape) < 2:
        layout = "(*size, channels)" if last else "(channels, *size)"
        raise ShapeError("input_shape", f"{layout} with at least one spatial axis", shape)
    return (shape[-1], shape[:-1]) if last else (shape[0], shape[1:])
