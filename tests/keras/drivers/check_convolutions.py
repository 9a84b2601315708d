"""Check what makes layers of convolutions, and convolutions of layers, on a backend of Keras."""

import tempfile
import warnings
from pathlib import Path

import keras
import lcmulti_keras
import numpy as np
from harness import BACKEND, RNG, TRAINS, X, check, main, numpy, predict, raises, trained
from keras import layers
from lcmulti_keras import (
    LocallyConnected1D,
    LocallyConnected2D,
    LocallyConnected2DTranspose,
    LocallyConnected3D,
    ShareEvery,
    fuse_bn,
    retie,
    untie,
)

CLOSE = dict(rtol=1e-4, atol=1e-5)


def quietly(model, *arguments, **options):
    return untie(model, *arguments, tell=None, **options)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def network():
    """Every kind of convolution, a model in the model, and a layer that is called twice."""
    inputs = keras.Input((6, 5, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=1, name="deep")(x)
    twice = layers.Conv2D(8, 1, use_bias=False, name="twice")
    x = twice(twice(x))
    within = keras.Sequential([layers.Conv2D(4, 2, name="conv"), layers.ReLU()], name="within")
    x = within(x)
    x = layers.Conv2DTranspose(5, 3, strides=2, padding="same", name="up")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="net")
    for each in model.variables:
        values = RNG.uniform(0.5, 1.5, each.shape) if "norm" in each.path else None
        if values is None:
            values = RNG.standard_normal(each.shape) / 2
        each.assign(values)
    return model


@check
def untied_models_compute_the_same():
    model = network()
    plan = untie(model, dry_run=True)
    assert [row.name for row in plan.rows] == ["first", "deep", "twice", "within/conv", "up"]
    for options in (dict(), dict(rank=2), dict(shared_axes=(0,))):
        untied = quietly(model, **options)
        assert isinstance(untied.get_layer("deep"), LocallyConnected2D)
        assert isinstance(untied.get_layer("up"), LocallyConnected2DTranspose)
        assert isinstance(untied.get_layer("within").layers[0], LocallyConnected2D)
        names = [{each.name for each in one.layers} for one in (untied, model)]
        assert names[0] == names[1], names
        np.testing.assert_allclose(predict(untied), predict(model), **CLOSE)
        back = retie(untied)
        assert kinds(back) == kinds(model)
        np.testing.assert_allclose(predict(back), predict(model), **CLOSE)
    made = sum(
        int(np.prod(w.shape)) for name in ("first", "deep", "twice", "up")
        for w in quietly(model).get_layer(name).weights
    )  # fmt: skip
    assert plan.parameters[1] == made + 5 * 4 * (2 * 2 * 8 * 4 + 4)


@check
def what_is_chosen_and_what_is_left():
    model = keras.Sequential([
        keras.Input((9, 3)), layers.Conv1D(4, 3, padding="causal", name="a", dtype="float32"),
        layers.SeparableConv1D(4, 3, name="b"), layers.Conv1D(4, 2, groups=2, name="c"),
    ])  # fmt: skip
    model.get_layer("a").trainable = False
    x = RNG.standard_normal((2, 9, 3)).astype("float32")
    plan = quietly(model, dry_run=True)
    assert [row.name for row in plan.rows] == ["a", "c"] and plan.left[0][0] == "b"
    untied = quietly(model, where="a")
    assert kinds(untied) == ["LocallyConnected1D", "SeparableConv1D", "Conv1D"]
    assert not untied.get_layer("a").trainable
    assert isinstance(
        quietly(model, where=lambda name, _: name < "b").layers[0], LocallyConnected1D
    )
    raises(lambda: quietly(model, where="b"), "two in one")
    raises(lambda: quietly(model, where="z"), "pattern or class")
    raises(lambda: quietly(model, memory=10), "10 B, the limit")
    raises(lambda: quietly(model, "x.npy"), "example_input: expected an array")
    raises(lambda: quietly(keras.Sequential([layers.Dense(2)])), "a model that is built")
    raises(lambda: retie(model), "with locally connected layers")
    # TensorFlow has no convolution in groups on the CPU, which the untied one needs none of.
    untied = quietly(model)
    assert untied.get_layer("c").groups == 2
    assert predict(untied, x).shape == (2, 6, 4)

    inputs = keras.Input((None, None, 3))
    both = layers.Conv2D(3, 3, name="both")
    model = keras.Model(inputs, layers.GlobalMaxPooling2D()(both(both(inputs))))
    raises(lambda: quietly(model), "an input size, or an example_input")
    raises(lambda: quietly(model, X), "(4, 3, 3) and (6, 5, 3)")
    model = keras.Model(inputs, layers.GlobalMaxPooling2D()(layers.Conv2D(3, 3)(inputs)))
    np.testing.assert_allclose(predict(quietly(model, X)), predict(model), **CLOSE)


