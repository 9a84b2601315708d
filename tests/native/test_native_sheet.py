"""`sheet_smoothness` with the native kernels equals that of the frameworks' own operations."""

import numpy as np
import pytest

pytest.importorskip("lcmulti_native")

from lcmulti_native.cosines import SLOPES, SUMS
from lcmulti_native.library import library

import lcmulti
from lcmulti import plugins

SPEC = lcmulti.LocalConvSpec((5, 4, 2), 20, (3, 2), data_format="channels_last")
OPTIONS = dict(sheet=(4, 5), neighbours=8, circular=True)
# Fewer filters than lanes, vectors that overlap, whole vectors; many weights, one weight.
SHEETS = (
    ((4, 5, 1), 1, (1, 1), 1),
    ((3, 5, 2), 3, (1, 3), 2),
    ((3, 4, 1), 6, (3, 2), 3),
    ((5, 4, 2), 20, (4, 5), (3, 2)),
    ((4, 4, 9), 64, (8, 8), 3),
    ((1, 1, 3), 35, (5, 7), 1),
)


def plain():
    """An implementation without the maps is preferred."""
    return lcmulti.config(implementation="composed")


def drawn(rng, spec=SPEC, dtype="float32"):
    kernel = rng.standard_normal(spec.kernel_shape).astype(dtype)
    return kernel, rng.standard_normal(spec.bias_shape).astype(dtype)


def found(backend, arrays, spec=SPEC, **options):
    """The value, and the gradients if there is differentiation."""
    owner = plugins.load_backend(backend)
    given = tuple(owner.from_numpy(each) for each in arrays)

    def run(kernel, bias):
        return lcmulti.sheet_smoothness(kernel, bias, spec, **OPTIONS | options)

    if backend == "numpy":
        return [run(*given)]
    one = owner.from_numpy(np.full((), 3, arrays[0].dtype))
    value, gradients = owner.vjp(run, given, one)
    return [owner.to_numpy(each) for each in (value, *gradients)]


@pytest.fixture
def served(monkeypatch):
    """How many times the native maps were used."""
    calls = []
    for backend in ("numpy", "torch", "jax", "tensorflow"):
        door = type(plugins.load_implementation(backend, "native"))
        run = door.run_cosines
        monkeypatch.setattr(
            door, "run_cosines", lambda *a, run=run, **k: (calls.append(a[1]), run(*a, **k))[1]
        )
    return calls


