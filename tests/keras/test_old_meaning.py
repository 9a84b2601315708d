"""An old file keeps its meaning, whatever class replaces Keras 2's and whoever wrote the file."""

import warnings

import numpy as np
import pytest
from helpers_old_files import (
    arrays,
    close,
    keras,
    lcmulti_keras,
    local,
    pointwise,
    random,
    same_1d,
    start,
    write,
)

from lcmulti.errors import FileError, ShapeError


class Sheet(lcmulti_keras.LocallyConnected1D):
    """A class derived from a layer, without changes."""


class Changed(lcmulti_keras.LocallyConnected1D):
    """A class with a required argument of its own."""

    def __init__(self, gain, filters, kernel_size, **kwargs):
        super().__init__(filters, kernel_size, **kwargs)
        self.gain = gain

    def get_config(self):
        return super().get_config() | {"gain": self.gain}


class FromConfig(lcmulti_keras.LocallyConnected1D):
    """A class that reads its configuration itself, as Keras serialises it."""

    @classmethod
    def from_config(cls, config):
        config["kernel_initializer"] = keras.initializers.deserialize(config["kernel_initializer"])
        config["activation"] = keras.activations.get(config["activation"])
        return cls(**config)


STANDING_IN = {
    "none": ("LocallyConnected1D", None),
    "under its own name": ("LocallyConnected1D", lcmulti_keras.LocallyConnected1D),
    "a subclass": ("Sheet", Sheet),
    "a subclass, registered": ("Custom>Sheet", Sheet),
    "a subclass with an argument more": ("Changed", Changed),
    "a subclass that reads its configuration": ("FromConfig", FromConfig),
}


@pytest.mark.parametrize("case", STANDING_IN)
def test_same_hard_sigmoid_and_constraints(case, tmp_path):
    name, cls = STANDING_IN[case]
    window, stride, length = 2, 1, 6
    x, dense, bias = random(4, length, 2), random(length, 2, length, 2), random(length, 2)
    more = {"gain": 2.0} if cls is Changed else {}
    constraint = {"class_name": "MaxNorm", "config": {"max_value": 2, "axis": 1}}
    node = local(
        "lc", name, kernel_size=[window], strides=[stride], padding="same", implementation=2,
        activation="hard_sigmoid", kernel_constraint=constraint, **more,
    )  # fmt: skip
    path = write(tmp_path / "m.h5", {"lc": arrays("lc", dense, bias)}, [start(length, 2), node])
    custom = {name.rpartition(">")[2]: cls} if cls else None
    model = lcmulti_keras.load_legacy_model(path, custom_objects=custom)
    wanted = np.clip(0.2 * same_1d(x, dense, bias, window, stride) + 0.5, 0, 1)
    close(model(x), wanted)
    layer = model.layers[-1]
    assert type(layer) is (cls or lcmulti_keras.LocallyConnected1D)
    assert layer.kernel_constraint.axis == [2]  # the channels
    assert layer.get_config()["kernel_initializer"]["class_name"] == "GlorotUniform"


