"""Let errors about arrays of Keras 2 name the function that converts them.

When a model loads a ``.h5`` file or is given a list of arrays, Keras compares shapes itself, before
it calls any layer. Its errors then only say which shapes differ. So two methods of Keras are
wrapped here. They change nothing but the text of a `ValueError` about a model with locally
connected layers. This is the only place where lcmulti_keras changes Keras itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from lcmulti.errors import LcmultiError, ShapeError, UnsupportedError, described
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.weights import layouts
from lcmulti.weights.initial import geometry_told

__all__ = ["advise", "require_own_geometry", "require_own_layout"]

ADVICE = (
    "Arrays of Keras 2 are brought to this layout by lcmulti.layouts.import_kernel(kernel, "
    "'keras2-1', layer.spec) and import_bias, with the number of the implementation that made "
    "them; lcmulti_keras.load_legacy_weights(model, path) does so for a whole file"
)


def require_own_layout(layer: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise for a kernel in a layout of Keras 2, naming the function that converts it.

    Parameters
    ----------
    layer : keras.layers.Layer
        A locally connected layer that is built.
    shapes : sequence of tuple of int
        Shapes of the given arrays; the first one is that of the kernel.

    Raises
    ------
    ShapeError
    """
    if layer.kernel is None or not shapes or shapes[0] == tuple(layer.kernel.shape):
        return
    layout = _keras2_layout(shapes[0], layer.spec)
    if layout is not None:
        came = f"one of shape {shapes[0]}, which is Keras 2's {layout!r}. {ADVICE}"
        what = f"a kernel of shape {tuple(layer.kernel.shape)}"
        raise ShapeError("weights", what, described(came))


def require_own_geometry(layer: Any, stored: Sequence[tuple[int, ...]]) -> None:
    """Raise if the weights of a file are for another geometry than those of the layer.

    Parameters
    ----------
    layer : keras.layers.Layer
        A locally connected layer.
    stored : sequence of tuple of int
        Shapes of the arrays in the file; the first one is that of the kernel.

    Raises
    ------
    ShapeError
        Names both geometries.
    """
    own = [tuple(each.shape) for each in layer.weights]
    if not stored or not own:
        return
    ours, theirs = _geometry_told(layer, own), _geometry_told(layer, stored)
    if ours != theirs:
        raise ShapeError("weights", f"those of {ours}", described(f"those of {theirs}"))


def _geometry_told(layer: Any, shapes: Sequence[tuple[int, ...]]) -> str:
    """The geometry, as text, of a layer of this kind whose weights have these shapes."""
    low_rank = len(shapes) > 1 and len(shapes[0]) == 2 * layer.ndim + 3
    return geometry_told(*shapes[: 1 + low_rank])


def _keras2_layout(shape: Sequence[int], spec: LocalConvSpec) -> str | None:
    """The layout of Keras 2 in which a kernel of this geometry has this shape, or None."""
    for layout in ("keras2-1", "keras2-2", "keras2-3"):
        try:
            if layouts.kernel_shape(layout, spec) == tuple(shape):
                return layout
        except UnsupportedError:  # Keras 2 has no shared axes and no groups
            return None
    return None


def advise(is_local: Callable[[Any], bool]) -> None:
    """Wrap the methods of Keras that take the arrays of a whole model.

    Parameters
    ----------
    is_local : callable
        Tells whether a layer is locally connected.
    """
    for name in ("load_weights", "set_weights"):
        method = getattr(keras.Model, name)
        if not hasattr(method, "lcmulti_advises"):
            setattr(keras.Model, name, _advising(method, is_local))


def _advising(method: Callable[..., Any], is_local: Callable[[Any], bool]) -> Callable[..., Any]:
    @functools.wraps(method)
    def advising(self: keras.Model, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except ValueError as error:
            told = str(error)
            ours = any(map(is_local, self._flatten_layers()))
            if ours and "load_legacy_weights" not in told and not isinstance(error, LcmultiError):
                error.args = (f"{told}\n\n{ADVICE}.",)
            raise

    advising.lcmulti_advises = True  # type: ignore[attr-defined]
    return advising
