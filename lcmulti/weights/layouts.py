"""Convert weights of other libraries to lcmulti's layout and back, in NumPy.

A layout is a record: an axis pattern for the kernel, one for the bias, and whether the window
is flipped. Letters stand for groups of axes, in the order of the array in memory:
``o`` output positions, ``k`` taps, ``c`` channels, ``f`` filters; parentheses join axes into
one, and ``1`` is an axis of length 1. lcmulti's own layout is ``o k c f`` with a bias ``o f``.

Keras 2's implementations 2 and 3 store a dense mask and a list of its entries. These have no
pattern; `lcmulti.weights.keras2_masks` knows which entry is which weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError, UnsupportedError, described
from lcmulti.geometry.arguments import choice
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.types import Array
from lcmulti.weights import keras2_masks
from lcmulti.weights.patterns import packed, shape_of, unpacked

__all__ = [
    "LAYOUTS",
    "Layout",
    "bias_shape",
    "export_bias",
    "export_kernel",
    "import_bias",
    "import_kernel",
    "kernel_shape",
]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a library stores the weights of a locally connected layer.

    Parameters
    ----------
    source : str
        The library and its layer.
    kernel : str
        Axis pattern; empty for Keras 2's implementations 2 and 3.
    bias : str
        Axis pattern; ``1 f`` and ``f`` are one bias for all positions.
    kernel_first : str
        Axis pattern of the kernel where the layer's data format is channels first, if it differs.
    flipped : bool
        Whether the library flips the window, as a mathematical convolution does: the last tap
        multiplies the first input.
    reshaped_bias : bool
        Whether a channels-first bias is stored ``o f`` and *reshaped* to ``f o`` when added.
    axes : tuple of int
        Numbers of spatial axes that the library has the layer for; empty for any.
    groups : bool
        Whether the library has groups of channels, each with its own filters, in order.
    """

    source: str
    kernel: str
    bias: str
    kernel_first: str = ""
    flipped: bool = False
    reshaped_bias: bool = False
    axes: tuple[int, ...] = ()
    groups: bool = False

    def pattern(self, spec: LocalConvSpec) -> str:
        """Axis pattern of the kernel for the data format of *spec*."""
        first = spec.data_format == "channels_first"
        return self.kernel_first if first and self.kernel_first else self.kernel


_FO = "f o c k"
LAYOUTS: dict[str, Layout] = {
    "lcmulti": Layout("lcmulti", "o k c f", "o f"),
    "keras2-1": Layout(
        "Keras 2, implementation=1", "(o) (k c) f", "o f", "(o) (c k) f", reshaped_bias=True
    ),
    "keras2-2": Layout("Keras 2, implementation=2", "", "o f", reshaped_bias=True),
    "keras2-3": Layout("Keras 2, implementation=3", "", "o f", reshaped_bias=True),
    "flax": Layout("Flax ConvLocal, jax.lax.conv_general_dilated_local", "o (c k) f", "o f"),
    "torch7": Layout("Lua Torch SpatialConvolutionLocal", "o f c k", "f o", axes=(2,)),
    "pytorch-recipe": Layout(
        "LocallyConnected2d of the PyTorch forum", "1 f c o (k)", "1 f o", axes=(2,)
    ),
    "chainer": Layout("Chainer LocalConvolution2D", _FO, "f o", axes=(2,), groups=True),
    "fbnn": Layout("fbnn LocallyConnected", _FO, "f o", axes=(2,), groups=True),
    "theano": Layout("Theano conv2d(unshared=True)", _FO, "", flipped=True, axes=(2,), groups=True),
    "lasagne": Layout("Lasagne LocallyConnected2DLayer", "f c k o", "f o", flipped=True, axes=(2,)),
    "lasagne-tied": Layout("Lasagne, untie_biases=False", "f c k o", "f", flipped=True, axes=(2,)),
    "dl4j": Layout("Deeplearning4j LocallyConnected", "(o) (c k) f", "1 f", axes=(1, 2)),
    # darknet src/local_layer.c: forward_local_layer; src/parser.c: biases first, then weights.
    "darknet": Layout("Darknet [local], of YOLO v1", "(o) f c k", "f o", axes=(2,)),
    # cuda-convnet2 layer.py: LocalUnsharedLayerParser; cudaconv3/src/filter_acts.cu: "filters" and
    # "targets", to whose rows (numFilters, numModules) cudaconvnet/src/layer.cu adds the biases.
    "cuda-convnet": Layout(
        "cuda-convnet type=local", "(o) c (k) f", "(f o) 1", axes=(2,), groups=True
    ),
    "eir": Layout("EIR LCL", "f (o) (k c)", "(f o)", axes=(1,)),
}
"""Every layout by name."""