@pytest.mark.parametrize("size, filters, sheet, window", SHEETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_composed(served, size, filters, sheet, window, dtype, rng):
    spec = lcmulti.LocalConvSpec(size, filters, window, data_format="channels_last")
    kernel, bias = drawn(rng, spec, dtype)
    if filters > 2:
        kernel[0, 0, ..., 1], bias[0, 0, 1] = 0, 0
    tolerance = dict(rtol=2e-5, atol=2e-6) if dtype == "float32" else dict(rtol=1e-11, atol=1e-13)
    for neighbours_, circular in ((4, False), (8, True), (8, False)):
        options = dict(sheet=sheet, neighbours=neighbours_, circular=circular)
        for given in (bias, bias[:1], np.zeros_like(bias)):
            with plain():
                expected = found("torch", (kernel, given), spec, **options)
            before = len(served)
            for backend in ("torch", "numpy"):
                ours = found(backend, (kernel, given), spec, **options)
                for a, b in zip(ours, expected, strict=False):
                    np.testing.assert_allclose(a, b, **tolerance)
            assert len(served) > before


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
@pytest.mark.parametrize("shared", [(), (1,)])
def test_frameworks_that_compile(served, backend, shared, rng):
    pytest.importorskip(backend)
    spec = SPEC.sharing(shared)
    arrays = drawn(rng, spec)
    ours = found(backend, arrays, spec)
    assert served
    with plain():
        expected = found("torch", arrays, spec)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_a_bias_of_more_positions_than_the_kernel(served, rng):
    kernel, bias = drawn(rng, SPEC.sharing((0, 1)))
    full = np.broadcast_to(bias, SPEC.bias_shape).copy()
    ours = found("torch", (kernel, full), SPEC.sharing((0, 1)))
    assert not served
    with plain():
        expected = found("torch", (kernel, full), SPEC.sharing((0, 1)))
    np.testing.assert_allclose(ours[0], expected[0])


def test_results_do_not_depend_on_threads(rng):
    spec = lcmulti.LocalConvSpec((9, 8, 16), 64, 3, data_format="channels_last")
    arrays = drawn(rng, spec)
    each = []
    for threads in (1, 2, 5):
        with lcmulti.config(threads=threads):
            each.append(found("torch", arrays, spec, sheet=(8, 8)))
    for other in each[1:]:
        for a, b in zip(each[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def torch_run(kernel, bias):
    return lcmulti.sheet_smoothness(kernel, bias, SPEC, **OPTIONS)


@pytest.mark.parametrize("order", ["contiguous", "filters first", "negated", "half of it"])
def test_torch_memory_orders(served, order, rng):
    torch = pytest.importorskip("torch")
    kernel, bias = map(torch.tensor, drawn(rng))
    expected = torch_run(kernel, bias)
    if order == "filters first":
        kernel = kernel.movedim(-1, 0).contiguous().movedim(0, -1)
    elif order == "negated":
        kernel = torch._neg_view(-kernel)
        assert kernel.is_neg()
    elif order == "half of it":
        kernel = torch.stack([kernel, kernel], -1)[..., 0]
    leaf = kernel.detach().requires_grad_()
    assert torch.equal(torch_run(leaf, bias), expected)
    torch_run(leaf, bias).backward()
    assert leaf.grad.isfinite().all()


def test_torch_only_what_is_asked_for(served, rng):
    torch = pytest.importorskip("torch")
    kernel, bias = map(torch.tensor, drawn(rng))
    bias.requires_grad_()
    torch_run(kernel, bias).backward()
    assert served == [SUMS, SLOPES]
    assert kernel.grad is None and bias.grad.shape == bias.shape


@pytest.mark.slow
def test_torch_derivatives_and_transforms(served, rng):
    torch = pytest.importorskip("torch")
    spec = lcmulti.LocalConvSpec((2, 3, 1), 4, (1, 2), data_format="channels_last")
    kernel, bias = (torch.tensor(each, requires_grad=True) for each in drawn(rng, spec, "float64"))

    def run(kernel, bias):
        return lcmulti.sheet_smoothness(kernel, bias, spec, sheet=(2, 2), neighbours=8)

    assert torch.autograd.gradcheck(run, (kernel, bias), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, (kernel, bias))
    assert served
    several = torch.randn(3, *spec.kernel_shape, dtype=torch.float64)
    each = torch.stack([run(one, bias.detach()) for one in several])
    torch.testing.assert_close(torch.func.vmap(run, (0, None))(several, bias.detach()), each)
    gradient = torch.func.grad(run)(kernel.detach(), bias.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(run(kernel, bias), kernel)[0])


def test_jax_transforms(served, rng):
    jax = pytest.importorskip("jax")
    kernel, bias = drawn(rng)
    value = float(torch_run(kernel, bias))

    def run(kernel, bias):
        return lcmulti.sheet_smoothness(kernel, bias, SPEC, backend="jax", **OPTIONS)

    several = np.stack([kernel, 2 * kernel])
    mapped = jax.jit(jax.vmap(run, (0, None)))(several, bias)
    assert mapped[0] == pytest.approx(value, rel=1e-5)
    direction, _ = drawn(rng)
    gradient = jax.jit(jax.grad(run))(kernel, bias)
    _, slope = jax.jvp(lambda k: run(k, bias), (kernel,), (direction,))
    assert float(slope) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)
    assert served


@pytest.mark.slow
def test_jax_exports_its_own_operations(rng):
    jax = pytest.importorskip("jax")
    export = pytest.importorskip("jax.export")
    pytest.importorskip("flatbuffers")  # what JAX writes exported programs with
    arrays = tuple(map(jax.numpy.asarray, drawn(rng)))
    step = jax.jit(jax.value_and_grad(lambda k, b: lcmulti.sheet_smoothness(k, b, SPEC, **OPTIONS)))
    exported = export.export(step)(*arrays)
    assert "lcmulti_native" not in exported.mlir_module()
    value, gradient = export.deserialize(exported.serialize()).call(*arrays)
    ours, expected = step(*arrays)
    np.testing.assert_allclose(value, ours, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_tensorflow_functions(served, compiled, rng):
    tf = pytest.importorskip("tensorflow")
    kernel, bias = map(tf.constant, drawn(rng))

    @tf.function(jit_compile=compiled)
    def step(kernel, bias):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            value = lcmulti.sheet_smoothness(kernel, bias, SPEC, **OPTIONS)
        return value, tape.gradient(value, kernel)

    value, gradient = step(kernel, bias)
    assert bool(served) != compiled
    with plain():
        expected = found("torch", (kernel.numpy(), bias.numpy()))
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient * 3, expected[1], rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_tensorflow_forward_mode(compiled, rng):
    tf = pytest.importorskip("tensorflow")
    kernel, bias = map(tf.constant, drawn(rng))

    def slope(kernel):
        with tf.autodiff.ForwardAccumulator(kernel, tf.ones_like(kernel)) as accumulator:
            value = lcmulti.sheet_smoothness(kernel, bias, SPEC, **OPTIONS)
        return accumulator.jvp(value)

    with tf.GradientTape() as tape:
        tape.watch(kernel)
        value = lcmulti.sheet_smoothness(kernel, bias, SPEC, **OPTIONS)
    expected = tf.reduce_sum(tape.gradient(value, kernel))
    found = (tf.function(slope) if compiled else slope)(kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_smoothness_too(served, rng):
    kernel, _ = drawn(rng)
    ours = lcmulti.smoothness(kernel, SPEC, backend="torch")
    assert served
    with plain():
        assert float(ours) == pytest.approx(
            float(lcmulti.smoothness(kernel, SPEC, backend="torch")), rel=1e-5
        )


def test_wrong_calls_are_refused():
    """Whatever numbers a call has, the library computes it or says that it cannot be."""
    kernel = np.ones((2, 3, 4, 6), "float32")
    bias, result = np.ones((2, 3, 6), "float32"), np.empty((4, 2, 3, 6), "float32")
    good = [0, 0, 1, 2, 3, 4, 6, 1, 0, 2, 0, 2, 0, 1, 0, 1, 5, *[0] * 5]

    def status(call):
        call = np.array(call, np.int64)
        pointers = (each.ctypes.data for each in (kernel, bias, result))
        return library().lcmulti_cosines(None, call.ctypes.data, len(call), *pointers)

    assert status(good) == 0
    for place, number in enumerate(good[:17]):
        for wrong in (-1, number + 1 if place in (9, 11, 13, 15, 16) else 1 << 60):
            if (place, wrong) in ((2, 1 << 60), (14, -1)):
                continue  # as many threads as there are; filters that are fewer
            call = good.copy()
            call[place] = wrong
            assert status(call) == 1, (place, wrong)
    for length in range(len(good)):
        assert status(good[:length]) == 1
