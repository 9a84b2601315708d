"""Check transposed layers and low-rank weights on the running backend of Keras."""

import json
import tempfile
from pathlib import Path

import keras
import lcmulti_keras
import numpy as np
from harness import BACKEND, QUICKLY, RNG, X, check, main, numpy, predict, raises, trained
from keras import layers
from lcmulti_keras import (
    LocallyConnected2D,
    LocallyConnected2DTranspose,
    Smoothness,
)

from lcmulti.geometry import transposed

SIZES = {1: (7,), 2: (5, 4), 3: (4, 3, 3)}
TRANSPOSED = [
    dict(kernel_size=3),
    dict(kernel_size=2, strides=3),
    dict(kernel_size=3, strides=2, output_padding=1),
    dict(kernel_size=4, strides=2, padding="same"),
    dict(kernel_size=3, strides=2, padding="same"),
    dict(kernel_size=2, strides=3, padding="same"),
    dict(kernel_size=3, strides=3, padding="same", output_padding=0),
    dict(kernel_size=3, strides=3, padding="same", output_padding=1),
    dict(kernel_size=4, strides=3, padding="same", output_padding=0),
    dict(kernel_size=1, strides=3, padding="same", output_padding=2),
    dict(kernel_size=3, dilation_rate=2, padding="same"),
    dict(kernel_size=3, use_bias=False, activation="tanh"),
]


def layer_class(ndim, kind=""):
    return getattr(lcmulti_keras, f"LocallyConnected{ndim}D{kind}")


@check
def transposed_is_that_of_keras():
    for ndim, size in SIZES.items():
        for arguments in TRANSPOSED if ndim < 3 else TRANSPOSED[::3]:
            even = arguments["kernel_size"] % 2 == arguments.get("output_padding") == 0
            if BACKEND == "tensorflow" and even:
                continue  # TensorFlow refuses the size that Keras asks it for
            conv = getattr(layers, f"Conv{ndim}DTranspose")(4, **arguments)
            conv.build((None, *size, 3))
            if conv.bias is not None:
                conv.bias.assign(RNG.standard_normal(4))
            x = RNG.standard_normal((2, *size, 3)).astype("float32")
            case = f"{ndim}D {arguments}"
            try:
                expected = numpy(conv(x))
            except Exception as error:
                # TensorFlow without oneDNN, which it leaves out where there is no AVX-512.
                if "dilation rates larger than 1" not in str(error):
                    raise
                continue
            for shared in ((), tuple(range(ndim))):
                layer = layer_class(ndim, "Transpose").from_conv(
                    conv, (*size, 3), shared_axes=shared
                )
                y = numpy(layer(x))
                np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5, err_msg=case)
                assert layer.compute_output_shape((2, *size, 3)) == expected.shape, case
                assert layer.spec.is_convolution == bool(shared), case
                back = numpy(layer.to_conv()(x))
                np.testing.assert_allclose(back, expected, rtol=1e-5, atol=1e-5, err_msg=case)


@check
def transposed_is_the_adjoint_of_the_layer():
    cases = [
        dict(strides=2, padding=1), dict(strides=(1, 2), padding="same"),
        dict(padding=((1, 0), (2, 1))), dict(dilation_rate=(2, 1)), dict(strides=2, groups=2),
        dict(shared_axes=(1,)),
    ]  # fmt: skip
    for data_format in ("channels_last", "channels_first"):
        for arguments in cases:
            arguments |= dict(data_format=data_format, use_bias=False)
            direct = LocallyConnected2D(4, (3, 2), **arguments)
            last = data_format == "channels_last"
            direct.build((None, 7, 6, 2) if last else (None, 2, 7, 6))
            spec = direct.spec
            # With "same" sizes are multiples of the strides, which is what Keras goes to.
            same = arguments.get("padding") == "same"
            extra = None if same else transposed.output_padding_of(spec)
            adjoint = LocallyConnected2DTranspose(2, (3, 2), output_padding=extra, **arguments)
            adjoint.build((None, *spec.output_shape))
            assert adjoint.spec == spec, (arguments, adjoint.spec, spec)
            adjoint.kernel.assign(direct.kernel)
            x = RNG.standard_normal((3, *spec.input_shape)).astype("float32")
            y = RNG.standard_normal((3, *spec.output_shape)).astype("float32")
            left, right = (numpy(direct(x)) * y).sum(), (x * numpy(adjoint(y))).sum()
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-3)


@check
def transposed_arguments():
    layer = LocallyConnected2DTranspose(
        4, [2, 3], [2, 1], "SAME", [1, 0], activation="relu", groups=2, shared_axes=[1],
        kernel_regularizer="l2", rank=2, name="up",
    )  # fmt: skip
    again = LocallyConnected2DTranspose.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.get_config() == layer.get_config()
    again.build([None, 6, 5, 4])
    assert again.basis.shape == (2, 1, 1, 2, 3, 2, 4)
    assert again.coefficients.shape == (6, 1, 2)
    assert again.bias.shape == (11, 1, 4)
    assert again(keras.Input((6, 5, 4))).shape == (None, 11, 5, 4)
    raises(lambda: LocallyConnected2DTranspose(4, 2, output_padding=1), "less than the strides")
    raises(lambda: LocallyConnected2DTranspose(4, 2, padding="causal"), "padding")
    raises(lambda: LocallyConnected2DTranspose(4, 2, strides=2, dilation_rate=2), "not both")
    raises(lambda: LocallyConnected2DTranspose(4, 2)(keras.Input((None, 5, 2))), "fully-defined")
    raises(lambda: LocallyConnected2DTranspose.from_conv(layers.Conv2D(4, 2), (5, 5, 2)),
           "keras.layers.Conv2DTranspose that is built")  # fmt: skip
    first = LocallyConnected2DTranspose(4, 2, data_format="channels_first", input_shape=(3, 6, 5))
    assert keras.Sequential([first]).output_shape == (None, 4, 7, 6)