def import_kernel(array: Array, layout: str, spec: LocalConvSpec) -> np.ndarray:
    """Return another library's kernel in lcmulti's layout.

    Parameters
    ----------
    array : array_like
        The kernel, of the shape that `kernel_shape` returns.
    layout : str
        A name in `LAYOUTS`.
    spec : LocalConvSpec
        The geometry of the layer. Its ``data_format`` chooses between the two orders of Keras 2.

    Returns
    -------
    ndarray
        ``(*output_size, *kernel_size, in_channels // groups, filters)``, a new array of the dtype
        of *array*. Weights of taps that read padding are 0 where Keras 2 does not store them.

    Raises
    ------
    ArgumentError
        (`ShapeError`) if the layout is unknown or the array has another shape.
    UnsupportedError
        If the library has no such layer (groups, shared axes, another number of axes).
    """
    row = _row(layout, spec)
    stored = _checked("array", array, kernel_shape(layout, spec))
    if not row.kernel:
        return keras2_masks.gather(stored, spec, dense=layout == "keras2-2")
    kernel = unpacked(stored, row.pattern(spec), spec)
    if row.flipped:
        kernel = np.flip(kernel, _tap_axes(spec))
    return np.array(kernel, order="C")


def export_kernel(kernel: Array, layout: str, spec: LocalConvSpec) -> np.ndarray:
    """Return lcmulti's kernel in another library's layout: the inverse of `import_kernel`.

    Parameters
    ----------
    kernel : array_like
        ``spec.kernel_shape``.
    layout : str
        A name in `LAYOUTS`.
    spec : LocalConvSpec

    Returns
    -------
    ndarray
        Of the shape that `kernel_shape` returns. Entries of Keras 2's implementation 2 that
        connect nothing are 0.

    Raises
    ------
    ArgumentError, UnsupportedError
        As in `import_kernel`.
    """
    row = _row(layout, spec)
    ours = _checked("kernel", kernel, spec.kernel_shape)
    if not row.kernel:
        return keras2_masks.scatter(ours, spec, dense=layout == "keras2-2")
    if row.flipped:
        ours = np.flip(ours, _tap_axes(spec))
    return packed(ours, row.pattern(spec), spec)


def import_bias(array: Array, layout: str, spec: LocalConvSpec) -> np.ndarray:
    """Return another library's bias in lcmulti's layout, ``(*output_size, filters)``.

    If the library has one bias for all positions, it is repeated. Keras 2 stores a channels-first
    bias as ``(*output_size, filters)``, and reshapes it (without transposing) to ``(filters,
    *output_size)`` before it is added. This function undoes that.

    Parameters
    ----------
    array : array_like
        The bias, of the shape that `bias_shape` returns.
    layout : str
        A name in `LAYOUTS`.
    spec : LocalConvSpec

    Raises
    ------
    ArgumentError, UnsupportedError
        As in `import_kernel`; also if the library's layer has no bias.
    """
    row = _row(layout, spec)
    stored = _checked("array", array, bias_shape(layout, spec))
    if row.reshaped_bias and spec.data_format == "channels_first":
        stored = np.moveaxis(stored.reshape(spec.filters, *spec.output_size), 0, -1)
        return np.array(stored, order="C")
    if "o" not in row.bias:
        stored = stored.reshape((1,) * spec.ndim + (spec.filters,))
        return np.array(np.broadcast_to(stored, (*spec.output_size, spec.filters)), order="C")
    return np.array(unpacked(stored, row.bias, spec), order="C")


