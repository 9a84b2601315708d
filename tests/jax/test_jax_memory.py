"""The JAX backend: the memory that compiled maps take, and the size of the programs."""

from __future__ import annotations

from functools import partial

import pytest

jax = pytest.importorskip("jax")

from helpers_jax import (  # noqa: E402
    RESOURCES,
    _x64,  # noqa: F401 - a fixture
    arrays_of,
    load,
    naive,
    near,
    operation,
    problem_of,
    spec_of,
)

import lcmulti  # noqa: E402
from lcmulti.errors import UnsupportedError  # noqa: E402
from lcmulti.plugins.contract import Resources  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.sampled]


def compiled(name, implementation, spec, batch, resources, dtype="float32"):
    """Compile one map for arrays of *spec* and *batch*."""
    shapes = {"x": (batch, *spec.input_shape), "dy": (batch, *spec.output_shape)}
    kernel = spec.kernel_shape
    operands = {
        "forward": (shapes["x"], kernel),
        "input_grad": (shapes["dy"], kernel),
        "kernel_grad": (shapes["x"], shapes["dy"]),
    }[name]
    function = partial(getattr(load(implementation), name), spec=spec, resources=resources)
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(s, dtype) for s in operands)).compile()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["forward", "input_grad", "kernel_grad"])
@pytest.mark.parametrize("limit", [300_000, 4_000_000])
def test_blocked_holds_no_more_than_it_says_and_may(name, limit, dtype):
    spec = lcmulti.LocalConvSpec(
        (40, 38, 16), 24, (5, 3), padding="same", data_format="channels_last"
    )
    batch, resources = (2 if dtype == "float32" else 1), Resources(limit)
    problem = problem_of(spec, batch, dtype, resources)
    memory = compiled(name, "blocked", spec, batch, resources, dtype).memory_analysis()
    half = 4 * 40 * 38 * 5 * 3 * 16 * 24 if dtype == "bfloat16" else 0  # the float32 sum
    assert memory.temp_size_in_bytes <= load("blocked").workspace(problem) <= limit + half


def test_symbolic_and_tiny_limits_raise_rather_than_overrun():
    spec = spec_of("3d")
    x, kernel, _ = arrays_of(spec)
    with lcmulti.config(max_workspace=100), pytest.raises(UnsupportedError, match="max_workspace"):
        operation(spec)(x, kernel)


@pytest.mark.parametrize("name", ["forward", "input_grad", "kernel_grad"])
def test_disjoint_copies_no_patches(name):
    spec = lcmulti.LocalConvSpec((64, 64, 3), 4, 2, strides=2, data_format="channels_last")
    memory = compiled(name, "disjoint", spec, 8, RESOURCES).memory_analysis()
    # The kernel may be copied in another order; the patches are as large as the input.
    limit = load("disjoint").workspace(problem_of(spec, 8, "float32"))
    counters = 1024
    assert memory.temp_size_in_bytes - counters <= limit < 4 * 8 * 64 * 64 * 3


def equations(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        inner = jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        )
        total += 1 + sum(equations(p) for p in inner if hasattr(p, "eqns"))
    return total


@pytest.mark.parametrize("implementation", ["disjoint", "blocked", "composed"])
@pytest.mark.parametrize("name", ["forward", "input_grad", "kernel_grad"])
def test_tracing_costs_the_same_for_any_number_of_positions(name, implementation):
    counts = []
    for positions in (61, 60_013):
        spec = lcmulti.LocalConvSpec(
            (2 * positions, 2), 3, 2, strides=2, data_format="channels_last"
        )
        x, dy = ((4, *spec.input_shape), (4, *spec.output_shape))
        operands = {"forward": (x, spec.kernel_shape), "input_grad": (dy, spec.kernel_shape)}.get(
            name, (x, dy)
        )
        function = partial(
            getattr(load(implementation), name), spec=spec, resources=Resources(4_000)
        )
        jaxpr = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, "float32") for s in operands))
        counts.append(equations(jaxpr))
    assert counts[0] == counts[1] > 0


def test_tight_limit_gives_the_same_through_the_front_door():
    spec = spec_of("grouped")
    x, kernel, dy = arrays_of(spec)
    with lcmulti.config(max_workspace=8_000):
        assert lcmulti.explain(x, kernel, **operation(spec).keywords).implementation == "blocked"
        y, pull_back = jax.vjp(operation(spec), x, kernel)
        gradients = pull_back(dy)
    expected, naive_pull_back = jax.vjp(naive(spec), x, kernel)
    near((y, gradients), (expected, naive_pull_back(dy)))
