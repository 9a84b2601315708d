"""Let errors about arrays of Keras 2 name the function that converts them.

When a model loads a ``.h5`` file or is given a list of arrays, Keras compares shapes itself, before
it calls any layer. Its errors then only say which shapes differ, and with ``skip_mismatch=True``
it leaves the kernel and takes the bias, whose order may be another. So two methods of Keras are
wrapped here, for models with locally connected layers: a `ValueError` says more, and kernels of
Keras 2 are an error, too, where they would be skipped. This is the only place where lcmulti_keras
changes Keras itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
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
            if method.__name__ == "load_weights":
                _require_own_layouts(_local(self, is_local), *args, **kwargs)
            return method(self, *args, **kwargs)
        except ValueError as error:
            told = str(error)
            if (
                _local(self, is_local)
                and "load_legacy_weights" not in told
                and not isinstance(error, LcmultiError)
            ):
                error.args = (f"{told}\n\n{ADVICE}.",)
            raise

    advising.lcmulti_advises = True  # type: ignore[attr-defined]
    return advising


def _local(model: keras.Model, is_local: Callable[[Any], bool]) -> list[Any]:
    return [layer for layer in model._flatten_layers() if is_local(layer)]


def _require_own_layouts(
    layers: list[Any], filepath: Any = None, skip_mismatch: bool = False, **kwargs: Any
) -> None:
    """Raise if Keras would skip a kernel of these layers for being in a layout of Keras 2."""
    path = str(filepath)
    asks_layers = path.endswith(".weights.h5")  # in this format, Keras skips or loads whole layers
    if not skip_mismatch or asks_layers or not path.endswith((".h5", ".hdf5")):
        return
    for layer in (each for each in layers if each.built and each.kernel is not None):
        shapes = list(_shapes_in(filepath, layer.name if kwargs.get("by_name") else ""))
        if tuple(layer.kernel.shape) not in shapes:
            for shape in shapes:
                require_own_layout(layer, [shape])


def _shapes_in(path: Any, name: str) -> Iterator[tuple[int, ...]]:
    """Shapes of the arrays in a file whose path in it has this name, but for an optimizer's."""
    import h5py

    found: dict[str, tuple[int, ...]] = {}

    def visit(place: str, entry: Any) -> None:
        parts = place.split("/")
        if isinstance(entry, h5py.Dataset) and (not name or name in parts):
            found[place] = tuple(entry.shape)

    with suppress(OSError), h5py.File(path, "r") as file:  # Keras will say what is wrong with it
        file.visititems(visit)
    return (shape for place, shape in found.items() if not place.startswith("optimizer"))
