"""JAX's switches for debugging and Taylor mode work as with JAX's own operations."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from helpers_jax import (  # noqa: E402
    arrays_of,
    cases,
    naive,
    near,
    operation,
    random,
    spec_of,
)
from jax.experimental.jet import jet  # noqa: E402
from jax_releases import enable_x64  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti import plugins  # noqa: E402

pytestmark = pytest.mark.jax
SLOW = pytest.mark.slow
# Older releases name the compiled function around it, if that has a name.
FOUND = r"nan\) encountered in " + ("local_conv" if hasattr(jax, "typeof") else "jit")


@pytest.fixture(autouse=True)
def _x64():
    with enable_x64(True):
        yield


EACH = [
    *cases(("grouped",), ("blocked", "composed")),
    *cases(("convolution",), ("conv",)),
    *cases(("disjoint rest",), ("disjoint",)),
]
if ("jax", "native") in plugins.registry().implementations:
    EACH += [pytest.param("grouped", "native", id="grouped-native")]


@pytest.mark.parametrize(("name", "implementation"), EACH)
def test_disable_jit_gives_the_same(name, implementation):
    spec = spec_of(name)
    x, kernel, dy = arrays_of(spec)
    run = operation(spec, implementation)

    def everything():
        value, pull_back = jax.vjp(run, x, kernel)
        kernels = jnp.stack([kernel, 2 * kernel])
        return value, pull_back(dy), jax.vmap(run, (None, 0))(x, kernels)

    expected = everything()
    with jax.disable_jit():
        near(everything(), expected)
        near(jax.jit(everything)(), expected)


def test_disable_jit_of_the_transposed_operation():
    spec = spec_of("3d")
    _, kernel, dy = arrays_of(spec)
    run = partial(lcmulti.local_conv_transpose, padding=spec.padding, data_format="channels_last")
    expected = run(dy, kernel)
    with jax.disable_jit():
        near(run(dy, kernel), expected)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("name", "implementation"), EACH)
def test_debug_nans_raises_as_for_a_convolution(name, implementation, compiled):
    spec = spec_of(name)
    x, kernel, _ = arrays_of(spec)
    run = operation(spec, implementation)
    run = jax.jit(run) if compiled else run
    broken = kernel.at[0].set(jnp.nan)
    with jax.debug_nans(True):
        finite = run(x, kernel)
        with pytest.raises(FloatingPointError, match=FOUND):
            run(x, broken)
    assert np.isfinite(finite).all()


def test_debug_nans_of_a_gradient():
    spec = spec_of("grouped")
    x, kernel, dy = arrays_of(spec)
    pull_back = jax.vjp(operation(spec), x, kernel)[1]
    broken = dy.at[0].set(jnp.nan)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match=FOUND):
        pull_back(broken)


@pytest.mark.parametrize(
    ("name", "implementation"), [EACH[0], *(pytest.param(*e.values, marks=SLOW) for e in EACH[1:])]
)
def test_taylor_mode_in_both_arguments(name, implementation):
    """Three orders in both operands, and of a gradient, equal those of the same in jax.numpy."""
    spec = spec_of(name)
    x, kernel, dy = arrays_of(spec)
    terms = [random(seed, x.shape, kernel.shape) for seed in (1, 2, 3)]
    series = tuple(list(each) for each in zip(*terms, strict=True))

    def orders(function):
        def smooth(x, kernel):
            return jnp.tanh(0.1 * function(jnp.sin(x), kernel))

        def gradient(x, kernel):
            return jax.vjp(function, jnp.sin(x), kernel)[1](dy)

        return jet(smooth, (x, kernel), series), jet(gradient, (x, kernel), series)

    near(jax.jit(partial(orders, operation(spec, implementation)))(), orders(naive(spec)))


@SLOW
def test_taylor_mode_agrees_with_nested_forward_mode():
    spec = spec_of("grouped")
    x, kernel, _ = arrays_of(spec, batch=1)
    (direction,) = random(1, x.shape)

    def along(t):
        return jnp.tanh(0.1 * operation(spec)(x + t * direction, kernel))

    _, series = jet(along, (0.0,), ([1.0, 0.0, 0.0],))
    derivative = along
    for term in series:
        derivative = jax.jacfwd(derivative)
        near(term, derivative(0.0), rtol=1e-9)
