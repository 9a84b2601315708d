"""The spec that the shapes of a call's arrays imply, and whether the shapes fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lcmulti.errors import ArgumentError, ShapeError, described
from lcmulti.geometry.arguments import integer
from lcmulti.geometry.formats import DATA_FORMATS
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.geometry.transposed import transposed_spec
from lcmulti.types import Shape

__all__ = ["check_positions", "samples_error", "spec_of_call", "spec_of_transposed_call"]


def spec_of_call(
    x_shape: Shape,
    kernel_shape: Shape,
    bias_shape: Shape | None,
    *,
    data_format: str | None,
    **arguments: Any,
) -> LocalConvSpec:
    """Build the spec that array shapes imply, and check that the shapes fit together.

    Raises
    ------
    ShapeError
        If a rank is wrong, channels do not match, or an output axis of *kernel_shape* or
        *bias_shape* is neither the output size nor 1.
    """
    shapes = (x_shape, kernel_shape, bias_shape)
    return _in_this_format(_forward_spec, shapes, data_format, arguments)


def _forward_spec(
    x_shape: Shape,
    kernel_shape: Shape,
    bias_shape: Shape | None,
    *,
    data_format: str | None,
    **arguments: Any,
) -> LocalConvSpec:
    axes, sample, kernel = _checked(x_shape, kernel_shape)
    spec = LocalConvSpec(
        sample,
        kernel[-1],
        kernel[axes:-2],
        data_format=data_format,
        shared_axes=(),
        **arguments,
    )
    positions = kernel_shape[:axes]
    shared = tuple(axis for axis in range(axes) if positions[axis] == 1)
    check_positions("kernel", positions, kernel_shape, spec.output_size, spec)
    if kernel_shape[-2] != spec.in_channels // spec.groups:
        raise ShapeError(
            "kernel",
            f"{spec.in_channels // spec.groups} input channels "
            f"(x has {spec.in_channels}, groups={spec.groups})",
            described(f"{kernel_shape[-2]} in shape {kernel_shape}"),
        )
    _check_bias(bias_shape, spec.output_size, spec.filters, spec)
    return spec.sharing(shared)


def spec_of_transposed_call(
    x_shape: Shape,
    kernel_shape: Shape,
    bias_shape: Shape | None,
    *,
    data_format: str | None,
    **arguments: Any,
) -> LocalConvSpec:
    """Build the spec of the operation that a transposed call is the adjoint of.

    Raises
    ------
    ShapeError
        If a rank is wrong, channels do not match, or a position axis is neither 1 nor as long as
        the input (of *kernel_shape*) or the output (of *bias_shape*).
    """
    shapes = (x_shape, kernel_shape, bias_shape)
    return _in_this_format(_adjoint_spec, shapes, data_format, arguments)


def _adjoint_spec(
    x_shape: Shape,
    kernel_shape: Shape,
    bias_shape: Shape | None,
    *,
    groups: Any,
    data_format: str | None,
    **arguments: Any,
) -> LocalConvSpec:
    axes, sample, kernel = _checked(x_shape, kernel_shape)
    groups = integer("groups", groups, 1)
    spec = transposed_spec(
        sample,
        kernel[-2] * groups,
        kernel[axes:-2],
        groups=groups,
        data_format=data_format,
        **arguments,
    )
    if kernel_shape[-1] != spec.filters:
        raise ShapeError(
            "kernel",
            f"{spec.filters} in its last axis, the channels of x",
            described(f"{kernel_shape[-1]} in shape {kernel_shape}"),
        )
    positions = kernel_shape[:axes]
    if any(p not in (1, n) for p, n in zip(positions, spec.output_size, strict=True)):
        raise ShapeError(
            "kernel",
            f"position axes {spec.output_size} (or 1 where shared), the size of x",
            described(f"{positions} in shape {kernel_shape}"),
        )
    _check_bias(bias_shape, spec.input_size, spec.in_channels, spec)
    return spec.sharing(tuple(axis for axis in range(axes) if positions[axis] == 1))


def _in_this_format(
    spec_of: Callable[..., LocalConvSpec],
    shapes: tuple[Any, ...],
    data_format: str | None,
    arguments: dict[str, Any],
) -> LocalConvSpec:
    """Build a spec. If the arrays fit in the other data format, the error says so."""
    try:
        return spec_of(*shapes, data_format=data_format, **arguments)
    except ArgumentError as error:
        others = [each for each in DATA_FORMATS if each != data_format]
        if len(others) == len(DATA_FORMATS):
            raise
        try:
            spec_of(*shapes, data_format=others[0], **arguments)
        except ArgumentError:
            raise error from None
    expected = f"arrays that fit with data_format={data_format!r}"
    found = f"shape {shapes[0]}, which fits the kernel with data_format={others[0]!r}"
    raise ShapeError("x", expected, described(found))


def _checked(x_shape: Shape, kernel_shape: Shape) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Number of spatial axes, shape of a sample and shape of the kernel; all sizes are known."""
    axes, odd = divmod(len(kernel_shape) - 2, 2)
    if odd or axes < 1:
        layout = "(*output_size, *kernel_size, in_channels // groups, filters)"
        raise ShapeError("kernel", f"shape {layout}, an even rank of at least 4", kernel_shape)
    if len(x_shape) == len(kernel_shape) > axes + 2:
        expected = f"rank {2 * len(x_shape) - 2} to go with x of shape {x_shape}"
        found = f"shape {kernel_shape}; that of a convolution goes behind output axes of length 1, "
        found += "as (1, .., *kernel_size, in_channels // groups, filters)"
        raise ShapeError("kernel", expected, described(found))
    if len(x_shape) != axes + 2:
        expected = f"rank {axes + 2} (batch, {axes} spatial, channels) to go with the kernel"
        raise ShapeError("x", expected, described(f"shape {x_shape}"))
    if None in x_shape[1:]:
        raise ShapeError("x", "known sizes on every axis but the batch", described(str(x_shape)))
    if None in kernel_shape:
        raise ShapeError("kernel", "known sizes on every axis", described(str(kernel_shape)))
    if 0 in x_shape[1:]:
        raise ShapeError("x", "no axis of length 0 but the batch", described(f"shape {x_shape}"))
    if 0 in kernel_shape:
        raise ShapeError("kernel", "no axis of length 0", described(f"shape {kernel_shape}"))
    sample = tuple(n for n in x_shape[1:] if n is not None)
    return axes, sample, tuple(n for n in kernel_shape if n is not None)


