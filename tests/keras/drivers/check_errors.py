"""Check what the layers refuse, and how, on the running backend of Keras."""

import tempfile
from pathlib import Path

import keras
import numpy as np
from harness import check, main, raises
from lcmulti_keras import LocallyConnected1D, LocallyConnected2D, LocallyConnected2DTranspose

from lcmulti.errors import ShapeError


@check
def clear_errors():
    wrong = [
        (lambda: LocallyConnected2D(4, 2)(keras.Input((None, None, 3))),
         "The spatial dimensions of the inputs to a LocallyConnected2D layer, which should be "
         "fully-defined"),
        (lambda: LocallyConnected1D(4, 2)(keras.Input((None, 3))), "should be fully-defined"),
        (lambda: LocallyConnected2D(4, 2, strides=2, dilation_rate=2), "dilation_rate: expected 1"),
        (lambda: LocallyConnected2D(4, 2, padding="causal"), "padding"),
        (lambda: LocallyConnected2D(4, 2, implementation=4), "implementation"),
        (lambda: LocallyConnected2D(4, (2, 2, 2)), "kernel_size"),
        (lambda: LocallyConnected2D(0, 2), "filters"),
        (lambda: LocallyConnected2D(4, 2, data_format="nhwc"), "data_format"),
        (lambda: LocallyConnected2D(4, 2, shared_axes=(2,)), "shared_axes"),
        (lambda: LocallyConnected2D(4, 2, shared_axes=1), "shared_axes"),
        (lambda: LocallyConnected2D(4, 2, groups=3), "groups"),
        (lambda: LocallyConnected2D(4, 2, activation="nothing"), "nothing"),
        (lambda: LocallyConnected2D(4, 2, colour=1), "colour"),
        (lambda: LocallyConnected2D(4, 9)(keras.Input((6, 5, 3))), "kernel_size"),
    ]  # fmt: skip
    for call, message in wrong:
        raises(call, message)


def each_kind():
    """Makers of layers, with and without a rank, for a name."""
    for cls in (LocallyConnected2D, LocallyConnected2DTranspose):
        for rank in (None, 2):
            yield lambda cls=cls, rank=rank: cls(4, 3, rank=rank, name="local")


def built(make, *shape):
    return keras.Sequential([keras.Input(shape), make()])


@check
def another_input_size():
    for make in each_kind():
        for shape in ((9, 8, 3), (7, 7, 5)):
            model, x = built(make, 7, 7, 3), np.zeros((2, *shape), "float32")
            layer = model.layers[0]
            calls = (
                lambda x=x, layer=layer: layer(x),
                lambda shape=shape, layer=layer: layer(keras.Input(shape)),
                lambda x=x, model=model: model(x),
            )
            for call in calls:
                try:
                    call()
                except ShapeError as error:
                    expected = "inputs: expected samples of shape (7, 7, 3)"
                    assert str(error).startswith(expected), error
                    told = f"got {shape}; for these build a new layer, on keras.Input({shape})"
                    assert told in str(error), error
                else:
                    raise AssertionError("no error")
            raises(lambda x=x, model=model: model.predict(x, verbose=0), "build a new layer")
        layer = built(make, 7, 7, 3).layers[0]
        raises(lambda layer=layer: layer(keras.Input((None, 7, 3))), "fully-defined")


@check
def weights_of_another_geometry():
    for make in each_kind():
        model, other = built(make, 7, 7, 3), built(make, 6, 6, 3)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "m.weights.h5")
            other.save_weights(path)
            try:
                model.load_weights(path)
            except ValueError as error:
                for each in (model, other):
                    size = each.layers[0].spec.positions_shape
                    assert f"those of positions {size}, kernel_size (3, 3)" in str(error), error
            else:
                raise AssertionError("no error")
    full, low = (built(lambda r=r: LocallyConnected2D(4, 3, rank=r, name="local"), 7, 7, 3)
                 for r in (None, 2))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.weights.h5")
        low.save_weights(path)
        raises(lambda: full.load_weights(path), "4 channels, of rank 2")


main()
