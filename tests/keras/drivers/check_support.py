"""What Keras' users do with a layer: a cell each of the support matrix, on the running backend.

Each is done with one model that has the layer and the transposed one, of full rank and of low.
"""

import json
import tempfile
from pathlib import Path

import keras
import numpy as np
from harness import BACKEND, CHECKS, RNG, X, exported, main, numpy, predict
from keras import layers
from lcmulti_keras import LocallyConnected2D, LocallyConnected2DTranspose

KINDS = [
    (cls, rank) for cls in (LocallyConnected2D, LocallyConnected2DTranspose) for rank in (None, 2)
]


def use(name):
    """A check under the name that the matrix shows."""
    return lambda function: CHECKS.setdefault(name, function)


def stack(**arguments):
    """The layers of a model from samples like those of `X` to such samples."""
    arguments = {"padding": "same", "activation": "tanh"} | arguments
    return [
        cls(3 if number == 3 else 4, 3, rank=rank, **arguments)
        for number, (cls, rank) in enumerate(KINDS)
    ]


def model(**arguments):
    return keras.Sequential([keras.Input(X.shape[1:]), *stack(**arguments)])


def learns(made, **arguments):
    made.compile(keras.optimizers.Adam(0.01), "mse", **arguments)
    losses = made.fit(X, X, epochs=8, verbose=0, shuffle=False).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0], losses


def same(made, expected):
    np.testing.assert_allclose(predict(made), expected, rtol=1e-5, atol=1e-5)


@use("summary")
def summary():
    lines, made = [], model()
    made.summary(line_length=120, print_fn=lines.append)
    text = "".join(lines)
    assert "LocallyConnected2D)" in text and "LocallyConnected2DTranspose" in text
    assert f"{made.count_params():,}" in text


@use("fit, eager")
def fit_eager():
    learns(model(), run_eagerly=True)


@use("fit")
def fit():
    learns(model(), jit_compile=False)


@use("fit, jit_compile=True")
def fit_compiled():
    learns(model(), jit_compile=True)


def saved(suffix):
    made = model()
    y = predict(made)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model{suffix}")
        made.save(path)
        same(keras.models.load_model(path), y)


@use(".keras")
def keras_file():
    saved(".keras")


@use(".h5")
def h5_file():
    saved(".h5")


@use(".weights.h5")
def weights_file():
    made, again = model(), model()
    y = predict(made)
    assert np.abs(predict(again) - y).max() > 1e-3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.weights.h5")
        made.save_weights(path)
        again.load_weights(path)
    same(again, y)


@use("get_config, from_config")
def config():
    made = model(kernel_regularizer="l2", groups=1)
    config = json.loads(json.dumps(made.get_config()))
    again = keras.Sequential.from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    again.set_weights(made.get_weights())
    same(again, predict(made))


@use("clone_model")
def clone():
    made = model()
    again = keras.models.clone_model(made)
    again.set_weights(made.get_weights())
    same(again, predict(made))


@use("functional, a layer called twice")
def functional():
    for cls, rank in KINDS:
        x, layer = keras.Input(X.shape[1:]), cls(3, 3, padding="same", rank=rank)
        made = keras.Model(x, layers.Add()([layer(x), layer(layers.ReLU()(x))]))
        same(made, numpy(layer(X)) + numpy(layer(np.maximum(X, 0))))
        assert len(made.weights) == (2 if rank is None else 3)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.stack = stack()

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


@use("subclassed")
def subclassed():
    made, again = Subclassed(), model()
    y = predict(made)
    again.set_weights(made.get_weights())
    same(again, y)


def mixed(policy):
    made = model(dtype=policy)
    assert {each.dtype for each in made.weights} == {"float32"}
    assert {layer.output.dtype for layer in made.layers} == {policy.removeprefix("mixed_")}
    plain = model()
    plain.set_weights(made.get_weights())
    np.testing.assert_allclose(predict(made), predict(plain), rtol=0.05, atol=0.05)
    if BACKEND != "numpy":
        learns(made)


@use("mixed_bfloat16")
def mixed_bfloat16():
    mixed("mixed_bfloat16")


@use("mixed_float16")
def mixed_float16():
    mixed("mixed_float16")


@use("float64")
def float64():
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    try:
        # Keras' own tanh makes float32 of it.
        made, plain = (model(dtype=each, activation=None) for each in ("float64", "float32"))
        plain.set_weights(made.get_weights())
        y = predict(made, X.astype("float64"))
        assert y.dtype == "float64"
        assert (y != y.astype("float32")).any()
        same(plain, y)
    finally:
        if BACKEND == "jax":
            jax.config.update("jax_enable_x64", False)


@use("symbolic call, compute_output_shape")
def symbolic():
    x, y = keras.Input(X.shape[1:]), X
    for layer in stack():
        shape = layer.compute_output_shape(x.shape)
        x, y = layer(x), numpy(layer(y))
        assert x.shape == shape == (None, *y.shape[1:])
        assert x.dtype == y.dtype


@use("export, SavedModel")
def export_saved_model():
    exported(model(), "tf_saved_model")


@use("export, ONNX")
def export_onnx():
    exported(model(), "onnx")


@use("export, LiteRT")
def export_litert():
    exported(model(), "litert")


@use("keras.distribution")
def distribution():
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((len(devices),), ["model"], devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*/kernel"] = (None,) * 5 + ("model",)
    plain = model()
    y = predict(plain)
    try:
        keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layout))
        made = model()
        made.set_weights(plain.get_weights())
        assert len(made.layers[0].kernel.value.sharding.device_set) == 2
        same(made, y)
        learns(made)
    finally:
        keras.distribution.set_distribution(None)


@use("from_conv")
def from_conv():
    pairs = (
        (LocallyConnected2D, layers.Conv2D(4, 3, 2, padding="same", activation="relu")),
        (LocallyConnected2DTranspose, layers.Conv2DTranspose(4, 3, 2, padding="same")),
    )
    for cls, conv in pairs:
        conv.build((None, *X.shape[1:]))
        conv.bias.assign(RNG.standard_normal(4))
        layer = cls.from_conv(conv, X.shape[1:])
        np.testing.assert_allclose(numpy(layer(X)), numpy(conv(X)), rtol=1e-5, atol=1e-5)


main()
