"""`sheet_smoothness`, the topographic penalty of All-TNN, equals a loop over its definition."""

import numpy as np
import pytest

import lcmulti
from lcmulti import plugins
from lcmulti.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError

pytestmark = pytest.mark.sampled

SPEC = lcmulti.LocalConvSpec((6, 5, 2), 6, (3, 2), data_format="channels_last")


def by_hand(kernel, bias, spec, sheet, neighbours=4, circular=False):
    """Compute the penalty by its definition: one filter after the other, on the full sheet."""
    (a, b), (rows, columns) = sheet, spec.output_size
    kernel = np.broadcast_to(kernel, (rows, columns, *kernel.shape[2:])).astype("float64")
    filters = {}
    for r in range(rows):
        for c in range(columns):
            for f in range(spec.filters):
                unit = kernel[r, c, ..., f].ravel()
                if bias is not None:
                    own = np.broadcast_to(bias, (rows, columns, spec.filters))[r, c, f]
                    unit = np.append(unit, own)
                filters[r * a + f // b, c * b + f % b] = unit
    height, width = rows * a, columns * b
    directions = [(1, 0), (0, 1)] + [(1, 1), (1, -1)] * (neighbours == 8)
    means = []
    for down, right in directions:
        cosines = []
        for (row, column), u in filters.items():
            other = row + down, column + right
            if circular and 0 in (down, right):
                other = other[0] % height, other[1] % width
            if other in filters:
                v = filters[other]
                cosines.append(u @ v / max(np.sqrt((u @ u) * (v @ v)), 1e-300))
        if cosines:
            means.append(np.mean(cosines))
    return (1 - np.mean(means)) / 2 if means else 0.0


def drawn(rng, spec, dtype="float32"):
    kernel = rng.standard_normal(spec.kernel_shape).astype(dtype)
    return kernel, rng.standard_normal(spec.bias_shape).astype(dtype)


EVERY = [
    (sheet, neighbours, circular)
    for sheet in ((2, 3), (1, 6), (6, 1), (3, 2))
    for neighbours in (4, 8)
    for circular in (False, True)
]
COMPILED = ("jax", "tensorflow")  # XLA takes a second to compile each


@pytest.mark.parametrize("sheet, neighbours, circular", EVERY)
def test_equals_the_loop(backend, sheet, neighbours, circular, rng):
    if backend in COMPILED and (sheet, circular) != ((2, 3), True) and sheet != (1, 6):
        pytest.skip("the other frameworks take every combination")
    kernel, bias = drawn(rng, SPEC)
    options = dict(sheet=sheet, neighbours=neighbours, circular=circular)
    for given in (bias, None):
        value = lcmulti.sheet_smoothness(kernel, given, SPEC, backend=backend, **options)
        assert np.shape(value) == ()
        expected = by_hand(kernel, given, SPEC, sheet, neighbours, circular)
        assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("shared", [(0,), (1,), (0, 1)])
def test_shared_positions_are_as_many_as_they_are(backend, shared, circular, rng):
    if backend in COMPILED and (shared, circular) != ((1,), True):
        pytest.skip("the other frameworks take every combination")
    spec = SPEC.sharing(shared)
    kernel, bias = drawn(rng, spec)
    options = dict(neighbours=8, circular=circular)
    full = np.broadcast_to(bias, (*spec.output_size, spec.filters)).copy()
    full += rng.standard_normal(full.shape).astype("float32")
    for given in (bias, full):  # also a bias for each position with shared weights
        value = lcmulti.sheet_smoothness(
            kernel, given, spec, sheet=(2, 3), backend=backend, **options
        )
        assert float(value) == pytest.approx(by_hand(kernel, given, spec, (2, 3), **options), 1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2)])
@pytest.mark.parametrize("filters, sheet", [(1, (1, 1)), (2, (1, 2)), (4, (2, 2))])
def test_small_sheets(size, filters, sheet, rng):
    spec = lcmulti.LocalConvSpec((*size, 3), filters, 1, data_format="channels_last")
    kernel, bias = drawn(rng, spec, "float64")
    for circular in (False, True):
        options = dict(neighbours=8, circular=circular)
        value = lcmulti.sheet_smoothness(kernel, bias, spec, sheet=sheet, **options)
        assert float(value) == pytest.approx(by_hand(kernel, bias, spec, sheet, **options), 1e-12)


@pytest.mark.parametrize("sheet", [(2, 1), (1, 3)])
def test_few_large_filters_at_shared_positions(backend, sheet, rng):
    """Where a position is its own neighbour, the second filter of a pair may be the earlier one."""
    spec = lcmulti.LocalConvSpec(
        (5, 4, 2), sheet[0] * sheet[1], 3, shared_axes=(0, 1), data_format="channels_last"
    )
    kernel, bias = drawn(rng, spec)
    options = dict(sheet=sheet, neighbours=8, circular=True)
    value = lcmulti.sheet_smoothness(kernel, bias, spec, backend=backend, **options)
    assert float(value) == pytest.approx(by_hand(kernel, bias, spec, **options), 1e-5)


def reverse(backend):
    if "reverse" not in plugins.registry().backends[backend].capabilities:
        pytest.skip("no differentiation")
    return plugins.load_backend(backend)


