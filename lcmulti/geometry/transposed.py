"""Geometry of the transposed operation, described by the operation it is the adjoint of."""

from __future__ import annotations

from typing import Any, SupportsIndex

from lcmulti.errors import ArgumentError, ShapeError
from lcmulti.geometry.arguments import integer_tuple, per_axis
from lcmulti.geometry.formats import channels_and_size, data_format_of
from lcmulti.geometry.padding import SIZE_KEEPING, explicit_padding
from lcmulti.geometry.shapes import window_extent
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.types import Axes, Padding, Sizes

__all__ = ["bias_shape_of", "output_padding_of", "transposed_spec", "transposed_arguments"]


def transposed_spec(
    input_shape: Axes,
    filters: SupportsIndex,
    kernel_size: Sizes,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    output_padding: Sizes | None = None,
    dilation: Sizes = 1,
    groups: SupportsIndex = 1,
    data_format: str | None = None,
    shared_axes: Axes = (),
) -> LocalConvSpec:
    """The `LocalConvSpec` whose adjoint in its input is a transposed operation.

    The input of the transposed operation is the output of the returned spec, and the other way
    around: the spec's ``output_shape`` is *input_shape*, its ``in_channels`` are *filters*, and
    its ``input_size`` is the size of the transposed operation's output.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one input sample, in *data_format*.
    filters : int
        Output channels.
    kernel_size : int or tuple of int
    strides, dilation : int or tuple of int, default 1
    padding : str, int, tuple of int or tuple of pairs, default ``"valid"``
        Padding of the operation this is the adjoint of; so it makes the output smaller.
    output_padding : int or tuple of int, optional
        Added to the length of the smallest possible output; less than the stride. As many outputs
        as the stride have the same size of input, and this chooses one. None: 0, but with a
        padding that keeps the size (``"same"``, ``"causal"``, ``"keras_same"``) the output is the
        size of the input times the stride.
    groups : int, default 1
    data_format : {"channels_last", "channels_first"}, optional
        None takes the configured format.
    shared_axes : tuple of int, default ()
        Spatial axes of the input along which one kernel is shared.

    Raises
    ------
    ArgumentError
        (`ShapeError`, `ArgumentTypeError`) Names the argument, what is allowed and what was given.

    Examples
    --------
    >>> spec = transposed_spec((4, 4, 8), filters=3, kernel_size=3, strides=2, padding="same")
    >>> spec.input_shape, spec.output_shape
    ((8, 8, 3), (4, 4, 8))
    """
    data_format = data_format_of(data_format)
    channels, size = channels_and_size(integer_tuple("input_shape", input_shape, 1), data_format)
    axes = len(size)
    kernel = per_axis("kernel_size", kernel_size, axes)
    steps = per_axis("strides", strides, axes)
    dilations = per_axis("dilation", dilation, axes)
    extents = tuple(map(window_extent, kernel, dilations))
    keeps = isinstance(padding, str) and padding.lower() in SIZE_KEEPING
    if keeps:  # the input has ceil(output / stride) positions, whatever the window
        least = tuple((n - 1) * s + 1 for n, s in zip(size, steps, strict=True))
    else:
        pairs = explicit_padding(padding, size, kernel, steps, dilations)
        least = tuple(
            (n - 1) * s + extent - low - high
            for n, s, extent, (low, high) in zip(size, steps, extents, pairs, strict=True)
        )
    if output_padding is None:
        extra = tuple(s - 1 if keeps else 0 for s in steps)
    else:
        extra = per_axis("output_padding", output_padding, axes, minimum=0)
        if any(e >= s for e, s in zip(extra, steps, strict=True)):
            raise ArgumentError("output_padding", f"less than the strides {steps}", output_padding)
    output = tuple(n + e for n, e in zip(least, extra, strict=True))
    if min(output) < 1:
        raise ShapeError("padding", f"an output of positive size, which would be {output}", padding)
    last = data_format == "channels_last"
    spec = LocalConvSpec(
        (*output, filters) if last else (filters, *output),
        channels,
        kernel,
        strides=steps,
        padding=padding,
        dilation=dilations,
        groups=groups,
        data_format=data_format,
        shared_axes=shared_axes,
    )
    assert spec.output_size == size
    return spec


def output_padding_of(spec: LocalConvSpec) -> tuple[int, ...]:
    """Explicit output padding of the transposed operation that *spec* is the adjoint of."""
    return tuple(
        (size - window_extent(k, d)) % s
        for size, k, d, s in zip(
            spec.padded_size, spec.kernel_size, spec.dilation, spec.strides, strict=True
        )
    )


def bias_shape_of(spec: LocalConvSpec) -> tuple[int, ...]:
    """Shape of a bias of that operation, with 1 along the axes its kernel is shared along."""
    shared = spec.shared_axes
    size = (1 if axis in shared else n for axis, n in enumerate(spec.input_size))
    return (*size, spec.in_channels)


def transposed_arguments(spec: LocalConvSpec) -> dict[str, Any]:
    """The adjoint of *spec* as keyword arguments of `lcmulti.local_conv_transpose`."""
    arguments = spec.arguments() | {"output_padding": output_padding_of(spec)}
    del arguments["padding_mode"]  # the adjoint takes padding away
    return arguments
