"""The data formats (where the channels of an array are), and the configured one."""

from __future__ import annotations

from collections.abc import Callable

from lcmulti.errors import ShapeError
from lcmulti.geometry.arguments import choice

__all__ = [
    "DATA_FORMATS", "channels_and_size", "data_format_of", "in_other_format", "read_default_from",
]  # fmt: skip

DATA_FORMATS = ("channels_last", "channels_first")

_default: Callable[[], str] = lambda: "channels_last"  # noqa: E731


def read_default_from(source: Callable[[], str]) -> None:
    """Let *source* provide the data format of calls that name none.

    The settings register themselves here: the geometry may not import them, since they import it.
    """
    global _default  # noqa: PLW0603
    _default = source


def data_format_of(value: str | None) -> str:
    """Check *value*; None is the configured data format.

    Raises
    ------
    ArgumentError
        If *value* is not a data format.
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


def in_other_format(shape: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    """The shape of one sample of *shape* after its channels are moved to the other end."""
    channels, size = channels_and_size(shape, data_format)
    return (*size, channels) if data_format == "channels_first" else (channels, *size)
