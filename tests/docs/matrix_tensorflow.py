"""Support matrix of TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from helpers_exported import run_litert
from matrix_cells import Matrix

import lcmulti

MATRIX = Matrix("tensorflow", "TensorFlow")


MATRIX.limits["*", "SavedModel, second order"] = (
    "TensorFlow saves the gradient function of a custom gradient, but not that function's own "
    "gradient (`_trace_gradient_functions` in its `saved_model/save.py`; known from "
    "[jax#6834](https://github.com/jax-ml/jax/pull/6834)). A second derivative of what was loaded "
    "raises `LookupError`; in the process that has lcmulti it works."
)


class Example(NamedTuple):
    """An operation, its weights as variables and a batch of 4."""

    row: str
    function: Callable[..., Any]
    variables: list[Any]
    x: Any

    def apply(self, x, variables=None):
        weights = self.variables if variables is None else variables
        return self.function(x, *weights, data_format="channels_last")

    def step(self, x=None):
        """Return the value, and the gradients in all variables."""
        with tf.GradientTape() as tape:
            y = self.apply(self.x if x is None else x)
            loss = tf.reduce_sum(tf.square(y))
        return y, *tape.gradient(loss, self.variables)


SHAPES = {
    "local_conv": ((8, 6, 2), (6, 4, 3, 3, 2, 3), (6, 4, 3)),
    "local_conv_low_rank": ((8, 6, 2), (2, 1, 1, 3, 3, 2, 3), (6, 4, 2), (6, 4, 3)),
    "local_conv_transpose": ((6, 4, 3), (6, 4, 3, 3, 2, 3), (8, 6, 2)),
}


def make(name):
    generator = tf.random.Generator.from_seed(0)
    shape, *weights = SHAPES[name]
    variables = [tf.Variable(generator.normal(each)) for each in weights]
    return Example(name, getattr(lcmulti, name), variables, generator.normal((4, *shape)))


for _name in SHAPES:
    MATRIX.row(f"`{_name}`")(lambda name=_name: make(name))


def close(ours, theirs, rtol=1e-4, atol=1e-4):
    ours, theirs = tf.nest.flatten(ours), tf.nest.flatten(theirs)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(tf.cast(one, "float64"), tf.cast(other, "float64"), rtol, atol)


@MATRIX.column("function")
def function(example):
    signature = [tf.TensorSpec((None, *example.x.shape[1:]))]
    step = tf.function(example.step, input_signature=signature)
    close(step(example.x), example.step())
    close(step(example.x[:3]), example.step(example.x[:3]))


@MATRIX.column("XLA")
def xla(example):
    close(tf.function(example.step, jit_compile=True)(example.x), example.step())


@MATRIX.column("second order")
def second_order(example):
    def twice():
        with tf.GradientTape() as outer:
            gradient = example.step()[1]
            loss = tf.reduce_sum(tf.square(gradient))
        return outer.gradient(loss, example.variables[0])

    close(tf.function(twice)(), twice(), atol=1e-1)
    # Compare with central differences along a direction, which are exact to third order.
    variable, before = example.variables[0], tf.identity(example.variables[0])
    along = tf.sin(tf.reshape(tf.range(tf.size(before), dtype="float32"), before.shape))
    slope = tf.reduce_sum(twice() * along)
    ends = []
    for sign in (1, -1):
        variable.assign(before + sign * 1e-2 * along)
        ends.append(tf.reduce_sum(tf.square(example.step()[1])))
    variable.assign(before)
    close(slope, (ends[0] - ends[1]) / 2e-2, rtol=1e-2)


@MATRIX.column("forward mode")
def forward_mode(example):
    """The tangent is a difference of two values, because the operation is affine in ``x``."""
    direction = tf.sin(tf.reshape(tf.range(tf.size(example.x), dtype="float32"), example.x.shape))
    with tf.autodiff.ForwardAccumulator(example.x, direction) as accumulator:
        y = example.apply(example.x)
    close(accumulator.jvp(y), example.apply(example.x + direction) - y)


@MATRIX.column("`vectorized_map`")
def vectorized_map(subject):
    """Map over samples, over gradients of each sample, and over the weights of several models."""

    def one(x):
        return subject.apply(x[None])[0]

    def gradients(x):
        return subject.step(x[None])[1:]

    close(tf.vectorized_map(one, subject.x), subject.apply(subject.x))
    one_by_one = zip(*map(gradients, subject.x), strict=True)
    close(tf.vectorized_map(gradients, subject.x), list(map(tf.stack, one_by_one)))
    models = [tf.stack([each, 2 * each, -each]) for each in subject.variables]
    together = tf.vectorized_map(lambda weights: subject.apply(subject.x, weights), models)
    close(list(together), [subject.apply(subject.x, [m[i] for m in models]) for i in range(3)])


@MATRIX.column("Jacobians")
def jacobians(subject):
    """Compare Jacobians of seven outputs of each sample with a gradient for each output."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(subject.x)
        some = tf.reshape(subject.apply(subject.x), (4, -1))[:, :7]
    rows = [tf.reshape(tf.one_hot(i, 28), (4, 7)) for i in range(28)]
    found = []
    for each in (subject.x, *subject.variables):
        found.append(tape.jacobian(some, each))
        one_by_one = tf.stack([tape.gradient(some, each, row) for row in rows])
        close(tf.reshape(found[-1], one_by_one.shape), one_by_one)
    own = tf.stack([found[0][i, :, i] for i in range(4)])
    close(tape.batch_jacobian(some, subject.x), own)