@pytest.mark.parametrize("sheet, shared", [((2, 3), ()), ((1, 6), (1,))])
def test_gradient_is_that_of_the_values(backend, shared, sheet, rng):
    owner, spec = reverse(backend), SPEC.sharing(shared)
    arrays = drawn(rng, spec, "float64")
    directions = drawn(rng, spec, "float64")

    def run(kernel, bias):
        return lcmulti.sheet_smoothness(
            kernel, bias, spec, sheet=sheet, neighbours=8, circular=True
        )

    tensors = tuple(owner.from_numpy(each.astype("float32")) for each in arrays)
    _, gradients = owner.vjp(run, tensors, owner.from_numpy(np.ones((), "float32")))
    step = 1e-5
    with lcmulti.config(backend="numpy"):
        ends = [
            run(*(a + sign * step * d for a, d in zip(arrays, directions, strict=True)))
            for sign in (1, -1)
        ]
    slope = (ends[0] - ends[1]) / (2 * step)
    found = sum((owner.to_numpy(g) * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert found == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_second_derivatives(backend, rng):
    """The gradient of the gradient's norm agrees with differences of gradients."""
    owner = reverse(backend)
    kernel, _ = drawn(rng, SPEC, "float64")
    direction, _ = drawn(rng, SPEC, "float32")
    one = owner.from_numpy(np.ones((), "float32"))

    def gradient(kernel):
        run = lambda k: lcmulti.sheet_smoothness(k, None, SPEC, sheet=(2, 3))  # noqa: E731
        return owner.vjp(run, (kernel,), one)[1][0]

    tensor = owner.from_numpy(kernel.astype("float32"))
    _, (twice,) = owner.vjp(gradient, (tensor,), owner.from_numpy(direction))
    step = 1e-2
    ends = [
        owner.to_numpy(
            gradient(owner.from_numpy((kernel + s * step * direction).astype("float32")))
        )
        for s in (1, -1)
    ]
    numeric = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(owner.to_numpy(twice), numeric, rtol=0.02, atol=2e-4)


def test_zero_filters_neither_count_nor_pull(backend, rng):
    kernel, bias = drawn(rng, SPEC)
    kernel[1, 2, ..., 3], bias[1, 2, 3] = 0, 0
    value = lcmulti.sheet_smoothness(kernel, bias, SPEC, sheet=(2, 3), backend=backend)
    assert float(value) == pytest.approx(by_hand(kernel, bias, SPEC, (2, 3)), rel=1e-5)
    if "reverse" not in plugins.registry().backends[backend].capabilities:
        return
    owner = plugins.load_backend(backend)
    _, (gradient,) = owner.vjp(
        lambda k: lcmulti.sheet_smoothness(k, None, SPEC, sheet=(2, 3)),
        (owner.from_numpy(kernel),),
        owner.from_numpy(np.ones((), "float32")),
    )
    gradient = owner.to_numpy(gradient)
    assert not gradient[1, 2, ..., 3].any()
    assert 0 < np.abs(gradient).max() < 1


def test_scale_of_filters_does_not_matter(backend, rng):
    kernel, bias = drawn(rng, SPEC)
    scale = 10.0 ** rng.integers(-6, 6, SPEC.bias_shape).astype("float32")
    arguments = dict(sheet=(2, 3), backend=backend)
    value = lcmulti.sheet_smoothness(kernel, bias, SPEC, **arguments)
    scaled = lcmulti.sheet_smoothness(
        kernel * scale[:, :, None, None, None], bias * scale, SPEC, **arguments
    )
    assert float(scaled) == pytest.approx(float(value), rel=1e-5)


def test_it_is_not_smoothness(rng):
    """If filters differ within a position but not between positions, only one penalty is 0."""
    one, _ = drawn(rng, SPEC.sharing((0, 1)))
    kernel = np.broadcast_to(one, SPEC.kernel_shape).copy()
    assert float(lcmulti.smoothness(kernel, SPEC)) == pytest.approx(0, abs=1e-6)
    assert float(lcmulti.sheet_smoothness(kernel, None, SPEC, sheet=(2, 3))) > 0.3


def test_wrong_calls(rng):
    kernel, bias = drawn(rng, SPEC)
    run = lambda k=kernel, b=bias, s=SPEC, **o: lcmulti.sheet_smoothness(  # noqa: E731
        k, b, s, **{"sheet": (2, 3)} | o
    )
    with pytest.raises(ArgumentError, match=r"sheet: .*= 6: one of \(1, 6\), \(2, 3\), \(3, 2\)"):
        run(sheet=(2, 2))
    with pytest.raises(ArgumentError, match="sheet"):
        run(sheet=(6,))
    with pytest.raises(ArgumentError, match="neighbours: expected 4 or 8, got 6"):
        run(neighbours=6)
    with pytest.raises(ArgumentTypeError, match="circular"):
        run(circular="yes")
    with pytest.raises(ArgumentError, match="distance: expected one of 'cosine'"):
        run(distance="squared")
    with pytest.raises(ShapeError, match="kernel: expected shape"):
        run(kernel[1:])
    with pytest.raises(ShapeError, match="bias: expected shape.*or 1 where shared"):
        run(b=bias[:, 1:])
    with pytest.raises(DtypeError, match="half types cannot tell neighbours"):
        run(kernel.astype("float16"))
    with pytest.raises(DtypeError, match="bias: expected dtype float32, as kernel has"):
        run(b=bias.astype("float64"))
    line = lcmulti.LocalConvSpec((6, 2), 6, 3)
    with pytest.raises(ArgumentError, match="spec: .*two spatial axes.*got one of 1"):
        run(np.ones(line.kernel_shape), None, line)
    with pytest.raises(ArgumentTypeError, match="spec: expected a LocalConvSpec"):
        run(s=3)
