"""The operation itself: docstring, dispatch, and the three steps around an implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lcmulti import dispatch, plugins
from lcmulti.backend import Backend
from lcmulti.dtypes import DTYPES
from lcmulti.errors import ArgumentTypeError, DtypeError, described
from lcmulti.settings import current

__all__ = ["local_conv"]


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
    r"""Locally connected operation: a convolution whose weights differ at every position.

    .. math::

        y[n, o, f] = bias[o, f] + \sum_{t, c} x[n, o \cdot stride + t \cdot dilation - pad, c]
                     \; kernel[o, t, c, f]

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
    key = _call_key((type(x), type(kernel), type(bias)), backend)
    return _calls[key](x, kernel, bias, arguments)


_calls: dict[str, Callable[..., Any]] = {}


def _call_key(kinds: tuple[type, ...], backend: str | None) -> str:
    """Key in `_calls` of the function that serves arrays of these types."""
    if backend is not None and not isinstance(backend, str):
        raise ArgumentTypeError("backend", "a name or None", backend)
    name, neutral = dispatch.backend_of(kinds, backend, current().backend)
    key = f"{name} from NumPy" if neutral else name
    if key not in _calls:
        _calls[key] = _call(name, neutral)
    return key


# PyTorch's tracer calls a function marked so and takes what it returns, which depends on types
# and settings alone, as a constant of the trace. A string can be one, a function cannot.
_call_key._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _call(name: str, neutral: bool) -> Callable[..., Any]:
    owner = plugins.load_backend(name)

    def call(x: Any, kernel: Any, bias: Any, arguments: tuple[Any, ...]) -> Any:
        plan, arrays = prepare(name, x, kernel, bias, arguments)
        y = run(plan, owner, *arrays)
        return owner.to_numpy(y) if neutral else y

    return owner.opaque(call)


def prepare(
    name: str, x: Any, kernel: Any, bias: Any, arguments: tuple[Any, ...]
) -> tuple[dispatch.Plan, tuple[Any, ...]]:
    """Bring the arrays to the backend *name* and plan the call.

    Returns
    -------
    plan : Plan
    arrays : tuple
        ``x``, ``kernel`` and ``bias`` (or None) as arrays of the backend.
    """
    owner = plugins.load_backend(name)
    arrays = owner.prepare(_converted(name, owner, (x, kernel, bias)))
    x, kernel, bias = arrays
    facts = (owner.facts(x, True), owner.facts(kernel), None if bias is None else owner.facts(bias))
    return dispatch.plan(name, facts, arguments, current()), arrays


def _converted(name: str, owner: Backend, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Convert NumPy's arrays, to the device of those that belong to *owner* already.

    Subclasses become plain arrays, for a matrix or a masked array has arithmetic of its own.
    """
    like = next((a for a in arrays if a is not None and not isinstance(a, np.ndarray)), None)
    converted = list(arrays)
    for i, (argument, array) in enumerate(zip(dispatch.ARGUMENTS, arrays, strict=True)):
        if not isinstance(array, np.ndarray):
            continue
        if isinstance(array, np.ma.MaskedArray):
            shown = described("a masked array; call .filled(value) on it")
            raise ArgumentTypeError(argument, "an array without a mask", shown)
        if array.dtype.name not in DTYPES:
            raise DtypeError(argument, f"dtype {', '.join(DTYPES)}", array.dtype.name)
        plain = np.asarray(array)
        if not plain.dtype.isnative:
            plain = plain.astype(plain.dtype.newbyteorder("="))
        if name != dispatch.NUMPY:
            plain = owner.from_numpy(plain, like)
        converted[i] = plain
    return tuple(converted)


def run(plan: dispatch.Plan, owner: Backend, x: Any, kernel: Any, bias: Any) -> Any:
    """Run a planned call on arrays of its backend."""
    if plan.channels_first:
        x = owner.move_axis(x, 1, -1)
    for axis, indices in plan.padding_indices:
        x = owner.take(x, indices, axis)
    y = plan.operation(x, kernel, plan.problem.spec, plan.problem.resources)
    if bias is not None:
        y = owner.add(y, bias)
    return owner.move_axis(y, -1, 1) if plan.channels_first else y
