"""The operation itself: docstring, dispatch, and the three steps around an implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lcmulti import dispatch, plugins
from lcmulti.backend import Backend, Map
from lcmulti.dtypes import DTYPES, name_of
from lcmulti.errors import ArgumentError, ArgumentTypeError, DtypeError, described
from lcmulti.settings import current

__all__ = ["local_conv", "local_conv_transpose"]


def local_conv(
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
    data_format: str | None = None,
    backend: str | None = None,
    implementation: str = "auto",
) -> Any:
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
        An output axis of length 1 means: shared along this axis.
    bias : array, optional
        ``(*output_size, filters)``, or 1 where shared.
    strides, dilation : int or tuple of int, default 1
        Step between windows, and between the taps of one window.
    padding : str, int, tuple of int or tuple of pairs, default ``"valid"``
        As in `LocalConvSpec`.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding is filled with.
    groups : int, default 1
        Divisor of ``in_channels`` and ``filters``.
    data_format : {"channels_last", "channels_first"}, optional
        None takes the configured one.
    backend : str, optional
        None takes the framework of the arrays, or for NumPy arrays the configured backend.
        NumPy arrays are converted, computed and converted back.
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
        (`ShapeError`, `DtypeError`, `MixedFrameworksError`, ...) for an argument that cannot be.
    MissingBackendError
        If the framework asked for is not installed.
    UnsupportedError
        If no implementation, or not the one named, can serve the call.

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
    return calls[key](x, kernel, bias, arguments)


def local_conv_transpose(
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    output_padding: Any = None,
    dilation: Any = 1,
    groups: int = 1,
    data_format: str | None = None,
    backend: str | None = None,
    implementation: str = "auto",
) -> Any:
    """Transposed locally connected operation: the exact adjoint of `local_conv` in ``x``.

    ::

        y[n, i, c] = bias[i, c]
            + sum over o, t, f with o * stride + t * dilation - pad = i
              of x[n, o, f] * kernel[o, t, c, f]

    so ``sum(local_conv_transpose(x, kernel) * y) == sum(x * local_conv(y, kernel))`` for every
    ``y``. It is computed by the map an implementation has for the input gradient and is
    differentiable as `local_conv` is.

    Parameters
    ----------
    x : array
        ``(N, *input_size, in_channels)``, or ``(N, in_channels, *input_size)`` with
        ``data_format="channels_first"``.
    kernel : array
        ``(*input_size, *kernel_size, out_channels // groups, in_channels)``: each position that
        goes in has weights of its own, the kernel of the `local_conv` whose output *x* is.
        An axis of length 1 means: shared along this axis.
    bias : array, optional
        ``(*output_size, out_channels)``, or 1 where shared.
    strides, padding, dilation : as for `local_conv`
        Of the operation this is the adjoint of: strides widen, padding takes away.
    output_padding : int or tuple of int, optional
        Which of the output sizes that go with the size of *x*: see `transposed_spec`.
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
    return calls[key](x, kernel, bias, arguments)


class Composite(NamedTuple):
    """An operation made of the backend's: how its arrays are called and how it runs.

    Parameters
    ----------
    names : tuple of str
        The array arguments, for errors.
    run : callable
        ``(backend, *arrays, arguments) -> y`` on arrays of the backend of that name.
    """

    names: tuple[str, ...]
    run: Callable[..., Any]


calls: dict[str, Callable[..., Any]] = {}


def call_key(operation: str, kinds: tuple[type, ...], backend: str | None) -> str:
    """Key in `calls` of the function that runs an operation on arrays of these types."""
    if backend is not None and not isinstance(backend, str):
        raise ArgumentTypeError("backend", "a name or None", backend)
    names = OPERATIONS[operation].names
    name, neutral = dispatch.backend_of(kinds, backend, names=names)
    key = f"{operation} in {name}{' from NumPy' if neutral else ''}"
    if key not in calls:
        calls[key] = _call(operation, name, neutral)
    return key


# PyTorch's tracer calls a function marked so and takes what it returns, which depends on types
# and settings alone, as a constant of the trace. A string can be one, a function cannot.
call_key._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _call(operation: str, name: str, neutral: bool) -> Callable[..., Any]:
    owner = plugins.load_backend(name)
    names, run_on = OPERATIONS[operation]

    def call(*arrays_and_arguments: Any) -> Any:
        *arrays, arguments = arrays_and_arguments
        y = run_on(name, *converted(name, arrays, names), arguments)
        return owner.to_numpy(y) if neutral else y

    return owner.opaque(call)


def prepare(
    name: str, x: Any, kernel: Any, bias: Any, arguments: tuple[Any, ...], map_: Map = "forward"
) -> tuple[dispatch.Plan, tuple[Any, ...]]:
    """Plan a call on arrays of the backend *name*.

    Returns
    -------
    plan : Plan
    arrays : tuple
        ``x``, ``kernel`` and ``bias`` (or None) as arrays of the backend.
    """
    owner = plugins.load_backend(name)
    arrays = owner.prepare((x, kernel, bias))
    return dispatch.plan(name, _facts(owner, arrays), arguments, current(), map_), arrays


def _facts(owner: Backend, arrays: tuple[Any, ...]) -> dispatch.ArgumentFacts:
    x, kernel, bias = arrays
    argument = "x"
    try:
        of_x = owner.facts(x, True)
        argument = "kernel"
        of_kernel = owner.facts(kernel)
        argument = "bias"
        return of_x, of_kernel, None if bias is None else owner.facts(bias)
    except ArgumentError as error:  # backends do not know which one it is
        raise error.about(argument) from None


def converted(name: str, arrays: Sequence[Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    """Convert NumPy's arrays to the backend *name*, to the device of those that are its own.

    Subclasses become plain arrays, for a matrix or a masked array has arithmetic of its own.
    """
    if not any(isinstance(array, np.ndarray) for array in arrays):
        return tuple(arrays)
    owner = plugins.load_backend(name)
    like = next((a for a in arrays if a is not None and not isinstance(a, np.ndarray)), None)
    result = list(arrays)
    for i, (argument, array) in enumerate(zip(names, arrays, strict=True)):
        if not isinstance(array, np.ndarray):
            continue
        if isinstance(array, np.ma.MaskedArray):
            shown = described("a masked array; call .filled(value) on it")
            raise ArgumentTypeError(argument, "an array without a mask", shown)
        if name_of(array.dtype) not in DTYPES:
            raise DtypeError(argument, f"dtype {', '.join(DTYPES)}", array.dtype.name)
        plain = np.asarray(array)
        if not plain.dtype.isnative:
            plain = plain.astype(plain.dtype.newbyteorder("="))
        if name != dispatch.NUMPY:
            try:
                plain = owner.from_numpy(plain, like)
            except ArgumentError as error:
                raise error.about(argument) from None
        result[i] = plain
    return tuple(result)


def add_bias(plan: dispatch.Plan, owner: Backend, y: Any, bias: Any) -> Any:
    """Add a bias ``(*output_size, filters)`` to a result in the caller's data format."""
    return owner.add(y, owner.move_axis(bias, -1, 0) if plan.channels_first else bias)


def _bilinear(map_: Map) -> Callable[..., Any]:
    def run_map(name: str, x: Any, kernel: Any, bias: Any, arguments: tuple[Any, ...]) -> Any:
        plan, arrays = prepare(name, x, kernel, bias, arguments, map_)
        return plan.call(*arrays)

    return run_map


OPERATIONS = {
    "local_conv": Composite(dispatch.ARGUMENTS, _bilinear("forward")),
    "local_conv_transpose": Composite(dispatch.ARGUMENTS, _bilinear("input_grad")),
}
"""Every operation by the name of its public function; modules that compose more add to it."""