def _check_bias(
    shape: Shape | None, size: tuple[int, ...], channels: int, spec: LocalConvSpec
) -> None:
    if shape is None:
        return
    if len(shape) != len(size) + 1 or shape[-1] != channels:
        raise ShapeError("bias", f"shape {(*size, channels)}", described(str(shape)))
    check_positions("bias", shape[:-1], shape, size, spec)


def check_positions(
    argument: str,
    positions: Shape,
    shape: Shape,
    size: tuple[int, ...],
    spec: LocalConvSpec,
) -> None:
    """Raise if position axes of an array are neither *size* nor 1, which means shared."""
    if any(p not in (1, n) for p, n in zip(positions, size, strict=True)):
        given = spec.input_size if size == spec.output_size else spec.output_size
        raise ShapeError(
            argument,
            f"output axes {size} (or 1 where shared) for input {given}, "
            f"kernel {spec.kernel_size}, strides {spec.strides}, padding {spec.padding}",
            described(f"{positions} in shape {shape}"),
        )


def samples_error(argument: str, shape: Shape, wanted: Shape, advice: str) -> ShapeError:
    """The error for samples of another shape than the weights of a layer were made for."""
    expected = f"samples of shape {wanted}, which the weights were made for"
    return ShapeError(argument, expected, described(f"{shape}; {advice}"))
