"""Check transposed layers, low-rank weights and smoothness on the running backend of Keras."""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import keras
import lcmulti_keras
import numpy as np
from harness import BACKEND, QUICKLY, RNG, X, check, main, numpy, predict, raises, trained
from keras import layers
from lcmulti_keras import (
    LocallyConnected2D,
    LocallyConnected2DTranspose,
    SheetSmoothness,
    Smoothness,
    fuse_bn,
)

import lcmulti
from lcmulti import layouts
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
def convolutions_that_a_layer_is_not():
    layer = LocallyConnected2D(4, 2, padding="keras_same")
    raises(layer.to_conv, "a layer that is built")
    layer.build((None, 5, 4, 2))
    raises(layer.to_conv, "kernel: expected the same at every position within 0.0")
    raises(lambda: layer.to_conv(None), "'valid' or 'same', as Keras' convolutions have")
    low = LocallyConnected2D(4, 2, rank=2)
    low.build((None, 5, 4, 2))
    mean = numpy(low.full_kernel()).mean((0, 1))
    np.testing.assert_allclose(numpy(low.to_conv(None).kernel), mean, rtol=1e-5, atol=1e-6)
    wide = LocallyConnected2DTranspose(4, 2, groups=2, shared_axes=(0, 1))
    wide.build((None, 5, 4, 2))
    raises(wide.to_conv, "groups: expected 1")


@check
def a_batch_normalisation_is_taken_into_a_layer():
    for ndim in (1, 2, 3):
        for kind in ("", "Transpose"):
            for more in ({}, {"rank": 2}, {"groups": 2, "use_bias": False}, {"shared_axes": (0,)}):
                for axis in (-1, 1):
                    order = "channels_last" if axis == -1 else "channels_first"
                    shape = (5, 4, 3)[:ndim]
                    shape = (*shape, 4) if axis == -1 else (4, *shape)
                    x = RNG.standard_normal((2, *shape)).astype("float32")
                    # As many filters as positions: taken along another axis they would fit, too.
                    layer = layer_class(ndim, kind)(4, 2, data_format=order, **more)
                    bn = layers.BatchNormalization(axis=axis, scale=bool(more))
                    bn(layer(x))
                    for each in bn.weights:
                        each.assign(RNG.uniform(0.5, 2, each.shape))
                    fused = fuse_bn(layer, bn)
                    np.testing.assert_allclose(
                        numpy(fused(x)), numpy(bn(layer(x))), rtol=1e-4, atol=1e-4,
                        err_msg=f"{ndim}D {kind} {order} {more}",
                    )  # fmt: skip
    relu = LocallyConnected2D(4, 2, activation="relu")
    relu.build((None, 5, 4, 2))
    bn = layers.BatchNormalization()
    raises(lambda: fuse_bn(relu, bn), "a layer that is built")
    bn.build((None, 4, 3, 4))
    raises(lambda: fuse_bn(relu, bn), "no activation between")
    other = layers.BatchNormalization(axis=1)
    other.build((None, 4, 3, 4))
    plain = LocallyConnected2D(4, 2)
    plain.build((None, 5, 4, 2))
    raises(lambda: fuse_bn(plain, other), "a normalisation over axis -1, the channels")


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
def smoothness_is_the_loss_of_the_layer():
    for distance in ("cosine", "squared"):
        for arguments in (dict(), dict(rank=2), dict(shared_axes=(1,), strides=2, padding=1)):
            for cls in (LocallyConnected2D, LocallyConnected2DTranspose):
                layer = cls(4, 3, kernel_regularizer=Smoothness(3.0, distance), **arguments)
                layer.build((None, 6, 5, 3))
                (loss,) = layer.losses
                kernel = numpy(layer.full_kernel())
                with lcmulti.config(backend="numpy"):
                    expected = 3 * lcmulti.smoothness(kernel, layer.spec, distance=distance)
                assert expected > 0.01
                np.testing.assert_allclose(numpy(loss), expected, rtol=1e-5)
    half = LocallyConnected2D(4, 3, kernel_regularizer=Smoothness(), dtype="float16")
    half.build((None, 6, 5, 3))
    assert 0 < float(numpy(half.losses[0])) < 0.02
    raises(lambda: Smoothness()(np.ones((3, 3, 4))), "a kernel of shape")
    raises(lambda: Smoothness(-1), "factor")
    raises(lambda: Smoothness(distance="chess"), "distance")


@check
def sheet_smoothness_sees_the_bias():
    options = dict(sheet=(2, 2), neighbours=8, circular=True)
    for arguments in (dict(), dict(rank=2), dict(shared_axes=(1,)), dict(use_bias=False)):
        layer = LocallyConnected2D(
            4, 3, kernel_regularizer=SheetSmoothness(3.0, **options),
            bias_initializer="random_normal", **arguments,
        )  # fmt: skip
        layer.build((None, 6, 5, 3))
        (loss,) = layer.losses
        bias = None if layer.bias is None else numpy(layer.bias)
        with lcmulti.config(backend="numpy"):
            kernel = numpy(layer.full_kernel())
            expected = 3 * lcmulti.sheet_smoothness(kernel, bias, layer.spec, **options)
            without = 3 * lcmulti.sheet_smoothness(kernel, None, layer.spec, **options)
        np.testing.assert_allclose(numpy(loss), expected, rtol=1e-5)
        assert bias is None or abs(float(expected - without)) > 1e-6
        again = LocallyConnected2D.from_config(layer.get_config())
        assert again.kernel_regularizer.get_config() == layer.kernel_regularizer.get_config()
    turned = LocallyConnected2DTranspose(3, 2, kernel_regularizer=SheetSmoothness(1.0, (2, 2)))
    turned.build((None, 5, 4, 4))
    assert 0 < float(numpy(turned.losses[0])) < 1
    half = LocallyConnected2D(
        4, 3, kernel_regularizer=SheetSmoothness(1.0, (2, 2)), dtype="bfloat16"
    )
    half.build((None, 6, 5, 3))
    assert 0 < float(numpy(half.losses[0])) < 1
    wrong = LocallyConnected2D(4, 3, kernel_regularizer=SheetSmoothness(1.0, (3, 2)))
    wrong.build((None, 6, 5, 3))
    raises(lambda: wrong.losses, "sheet: expected (a, b) with a * b = 4")


