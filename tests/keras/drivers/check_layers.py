"""Check the layers on the running backend of Keras: ``python check_layers.py PARITY.npz``."""

import json
import math
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from harness import BACKEND, QUICKLY, RNG, TRAINS, X, check, main, numpy, predict, trained
from keras import layers
from lcmulti_keras import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D

import lcmulti


def small(**arguments):
    return keras.Sequential([
        keras.Input((6, 5, 3)),
        LocallyConnected2D(4, (2, 3), activation="relu", **arguments),
        layers.Flatten(), layers.Dense(2),
    ])  # fmt: skip


def fit(model, **arguments):
    model.compile(keras.optimizers.SGD(0.05), "mse", **arguments)
    y = np.stack([X.sum((1, 2, 3)), X[:, 0, 0, 0]], 1)
    return model.fit(X, y, epochs=4, batch_size=8, verbose=0, shuffle=False).history["loss"]


@check
def documented_1d():
    model = keras.Sequential()
    model.add(LocallyConnected1D(64, 3, input_shape=(10, 32)))
    assert model.output_shape == (None, 8, 64)
    model.add(LocallyConnected1D(32, 3))
    assert model.output_shape == (None, 6, 32)
    for shape in (dict(input_dim=32, input_length=10), dict(batch_input_shape=(None, 10, 32))):
        assert keras.Sequential([LocallyConnected1D(64, 3, **shape)]).output_shape == (None, 8, 64)
    layer = LocallyConnected1D(4, [2], data_format="channels_first", input_dim=3, input_length=9)
    assert keras.Sequential([layer]).output_shape == (None, 4, 8)


@check
def documented_2d():
    model = keras.Sequential()
    model.add(LocallyConnected2D(64, (3, 3), input_shape=(32, 32, 3)))
    assert model.output_shape == (None, 30, 30, 64)
    assert model.count_params() == (30 * 30) * (3 * 3 * 3 * 64) + (30 * 30) * 64
    model.add(LocallyConnected2D(32, (3, 3)))
    assert model.output_shape == (None, 28, 28, 32)
    lines = []
    model.summary(print_fn=lines.append)
    assert "1,612,800" in "".join(lines)


