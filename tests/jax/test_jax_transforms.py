"""The JAX backend: every way JAX differentiates, maps, traces and exports the operation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from helpers_jax import (  # noqa: E402
    TRANSFORMED,
    _x64,  # noqa: F401 - a fixture
    arrays_of,
    cases,
    naive,
    near,
    operation,
    random,
    spec_of,
)
from jax import export  # noqa: E402
from jax.sharding import PartitionSpec  # noqa: E402
from jax_releases import automatic_mesh  # noqa: E402
from lcmulti_jax.compat import shard_map  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti import plugins  # noqa: E402
from lcmulti.choosing import framework  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.sampled]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(("name", "implementation"), cases(TRANSFORMED))
def test_derivatives_of_both_modes_and_orders(name, implementation, dtype):
    spec = spec_of(name)
    x, kernel, dy = arrays_of(spec, dtype=dtype)
    tangents = random(1, x.shape, kernel.shape, dtype=dtype)

    def derivatives(function):
        def first(x, kernel, dy):
            return jax.vjp(function, x, kernel)[1](dy)

        value, tangent = jax.jvp(function, (x, kernel), tangents)
        gradients, pull_back = jax.vjp(first, x, kernel, dy)
        forward_over_reverse = jax.jvp(first, (x, kernel, dy), (*tangents, value))
        return value, tangent, gradients, pull_back(tangents), forward_over_reverse

    actual = jax.jit(lambda: derivatives(operation(spec, implementation)))()
    near(actual, jax.jit(lambda: derivatives(naive(spec)))())


@pytest.mark.parametrize(("name", "implementation"), cases(TRANSFORMED))
def test_finite_differences_of_the_gradient(name, implementation):
    spec = spec_of(name)
    x, kernel, _ = arrays_of(spec, batch=1)
    run = operation(spec, implementation)
    gradient = jax.jit(jax.grad(lambda x, kernel: jnp.sin(run(x, kernel)).sum(), (0, 1)))
    tangents = random(1, x.shape, kernel.shape)
    step = 1e-6
    ahead = gradient(x + step * tangents[0], kernel + step * tangents[1])
    behind = gradient(x - step * tangents[0], kernel - step * tangents[1])
    expected = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
    near(jax.jvp(gradient, (x, kernel), tangents)[1], expected, rtol=1e-6)


def test_hessian():
    spec = lcmulti.LocalConvSpec((4, 2), 2, 2, data_format="channels_last")
    x, kernel, _ = arrays_of(spec, batch=1)

    def hessian(function):
        loss = lambda x, kernel: (function(x, kernel) ** 3).sum()  # noqa: E731
        return jax.jit(jax.hessian(loss, (0, 1)))(x, kernel)

    near(hessian(operation(spec)), hessian(naive(spec)))


@pytest.mark.parametrize("axes", [(0, None), (None, 1), (2, 0), (-1, -1)], ids=str)
@pytest.mark.parametrize(("name", "implementation"), cases(("grouped", "disjoint rest")))
def test_vmap_of_each_argument_and_of_the_gradient(name, implementation, axes):
    spec = spec_of(name)
    arrays = list(arrays_of(spec)[:2])
    for i, axis in enumerate(axes):
        if axis is not None:
            arrays[i] = jnp.stack([arrays[i], 2 * arrays[i] - 1, -arrays[i]], axis)

    def both(function):
        loss = lambda x, kernel: jnp.sin(function(x, kernel)).sum()  # noqa: E731
        mapped = jax.vmap(function, axes)(*arrays)
        gradients = jax.vmap(jax.grad(loss, (0, 1)), axes)(*arrays)
        of_mapped = jax.grad(lambda *a: jax.vmap(loss, axes)(*a).sum(), (0, 1))(*arrays)
        return mapped, gradients, of_mapped

    actual = jax.jit(lambda: both(operation(spec, implementation)))()
    near(actual, jax.jit(lambda: both(naive(spec)))())


def test_nested_vmap_of_a_forward_derivative():
    spec = spec_of("disjoint 1d")
    (xs, kernels) = random(0, (3, 2, 2, *spec.input_shape), (3, *spec.kernel_shape))

    def nested(function):
        def tangent(x, kernel):
            return jax.jvp(lambda x: function(x, kernel * x.sum()), (x,), (x,))[1]

        return jax.vmap(jax.vmap(tangent, (0, None)))(xs, kernels)

    near(jax.jit(lambda: nested(operation(spec)))(), jax.jit(lambda: nested(naive(spec)))())


@pytest.mark.parametrize("transform", [jax.checkpoint, lambda f: f], ids=["remat", "plain"])
def test_within_scan_and_remat(transform):
    spec = lcmulti.LocalConvSpec((6, 2), 2, 3, padding="same", data_format="channels_last")
    x, kernels = random(0, (2, *spec.input_shape), (3, *spec.kernel_shape))

    def loss(function, x, kernels):
        def layer(x, kernel):
            return jnp.tanh(function(x, kernel)), None

        return jax.lax.scan(transform(layer), x, kernels)[0].sum()

    gradients = jax.jit(jax.grad(partial(loss, operation(spec)), (0, 1)))(x, kernels)
    near(gradients, jax.jit(jax.grad(partial(loss, naive(spec)), (0, 1)))(x, kernels))


@pytest.mark.parametrize(("name", "implementation"), cases(TRANSFORMED))
def test_export_with_a_symbolic_batch(name, implementation):
    pytest.importorskip("flatbuffers")  # what JAX writes exported programs with
    spec = spec_of(name)
    run = operation(spec, implementation)

    def step(x, kernel):
        return jax.value_and_grad(lambda x, kernel: (run(x, kernel) ** 2).sum(), (0, 1))(x, kernel)

    x_shape = export.symbolic_shape(f"batch, {', '.join(map(str, spec.input_shape))}")
    shapes = [jax.ShapeDtypeStruct(s, "float64") for s in (x_shape, spec.kernel_shape)]
    restored = export.deserialize(export.export(jax.jit(step))(*shapes).serialize())
    for batch in (1, 5):
        x, kernel, _ = arrays_of(spec, batch)
        near(restored.call(x, kernel), step(x, kernel))


def test_symbolic_batch_is_sized_as_unknown():
    backend = plugins.load_backend("jax")
    seen = []

    def run(x):
        seen.append(backend.facts(x))
        return x

    export.export(jax.jit(run))(jax.ShapeDtypeStruct(export.symbolic_shape("n, 3"), "float32"))
    assert seen[0].shape == (None, 3)


@pytest.mark.parametrize("wrap", [
    jax.jit, jax.grad, jax.vmap, jax.jacfwd, jax.jacrev, jax.make_jaxpr, jax.checkpoint,
    lambda f: partial(jax.eval_shape, f), lambda f: lambda x: jax.linearize(f, x),
    lambda f: export.export(jax.jit(f)),
])  # fmt: skip
def test_tracers_belong_to_jax(wrap):
    seen = []

    def record(x):
        seen.append(framework.backend_of((type(x), np.ndarray, type(None)), None, "numpy"))
        return x.sum()

    wrap(record)(jnp.ones((2, 3)) if wrap is not jax.grad else jnp.ones(3))
    assert seen
    assert set(seen) == {("jax", False)}


def test_backend_derivatives_do_not_conjugate():
    backend = plugins.load_backend("jax")
    (x,) = random(0, (3,), dtype="complex128")
    value, (gradient,) = backend.vjp(lambda x: 2j * x, (x,), jnp.ones_like(x))
    near((value, gradient), (2j * x, np.full(3, 2j)))
    near(backend.jvp(lambda x: 2j * x, (x,), (jnp.ones_like(x),)), (2j * x, np.full(3, 2j)))


def test_shard_map_over_the_batch():
    mesh = automatic_mesh((1,), ("data",))
    data, whole = PartitionSpec("data"), PartitionSpec()
    spec = spec_of("grouped")
    x, kernel, _ = arrays_of(spec)

    def step(function):
        def loss(x, kernel):
            return (function(x, kernel) ** 2).sum()

        return loss

    def sharded(x, kernel):
        run = shard_map(operation(spec), mesh=mesh, in_specs=(data, whole), out_specs=data)
        return run(x, kernel)

    gradients = jax.jit(jax.grad(step(sharded), (0, 1)))(x, kernel)
    near(gradients, jax.grad(step(naive(spec)), (0, 1))(x, kernel))


@pytest.mark.slow
def test_as_users_compile():
    """XLA compiles with all optimisations, as for users. All other tests use few of them."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    chosen = "test_gradients and auto and float32 and (groups or same)"
    command = [sys.executable, "-m", "lcmulti.conformance", "jax", "-k", chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    passed, failed = re.search(r"(\d+) passed .*, (\d+) failed", done.stdout).groups()
    assert int(passed) >= 15 and failed == "0", done.stdout[-3000:]
