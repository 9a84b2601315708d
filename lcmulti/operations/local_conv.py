"""`local_conv` and `local_conv_transpose`: the operation, and what each argument means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lcmulti.choosing.framework import ARGUMENTS
from lcmulti.choosing.preparing import prepare
from lcmulti.operations.calling import OPERATIONS, Composite, call_key, calls
from lcmulti.plugins.contract import Map
from lcmulti.types import Array, Padding, Sizes

__all__ = ["local_conv", "local_conv_transpose"]

ArrayT = TypeVar("ArrayT")
"""An array of any framework; the result has the type of *x*."""


def local_conv(
    x: ArrayT,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    padding_mode: str = "zeros",
    dilation: Sizes = 1,
    groups: int = 1,
    data_format: str | None = None,
    backend: str | None = None,
    implementation: str = "auto",
) -> ArrayT:
    """Locally connected operation: a convolution whose weights differ at every position.

    ::

        y[n, o, f] = bias[o, f]
            + sum over t, c of x[n, o * stride + t * dilation - pad, c] * kernel[o, t, c, f]

    with ``o`` and ``t`` n-dimensional and ``c`` over the channels of the group of ``f``
    (LeCun 1989, "Generalization and network design strategies", section 5, net-4 without
    weight sharing; Keras 2 ``LocallyConnected1D`` and ``2D``).

    Parameters
    ----------
    x : array
        ``(N, *input_size, in_channels)``, or ``(N, in_channels, *input_size)`` with
        ``data_format="channels_first"``. Any number of spatial axes; ``N`` may be 0.
    kernel : array
        ``(*output_size, *kernel_size, in_channels // groups, filters)`` in either data format.
        An output axis of length 1 means that the kernel is shared along this axis.
    bias : array, optional
        ``(*output_size, filters)``, with 1 along axes where it is shared.
    strides, dilation : int or tuple of int, default 1
        Step between windows, and between the taps of one window.
    padding : str, int, tuple of int or tuple of pairs, default ``"valid"``
        As in `LocalConvSpec`.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding is filled with.
    groups : int, default 1
        Divisor of ``in_channels`` and ``filters``.
    data_format : {"channels_last", "channels_first"}, optional
        None takes the configured format.
    backend : str, optional
        None takes the framework of the arrays, or for NumPy arrays the configured backend.
        NumPy arrays are converted to the backend, and the result back to NumPy.
    implementation : str, default ``"auto"``
        A name forces one; ``auto`` picks by device, dtype, geometry and ``max_workspace``.

    Returns
    -------
    array
        ``(N, *output_size, filters)`` or ``(N, filters, *output_size)``, of the type, dtype and
        device of *x*. Half types are summed in float32.

    Raises
    ------
    ArgumentError
        (`ShapeError`, `DtypeError`, `MixedFrameworksError`, ...) For an argument that is not
        allowed.
    MissingBackendError
        If the framework that is asked for is not installed.
    UnsupportedError
        If no implementation can serve the call, or if the named one cannot.

    Examples
    --------
    >>> import numpy as np, lcmulti
    >>> x = np.ones((2, 5, 3), "float32")
    >>> kernel = np.ones((4, 2, 3, 7), "float32")  # 4 positions, window 2, 3 channels, 7 filters
    >>> lcmulti.local_conv(x, kernel).shape
    (2, 4, 7)
    """
    arguments = (strides, padding, padding_mode, dilation, groups, data_format, implementation)
    key = call_key("local_conv", (type(x), type(kernel), type(bias)), backend)
    y: ArrayT = calls[key](x, kernel, bias, arguments)
    return y


def local_conv_transpose(
    x: ArrayT,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    output_padding: Sizes | None = None,
    dilation: Sizes = 1,
    groups: int = 1,
    data_format: str | None = None,
    backend: str | None = None,
    implementation: str = "auto",
) -> ArrayT:
    """Transposed locally connected operation: the exact adjoint of `local_conv` in ``x``.

    ::

        y[n, i, c] = bias[i, c]
            + sum over o, t, f with o * stride + t * dilation - pad = i
              of x[n, o, f] * kernel[o, t, c, f]

    so ``sum(local_conv_transpose(x, kernel) * y) == sum(x * local_conv(y, kernel))`` for every
    ``y``. The map that implementations have for the input gradient computes it. It is
    differentiable, as `local_conv` is.

    Parameters
    ----------
    x : array
        ``(N, *input_size, in_channels)``, or ``(N, in_channels, *input_size)`` with
        ``data_format="channels_first"``.
    kernel : array
        ``(*input_size, *kernel_size, out_channels // groups, in_channels)``: each input position
        has weights of its own. It is the kernel of the `local_conv` whose output has the shape of
        *x*. A position axis of length 1 means that the kernel is shared along this axis.
    bias : array, optional
        ``(*output_size, out_channels)``, with 1 along axes where it is shared.
    strides, padding, dilation : as for `local_conv`
        Of the operation this is the adjoint of. So strides make the output larger, and padding
        makes it smaller.
    output_padding : int or tuple of int, optional
        Chooses among the output sizes that have the same size of *x*; see `transposed_spec`.
    groups, data_format, backend, implementation : as for `local_conv`

    Returns
    -------
    array
        ``(N, *output_size, out_channels)`` or ``(N, out_channels, *output_size)``, with
        ``output_size = (input_size - 1) * strides - low - high + (kernel_size - 1) * dilation + 1
        + output_padding`` along each axis.

    Raises
    ------
    LcmultiError
        As `local_conv`.

    Examples
    --------
    >>> import numpy as np, lcmulti
    >>> x = np.ones((2, 4, 7), "float32")
    >>> kernel = np.ones((4, 3, 5, 7), "float32")  # 4 positions, window 3, 5 channels out, 7 in
    >>> lcmulti.local_conv_transpose(x, kernel, strides=2).shape
    (2, 9, 5)
    """
    arguments = (strides, padding, output_padding, dilation, groups, data_format, implementation)
    key = call_key("local_conv_transpose", (type(x), type(kernel), type(bias)), backend)
    y: ArrayT = calls[key](x, kernel, bias, arguments)
    return y


def _bilinear(map_: Map) -> Callable[..., Any]:
    def run_map(
        name: str, x: Array, kernel: Array, bias: Array, arguments: tuple[object, ...]
    ) -> Any:
        plan, arrays = prepare(name, x, kernel, bias, arguments, map_)
        return plan.call(*arrays)

    return run_map


OPERATIONS["local_conv"] = Composite(ARGUMENTS, _bilinear("forward"))
OPERATIONS["local_conv_transpose"] = Composite(ARGUMENTS, _bilinear("input_grad"))
