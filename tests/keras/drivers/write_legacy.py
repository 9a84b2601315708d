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
from legacy_models import LC1, LC2, MODELS, L


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