class Module(tf.Module):
    def __init__(self, example):
        super().__init__()
        self.made = example.variables
        signature = [tf.TensorSpec((None, *example.x.shape[1:]))]
        self.call = tf.function(example.apply, input_signature=signature)


FRESH = """
import contextlib, sys, numpy as np, tensorflow as tf
folder, order = sys.argv[1], int(sys.argv[2])
loaded, x = tf.saved_model.load(folder), tf.constant(np.load(folder + "/x.npy"))
assert "lcmulti" not in sys.modules
with tf.GradientTape() if order == 2 else contextlib.nullcontext() as outer:
    with tf.GradientTape() as tape:
        y = loaded.call(x)
        loss = tf.reduce_sum(tf.square(y))
    gradient = tape.gradient(loss, loaded.made[0])
    twice = tf.reduce_sum(tf.square(gradient))
found = [y, gradient]
if order == 2:
    found.append(outer.gradient(twice, loaded.made[0]))
np.savez(folder + "/found.npz", *found)
"""


def saved(example, order):
    """Save a module here, and run and differentiate it in a process that has only TensorFlow."""
    with tempfile.TemporaryDirectory() as folder:
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
        tf.saved_model.save(Module(example), folder, options=options)
        np.save(f"{folder}/x.npy", example.x.numpy())
        command = [sys.executable, "-c", FRESH, folder, str(order)]
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr[-1500:]
        with np.load(f"{folder}/found.npz") as found:
            return [found[name] for name in found]


@MATRIX.column("SavedModel and its gradient", slow=True)
def saved_model(example):
    close(saved(example, 1), example.step()[:2])


@MATRIX.column("SavedModel, second order", slow=True)
def saved_model_twice(example):
    with tf.GradientTape() as outer:
        gradient = example.step()[1]
        loss = tf.reduce_sum(tf.square(gradient))
    close(saved(example, 2)[2], outer.gradient(loss, example.variables[0]), rtol=1e-3, atol=1e-1)


@MATRIX.column("LiteRT, builtins only", slow=True)
def litert(example):
    module = Module(example)
    function = tf.function(example.apply, input_signature=[tf.TensorSpec(example.x.shape)])
    concrete = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = False
    close(run_litert(converter.convert(), example.x.numpy()), example.apply(example.x))


MIRRORED = """
import sys
import tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from matrix_tensorflow import close, make
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
expected = make(sys.argv[1]).step()
with strategy.scope():
    example = make(sys.argv[1])

@tf.function
def step(parts):
    def replica():
        part = parts[tf.distribute.get_replica_context().replica_id_in_sync_group]
        y, *gradients = example.step(part)
        return tf.distribute.get_replica_context().all_reduce("SUM", gradients)
    return strategy.run(replica)

found = step(tf.stack(tf.split(example.x, 2)))
for replica in range(2):
    mine = [strategy.experimental_local_results(each)[replica] for each in found]
    close(mine, list(expected[1:]), rtol=1e-3, atol=1e-2)
"""


@MATRIX.column("MirroredStrategy", slow=True)
def mirrored(example):
    folder = Path(__file__).parent
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(folder.with_name("helpers"))])
    }
    command = [sys.executable, "-c", MIRRORED, example.row]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=env)
    assert run.returncode == 0, run.stderr[-2500:]


@MATRIX.column("mixed precision")
def mixed_precision(example):
    """Keep variables in float32 and compute in half types, as Keras' policy does."""
    for dtype in ("bfloat16", "float16"):
        with tf.GradientTape() as tape:
            halves = [tf.cast(each, dtype) for each in example.variables]
            y = example.apply(tf.cast(example.x, dtype), halves)
            loss = tf.reduce_mean(tf.square(tf.cast(y, "float32")))
        assert y.dtype == dtype
        gradients = tape.gradient(loss, example.variables)
        assert all(each.dtype == tf.float32 for each in gradients)
        close(y, example.apply(example.x), rtol=0.05, atol=0.2)
