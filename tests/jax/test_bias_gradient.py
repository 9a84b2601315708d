"""The gradient of a bias: its transforms, and what it consists of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental import jet
from lcmulti_jax.samples import repeated

ROW = jnp.arange(6.0).reshape(2, 3)


def repeat(row):
    return repeated(row, 4)


def plain(row):
    return jnp.broadcast_to(row, (4, *row.shape))


def of(function):
    """What the transforms of a function of `ROW` give."""
    above = jnp.arange(24.0).reshape(4, 2, 3)
    return {
        "value": function(ROW),
        "jvp": jax.jvp(function, (ROW,), (2 * ROW,))[1],
        "vjp": jax.vjp(function, ROW)[1](above)[0],
        "transposed twice": jax.linear_transpose(
            lambda y: jax.linear_transpose(function, ROW)(y)[0], above
        )(ROW)[0],
        "mapped": jax.vmap(function, in_axes=1, out_axes=2)(ROW),
        "gradients mapped": jax.vmap(
            lambda weight: jax.grad(lambda row: (weight * function(row) ** 2).sum())(ROW)
        )(jnp.arange(3.0)),
        "hessian": jax.hessian(lambda row: (function(row) ** 3).sum())(ROW),
        "jet": jet.jet(lambda row: function(row) ** 2, (ROW,), ([ROW, ROW],))[1][1],
        "compiled": jax.jit(function)(ROW),
    }


@pytest.mark.parametrize("name", list(of(plain)))
def test_transforms_are_those_of_a_broadcast(name):
    np.testing.assert_allclose(of(repeat)[name], of(plain)[name])


def test_an_exported_function_runs_without_lcmulti():
    def gradient(row):
        return jax.grad(lambda row: (repeat(row) ** 2).sum())(row)

    text = export.export(jax.jit(gradient))(ROW).mlir_module()
    assert "local_conv" not in text.split("module @")[1].split("loc(")[0]


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 7, 64, 101])
def test_any_number_of_samples(samples):
    above = jnp.arange(samples * 6.0).reshape(samples, 2, 3)
    total = jax.jit(lambda above: jax.vjp(lambda row: repeated(row, samples), ROW)[1](above)[0])
    np.testing.assert_allclose(total(above), above.sum(0))


def test_the_gradient_is_no_reduction_of_xla():
    """Which takes thirty times as long on a CPU in some releases, as in JAX 0.10."""

    def gradient(above):
        return jax.vjp(lambda row: repeated(row, 64), above[0])[1](above)[0]

    above = jnp.ones((64, 6, 6, 8))
    assert "stablehlo.reduce" in jax.jit(lambda above: above.sum(0)).lower(above).as_text()
    assert "stablehlo.reduce" not in jax.jit(gradient).lower(above).as_text()