@check
def operations_and_lambdas_are_copied():
    inputs = keras.Input((6, 5, 3))
    x = layers.Lambda(lambda each: 2 * each)(inputs)
    x = layers.Conv2D(4, 3)(x) + 1.0
    x = keras.ops.concatenate([x, keras.ops.flip(x, 1)[:, :]])
    model = keras.Model(inputs, {"a": keras.ops.mean(x, (1, 2)), "b": layers.Conv2D(2, 1)(x)})
    for each in (quietly(model), retie(quietly(model))):
        for name, value in model(X).items():
            np.testing.assert_allclose(numpy(each(X)[name]), numpy(value), **CLOSE)


@check
def copies_are_compiled_as_the_model_is():
    def loss_of_a_user(y, found):
        return keras.ops.mean((y - found) ** 2)

    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(inputs)))
    assert not quietly(model, X).compiled
    model.compile(keras.optimizers.Adam(0.25), "mse")
    for copy in (quietly(model, X), retie(quietly(model, X))):
        assert copy.compiled and copy.optimizer is not model.optimizer
        assert float(numpy(copy.optimizer.learning_rate)) == 0.25
        assert not copy.optimizer.built  # moments of untied weights take as much memory as these
    model.compile("sgd", loss_of_a_user)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        copy = quietly(model, X)
    assert model.compiled and not copy.compiled
    assert any("not compiled: Could not locate" in str(each.message) for each in caught)
    np.testing.assert_allclose(predict(copy), predict(model), **CLOSE)


@check
def wrong_arguments_are_named():
    model, conv = network(), layers.Conv2D(4, 3)
    conv.build((None, 6, 5, 3))
    raises(lambda: quietly(model, rank=0), "first: rank: expected a positive integer, got 0")
    raises(lambda: quietly(model, shared_axes="all"), "first: shared_axes: expected distinct")
    raises(lambda: LocallyConnected2D.from_conv(conv, (6, 5, 3), shared_axes=(2,)),
           "shared_axes: expected")  # fmt: skip
    kept = dict(kernel_constraint="non_neg", kernel_initializer="ones")
    model = keras.Sequential([keras.Input((6, 5, 3)), LocallyConnected2D(6, 3, groups=3, **kept)])
    raises(lambda: retie(model), "kernel_constraint: expected None where Keras has a depthwise")