@check
def three_axes_against_the_reference():
    layer = LocallyConnected3D(4, (1, 2, 3), padding="same", groups=2)
    x = RNG.standard_normal((2, 3, 4, 5, 2)).astype("float32")
    y = numpy(layer(x))
    kernel, bias = map(numpy, layer.weights)
    expected = lcmulti.local_conv(
        x, kernel, bias, padding="same", groups=2, backend="numpy", implementation="reference"
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape((7, 3, 4, 5, 2)) == (7, 3, 4, 5, 4)
    assert layer(keras.Input((3, 4, 5, 2))).shape == (None, 3, 4, 5, 4)


@check
def parity_with_tf_keras():
    arrays = np.load(sys.argv[1])
    for one in sorted({name.rpartition("-")[0] for name in arrays}):
        at = lambda name, one=one: arrays[f"{one}-{name}"]  # noqa: E731
        data_format, implementation = one.split("-")
        layer = LocallyConnected2D(
            4, (2, 3), (1, 2), data_format=data_format, implementation=int(implementation),
            padding="valid" if implementation == "1" else "keras_same",
        )  # fmt: skip
        model = keras.Sequential([keras.Input(at("x").shape[1:]), layer])
        layer.set_weights([at("kernel"), at("bias")])
        np.testing.assert_allclose(predict(model, at("x")), at("y"), rtol=1e-5, atol=1e-5)
        if not TRAINS:
            continue
        model.compile(keras.optimizers.SGD(0.5), "mse", **QUICKLY)
        loss = model.train_on_batch(at("x"), at("target"))
        np.testing.assert_allclose(float(np.ravel(loss)[0]), at("loss"), rtol=1e-5)
        kernel, bias = layer.get_weights()
        # After a step of 0.5 along the gradient, weights differ as the gradients do.
        if implementation == "1":
            np.testing.assert_allclose(kernel, at("new_kernel"), rtol=1e-5, atol=1e-6)
        else:  # taps that read only padding have no gradient and stay 0
            np.testing.assert_allclose(kernel, at("new_kernel"), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(bias, at("new_bias"), rtol=1e-5, atol=1e-6)
        assert np.abs(kernel - at("kernel")).max() > 1e-3


@check
def start_of_each_position_is_that_of_a_convolution():
    calls = []
    for name in ("glorot_uniform", "glorot_normal", "he_normal", "he_uniform", "lecun_normal",
                 "lecun_uniform", "random_normal", "random_uniform", "truncated_normal",
                 "variance_scaling", "zeros", "ones", "orthogonal"):  # fmt: skip
        initializer = keras.initializers.get(name)
        layer = LocallyConnected2D(4, (2, 3), kernel_initializer=initializer)
        layer.build((None, 30, 40, 3))
        kernel = numpy(layer.kernel)
        conv = np.stack([numpy(initializer.clone()((2, 3, 3, 4), "float32")) for _ in range(200)])
        assert math.isclose(kernel.std(), conv.std(), rel_tol=0.06, abs_tol=1e-6), name
        tails = [np.quantile(np.abs(each), 0.99) for each in (kernel, conv)]
        assert math.isclose(*tails, rel_tol=0.06, abs_tol=1e-6), name
        spread = kernel.reshape(29 * 38, -1).std(0).mean()  # the positions differ
        assert spread > 0.5 * kernel.std() or kernel.std() == 0, name
    q = kernel.reshape(29 * 38, 18, 4)
    np.testing.assert_allclose(np.swapaxes(q, 1, 2) @ q, np.broadcast_to(np.eye(4), (1102, 4, 4)),
                               atol=1e-5)  # fmt: skip

    class Counted(keras.initializers.HeNormal):
        def __call__(self, shape, dtype=None):
            calls.append(shape)
            return super().__call__(shape, dtype)

    LocallyConnected1D(2, 2, kernel_initializer=Counted()).build((None, 1000, 1))
    assert len(calls) == 1


@check
def keras2_scale():
    for implementation, limit in ((1, 0.185), (2, 0.053), (3, 0.072), ("auto", 0.185)):
        layer = LocallyConnected2D(
            4, (2, 3), (1, 2), implementation=implementation, keras2_init=True
        )
        layer.build((None, 5, 6, 3))
        largest = np.abs(numpy(layer.kernel)).max()
        assert 0.9 * limit < largest < 1.01 * limit, (implementation, largest)


@check
def saving():
    for model in (small(), small(padding=((1, 0), (2, 1)), shared_axes=[1], dilation_rate=(1, 2))):
        y = predict(model)
        with tempfile.TemporaryDirectory() as folder:
            for suffix in (".keras", ".h5"):
                path = Path(folder) / f"model{suffix}"
                model.save(path)
                np.testing.assert_array_equal(predict(keras.models.load_model(path)), y)
            model.save_weights(Path(folder) / "m.weights.h5")
            again = keras.models.clone_model(model)
            assert np.abs(predict(again) - y).max() > 1e-4
            again.load_weights(Path(folder) / "m.weights.h5")
            np.testing.assert_array_equal(predict(again), y)


@check
def configuration_goes_round():
    layer = LocallyConnected2D(
        4, [2, 3], padding="SAME", data_format="channels_last", activation="gelu",
        kernel_regularizer=keras.regularizers.L2(0.1), kernel_constraint="max_norm",
        bias_constraint="non_neg", groups=1, padding_mode="reflect", shared_axes=(0,),
        implementation=2, activity_regularizer="l1", name="local", dtype="mixed_bfloat16",
    )  # fmt: skip
    config = json.loads(json.dumps(layer.get_config()))  # tuples come back as lists
    again = LocallyConnected2D.from_config(config)
    assert again.get_config() == layer.get_config()
    again.build([None, 6, 5, 3])  # Keras builds from a list after loading
    assert again.spec.shared_axes == (0,)
    assert layer.get_config()["padding"] == "same"
    first = {"filters", "kernel_size", "strides", "padding", "data_format", "activation",
             "use_bias", "kernel_initializer", "bias_initializer", "kernel_regularizer",
             "bias_regularizer", "activity_regularizer", "kernel_constraint", "bias_constraint",
             "implementation", "name", "trainable", "dtype"}  # fmt: skip
    assert first <= layer.get_config().keys()
    for each in ("regular", "random_uniform"):  # by name or refused
        try:
            LocallyConnected1D(2, 2, kernel_initializer=each)
        except ValueError:
            assert each == "regular"


@check
def functional_subclassed_and_shared():
    x = keras.Input((6, 5, 3))
    local = LocallyConnected2D(3, 2, padding="same")
    model = keras.Model(x, layers.Add()([local(x), local(layers.ReLU()(x))]))
    np.testing.assert_allclose(
        predict(model), numpy(local(X)) + numpy(local(np.maximum(X, 0))), rtol=1e-5, atol=1e-5
    )
    assert len(model.weights) == 2

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.local = LocallyConnected2D(2, 3)

        def call(self, inputs):
            return self.local(inputs)

    assert predict(Own()).shape == (8, 4, 3, 2)


@trained
def training_eager_and_compiled():
    for arguments in (
        dict(run_eagerly=True), dict(jit_compile=False), dict(jit_compile=True) | QUICKLY,
    ):  # fmt: skip
        model = small(kernel_regularizer="l2", kernel_constraint=keras.constraints.MaxNorm(
            5, axis=[2, 3, 4]), activity_regularizer="l2")  # fmt: skip
        losses = fit(model, **arguments)
        assert losses[-1] < losses[0], (arguments, losses)


@check
def double_precision():
    layer = LocallyConnected2D(4, 2, dtype="float64")
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    try:
        x = X.astype("float64")
        y = numpy(layer(x))
        assert y.dtype == "float64"
        kernel, bias = (numpy(w).astype("float64") for w in layer.weights)
        expected = lcmulti.local_conv(x, kernel, bias, backend="numpy")
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    finally:
        if BACKEND == "jax":
            jax.config.update("jax_enable_x64", False)


@check
def shared_axes():
    layer = LocallyConnected2D(4, 2, shared_axes=(1,))
    y = numpy(layer(X))
    assert layer.kernel.shape == (5, 1, 2, 2, 3, 4)
    assert layer.bias.shape == (5, 1, 4)
    shifted = numpy(layer(np.roll(X, 1, axis=2)))
    np.testing.assert_allclose(shifted[:, :, 1:], y[:, :, :-1], rtol=1e-5, atol=1e-5)


@check
def data_format_of_keras_json():
    before = keras.config.image_data_format()
    try:
        keras.config.set_image_data_format("channels_first")
        assert LocallyConnected2D(4, 2).compute_output_shape((None, 3, 6, 5)) == (None, 4, 5, 4)
    finally:
        keras.config.set_image_data_format(before)


@check
def implementations_by_name():
    names = [n for b, n in lcmulti.plugins.registry().implementations if b == BACKEND]
    expected = numpy(LocallyConnected2D(4, 2, kernel_initializer="ones")(X))
    for name in (*names, "elementwise", "reference", 1, 2, 3):
        layer = LocallyConnected2D(4, 2, kernel_initializer="ones", implementation=name)
        try:
            y = numpy(layer(X))
        except NotImplementedError as error:
            assert name in names, name  # named, but it does not serve this geometry
            assert "cannot serve this call" in str(error), error
        else:
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@check
def quantizing_leaves_it_as_it_is():
    model = small()
    kernel = numpy(model.layers[0].kernel)
    if BACKEND == "numpy":
        return
    model.quantize("int8")
    np.testing.assert_array_equal(numpy(model.layers[0].kernel), kernel)
    assert model.layers[2].dtype_policy.name.startswith("int8")
    assert predict(model).shape == (8, 2)


@check
def building_is_constant_in_positions():
    import time

    start = time.process_time()
    model = keras.Sequential([
        keras.Input((32, 32, 3)), LocallyConnected2D(64, 3), LocallyConnected2D(32, 3),
    ])  # fmt: skip
    assert time.process_time() - start < 2  # generous; asv_benches/keras_step.py measures it
    assert len(model.weights) == 4


main()
