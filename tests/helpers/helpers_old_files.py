"""Write old files by hand, and compute in NumPy what Keras 2 computed from them."""

import json
import os

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # the lightest to import
keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")

import lcmulti_keras  # noqa: E402, F401 - for those who import this

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.normal(size=shape).astype("float32")


def write(path, groups, layers=None, training=None):
    """Write a ``.h5`` file of weights, and of a sequential model if *layers* are given."""
    with h5py.File(path, "w") as file:
        weights = file
        if layers is not None:
            config = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
            file.attrs["model_config"] = json.dumps(config)
            if training is not None:
                file.attrs["training_config"] = json.dumps(training)
            weights = file.create_group("model_weights")
        weights.attrs["keras_version"] = "2.4.0"
        weights.attrs["backend"] = "tensorflow"
        weights.attrs["layer_names"] = [name.encode() for name in groups]
        for name, arrays in groups.items():
            group = weights.create_group(name)
            group.attrs["weight_names"] = [each.encode() for each in arrays]
            for each, array in arrays.items():
                group.create_dataset(each, data=array)
    return path


def write_paths(path, arrays):
    """Write a ``.weights.h5`` file."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return path


def start(*shape):
    return {"class_name": "InputLayer", "config": {"batch_input_shape": [None, *shape]}}


def local(name, cls="LocallyConnected1D", **changes):
    """Return the configuration of a locally connected layer as Keras 2 wrote it."""
    config = {
        "name": name, "trainable": True, "dtype": "float32", "filters": 2, "kernel_size": [1],
        "strides": [1], "padding": "valid", "data_format": "channels_last",
        "activation": "linear", "use_bias": True, "implementation": 1,
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
        "bias_initializer": {"class_name": "Zeros", "config": {"dtype": "float32"}},
        "kernel_regularizer": None, "kernel_constraint": None,
    }  # fmt: skip
    return {"class_name": cls, "config": config | changes}


def arrays(name, kernel, bias):
    return {f"{name}/kernel:0": kernel, f"{name}/bias:0": bias}


def same_1d(x, dense, bias, window, stride):
    """Compute implementation 2 with padding "same".

    Position o sees *window* inputs from ``o * stride - window // 2`` on, clipped to the input.
    """
    length, outputs = dense.shape[0], dense.shape[2]
    seen = np.zeros((length, outputs))
    for o in range(outputs):
        first = o * stride - window // 2
        seen[max(0, first) : min(length, first + window), o] = 1
    return np.einsum("nlc,lcof,lo->nof", x, dense, seen) + bias


def pointwise(x, kernel, bias):
    """Compute implementation 1 with a window of 1."""
    return np.einsum("npc,pcf->npf", x, kernel) + bias


def close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-4, atol=1e-5)
