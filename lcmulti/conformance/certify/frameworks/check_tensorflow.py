"""Checks for TensorFlow: its gradient checker, convolution, forward accumulator and graphs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lcmulti
from lcmulti.conformance.calls import MAPS
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.check_properties import Draw, holds
from lcmulti.conformance.certify.expectation import Term, combined, expectation, without_bias
from lcmulti.conformance.certify.geometries import TINY, TRANSFORMED
from lcmulti.conformance.certify.large import expectation_of_any_size
from lcmulti.conformance.certify.random_geometries import Examples
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject
from lcmulti.conformance.inputs import draw
from lcmulti.dtypes import DTYPES
from lcmulti.operations.local_conv import local_conv
from lcmulti.types import Array

some = pytest.mark.geometries(TRANSFORMED)
tiny = pytest.mark.parametrize("name", TINY)


def _checked(function: Any, arrays: tuple[Array, ...], dtype: str) -> None:
    """Compare TensorFlow's theoretical Jacobian with its numeric one.

    The function is linear in each argument, so only rounding makes a central difference inexact: it
    is the difference of two sums, each within its bound, divided by twice the step.
    """
    step = 2.0**-10
    theory, numeric = tf.test.compute_gradient(function, arrays, delta=step)
    products = sum(int(tf.size(each)) for each in arrays)
    largest = max(float(np.abs(each).max()) for each in arrays) + step
    allowed = (products + 2) * DTYPES[dtype].roundoff * products * largest**2 / step
    for ours, other in zip(theory, numeric, strict=True):
        error = float(np.abs(ours - other).max())
        assert error <= allowed, f"theoretical and numeric Jacobian differ by {error}"


@tiny
def test_compute_gradient(subject: Subject, name: str) -> None:
    """`tf.test.compute_gradient` for the value."""
    subject.require(TINY[name], "float64")
    _checked(subject.call(TINY[name]), subject.arrays(draw(TINY[name], "float64")), "float64")


@tiny
def test_compute_gradient_of_the_gradients(subject: Subject, name: str) -> None:
    """`tf.test.compute_gradient` for each gradient: second order."""
    case = without_bias(TINY[name])
    subject.require(case, "float64")
    there = draw(case, "float64").each(subject.array)

    def gradient(watched: Any, other: Any, dy: Array, place: int) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(watched)
            y = subject.call(case)(*((watched, other) if place == 0 else (other, watched)))
        return tape.gradient(y, watched, dy)

    pairs = (there.x, there.kernel), (there.kernel, there.x)
    for place, (watched, other) in enumerate(pairs):
        _checked(
            lambda other, dy, watched=watched, place=place: gradient(watched, other, dy, place),
            (other, there.dy), "float64",
        )  # fmt: skip


@some
def test_forward_accumulator(subject: Subject, case: Case, dtype: str) -> None:
    """`tf.autodiff.ForwardAccumulator` in one argument at a time."""
    subject.require(case, dtype)
    inputs = expectation(case.name, dtype).inputs
    arrays = subject.arrays(inputs)
    for place in (0, 1):
        # The tangent of a linear function is the function of the tangent.
        with tf.autodiff.ForwardAccumulator(arrays[place], arrays[place]) as accumulator:
            y = subject.call(case)(*arrays)
        value, limit = combined(case, dtype, Term("forward", inputs.x, inputs.kernel))
        subject.verify("tangent", accumulator.jvp(y), arrays[0], value, limit)


def test_equal_to_convolution(subject: Subject, examples: Examples) -> None:
    """With all axes shared, the result is that of `tf.nn.convolution`."""

    def check(case: Case, draw: Draw, a: int, b: int) -> None:
        spec = case.spec
        both = any(s > 1 for s in spec.strides) and any(d > 1 for d in spec.dilation)
        if both or spec.groups > 1:
            return  # TensorFlow has neither on a CPU
        x, kernel = draw((case.batch, *spec.input_shape)), draw(spec.kernel_shape)
        expected = tf.nn.convolution(
            np.pad(x, ((0, 0), *spec.padding, (0, 0))), kernel.reshape(kernel.shape[spec.ndim :]),
            spec.strides, "VALID", dilations=spec.dilation,
        )  # fmt: skip
        y = subject.owner.to_numpy(subject.call(case)(subject.array(x), subject.array(kernel)))
        _, limit = combined(case, CORE_DTYPE, Term("forward", x, kernel))
        # Both are within a bound of the exact result.
        subject.verify_host("y", y, expected.numpy().astype(np.float64), 2 * limit)

    holds(subject, examples, check, kinds=("convolution",))


@pytest.mark.parametrize("compiled", (False, True), ids=("graph", "xla"))
@some
def test_function(subject: Subject, case: Case, dtype: str, compiled: bool) -> None:
    """Value and gradients within a `tf.function`, with a known and with an unknown batch."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    arrays, dy = subject.arrays(known.inputs), subject.array(known.inputs.dy)

    def value_and_gradients(dy: Array, *arrays: Array) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            y = subject.call(case)(*arrays)
        return y, *tape.gradient(y, arrays, dy)

    any_batch = [tf.TensorSpec([None, *each.shape[1:]], each.dtype) for each in (dy, arrays[0])]
    weights = [tf.TensorSpec(each.shape, each.dtype) for each in arrays[1:]]
    for signature in (None, [*any_batch, *weights]):
        if compiled and signature is not None:
            continue  # XLA compiles for known shapes
        function = tf.function(
            value_and_gradients, input_signature=signature, jit_compile=compiled, autograph=False
        )
        for name, got in zip(MAPS, function(dy, *arrays), strict=False):
            value, limit = getattr(known.values, name), getattr(known.limits, name)
            subject.verify(name, got, arrays[0], value, limit)