@trained
def sheet_smoothness_makes_a_sheet():
    model = keras.Sequential([
        keras.Input((6, 5, 3)),
        LocallyConnected2D(4, 2, kernel_regularizer=SheetSmoothness(1.0, (2, 2))),
        layers.GlobalAveragePooling2D(),
    ])  # fmt: skip
    before = float(numpy(model.losses[0]))
    model.compile(keras.optimizers.Adam(0.05), "mse", **QUICKLY)
    model.fit(X, np.zeros((8, 4)), epochs=30, verbose=0)
    assert float(numpy(model.losses[0])) < 0.3 * before


@trained
def smoothness_makes_maps_smooth():
    model = keras.Sequential([
        keras.Input((6, 5, 3)), LocallyConnected2D(4, 2, kernel_regularizer=Smoothness(1.0)),
        layers.GlobalAveragePooling2D(),
    ])  # fmt: skip
    before = float(numpy(model.losses[0]))
    model.compile(keras.optimizers.Adam(0.05), "mse", **QUICKLY)
    model.fit(X, np.zeros((8, 4)), epochs=30, verbose=0)
    assert float(numpy(model.losses[0])) < 0.5 * before


@check
def constraints_of_keras2_are_warned_of_once():
    constraint = keras.constraints.MaxNorm(2, axis=0)
    for implementation, kept in ((2, "*input_size"), (3, "connections")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                LocallyConnected2D(
                    4, 2, implementation=implementation, kernel_constraint=constraint
                )
        (warned,) = caught
        assert kept in str(warned.message)
        assert "axis=0" in str(warned.message)
        assert warned.filename == __file__, warned.filename
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LocallyConnected2D(4, 2, kernel_constraint=constraint)
        LocallyConnected2D(4, 2, implementation=1, kernel_constraint="non_neg")


@check
def constraints_of_old_models_constrain_what_they_did():
    from lcmulti_keras.legacy.adjusting import ADJUSTED

    axes = {
        "keras2-1": (0, 1, 2, -1, [0, 1]), "keras2-2": (0, 1, 2, [0, 1, 2]), "keras2-3": (0, -1),
    }  # fmt: skip
    for data_format in ("channels_last", "channels_first"):
        last = data_format == "channels_last"
        spec = lcmulti.LocalConvSpec(
            (6, 5, 3) if last else (3, 6, 5), 4, (2, 3), strides=(2, 1), data_format=data_format
        )
        kernel = RNG.standard_normal(spec.kernel_shape).astype("float32")
        filters = {"keras2-2": (5 if last else 3,)}
        for layout, each in axes.items():
            for axis in (*each, *filters.get(layout, ())):
                old = keras.constraints.UnitNorm(axis)
                config = dict(
                    implementation=int(layout[-1]), data_format=data_format, kernel_size=[2, 3],
                    kernel_constraint=keras.constraints.serialize(old),
                )  # fmt: skip
                assert ADJUSTED["LocallyConnected2D"](config) is None
                assert config["implementation"] == "auto"
                ours = numpy(keras.constraints.deserialize(config["kernel_constraint"])(kernel))
                stored = numpy(old(layouts.export_kernel(kernel, layout, spec)))
                theirs = layouts.import_kernel(stored, layout, spec)
                case = f"{layout} {data_format} {axis}"
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=case)
    config = dict(
        name="lc", implementation=2, kernel_size=[2, 3],
        kernel_constraint=keras.constraints.serialize(keras.constraints.MaxNorm(2, axis=3)),
    )  # fmt: skip
    assert ADJUSTED["LocallyConnected2D"](config) == "the kernel constraint of lc along its output"
    assert config["kernel_constraint"] is None


@check
def what_keras_runs_is_what_computes():
    layer = LocallyConnected2DTranspose(4, 2, rank=2)
    kind = type(layer(X)).__module__.partition(".")[0]
    assert kind == {"jax": "jaxlib", "numpy": "numpy"}.get(BACKEND, BACKEND)


@check
def operations_take_variables():
    sys.path.append(str(Path(__file__).parents[2] / "helpers"))
    from helpers_variables import check_variables

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.safetensors")
        check_variables(keras.Variable, keras.ops.convert_to_tensor, numpy, path)


@trained
def operations_take_the_weights_of_a_layer_in_training():
    class Penalised(LocallyConnected2D):
        def call(self, x):
            self.add_loss(lcmulti.sheet_smoothness(self.kernel, self.bias, self.spec, sheet=(2, 2)))
            return lcmulti.local_conv(x, self.kernel, self.bias, **self.spec.arguments())

    torch = BACKEND == "torch"
    for jit_compile in (False, True) if not torch else (False,):
        model = keras.Sequential([keras.Input(X.shape[1:]), Penalised(4, 2, padding="same")])
        model.compile("sgd", "mse", jit_compile=jit_compile)
        before = numpy(model.layers[0].kernel)
        y = np.zeros((*X.shape[:3], 4), "float32")
        losses = model.fit(X, y, epochs=2, verbose=0).history["loss"]
        assert losses[1] < losses[0] and not np.allclose(before, numpy(model.layers[0].kernel))


main()
