"""Turn the arguments of a spec into its fields: ints and tuples that fit together."""

from __future__ import annotations

from typing import Any, SupportsIndex

from lcmulti.errors import ArgumentError, ShapeError, described
from lcmulti.geometry.arguments import (
    choice,
    integer,
    integer_tuple,
    per_axis,
    spatial_axes,
)
from lcmulti.geometry.formats import channels_and_size, data_format_of
from lcmulti.geometry.padding import PADDING_MODES, check_padding_mode, explicit_padding
from lcmulti.geometry.shapes import output_length, window_extent
from lcmulti.types import Axes, Padding, Sizes

__all__ = ["normalised", "normalised_shared_axes"]


def normalised(
    input_shape: Axes,
    filters: SupportsIndex,
    kernel_size: Sizes,
    strides: Sizes,
    padding: Padding,
    padding_mode: str,
    dilation: Sizes,
    groups: SupportsIndex,
    data_format: str | None,
    shared_axes: Axes,
) -> dict[str, Any]:
    """The fields of a `LocalConvSpec`; parameters and errors are those of the class."""
    data_format = data_format_of(data_format)
    channels, size = channels_and_size(integer_tuple("input_shape", input_shape, 1), data_format)
    axes = len(size)
    kernel = per_axis("kernel_size", kernel_size, axes)
    steps = per_axis("strides", strides, axes)
    dilations = per_axis("dilation", dilation, axes)
    pairs = explicit_padding(padding, size, kernel, steps, dilations)
    mode = choice("padding_mode", padding_mode, PADDING_MODES)
    check_padding_mode(mode, size, pairs)
    filters = integer("filters", filters, 1)
    groups = integer("groups", groups, 1)
    for name, count in (("in_channels", channels), ("filters", filters)):
        if count % groups:
            raise ArgumentError("groups", f"a divisor of {name}={count}", groups)
    output = tuple(
        output_length(length, k, s, low, high, d)
        for length, k, s, (low, high), d in zip(size, kernel, steps, pairs, dilations, strict=True)
    )
    if min(output) < 1:
        extent = tuple(map(window_extent, kernel, dilations))
        padded = tuple(n + low + high for n, (low, high) in zip(size, pairs, strict=True))
        raise ShapeError(
            "kernel_size",
            f"a window no larger than the padded input {padded}",
            described(f"{kernel} with dilation {dilations}, which spans {extent}"),
        )
    return {
        "input_size": size,
        "in_channels": channels,
        "filters": filters,
        "kernel_size": kernel,
        "strides": steps,
        "padding": pairs,
        "padding_mode": mode if any(map(any, pairs)) else "zeros",
        "dilation": dilations,
        "groups": groups,
        "data_format": data_format,
        "shared_axes": normalised_shared_axes(shared_axes, output),
        "output_size": output,
    }


def normalised_shared_axes(value: object, output_size: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that *value* names, sorted, without those that have a single position."""
    shared = spatial_axes("shared_axes", value, len(output_size))
    # With a single position, sharing changes nothing. Without these axes, equal geometries have
    # equal specs.
    return tuple(axis for axis in sorted(shared) if output_size[axis] > 1)