@some
def test_many_samples_in_a_graph(subject: Subject, case: Case, dtype: str) -> None:
    """A `tf.function` with an unknown batch is right for few samples and for 1,500."""
    subject.require(case, dtype)
    function = None
    for samples in (case.batch, 1500):
        known = expectation_of_any_size(replace(case, batch=samples), dtype)
        arrays = subject.arrays(known.inputs)
        if function is None:
            signature = [tf.TensorSpec([None, *arrays[0].shape[1:]], arrays[0].dtype)]
            signature += [tf.TensorSpec(each.shape, each.dtype) for each in arrays[1:]]
            function = tf.function(subject.call(case), input_signature=signature, autograph=False)
        y = function(*arrays)
        subject.verify(f"y of {samples}", y, arrays[0], known.values.forward, known.limits.forward)


@some
def test_switches(subject: Subject, case: Case, dtype: str) -> None:
    """Switches of TensorFlow that a user may set do not change results."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    arrays, dy = subject.arrays(known.inputs), subject.array(known.inputs.dy)
    switches = {
        "TensorFloat-32": (
            tf.config.experimental.tensor_float_32_execution_enabled,
            tf.config.experimental.enable_tensor_float_32_execution,
        ),
        "functions run eagerly": (
            tf.config.functions_run_eagerly, tf.config.run_functions_eagerly,
        ),
    }  # fmt: skip
    for what, (read, write) in switches.items():
        before = read()
        write(not before)
        try:
            value, grads = subject.owner.vjp(subject.call(case), arrays, dy)
        finally:
            write(before)
        for name, got in zip(MAPS, (value, *grads), strict=False):
            limit = getattr(known.limits, name)
            subject.verify(
                f"{name} with {what}", got, arrays[0], getattr(known.values, name), limit
            )


@some
def test_variables(subject: Subject, case: Case, dtype: str) -> None:
    """Variables are read at the time of the call; a persistent tape gives gradients twice."""
    subject.require(case, dtype)
    known = expectation(case.name, dtype)
    x, *weights = subject.arrays(known.inputs)
    variables = [tf.Variable(tf.zeros_like(each)) for each in weights]
    for variable, weight in zip(variables, weights, strict=True):
        variable.assign(weight)
    dy = subject.array(known.inputs.dy)
    with tf.GradientTape(persistent=True) as tape:
        y = subject.call(case)(x, *variables)
    subject.verify("y", y, x, known.values.forward, known.limits.forward)
    for name, variable in zip(MAPS[2:], variables, strict=False):
        for _ in range(2):
            got = tape.gradient(y, variable, dy)
            value, limit = getattr(known.values, name), getattr(known.limits, name)
            subject.verify(name, got, x, value, limit)


def test_beyond_32_bits(subject: Subject) -> None:
    """A graph with more than 2**31 elements has results of the right shape."""
    if subject.implementation != AUTO:
        pytest.skip("graphs are planned for by `auto`")

    def call(x: Array, kernel: Array) -> Array:
        return local_conv(x, kernel, strides=2, data_format="channels_last")

    shapes = (5, 70_001, 70_003, 3), (34_999, 35_000, 5, 4, 3, 2)
    # Only traced, so that no memory is needed.
    with lcmulti.config(max_workspace=2**40), tf.Graph().as_default():
        y = call(*(tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes))
    assert tuple(y.shape) == (5, 34_999, 35_000, 2)
