"""Write old models with tf_keras: ``python write_legacy.py FOLDER``.

Each as ``NAME.h5`` and ``NAME.keras`` with ``NAME.npz``, what it was given and what it gave; in
``FOLDER/weights`` those of `old_models`, their weights alone, and in ``FOLDER/checkpoint`` one as a
TensorFlow checkpoint.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import json

import h5py
import numpy as np
import tf_keras as k
import write_old_weights

L = k.layers
LC1, LC2 = L.LocallyConnected1D, L.LocallyConnected2D
MODELS = {}


def model(function):
    MODELS[function.__name__] = function
    return function


@model
def time_distributed():
    return k.Sequential([
        L.TimeDistributed(LC2(3, (2, 3), activation="relu"), input_shape=(4, 5, 6, 2)),
        L.TimeDistributed(L.Flatten()), L.LSTM(4, recurrent_activation="hard_sigmoid"), L.Dense(2),
    ])  # fmt: skip


@model
def bidirectional():
    x = k.Input((9, 3))
    y = LC1(4, 2, implementation=3, padding="same")(x)
    y = L.Bidirectional(L.GRU(3, return_sequences=True, reset_after=True))(y)
    y = L.Bidirectional(L.LSTM(2), merge_mode="sum")(y)
    return k.Model(x, L.Dense(2, activation="softmax")(y))


@model
def nested_in_functional():
    inner = k.Sequential([L.InputLayer((5, 6, 3)), LC2(4, 2), L.BatchNormalization(), LC2(2, 2)])
    deeper = k.Sequential([L.InputLayer((5, 6, 3)), LC2(2, 3), LC2(2, 2)], name="deeper")
    deep = k.Sequential([deeper, L.Flatten(), L.Dense(3)], name="deep")
    x = k.Input((5, 6, 3))
    a, b = inner(x), deep(x)
    return k.Model(x, L.Concatenate()([L.Flatten()(a), b]))


@model
def shared_layers():
    local = LC2(3, (2, 3), implementation=2, padding="same")
    a, b = k.Input((5, 6, 3), name="a"), k.Input((5, 6, 3), name="b")
    y = L.Subtract()([local(a), L.ReLU(negative_slope=0.1)(local(b))])
    z = local(L.Multiply()([a, b]))
    return k.Model([a, b], [L.GlobalAveragePooling2D()(y), L.Flatten()(z), y])


@model
def names_with_slashes():
    x = k.Input((5, 6, 3), name="in/x")
    y = LC2(3, 2, name="block/one/local")(x)
    y = L.BatchNormalization(name="block/one/bn")(y)
    return k.Model(x, L.Flatten(name="block_one_bn")(y))


@model
def normalization_and_activations():
    x = k.Input((6, 5, 2))
    y = L.Rescaling(1 / 3.0, offset=-0.2)(x)
    y = LC2(4, 2, activation="leaky_relu")(y)
    y = L.BatchNormalization(axis=[3], scale=False)(y)
    y = L.PReLU(shared_axes=[1])(y)
    y = L.LayerNormalization()(y)
    names = ("elu", "selu", "softplus", "softsign", "swish", "gelu", "exponential", "mish",
                 "hard_sigmoid", "tanh", "sigmoid", "relu", "linear", "leaky_relu")  # fmt: skip
    outs = [L.Activation(name, name=f"act_{name}")(y) for name in names]
    outs += [L.LeakyReLU()(y), L.ELU(0.3)(y), L.ThresholdedReLU(0.2)(y), L.Softmax(axis=-1)(y)]
    outs += [L.LeakyReLU(alpha=0.05)(y), L.ReLU(max_value=1.0, threshold=0.1)(y)]
    return k.Model(x, L.Concatenate()(outs))


@model
def channels_first_head():
    return k.Sequential([
        LC2(4, (2, 3), data_format="channels_first", input_shape=(3, 5, 6), activation="tanh"),
        L.Flatten(data_format="channels_first"), L.Dense(2), L.Dropout(0.5),
    ])  # fmt: skip


@model
def channels_first_same_3():
    return k.Sequential([
        LC2(4, (2, 4), (2, 1), padding="same", data_format="channels_first", implementation=3,
            input_shape=(3, 5, 6)),
        L.Flatten(), L.Dense(2),
    ])  # fmt: skip


@model
def other_convolutions():
    x = k.Input((8, 9, 2))
    y = L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    y = L.SeparableConv2D(3, 3, padding="same")(y)
    y = L.Conv2DTranspose(2, 3, strides=2, padding="same")(y)
    y = L.AveragePooling2D(2, padding="same")(L.ZeroPadding2D(((1, 0), (2, 1)))(y))
    y = LC2(3, 3, (2, 2))(L.SpatialDropout2D(0.2)(y))
    y = L.UpSampling2D(2, interpolation="bilinear")(y)
    return k.Model(x, L.Cropping2D(1)(y))


@model
def embedding_1d():
    return k.Sequential([
        L.Embedding(11, 4, input_length=7, input_shape=(7,)), LC1(3, 3, activation=L.LeakyReLU()),
        L.GlobalMaxPooling1D(), L.Dense(1, activation="sigmoid"),
    ])  # fmt: skip


@model
def attention():
    x = k.Input((6, 4))
    y = LC1(4, 1)(x)
    y = L.MultiHeadAttention(2, 3)(y, value=x, key=x)
    return k.Model(x, L.LayerNormalization()(L.Add()([x, y])))


@model
def mixed_precision():
    k.mixed_precision.set_global_policy("mixed_float16")
    try:
        return k.Sequential([
            LC2(4, 2, input_shape=(5, 6, 3)), L.Flatten(), L.Dense(2, dtype="float32"),
        ])  # fmt: skip
    finally:
        k.mixed_precision.set_global_policy("float32")


@model
def double():
    k.backend.set_floatx("float64")
    try:
        return k.Sequential([LC1(4, 2, implementation=2, input_shape=(9, 3)), L.Flatten()])
    finally:
        k.backend.set_floatx("float32")


@model
def frozen_parts():
    inner = k.Sequential([L.InputLayer((5, 6, 3)), LC2(4, 2), L.BatchNormalization(),
                          LC2(2, 2), L.BatchNormalization()])  # fmt: skip
    inner.layers[1].trainable = False
    return k.Sequential(
        [
            L.InputLayer((5, 6, 3)),
            inner,
            L.BatchNormalization(trainable=False),
            L.Flatten(),
            L.Dense(2),
        ]
    )


@model
def frozen_model():
    inner = k.Sequential([L.InputLayer((5, 6, 3)), LC2(4, 2), L.BatchNormalization(), LC2(2, 2)])
    inner.trainable = False
    return k.Sequential([L.InputLayer((5, 6, 3)), inner, L.Flatten(), L.Dense(2)])


@model
def regularized():
    return k.Sequential([
        LC2(4, 2, input_shape=(5, 6, 3), kernel_regularizer=k.regularizers.l1_l2(0.1, 0.2),
            kernel_initializer=k.initializers.VarianceScaling(2.0, "fan_out"),
            bias_constraint="non_neg", kernel_constraint=k.constraints.UnitNorm(axis=1)),
        L.Flatten(), L.Dense(3, activation="softmax"),
    ])  # fmt: skip


@model
def preprocessing():
    norm = L.Normalization(axis=-1)
    norm.adapt(np.random.default_rng(3).normal(2, 3, (50, 6, 7, 2)))
    return k.Sequential([
        L.InputLayer((6, 7, 2)), norm, L.RandomFlip(), L.CenterCrop(5, 6), L.GaussianNoise(0.1),
        LC2(3, 3), L.Permute((2, 1, 3)), L.Reshape((-1, 3)), L.SimpleRNN(2),
    ])  # fmt: skip


@model
def recurrent_cells():
    x = k.Input((6, 4))
    y = L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_sequences=True)(LC1(3, 2)(x))
    y = L.Masking(0.5)(y)
    return k.Model(x, L.GRU(2, reset_after=False)(y))


@model
def initial_state():
    x = k.Input((6, 4))
    _, *state = L.LSTM(3, return_state=True)(LC1(3, 2)(x))
    return k.Model(x, L.LSTM(3)(x, initial_state=state))


@model
def model_in_time_distributed():
    inner = k.Sequential([L.InputLayer((5, 6, 3)), LC2(2, 2), L.Flatten()])
    return k.Sequential([L.TimeDistributed(inner, input_shape=(3, 5, 6, 3)), L.Dense(2)])


@model
def layers_as_activations():
    return k.Sequential([
        L.InputLayer((6, 6, 2)), L.Conv2D(2, 2, kernel_constraint=k.constraints.RadialConstraint()),
        LC2(4, 2, activation=L.PReLU(shared_axes=[1, 2])),
        L.Flatten(), L.Dense(3, activation=L.PReLU()),
    ])  # fmt: skip


@model
def softmax_over_axes():
    return k.Sequential([L.InputLayer((6, 6, 2)), LC2(4, 2), L.Softmax(axis=[1, 3])])


@model
def functional_in_everything():
    x = k.Input((5, 6, 3))
    one = k.Model(x, L.Concatenate()([LC2(2, 3, padding="same", implementation=2)(x), x]))
    x = k.Input((5, 6, 5))
    two = k.Model(x, k.Sequential([L.InputLayer((5, 6, 5)), LC2(2, 2), L.Flatten()])(x))
    x = k.Input((3, 5, 6, 3))
    return k.Model(x, L.TimeDistributed(two)(L.TimeDistributed(one)(x)))


@model
def functional_ends_in_sequential():
    x = k.Input((5, 6, 3))
    inner = k.Model(
        x, k.Sequential([L.InputLayer((5, 6, 3)), LC2(2, 2), L.BatchNormalization()])(x)
    )
    return k.Sequential([inner, L.Flatten(), L.Dense(2)])


@model
def stateful():
    return k.Sequential([
        L.InputLayer(batch_input_shape=(4, 6, 3)), LC1(3, 2), L.LSTM(2, stateful=True),
    ])  # fmt: skip


def randomize(made, rng):
    """Give every weight another value, so that an exchanged weight is noticed."""
    for w in made.weights:
        if "float" in w.dtype.name:
            low = 0.5 if "variance" in w.name else -0.5
            w.assign(rng.uniform(low, 1.0, w.shape))
    for layer in made.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def save(folder, name, made, rng):
    randomize(made, rng)
    xs = []
    for tensor in made.inputs:
        shape = (4, *tensor.shape[1:])
        if name.startswith("embedding"):
            xs.append(rng.integers(0, 11, shape))
        else:
            xs.append(rng.standard_normal(shape).astype(tensor.dtype.as_numpy_dtype))
    y = made(xs if len(xs) > 1 else xs[0], training=False)
    ys = [np.asarray(each) for each in (y if isinstance(y, list) else [y])]
    arrays = {f"x{i}": x for i, x in enumerate(xs)} | {f"y{i}": y for i, y in enumerate(ys)}
    np.savez(folder / f"{name}.npz", **arrays)
    made.save(folder / f"{name}.h5", save_format="h5")
    made.save(folder / f"{name}.keras", save_format="keras")


def old_fashioned(folder):
    """Rewrite a file as an older Keras wrote it: with other spellings and no version."""
    for suffix in ("h5", "npz"):
        content = (folder / f"regularized.{suffix}").read_bytes()
        (folder / f"old_fashioned.{suffix}").write_bytes(content)
    with h5py.File(folder / "old_fashioned.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layers = [each for each in config["config"]["layers"] if each["class_name"] != "InputLayer"]
        for each in layers:
            own = each["config"]
            for key in own:
                if key.endswith("_initializer"):
                    own[key]["config"]["dtype"] = "float32"
            own.pop("implementation", None)
        layers[0]["config"]["batch_input_shape"] = [None, 5, 6, 3]
        config["config"] = layers  # before Keras 2.2.3
        file.attrs["model_config"] = json.dumps(config).encode()
        del file.attrs["keras_version"], file.attrs["backend"]
        group = file["model_weights"]
        del group.attrs["keras_version"], group.attrs["backend"], group["top_level_model_weights"]


def old_nested(folder):
    """Before TensorFlow 2.4, making a model was the first of its calls."""
    for suffix in ("h5", "npz"):
        content = (folder / f"nested_in_functional.{suffix}").read_bytes()
        (folder / f"old_nested.{suffix}").write_bytes(content)
    with h5py.File(folder / "old_nested.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layers = config["config"]["layers"]
        models = {each["name"] for each in layers if each["class_name"] == "Sequential"}
        assert len(models) == 2
        for each in layers:
            for node in each["inbound_nodes"]:
                for reference in node:
                    reference[1] += reference[0] in models
        file.attrs["model_config"] = json.dumps(config).encode()


def by_theano(folder):
    """As Keras 2 wrote it on Theano, whose convolutions flip the window."""
    arrays = dict(np.load(folder / "other_convolutions.npz"))
    np.savez(folder / "by_theano.npz", **arrays)
    (folder / "by_theano.h5").write_bytes((folder / "other_convolutions.h5").read_bytes())
    with h5py.File(folder / "by_theano.h5", "r+") as file:
        file["model_weights"].attrs["backend"] = b"theano"
        kernel = file["model_weights/conv2d_transpose/conv2d_transpose/kernel:0"]
        kernel[...] = kernel[()][::-1, ::-1]


def big_endian(folder):
    """As a machine with the other byte order wrote it."""
    for suffix in ("h5", "npz"):
        content = (folder / f"regularized.{suffix}").read_bytes()
        (folder / f"big_endian.{suffix}").write_bytes(content)
    with h5py.File(folder / "big_endian.h5", "r+") as file:
        group, names = file["model_weights"], []
        group.visititems(lambda n, each: names.append(n) if isinstance(each, h5py.Dataset) else 0)
        for name in names:
            array = group[name][()].astype(">f4")
            del group[name]
            group.create_dataset(name, data=array)


def weights_only(folder, rng):
    made = k.Sequential([
        LC2(4, (2, 3), (1, 2), padding="same", implementation=2, input_shape=(5, 6, 3)),
        L.BatchNormalization(), L.Flatten(), L.Dense(2),
    ])  # fmt: skip
    save(folder, "weights_only", made, rng)
    made.save_weights(folder / "weights_only_names.h5")
    made.save_weights(folder / "weights_only.weights.h5")
    (folder / "weights_only.keras").unlink()
    (folder / "weights_only.h5").unlink()


def compiled(folder, rng):
    """Trained one step, so that there is an optimizer's state, and with a loss of one's own."""

    def my_loss(a, b):
        return k.backend.mean(k.backend.square(a - b), axis=-1)

    for name, loss, optimizer in (
        ("custom_loss", my_loss, "adam"),
        ("compiled", "sparse_categorical_crossentropy",
         k.optimizers.SGD(k.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5), momentum=0.7)),
    ):  # fmt: skip
        made = k.Sequential([LC1(3, 2, input_shape=(5, 2)), L.Flatten(), L.Dense(3)])
        made.compile(optimizer, loss, metrics=["accuracy", k.metrics.TopKCategoricalAccuracy(2)])
        y = np.zeros((4, 1)) if name == "compiled" else np.zeros((4, 3))
        made.compile(optimizer, loss, metrics=["accuracy"])
        made.fit(rng.standard_normal((4, 5, 2)), y, verbose=0)
        save(folder, name, made, rng)


def compiled_for_two(folder, rng):
    """One metric for all outputs, and a loss for some of them, as Keras 2 took them."""
    x = k.Input((5, 2))
    y = L.Flatten()(LC1(3, 2)(x))
    made = k.Model(x, [L.Dense(3, name="head/a")(y), L.Dense(1, name="b")(y)])
    for name, how in (
        ("compiled_for_two", dict(loss={"head/a": "mse"}, metrics=["mae"])),
        ("compiled_for_all", dict(loss=["mse", "logcosh"], loss_weights=[0.5, 2.0],
                                  metrics=[["mse", "logcosh"], []], weighted_metrics=["mae"])),
        ("compiled_for_one", dict(loss="mse", metrics={"head/a": ["mae"]})),
        ("compiled_for_objects", dict(
            loss={"head/a": k.losses.MeanSquaredError(), "b": "mae"}, loss_weights={"b": 0.3},
            metrics={"b": k.metrics.MeanSquaredError()})),
    ):  # fmt: skip
        made.compile(k.mixed_precision.LossScaleOptimizer(k.optimizers.Adam()), **how)
        targets = [rng.standard_normal((4, n)).astype("float32") for n in (3, 1)]
        made.fit(rng.standard_normal((4, 5, 2)), targets, verbose=0)
        save(folder, name, made, rng)
        given = dict(np.load(folder / f"{name}.npz"))
        came = made.evaluate(given["x0"], targets, verbose=0, return_dict=True)
        came = {key.replace("/", "_"): value for key, value in came.items()}
        given |= {f"t{i}": each for i, each in enumerate(targets)}
        np.savez(folder / f"{name}.npz", **given, evaluated=json.dumps(came))


def parity(folder):
    """One layer and one step of training in each implementation, weights in lcmulti's layout."""
    import lcmulti
    from lcmulti.weights import layouts

    rng, arrays = np.random.default_rng(1), {}
    shapes = {"channels_last": (5, 6, 3), "channels_first": (3, 5, 6)}
    for data_format, shape in shapes.items():
        for implementation in (1, 2, 3):
            padding = "valid" if implementation == 1 else "same"
            layer = LC2(4, (2, 3), (1, 2), padding=padding, data_format=data_format,
                        implementation=implementation)  # fmt: skip
            made = k.Sequential([L.InputLayer(shape), layer])
            spec = lcmulti.LocalConvSpec(
                shape, 4, (2, 3), strides=(1, 2), data_format=data_format,
                padding="valid" if implementation == 1 else "keras_same",
            )  # fmt: skip
            layout = f"keras2-{implementation}"
            kernel = rng.standard_normal(spec.kernel_shape).astype("float32")
            if implementation > 1:  # taps that see padding alone do not exist there
                listed = layouts.export_kernel(kernel, "keras2-3", spec)
                kernel = layouts.import_kernel(listed, "keras2-3", spec)
            bias = rng.standard_normal(spec.bias_shape).astype("float32")
            layer.set_weights([
                layouts.export_kernel(kernel, layout, spec),
                layouts.export_bias(bias, layout, spec),
            ])  # fmt: skip
            x = rng.standard_normal((4, *shape)).astype("float32")
            target = rng.standard_normal((4, *made.output_shape[1:])).astype("float32")
            y = made.predict(x, verbose=0)
            made.compile(k.optimizers.legacy.SGD(0.5), "mse")
            loss = made.train_on_batch(x, target)
            after = layer.get_weights()
            one = f"{data_format}-{implementation}"
            for name, array in {
                "x": x, "target": target, "y": y, "loss": loss, "kernel": kernel, "bias": bias,
                "new_kernel": layouts.import_kernel(after[0], layout, spec),
                "new_bias": layouts.import_bias(after[1], layout, spec),
            }.items():  # fmt: skip
                arrays[f"{one}-{name}"] = array
    (folder / "parity").mkdir()
    np.savez(folder / "parity" / "parity.npz", **arrays)


def checkpoint(folder, rng):
    """What ``save_weights`` writes by default, and a `tf.train.Checkpoint`."""
    import tensorflow as tf

    folder.mkdir()
    inner = k.Sequential([L.InputLayer((6, 2)), LC1(2, 2), L.BatchNormalization(), LC1(2, 1)])
    made = k.Sequential([L.InputLayer((6, 2)), inner, L.Bidirectional(L.LSTM(2)), L.Dense(2)])
    randomize(made, rng)
    x = rng.standard_normal((4, 6, 2)).astype("float32")
    np.savez(folder / "sample.npz", x=x, y=made(x))
    (folder / "model.json").write_text(made.to_json())
    made.save_weights(folder / "ckpt")
    tf.train.Checkpoint(model=made).write(str(folder / "whole"))


def main():
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(0)
    for name, make in MODELS.items():
        k.backend.clear_session()
        save(folder, name, make(), rng)
    old_fashioned(folder)
    old_nested(folder)
    by_theano(folder)
    big_endian(folder)
    weights_only(folder, rng)
    compiled(folder, rng)
    compiled_for_two(folder, rng)
    parity(folder)
    checkpoint(folder / "checkpoint", rng)
    write_old_weights.write(folder / "weights", rng)


main()