@check
def nested_models_may_leave_their_size_open():
    within = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(3, 3, padding="same", name="conv")],
        name="within",
    )
    inputs = keras.Input((None, None, 3))
    outer = keras.Model(inputs, within(within(inputs)) + 1.0, name="outer")
    for model, example in (
        (outer, X),
        (keras.Sequential([keras.Input((6, 5, 3)), within, layers.ReLU()]), None),
        (keras.Sequential([keras.Input((None, None, 3)), layers.ReLU(), outer]), X),
    ):
        plan = untie(model, example, dry_run=True)
        assert [row.name.rpartition("within/")[2] for row in plan.rows] == ["conv"]
        untied = quietly(model, example)
        np.testing.assert_allclose(predict(untied), predict(model), **CLOSE)
        np.testing.assert_allclose(predict(retie(untied)), predict(model), **CLOSE)
    narrow = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(3, 3)], name="narrow")
    inputs = keras.Input((6, 5, 3))
    for model in (
        keras.Model(inputs, layers.Conv2D(2, 1, name="last")(narrow(narrow(inputs)))),
        keras.Sequential([inputs, narrow, narrow, layers.Conv2D(2, 1, name="last")]),
    ):
        raises(lambda each=model: quietly(each), "model is called on (4, 3, 3) and (6, 5, 3)")
        untied = quietly(model, where="last")
        np.testing.assert_allclose(predict(untied), predict(model), **CLOSE)
    two = {name: keras.Input((6, 5, 3), name=name) for name in "ab"}
    model = keras.Model(two, layers.Conv2D(2, 3)(two["a"]) + layers.Conv2D(2, 3)(two["b"]))
    given = dict.fromkeys("ab", X)
    untied = quietly(model, given)
    np.testing.assert_allclose(numpy(untied(given)), numpy(model(given)), **CLOSE)
    raises(lambda: quietly(model, X), "example_input: expected arrays in the structure")


@check
def retying_asks_for_equal_weights():
    untied = quietly(network(), where="first")
    layer = untied.get_layer("first")
    kernel = numpy(layer.kernel) + RNG.standard_normal(layer.kernel.shape)
    layer.kernel.assign(kernel)
    raises(lambda: retie(untied), "first.kernel: expected the same at every position within 0.0")
    back = retie(untied, tolerance=None).get_layer("first")
    np.testing.assert_allclose(numpy(back.kernel), kernel.mean((0, 1)), **CLOSE)


@trained
def untied_models_train_and_are_saved():
    model = quietly(network())
    model.compile("adam", "mse", jit_compile=False)
    before = model.evaluate(X, np.zeros((8, 5)), verbose=0)
    model.fit(X, np.zeros((8, 5)), epochs=3, verbose=0)
    assert model.evaluate(X, np.zeros((8, 5)), verbose=0) < before
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.keras"))
        model.save(path)
        again = keras.models.load_model(path)
    np.testing.assert_allclose(predict(again), predict(model), **CLOSE)


@trained
def sharing_while_training():
    for steps, strength in ((2, 1.0), (4, 0.5)):
        model = keras.Sequential([
            keras.Input((6, 5, 3)), LocallyConnected2D(4, 2), layers.GlobalAveragePooling2D()
        ])  # fmt: skip
        layer = model.layers[0]
        before = numpy(layer.kernel)
        model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
        model.fit(X, np.zeros((8, 4)), batch_size=2, epochs=1, verbose=0,
                  callbacks=[ShareEvery(steps, strength=strength)])  # fmt: skip
        mean = before.mean((0, 1), keepdims=True)
        expected = before + strength * (mean - before)
        np.testing.assert_allclose(numpy(layer.kernel), expected, rtol=1e-5, atol=1e-6)
    sharing = ShareEvery(1)
    sharing.set_model(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    raises(sharing.on_train_begin, "with locally connected layers")
    sharing = ShareEvery(100, (2,))
    sharing.set_model(model)
    raises(sharing.on_train_begin, "axes: expected")
    raises(lambda: ShareEvery(1, strength=2), "strength")


@check
def sharing_names_layers_as_untie_does():
    early = LocallyConnected2D(2, 2, name="early")
    early.build((None, 4, 4, 1))  # before it is in a model
    encoder = keras.Sequential([keras.Input((4, 4, 1)), early], name="encoder")
    wrapped = layers.TimeDistributed(LocallyConnected2D(2, 2, name="wrapped"))
    parts = [keras.Input((4, 4, 1)), encoder, layers.Reshape((1, 3, 3, 2)), wrapped]
    model = keras.Sequential(parts)
    for where, names in ((None, ["early", "wrapped"]), ("encoder/early", ["early"])):
        sharing = ShareEvery(1, where=where)
        sharing.set_model(model)
        sharing.on_train_begin()
        assert sorted(layer.name for layer in sharing.layers) == names


@check
def networks_that_ship_with_keras():
    if not TRAINS:  # NumPy convolves slowly
        return
    x = RNG.standard_normal((2, 32, 32, 3)).astype("float32")
    model = keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, include_top=False)
    untied = quietly(model)
    assert not {"Conv2D", "DepthwiseConv2D"} & set(kinds(untied))
    np.testing.assert_allclose(predict(untied, x), predict(model, x), **CLOSE)
    model = keras.applications.ResNet50V2(input_shape=(32, 32, 3), weights=None, include_top=False)
    model = keras.Model(model.inputs, model.get_layer("conv2_block3_out").output)
    untied = quietly(model, where=["conv1*", "conv2*"])
    assert "Conv2D" not in kinds(untied)
    np.testing.assert_allclose(predict(untied, x), predict(model, x), **CLOSE)