class Holder(keras.layers.Layer):
    """A class that makes the layers and functions in its configuration itself."""

    def __init__(self, inner, more, gate, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.deserialize(inner)
        self.more = [keras.layers.deserialize(each) for each in more["layers"]]
        self.gate = keras.activations.get(gate)

    def build(self, shape):
        for each in (self.inner, *self.more):
            each.build(shape)

    def call(self, x):
        for each in (self.inner, *self.more):
            x = each(x)
        return self.gate(x)


@pytest.mark.parametrize("own", [{}, {"LocallyConnected1D": lcmulti_keras.LocallyConnected1D}])
def test_layers_that_a_class_of_the_caller_s_holds(own, tmp_path):
    x, stored = random(3, 6, 2), {}
    for name in ("a", "b"):
        found = arrays(f"holder/{name}", random(6, 2, 6, 2), random(6, 2))
        stored |= found
    a, b = (local(name, kernel_size=[2], padding="same", implementation=2) for name in "ab")
    config = {"name": "holder", "inner": a, "more": {"layers": [b]}, "gate": "hard_sigmoid"}
    node = {"class_name": "Custom>Holder", "config": config}
    path = write(tmp_path / "m.h5", {"holder": stored}, [start(6, 2), node])
    model = lcmulti_keras.load_legacy_model(path, custom_objects={"Holder": Holder} | own)
    values = list(stored.values())
    wanted = same_1d(same_1d(x, *values[:2], 2, 1), *values[2:], 2, 1)
    close(model(x), np.clip(0.2 * wanted + 0.5, 0, 1))


@pytest.mark.parametrize("window, stride, differs", [(2, 1, 1), (3, 2, 1), (3, 1, 0)])
def test_same_as_it_stood_in_the_code(window, stride, differs, tmp_path):
    length, outputs = 6, -(-6 // stride)
    x, dense, bias = random(3, length, 2), random(length, 2, outputs, 2), random(outputs, 2)
    path = write(tmp_path / "w.h5", {"lc": arrays("lc", dense, bias)})
    for padding in ("same", "keras_same"):
        layer = lcmulti_keras.LocallyConnected1D(2, window, stride, padding=padding, name="lc")
        model = keras.Sequential([keras.Input((length, 2)), layer])
        if padding == "same" and differs:
            with pytest.raises(FileError, match="Make it with padding='keras_same'"):
                lcmulti_keras.load_legacy_weights(model, path)
        else:
            lcmulti_keras.load_legacy_weights(model, path)
            close(model(x), same_1d(x, dense, bias, window, stride))


def test_implementation_1_pads_nothing(tmp_path):
    # With windows of 2 and strides of 2, both rules have three windows, at different inputs.
    path = write(tmp_path / "w.h5", {"lc": arrays("lc", random(3, 4, 2), random(3, 2))})
    layer = lcmulti_keras.LocallyConnected1D(2, 2, 2, padding="keras_same")
    model = keras.Sequential([keras.Input((6, 2)), layer])
    with pytest.raises(FileError, match="implementation=1 does, which pads nothing"):
        lcmulti_keras.load_legacy_weights(model, path)


@pytest.mark.parametrize("stored", ["BatchNormalizationV1", "BatchNormalizationV2"])
@pytest.mark.parametrize("custom", [False, True])
def test_batch_normalization_of_tensorflow_1(stored, custom, tmp_path):
    kernel, bias, x = random(5, 2, 2), random(5, 2), random(3, 5, 2)
    gamma, beta, mean, variance = np.abs(random(4, 2)) + 0.5
    node = {"class_name": stored, "config": {"name": "bn", "axis": [2], "epsilon": 0.001}}
    of_bn = {"bn/gamma:0": gamma, "bn/beta:0": beta,
             "bn/moving_mean:0": mean, "bn/moving_variance:0": variance}  # fmt: skip
    groups = {"lc": arrays("lc", kernel, bias), "bn": of_bn}
    path = write(tmp_path / "m.h5", groups, [start(5, 2), local("lc"), node])
    objects = {stored: keras.layers.BatchNormalization} if custom else None
    model = lcmulti_keras.load_legacy_model(path, custom_objects=objects)
    y = pointwise(x, kernel, bias)
    close(model(x), (y - mean) / np.sqrt(variance + 0.001) * gamma + beta)


def cudnn(gates, units, kernel, recurrent, bias):
    """Return an LSTM's or GRU's weights as cuDNN's layers hold them."""
    kernels = [np.ravel(part.T).reshape(part.shape) for part in np.hsplit(kernel, gates)]
    recurrents = [part.T for part in np.hsplit(recurrent, gates)]
    biases = np.concatenate([0.25 * bias, 0.75 * bias]) if gates == 4 else bias.ravel()
    return np.hstack(kernels), np.hstack(recurrents), biases


@pytest.mark.parametrize("kind, gates", [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize("both_ways", [False, True])
def test_cudnn(kind, gates, both_ways, tmp_path):
    units, x = 3, random(4, 5, 2)
    layer = getattr(keras.layers, kind)(units)
    layer = keras.layers.Bidirectional(layer, name="r") if both_ways else layer
    model = keras.Sequential([keras.Input((5, 2)), layer])
    ways, stored = ("forward_r", "backward_r") if both_ways else ("r",), {}
    new = []
    for way in ways:
        bias = random(4 * units) if gates == 4 else random(2, 3 * units)
        new += [random(2, gates * units), random(units, gates * units), bias]
        for name, array in zip(
            ("kernel", "recurrent_kernel", "bias"), cudnn(gates, units, *new[-3:]), strict=True
        ):
            stored[f"{'r/' if both_ways else ''}{way}/{name}:0"] = array
    model.set_weights(new)
    node = {"class_name": f"CuDNN{kind}", "config": {"name": "r", "units": units}}
    if both_ways:
        node = {"class_name": "Bidirectional", "config": {"name": "r", "layer": node}}
    path = write(tmp_path / "m.h5", {"r": stored}, [start(5, 2), node])
    close(lcmulti_keras.load_legacy_model(path)(x), model(x))
    wanted = model(x)
    model.set_weights([0 * each for each in new])
    lcmulti_keras.load_legacy_weights(model, path)
    close(model(x), wanted)


FUNCTION = {"module": "builtins", "class_name": "function", "config": "mean_absolute_error",
            "registered_name": "function", "shared_object_id": 140703744739904}  # fmt: skip
LOG = "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    "training, expected",
    [
        ({"loss": LOG, "metrics": ["ce"]}, {"loss", "ce"}),
        ({"loss": FUNCTION, "metrics": [FUNCTION]}, {"loss", "mean_absolute_error"}),
        ({"loss": {"d": "mse"}, "loss_weights": {"d": 3.0}, "metrics": [["mse"]]}, {"loss", "mse"}),
    ],
)
def test_compiled_as_it_was(training, expected, tmp_path):
    kernel, bias, x = random(2, 3), random(3), random(5, 2)
    node = {"class_name": "Dense", "config": {"name": "d", "units": 3, "activation": "softmax"}}
    training = {"optimizer_config": {"class_name": "SGD", "config": {}}} | training
    path = write(tmp_path / "m.h5", {"d": arrays("d", kernel, bias)}, [start(2), node], training)
    model = lcmulti_keras.load_legacy_model(path)
    y = np.exp(x @ kernel + bias)
    y /= y.sum(axis=1, keepdims=True)
    target = np.arange(5) % 3 if training["loss"] == LOG else random(5, 3)
    came = model.evaluate(x, target, verbose=0, return_dict=True)
    error = 0 if training["loss"] == LOG else y - target
    values = {
        "ce": -np.log(y[np.arange(5), np.arange(5) % 3]).mean(),
        "mae": np.abs(error).mean(), "mse": np.square(error).mean(),
    }  # fmt: skip
    values |= {"mean_absolute_error": values["mae"]}
    (metric,) = expected - {"loss"}
    weight = 3 if "loss_weights" in training else 1
    assert came.keys() == expected
    close([came["loss"], came[metric]], [weight * values[metric], values[metric]])


def test_keras_own_errors_name_what_takes_old_arrays(tmp_path):
    dense, bias = random(6, 2, 6, 2), random(6, 2)
    layer = lcmulti_keras.LocallyConnected1D(2, 2, padding="keras_same", name="lc")
    model = keras.Sequential([keras.Input((6, 2)), layer])
    path = write(tmp_path / "w.h5", {"lc": arrays("lc", dense, bias)})
    with pytest.raises(ShapeError, match="is Keras 2's 'keras2-2'"):
        layer.set_weights([dense, bias])
    for call in (
        lambda: layer.set_weights([dense, bias]),
        lambda: model.set_weights([dense, bias]),
        lambda: model.load_weights(path),
    ):
        with pytest.raises(ValueError, match=r"lcmulti\.layouts\.import_kernel") as caught:
            call()
        assert "lcmulti_keras.load_legacy_weights(model, path)" in str(caught.value)
    # Keras would skip the kernel and take the bias, whose order may be another.
    for by_name in ({}, {"by_name": True}):
        before = [np.array(each) for each in model.get_weights()]
        with pytest.raises(ShapeError, match="is Keras 2's 'keras2-2'"):
            model.load_weights(path, skip_mismatch=True, **by_name)
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(new, old)
    other = keras.Sequential([keras.Input((6, 2)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="not compatible") as caught:
        other.set_weights([random(3, 2), random(3)])
    assert "lcmulti" not in str(caught.value)


def test_keras_own_loading_skips_what_it_skips_of_convolutions(tmp_path):
    """Weights of our own layout for another geometry are left out, with Keras' warning."""

    def model(filters, name):
        layer = lcmulti_keras.LocallyConnected1D(filters, 2, name=name)
        return keras.Sequential([keras.Input((6, 2)), layer, keras.layers.Dense(3, name="d")])

    saved = model(4, "lc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras advises its newer format
        saved.save(tmp_path / "m.h5")
    for filters, name, warned in ((4, "lc", 0), (5, "lc", 3), (4, "other", 0)):
        other = model(filters, name)
        start = np.array(other.layers[0].kernel)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            other.load_weights(tmp_path / "m.h5", by_name=True, skip_mismatch=True)
        assert [str(each.message).split(" for ")[0] for each in told] == [
            "Skipping loading weights"
        ] * warned
        is_taken = (filters, name) == (4, "lc")
        expected = np.array(saved.layers[0].kernel) if is_taken else start
        np.testing.assert_array_equal(np.array(other.layers[0].kernel), expected)
