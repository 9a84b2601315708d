"""Support matrix of JAX."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax_releases import enable_x64
from matrix_cells import Matrix

import lcmulti

MATRIX = Matrix("jax", "JAX")


class Example(NamedTuple):
    """A function ``apply(parameters, x) -> y``, its parameters, and a batch *x* of 4."""

    row: str
    apply: Callable[[Any, Any], Any]
    parameters: Any
    x: Any

    def loss(self, parameters, x=None):
        y = self.apply(parameters, self.x if x is None else x)
        return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum() + (y**2).sum()


def batch(shape, dtype="float32"):
    return jax.random.normal(jax.random.key(1), (4, *shape), dtype)


def operation():
    kernel = jax.random.normal(jax.random.key(0), (6, 4, 3, 3, 2, 3))
    bias = jax.random.normal(jax.random.key(2), (6, 4, 3))

    def apply(parameters, x):
        return lcmulti.local_conv(x, *parameters, data_format="channels_last")

    return apply, (kernel, bias), (8, 6, 2)


def nnx(cls, **arguments):
    def make():
        import lcmulti_jax.nnx
        from flax import nnx

        layer = getattr(lcmulti_jax.nnx, cls)(2, 3, (3, 3), (8, 6), rngs=nnx.Rngs(0), **arguments)
        graph, parameters = nnx.split(layer)
        return lambda parameters, x: nnx.merge(graph, parameters)(x), parameters, (8, 6, 2)

    return make


def equinox(**arguments):
    def make():
        import equinox as eqx
        import lcmulti_jax.equinox

        layer = lcmulti_jax.equinox.LocallyConnected2d(
            2, 3, 3, (8, 6), key=jax.random.key(0), **arguments
        )
        parameters, static = eqx.partition(layer, eqx.is_array)
        return (
            lambda parameters, x: jax.vmap(eqx.combine(parameters, static))(x),
            parameters,
            (2, 8, 6),
        )

    return make


MAKERS = {
    "`local_conv`": operation,
    "`nnx.LocallyConnected`": nnx("LocallyConnected", strides=1),
    "`nnx.LocallyConnected(rank=2)`": nnx("LocallyConnected", rank=2),
    "`nnx.LocallyConnectedTranspose`": nnx("LocallyConnectedTranspose", strides=2),
    "`equinox.LocallyConnected2d`": equinox(),
}


def make(row):
    apply, parameters, shape = MAKERS[row]()
    return Example(row, apply, parameters, batch(shape))


for _row in MAKERS:
    _needs = next((name for name in ("equinox", "nnx") if name in _row), None)
    MATRIX.row(_row, needs={"nnx": "flax"}.get(_needs, _needs))(lambda row=_row: make(row))


def close(ours, theirs, rtol=1e-4, atol=1e-4):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            np.asarray(one, "float64"), np.asarray(other, "float64"), rtol=rtol, atol=atol
        )


@MATRIX.column("jit")
def jit(example):
    ours = jax.jit(example.apply)(example.parameters, example.x)
    close(ours, example.apply(example.parameters, example.x))


@MATRIX.column("grad")
def grad(example):
    """Compare the slope along a direction with central differences.

    These are exact, because the loss is quadratic in the parameters. With a rank it is quartic,
    and the slope is compared with forward mode.
    """
    gradient = jax.jit(jax.grad(example.loss))(example.parameters)
    along = jax.tree.map(lambda leaf: jnp.sin(jnp.arange(leaf.size).reshape(leaf.shape)), gradient)
    step = jax.tree.map(lambda p, d: p + 0.5 * d, example.parameters, along)
    back = jax.tree.map(lambda p, d: p - 0.5 * d, example.parameters, along)
    slope = sum(
        (g * d).sum()
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(along), strict=True)
    )
    wanted = example.loss(step) - example.loss(back)
    if "rank" not in example.row:
        close(slope, wanted, rtol=1e-3, atol=1e-1)
    else:
        _, tangent = jax.jvp(example.loss, (example.parameters,), (along,))
        close(slope, tangent, rtol=1e-3, atol=1e-1)


@MATRIX.column("jvp")
def jvp(example):
    """The tangent is a difference of two values, because the operation is affine in ``x``."""
    direction = jnp.sin(jnp.arange(example.x.size, dtype="float32").reshape(example.x.shape))
    function = lambda x: example.apply(example.parameters, x)  # noqa: E731
    _, tangent = jax.jvp(function, (example.x,), (direction,))
    close(tangent, function(example.x + direction) - function(example.x), atol=1e-3)


@MATRIX.column("hessian")
def hessian(example):
    """The Hessian of the loss in one sample is ``2 J^T J``: the map with Jacobian J is affine."""
    x = example.x[:1]
    ours = jax.jit(jax.hessian(lambda x: example.loss(example.parameters, x)))(x)
    jacobian = jax.jacobian(lambda x: example.apply(example.parameters, x))(x)
    matrix = jacobian.reshape(-1, x.size)
    close(ours.reshape(x.size, x.size), 2 * matrix.T @ matrix, atol=1e-3)


@MATRIX.column("vmap")
def vmap(example):
    x = jnp.stack([example.x, 2 * example.x, -example.x])
    ours = jax.vmap(example.apply, in_axes=(None, 0))(example.parameters, x)
    close(ours, jnp.stack([example.apply(example.parameters, each) for each in x]))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), example.parameters)
    ours = jax.vmap(jax.grad(example.loss))(many)
    for i, sign in enumerate((1, -1)):
        theirs = jax.grad(example.loss)(jax.tree.map(lambda p, s=sign: s * p, example.parameters))
        close(jax.tree.map(lambda leaf, i=i: leaf[i], ours), theirs, rtol=1e-3, atol=1e-2)


@MATRIX.column("scan")
def scan(example):
    """Three steps of gradient descent in one loop."""

    def step(parameters, x):
        gradient = jax.grad(example.loss)(parameters, x)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, parameters, gradient), None

    x = jnp.stack([example.x, example.x[::-1], -example.x])
    ours, _ = jax.lax.scan(step, example.parameters, x)
    theirs = example.parameters
    for each in x:
        theirs, _ = step(theirs, each)
    close(ours, theirs)


@MATRIX.column("remat")
def remat(example):
    ours = jax.grad(jax.checkpoint(example.loss))(example.parameters)
    close(ours, jax.grad(example.loss)(example.parameters))


@MATRIX.column("`jax.export`, symbolic batch", needs="flatbuffers")
def export(example):
    from jax import export

    (size,) = export.symbolic_shape("batch")
    shapes = jax.ShapeDtypeStruct((size, *example.x.shape[1:]), example.x.dtype)
    function = jax.jit(lambda x: example.apply(example.parameters, x))
    text = export.export(function)(shapes).serialize(vjp_order=1)
    loaded = export.deserialize(text)
    for x in (example.x, example.x[:3]):
        close(loaded.call(x), function(x))
        ours = jax.grad(lambda x: (loaded.call(x) ** 2).sum())(x)
        close(ours, jax.grad(lambda x: (function(x) ** 2).sum())(x), atol=1e-3)


@MATRIX.column("bfloat16")
def bf16(example):
    half = lambda tree: jax.tree.map(lambda leaf: leaf.astype("bfloat16"), tree)  # noqa: E731
    wide = lambda tree: jax.tree.map(lambda leaf: leaf.astype("float32"), tree)  # noqa: E731
    parameters, x = half(example.parameters), half(example.x)
    ours = example.apply(parameters, x)
    assert ours.dtype == jnp.bfloat16
    close(ours, example.apply(wide(parameters), wide(x)), rtol=0.02, atol=0.1)
    gradient = jax.grad(lambda p: example.loss(p, x).astype("float32"))(parameters)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(gradient))


@MATRIX.column("64-bit mode")
def x64(example):
    with enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), tree)  # noqa: E731
        ours = jax.jit(example.apply)(wide(example.parameters), wide(example.x))
        assert ours.dtype == jnp.float64
        gradient = jax.grad(example.loss)(wide(example.parameters), wide(example.x))
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(gradient))
    close(ours, example.apply(example.parameters, example.x))


@MATRIX.column("`disable_jit`")
def without_jit(example):
    wanted = jax.value_and_grad(example.loss)(example.parameters)
    with jax.disable_jit():
        close(jax.jit(jax.value_and_grad(example.loss))(example.parameters), wanted)


@MATRIX.column("`debug_nans`")
def debug_nans(example):
    """Finite numbers raise nothing. A NaN raises an error that names an operation."""
    broken = example.x.at[0].set(jnp.nan)
    with jax.debug_nans(True):
        jax.jit(example.apply)(example.parameters, example.x)
        try:
            jax.jit(example.apply)(example.parameters, broken)
        except FloatingPointError as error:
            assert "nan) encountered in" in str(error), error
        else:
            raise AssertionError("not-a-number went unnoticed")


@MATRIX.column("Taylor mode (`jet`)")
def taylor(example):
    """Each order of the result is that of ``x`` mapped, because the operation is affine."""
    from jax.experimental.jet import jet

    first = jnp.sin(jnp.arange(example.x.size, dtype="float32").reshape(example.x.shape))
    second = jnp.cos(first)
    function = lambda x: example.apply(example.parameters, x)  # noqa: E731
    value, (one, two) = jet(function, (example.x,), ([first, second],))
    close(value, function(example.x))
    base = function(jnp.zeros_like(example.x))
    close((one, two), (function(first) - base, function(second) - base), atol=1e-3)


@cache
def sharded():
    """Run a process with two devices, which finds ``{row: {column: error or None}}``."""
    script = Path(__file__).with_name("matrix_jax_sharded.py")
    run = subprocess.run(
        [sys.executable, script], check=False, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


def _sharded(column, needs=None):
    @MATRIX.column(column, slow=True, needs=needs)
    def check(example):
        error = sharded()[example.row][column]
        assert error is None, error


_sharded("sharded by output rows")
_sharded("sharded, native kernels", needs="lcmulti_native")
for _column in ("`shard_map`", "`auto_axes` in an explicit mesh"):
    _sharded(_column)