def autoencoder(rank=None, **arguments):
    """From (6, 5, 3) down, and up to the same."""
    return keras.Sequential([
        keras.Input((6, 5, 3)),
        LocallyConnected2D(4, (2, 1), (2, 1), activation="relu", rank=rank, **arguments),
        LocallyConnected2DTranspose(3, (2, 1), (2, 1), rank=rank, **arguments),
    ])  # fmt: skip


@check
def saving_transposed_and_low_rank():
    for rank in (None, 2):
        model = autoencoder(rank, kernel_regularizer=Smoothness(0.5, "squared"))
        y = predict(model)
        assert y.shape == X.shape
        lines = []
        model.summary(print_fn=lines.append)
        assert "LocallyConnected2DTranspose" in "".join(lines)
        with tempfile.TemporaryDirectory() as folder:
            for suffix in (".keras", ".h5"):
                path = Path(folder, f"model{suffix}")
                model.save(path)
                again = keras.models.load_model(path)
                np.testing.assert_array_equal(predict(again), y)
                assert again.layers[0].kernel_regularizer.factor == 0.5
            model.save_weights(Path(folder, "m.weights.h5"))
            again = keras.models.clone_model(model)
            again.load_weights(Path(folder, "m.weights.h5"))
            np.testing.assert_array_equal(predict(again), y)


@trained
def training_transposed_and_low_rank():
    for rank in (None, 2):
        for policy, how in (
            ("float32", dict(run_eagerly=True)),
            ("float32", dict(jit_compile=True) | QUICKLY),
            ("mixed_bfloat16", QUICKLY),
        ):
            model = autoencoder(rank, kernel_regularizer=Smoothness(), dtype=policy)
            model.compile(keras.optimizers.Adam(0.02), "mse", **how)
            losses = model.fit(X, X, epochs=8, verbose=0, shuffle=False).history["loss"]
            assert losses[-1] < losses[0], (rank, policy, how, losses)


@check
def low_rank_is_the_layer_of_the_mixed_kernel():
    for batch in (1, 64):  # either way of computing
        for data_format in ("channels_last", "channels_first"):
            shape = (6, 5, 4) if data_format == "channels_last" else (4, 6, 5)
            arguments = dict(padding="same", groups=2, data_format=data_format)
            low = LocallyConnected2D(6, (2, 3), rank=2, **arguments)
            full = LocallyConnected2D(6, (2, 3), **arguments)
            x = RNG.standard_normal((batch, *shape)).astype("float32")
            low.build((None, *shape))
            full.build((None, *shape))
            low.bias.assign(RNG.standard_normal(low.bias.shape))
            full.kernel.assign(low.full_kernel())
            full.bias.assign(low.bias)
            np.testing.assert_allclose(numpy(low(x)), numpy(full(x)), rtol=1e-4, atol=1e-5)
    assert {v.name for v in low.weights} == {"basis", "coefficients", "bias"}
    assert low.count_params() == 2 * (6 * 2 * 6 + 30) + 30 * 6
    raises(lambda: LocallyConnected2D(4, 2, rank=0), "rank")
    raises(lambda: LocallyConnected2D(4, 2, rank=2, kernel_constraint="non_neg"), "with a rank")
    conv = layers.Conv2D(4, 2)
    conv.build((None, 6, 5, 3))
    raises(lambda: LocallyConnected2D.from_conv(conv, (6, 5, 3), rank=2), "rank")
    raises(lambda: LocallyConnected2D.from_conv(conv, (6, 5, 2)), "3 channels")


@check
def low_rank_weights_start_with_the_variance_of_full_ones():
    for name in ("glorot_uniform", "he_normal", "orthogonal"):
        stds = []
        for rank in (None, 16):
            layer = LocallyConnected2D(16, 3, rank=rank, kernel_initializer=name)
            layer.build((None, 22, 22, 8))
            stds.append(numpy(layer.full_kernel()).std())
        assert abs(stds[1] / stds[0] - 1) < 0.1, (name, stds)


@check
def sharing():
    for axes, over in ((None, (0, 1)), ((0,), (0,)), ((1,), (1,))):
        for rank in (None, 2):
            layer = LocallyConnected2D(4, 2, rank=rank, bias_initializer="random_normal")
            layer.build((None, 6, 5, 3))
            before, bias = numpy(layer.full_kernel()), numpy(layer.bias)
            assert layer.share_(axes) is layer
            mean = np.broadcast_to(before.mean(over, keepdims=True), before.shape)
            np.testing.assert_allclose(numpy(layer.full_kernel()), mean, rtol=1e-5, atol=1e-6)
            mean = np.broadcast_to(bias.mean(over, keepdims=True), bias.shape)
            np.testing.assert_allclose(numpy(layer.bias), mean, rtol=1e-5, atol=1e-6)
            assert np.abs(before - numpy(layer.full_kernel())).max() > 1e-3


@check
def what_keras_runs_is_what_computes():
    layer = LocallyConnected2DTranspose(4, 2, rank=2)
    kind = type(layer(X)).__module__.partition(".")[0]
    assert kind == {"jax": "jaxlib", "numpy": "numpy"}.get(BACKEND, BACKEND)


@check
def operations_take_variables():
    from helpers_variables import check_variables

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.safetensors")
        check_variables(keras.Variable, keras.ops.convert_to_tensor, numpy, path)


main()