def export_bias(bias: Array, layout: str, spec: LocalConvSpec) -> np.ndarray:
    """Return lcmulti's bias in another library's layout: the inverse of `import_bias`.

    Parameters
    ----------
    bias : array_like
        ``spec.bias_shape``.
    layout : str
        A name in `LAYOUTS`.
    spec : LocalConvSpec

    Raises
    ------
    ArgumentError
        As in `import_bias`; also if the library has one bias for all positions and *bias* differs
        between them.
    """
    row = _row(layout, spec)
    ours = _checked("bias", bias, spec.bias_shape)
    shape = bias_shape(layout, spec)
    if row.reshaped_bias and spec.data_format == "channels_first":
        return np.array(np.moveaxis(ours, -1, 0), order="C").reshape(shape)
    if "o" not in row.bias:
        first = ours[(0,) * spec.ndim]
        if not np.array_equal(ours, np.broadcast_to(first, ours.shape), equal_nan=True):
            what = f"one bias for all positions, which is all that {row.source} has"
            raise ArgumentError("bias", what, described("biases that differ between positions"))
        return np.array(first.reshape(shape))
    return packed(ours, row.bias, spec)


def kernel_shape(layout: str, spec: LocalConvSpec) -> tuple[int, ...]:
    """Shape of a kernel in a layout.

    Raises
    ------
    ArgumentError, UnsupportedError
        As in `import_kernel`.
    """
    row = _row(layout, spec)
    if not row.kernel:
        return keras2_masks.stored_shape(spec, dense=layout == "keras2-2")
    return shape_of(row.pattern(spec), spec)


def bias_shape(layout: str, spec: LocalConvSpec) -> tuple[int, ...]:
    """Shape of a bias in a layout.

    Raises
    ------
    ArgumentError, UnsupportedError
        As in `import_kernel`; also if the library's layer has no bias.
    """
    row = _row(layout, spec)
    if not row.bias:
        raise UnsupportedError(f"{row.source} has no bias")
    return shape_of(row.bias, spec)


def _row(layout: Any, spec: Any) -> Layout:
    if not isinstance(spec, LocalConvSpec):
        raise ArgumentTypeError("spec", "a LocalConvSpec", spec)
    name = choice("layout", layout, LAYOUTS)
    row = LAYOUTS[name]
    if name == "lcmulti":
        return row
    if row.axes and spec.ndim not in row.axes:
        dims = " or ".join(f"{n}D" for n in row.axes)
        raise UnsupportedError(f"{row.source} is {dims}, the spec is {spec.ndim}D")
    if spec.shared_axes:
        raise UnsupportedError(
            f"{row.source} shares nothing; use spec.sharing(()) and repeat the kernel"
        )
    if spec.groups != 1 and not row.groups:
        raise UnsupportedError(f"{row.source} has no groups, the spec has {spec.groups}")
    if name == "eir" and spec.in_channels != 1:
        raise UnsupportedError(f"{row.source} has one channel, the spec has {spec.in_channels}")
    return row


def _checked(argument: str, array: Array, shape: tuple[int, ...]) -> np.ndarray:
    plain = np.asarray(array)
    if plain.shape != shape:
        raise ShapeError(argument, f"shape {shape}", described(f"shape {plain.shape}"))
    return plain


def _tap_axes(spec: LocalConvSpec) -> tuple[int, ...]:
    return tuple(range(spec.ndim, 2 * spec.ndim))