@check
def convolutions_that_a_layer_is_not():
    layer = LocallyConnected2D(4, 2, padding="keras_same")
    raises(layer.to_conv, "a layer that is built")
    layer.build((None, 5, 4, 2))
    raises(layer.to_conv, "kernel: expected the same at every position within 0.0")
    raises(lambda: layer.to_conv(None), "'valid' or 'same', as Keras' convolutions have")
    filled = LocallyConnected2D(2, 3, padding="same", padding_mode="reflect")
    filled.build((None, 6, 5, 3))
    raises(lambda: filled.to_conv(None), "padding_mode: expected 'zeros'")
    bare = LocallyConnected2D(2, 3, padding_mode="reflect")  # there is no padding to be filled
    bare.build((None, 6, 5, 3))
    assert bare.to_conv(None).padding == "valid"
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
                    cls = getattr(lcmulti_keras, f"LocallyConnected{ndim}D{kind}")
                    layer = cls(4, 2, data_format=order, **more)
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

    class Own(LocallyConnected2D):
        def call(self, inputs):
            return keras.ops.relu(super().call(inputs))

    class OwnNormalisation(layers.BatchNormalization):
        def call(self, inputs, **more):
            return keras.ops.relu(super().call(inputs, **more))

    own, own_bn = Own(4, 2), OwnNormalisation()
    own.build((None, 5, 4, 2))
    own_bn.build((None, 4, 3, 4))
    for layer, after in ((own, bn), (plain, own_bn)):
        raises(lambda pair=(layer, after): fuse_bn(*pair), "which computes something of its own")


@check
def start_from_a_convolution():
    cases = [
        (LocallyConnected1D, layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (9, 2)),
        (LocallyConnected2D, layers.Conv2D(4, (2, 3), (2, 1), padding="same", groups=2,
                                           activation="tanh"), (6, 5, 4)),
        (LocallyConnected2D, layers.Conv2D(4, 2, use_bias=False), (6, 5, 4)),
        (LocallyConnected3D, layers.Conv3D(3, 2), (3, 4, 3, 2)),
    ]  # fmt: skip
    for cls, conv, shape in cases:
        if BACKEND == "numpy" and conv.groups > 1:
            continue  # Keras itself has no grouped convolution there
        conv.build((None, *shape))
        if conv.bias is not None:
            conv.bias.assign(RNG.standard_normal(conv.bias.shape))
        x = RNG.standard_normal((3, *shape)).astype("float32")
        for shared in ((), tuple(range(cls.ndim))):
            layer = cls.from_conv(conv, shape, shared_axes=shared)
            np.testing.assert_allclose(numpy(layer(x)), numpy(conv(x)), rtol=1e-5, atol=1e-5)
            assert layer.spec.is_convolution == bool(shared)
            back = layer.to_conv()
            assert type(back) is type(conv) and back.name == layer.name
            np.testing.assert_array_equal(numpy(back.kernel), numpy(conv.kernel))
            np.testing.assert_allclose(numpy(back(x)), numpy(conv(x)), rtol=1e-5, atol=1e-5)
    for wrong in (layers.Dense(3), layers.Conv2D(3, 2)):
        try:
            LocallyConnected2D.from_conv(wrong, (5, 5, 2))
        except TypeError as error:
            assert "keras.layers.Conv2D that is built" in str(error)
        else:
            raise AssertionError(wrong)


main()
