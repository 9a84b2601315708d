"""Low-rank kernels and the smoothness penalty, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import lcmulti
from lcmulti import plugins
from lcmulti.errors import ArgumentError, DtypeError, ShapeError
from lcmulti.operations import low_rank
from lcmulti.plugins.contract import Problem, Resources

pytestmark = pytest.mark.sampled

SPEC = lcmulti.LocalConvSpec((7, 6, 4), 6, (3, 2), groups=2, padding=1, data_format="channels_last")


def arrays(rng, spec=SPEC, rank=2, batch=3, dtype="float32"):
    taps = spec.kernel_shape[spec.ndim :]
    shapes = (
        (batch, *spec.input_shape),
        (rank, *(1,) * spec.ndim, *taps),
        (*spec.positions_shape, rank),
        spec.bias_shape,
    )
    return tuple(rng.integers(-3, 4, shape).astype(dtype) for shape in shapes)


def formed(basis, coefficients):
    return sum(
        coefficients[..., r][(..., *(None,) * (basis.ndim - 1 - (coefficients.ndim - 1)))]
        * basis[r]
        for r in range(len(basis))
    )


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("form", [True, False], ids=["formed", "shared"])
def test_both_ways_are_exact_on_integers(backend, form, data_format, rng, monkeypatch):
    monkeypatch.setattr(low_rank, "_is_cheaper_formed", lambda problem, rank: form)
    x, basis, coefficients, bias = arrays(rng)
    expected = lcmulti.local_conv(x, formed(basis, coefficients), bias, **SPEC.arguments())
    arguments = SPEC.arguments() | {"data_format": data_format}
    if data_format == "channels_first":
        x, expected = np.moveaxis(x, -1, 1), np.moveaxis(expected, -1, 1)
    y = lcmulti.local_conv_low_rank(x, basis, coefficients, bias, backend=backend, **arguments)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("form", [True, False], ids=["formed", "shared"])
def test_gradients_are_exact_on_integers(backend, form, rng, monkeypatch):
    if "reverse" not in plugins.registry().backends[backend].capabilities:
        pytest.skip("no differentiation")
    monkeypatch.setattr(low_rank, "_is_cheaper_formed", lambda problem, rank: form)
    owner = plugins.load_backend(backend)
    given = arrays(rng)
    dy = rng.integers(-3, 4, (3, *SPEC.output_shape)).astype("float32")

    def run(*args):
        return lcmulti.local_conv_low_rank(*args, **SPEC.arguments())

    def full(x, basis, coefficients, bias):
        kernel = lcmulti.low_rank_kernel(basis, coefficients)
        return lcmulti.local_conv(x, kernel, bias, **SPEC.arguments())

    tensors = tuple(map(owner.from_numpy, given))
    _, ours = owner.vjp(run, tensors, owner.from_numpy(dy))
    _, theirs = owner.vjp(full, tensors, owner.from_numpy(dy))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(owner.to_numpy(one), owner.to_numpy(other))


def test_which_way_is_taken():
    spec = SPEC.computed()

    def is_formed(rank, batch, limit=2**28, dtype="float32"):
        problem = Problem(spec, batch, dtype, "cpu", False, Resources(limit))
        return low_rank._is_cheaper_formed(problem, rank)

    assert not is_formed(rank=1, batch=64)
    assert is_formed(rank=8, batch=64)
    assert not is_formed(rank=8, batch=1)
    assert not is_formed(rank=8, batch=64, limit=1000)  # the full kernel would not fit
    assert is_formed(rank=1, batch=None)
    assert is_formed(rank=1, batch=1, dtype="bfloat16")


def test_wrong_low_rank_calls(backend):
    x, basis, coefficients = np.ones((1, 5, 2)), np.ones((3, 1, 2, 2, 4)), np.ones((4, 3))
    if backend == "jax":
        x, basis, coefficients = (a.astype("float32") for a in (x, basis, coefficients))
    run = lambda *a: lcmulti.local_conv_low_rank(*a, backend=backend)  # noqa: E731
    assert run(x, basis, coefficients).shape == (1, 4, 4)
    with pytest.raises(ShapeError, match="basis: expected shape"):
        run(x, basis[0], coefficients)
    with pytest.raises(ShapeError, match="coefficients: expected 3 in its last axis"):
        run(x, basis, coefficients[:, :2])
    with pytest.raises(ShapeError, match="output axes"):
        run(x, basis, coefficients[:2])


def smoothness_by_hand(kernel, spec, distance):
    total = count = 0
    units = kernel.reshape(*spec.positions_shape, -1, spec.filters).astype("float64")
    for position in np.ndindex(*spec.positions_shape):
        for axis in range(spec.ndim):
            if position[axis] + 1 == spec.positions_shape[axis]:
                continue
            other = tuple(p + (i == axis) for i, p in enumerate(position))
            for f in range(spec.filters):
                a, b = units[(*position, slice(None), f)], units[(*other, slice(None), f)]
                cosine = a @ b / np.sqrt((a @ a) * (b @ b))
                total += 1 - cosine if distance == "cosine" else ((a - b) ** 2).sum()
                count += 1
    return total / max(count, 1)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
@pytest.mark.parametrize("shared", [(), (0,), (0, 1)])
def test_smoothness_equals_plain_loops(backend, shared, distance, rng):
    spec = SPEC.sharing(shared)
    kernel = rng.standard_normal(spec.kernel_shape).astype("float32")
    value = lcmulti.smoothness(kernel, spec, distance=distance, backend=backend)
    expected = smoothness_by_hand(kernel, spec, distance)
    assert np.shape(value) == ()
    assert float(value) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_smoothness_has_the_gradient_of_its_values(backend, distance, rng):
    if "reverse" not in plugins.registry().backends[backend].capabilities:
        pytest.skip("no differentiation")
    owner = plugins.load_backend(backend)
    kernel, direction = (rng.standard_normal(SPEC.kernel_shape) for _ in range(2))
    # The derivative along one direction: by the gradient, and by central differences in NumPy.
    run = lambda kernel: lcmulti.smoothness(kernel, SPEC, distance=distance)  # noqa: E731
    tensor = owner.from_numpy(kernel.astype("float32"))
    _, (gradient,) = owner.vjp(run, (tensor,), owner.from_numpy(np.ones((), "float32")))
    step = 1e-4
    with lcmulti.config(backend="numpy"):
        slope = (run(kernel + step * direction) - run(kernel - step * direction)) / (2 * step)
    assert (owner.to_numpy(gradient) * direction).sum() == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_smoothness_of_zeros_is_finite(backend):
    value = lcmulti.smoothness(np.zeros(SPEC.kernel_shape, "float32"), SPEC, backend=backend)
    assert float(value) == 1


def test_smoothness_of_zeros_has_a_finite_gradient(backend):
    if "reverse" not in plugins.registry().backends[backend].capabilities:
        pytest.skip("no differentiation")
    owner = plugins.load_backend(backend)
    zeros, one = (
        owner.from_numpy(np.full(s, v, "float32")) for s, v in ((SPEC.kernel_shape, 0), ((), 1))
    )
    _, (gradient,) = owner.vjp(lambda kernel: lcmulti.smoothness(kernel, SPEC), (zeros,), one)
    assert not owner.to_numpy(gradient).any()


def test_wrong_smoothness_calls():
    kernel = np.ones(SPEC.kernel_shape)
    with pytest.raises(ShapeError, match="that of the spec"):
        lcmulti.smoothness(kernel[1:], SPEC)
    with pytest.raises(DtypeError, match="half types cannot tell neighbours"):
        lcmulti.smoothness(kernel.astype("float16"), SPEC)
    with pytest.raises(ArgumentError, match="distance"):
        lcmulti.smoothness(kernel, SPEC, distance="chess")
