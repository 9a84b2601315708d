"""The TensorFlow backend: every implementation against the reference, under every transform."""

import subprocess
import sys

import numpy as np
import pytest

import lcmulti
from lcmulti import LocalConvSpec, plugins, reference
from lcmulti.backend import Problem, Resources
from lcmulti.dtypes import DTYPES
from lcmulti.errors import UnsupportedError

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow

NAMES = ("composed", "blocked", "disjoint", "conv")
GENEROUS, TIGHT = 2**28, 6000

GEOMETRIES = {
    "2d": LocalConvSpec((7, 6, 4), 6, (3, 2), data_format="channels_last"),
    "strides, uneven padding": LocalConvSpec(
        (7, 6, 4), 6, (3, 2), strides=(2, 1), padding=((1, 2), (0, 1)), data_format="channels_last"
    ),
    "dilation with strides": LocalConvSpec(
        (11, 3), 5, 3, strides=2, dilation=2, padding="same", data_format="channels_last"
    ),
    "groups": LocalConvSpec(
        (7, 6, 4), 6, (3, 2), groups=2, padding=1, data_format="channels_last"
    ),
    "rows share": LocalConvSpec(
        (7, 6, 4), 6, (3, 2), shared_axes=(1,), groups=2, data_format="channels_last"
    ),
    "convolution": LocalConvSpec(
        (7, 6, 4), 6, (3, 2), strides=2, padding=1, shared_axes=(0, 1), data_format="channels_last"
    ),
    "1d convolution": LocalConvSpec((11, 3), 2, 4, shared_axes=(0,), data_format="channels_last"),
    "3d": LocalConvSpec((5, 4, 6, 2), 3, (2, 3, 2), data_format="channels_last"),
    "3d convolution": LocalConvSpec(
        (5, 4, 6, 2), 3, (2, 3, 2), shared_axes=(0, 1, 2), data_format="channels_last"
    ),
    "disjoint, remainder": LocalConvSpec((11, 3), 3, 4, strides=4, data_format="channels_last"),
    "disjoint, 2d, groups, shared": LocalConvSpec(
        (11, 8, 4), 6, (4, 2), strides=(4, 2), groups=2, shared_axes=(1,),
        data_format="channels_last",
    ),
    "disjoint, 2d, rows shared": LocalConvSpec(
        (9, 8, 2), 3, (4, 2), strides=(4, 2), shared_axes=(0,), data_format="channels_last"
    ),
    "gaps": LocalConvSpec((11, 3), 3, 2, strides=4, data_format="channels_last"),
}  # fmt: skip


def arrays(spec, batch=3, dtype="float64", seed=0):
    """x, kernel and dy."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        values = rng.standard_normal(shape)
        if DTYPES[dtype].name.startswith("complex"):
            values = values + 1j * rng.standard_normal(shape)
        return tf.cast(tf.constant(values), dtype)

    return (
        draw((batch, *spec.input_shape)),
        draw(spec.kernel_shape),
        draw((batch, *spec.output_shape)),
    )


def call(spec, implementation="blocked"):
    return lambda x, kernel: lcmulti.local_conv(
        x,
        kernel,
        strides=spec.strides,
        padding=spec.padding,
        dilation=spec.dilation,
        groups=spec.groups,
        data_format="channels_last",
        implementation=implementation,
    )


def close(actual, expected, dtype="float64", scale=64):
    u = DTYPES[dtype].roundoff
    np.testing.assert_allclose(
        np.asarray(actual), np.asarray(expected), rtol=scale * u, atol=scale * u * 4
    )


def value_and_gradients(function, x, kernel, dy):
    with tf.GradientTape() as tape:
        tape.watch((x, kernel))
        y = function(x, kernel)
    return (y, *tape.gradient(y, (x, kernel), dy))


def expected_maps(spec, x, kernel, dy):
    x, kernel, dy = x.numpy(), kernel.numpy(), dy.numpy()
    return (
        reference.forward(x, kernel, spec),
        reference.input_grad(dy, kernel.conj(), spec),
        reference.kernel_grad(x.conj(), dy, spec),
    )


@pytest.mark.parametrize("batch", [3, 0])
@pytest.mark.parametrize("limit", [GENEROUS, TIGHT])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_maps_equal_the_reference(geometry, name, limit, batch):
    spec, resources = GEOMETRIES[geometry], Resources(limit)
    implementation = plugins.load_implementation("tensorflow", name)
    problem = Problem(spec, batch, "float64", "cpu", False, resources)
    if reason := implementation.decline(problem):
        assert name in ("disjoint", "conv"), reason
        return
    x, kernel, dy = arrays(spec, batch)
    actual = (
        implementation.forward(x, kernel, spec, resources),
        implementation.input_grad(dy, kernel, spec, resources),
        implementation.kernel_grad(x, dy, spec, resources),
    )
    for ours, theirs in zip(actual, expected_maps(spec, x, kernel, dy), strict=True):
        assert ours.shape == theirs.shape
        close(ours, theirs)


def test_each_geometry_has_its_specialist():
    served = {
        geometry: {
            name
            for name in NAMES
            if not plugins.load_implementation("tensorflow", name).decline(
                Problem(spec, 3, "float32", "cpu", False, Resources(GENEROUS))
            )
        }
        for geometry, spec in GEOMETRIES.items()
    }
    assert served["2d"] == {"composed", "blocked"}
    assert served["convolution"] == {"composed", "blocked", "conv"}
    assert served["disjoint, remainder"] == {"composed", "blocked", "disjoint"}
    assert served["gaps"] == {"composed", "blocked"}


@pytest.mark.parametrize("mode", ["eager", "function", "xla"])
@pytest.mark.parametrize("name", NAMES)
def test_modes(name, mode):
    geometry = {"disjoint": "disjoint, remainder", "conv": "convolution"}.get(name, "2d")
    spec = GEOMETRIES[geometry]
    x, kernel, dy = arrays(spec)
    kernel_shared = tf.reshape(kernel, spec.kernel_shape)

    def step(x, kernel, dy):
        return value_and_gradients(call(spec, name), x, kernel, dy)

    if mode != "eager":
        step = tf.function(step, autograph=False, jit_compile=mode == "xla")
    with lcmulti.config(max_workspace=TIGHT if name == "blocked" else GENEROUS):
        actual = step(x, kernel_shared, dy)
    for ours, theirs in zip(actual, expected_maps(spec, x, kernel, dy), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64", "complex128"])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name, dtype):
    geometry = {"disjoint": "disjoint, remainder", "conv": "convolution"}.get(name, "groups")
    spec = GEOMETRIES[geometry]
    x, kernel, dy = arrays(spec, dtype=dtype)
    if name == "conv" and dtype.startswith("complex"):
        with pytest.raises(UnsupportedError, match="does not compute in complex"):
            call(spec, name)(x, kernel)
        return
    with lcmulti.config(max_workspace=GENEROUS):
        actual = value_and_gradients(call(spec, name), x, kernel, dy)
    for ours, theirs in zip(actual, expected_maps(spec, x, kernel, dy), strict=True):
        assert ours.dtype == x.dtype
        wide = "complex128" if dtype.startswith("complex") else "float64"
        close(tf.cast(ours, wide), theirs.astype(wide), dtype)


def test_half_types_are_summed_in_float32():
    # 4096 + 1 is 4096 in float16: summed there, the ones would be lost.
    values = np.ones((1, 2, 2049), "float16")
    values[..., 0] = 4096
    for name in ("composed", "blocked"):
        kernel = tf.ones((1, 2, 2049, 1), tf.float16)
        y = lcmulti.local_conv(
            tf.constant(values), kernel, data_format="channels_last", implementation=name
        )
        assert float(y[0, 0, 0]) == 4096 * 2 + 2048 * 2


def test_gradients_are_those_of_tensorflow_itself():
    """The rules against TensorFlow differentiating the composed maps, complex and nested."""
    spec = GEOMETRIES["2d"]
    x, kernel, _ = arrays(spec, dtype="complex128")
    composed, r = plugins.load_implementation("tensorflow", "composed"), Resources(GENEROUS)

    def third(function):
        with tf.GradientTape() as outer:
            outer.watch((x, kernel))
            with tf.GradientTape() as middle:
                middle.watch((x, kernel))
                with tf.GradientTape() as inner:
                    inner.watch((x, kernel))
                    loss = tf.reduce_sum(function(x, kernel) ** 3)
                first = inner.gradient(loss, (x, kernel))
                mixed = tf.reduce_sum(first[0] ** 2) + tf.reduce_sum(first[1] ** 2)
            second = middle.gradient(mixed, (x, kernel))
            mixed = tf.reduce_sum(second[0] ** 2) + tf.reduce_sum(second[1] ** 2)
        return (*first, *second, *outer.gradient(mixed, (x, kernel)))

    native = third(lambda x, kernel: composed.forward(x, kernel, spec, r))
    for mode in (lambda f: f, tf.function):
        ours = mode(lambda: third(call(spec, "blocked")))()
        for a, b in zip(ours, native, strict=True):
            scale = np.abs(b).max()
            close(a / scale, b / scale, scale=4096)


def test_gradient_equals_finite_differences():
    spec = GEOMETRIES["strides, uneven padding"]
    x, kernel, _ = arrays(spec, batch=2)
    step = 1e-5
    direction, along = arrays(spec, batch=2, seed=1)[:2]

    def slope(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            loss = tf.reduce_sum(tf.sin(call(spec)(x, kernel)))
        a, b = tape.gradient(loss, (x, kernel))
        return tf.reduce_sum(a * direction) + tf.reduce_sum(b * along)

    with tf.GradientTape() as tape:
        tape.watch((x, kernel))
        value = slope(x, kernel)
    a, b = tape.gradient(value, (x, kernel))
    second = tf.reduce_sum(a * direction) + tf.reduce_sum(b * along)
    up = slope(x + step * direction, kernel + step * along)
    down = slope(x - step * direction, kernel - step * along)
    np.testing.assert_allclose(second, (up - down) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("graph", ["eager", "accumulator in function", "function in accumulator"])
def test_forward_accumulator_values(graph, dtype):
    spec = GEOMETRIES["groups"]
    x, kernel, _ = arrays(spec, dtype=dtype)
    dx, dkernel, _ = arrays(spec, dtype=dtype, seed=1)
    jvp = plugins.load_backend("tensorflow").jvp
    function = call(spec)
    if graph == "function in accumulator":
        function = tf.function(function, autograph=False)

    def tangent(x, kernel):
        return jvp(function, (x, kernel), (dx, dkernel))[1]

    if graph == "accumulator in function":
        tangent = tf.function(tangent, autograph=False)
    actual = tangent(x, kernel)
    x, kernel, dx, dkernel = (each.numpy() for each in (x, kernel, dx, dkernel))
    expected = reference.forward(dx, kernel, spec) + reference.forward(x, dkernel, spec)
    close(actual, expected)


@pytest.mark.parametrize("graph", [False, True])
def test_forward_over_reverse_equals_reverse_over_reverse(graph):
    spec = GEOMETRIES["2d"]
    x, kernel, _ = arrays(spec)
    dx, dkernel, _ = arrays(spec, seed=1)

    def gradients(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            loss = tf.reduce_sum(call(spec)(x, kernel) ** 3)
        return tape.gradient(loss, (x, kernel))

    def forward(x, kernel):
        with tf.autodiff.ForwardAccumulator((x, kernel), (dx, dkernel)) as accumulator:
            first = gradients(x, kernel)
        return accumulator.jvp(first)

    def reverse(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            a, b = gradients(x, kernel)
            along = tf.reduce_sum(a * dx) + tf.reduce_sum(b * dkernel)
        return tape.gradient(along, (x, kernel))

    wrap = tf.function(autograph=False) if graph else (lambda function: function)
    for a, b in zip(wrap(forward)(x, kernel), reverse(x, kernel), strict=True):
        scale = np.abs(b).max()
        close(a / scale, b / scale, scale=4096)


def test_eager_gradients_nobody_asks_for_are_not_computed(monkeypatch):
    spec = GEOMETRIES["2d"]
    x, kernel, dy = arrays(spec)
    blocked, asked = plugins.load_implementation("tensorflow", "blocked"), []
    for name in ("input_grad", "kernel_grad"):
        original = getattr(type(blocked), name)

        def spy(self, *arguments, name=name, original=original):
            asked.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(type(blocked), name, spy)
    with lcmulti.config(max_workspace=GENEROUS + 1), tf.GradientTape() as tape:  # a fresh plan
        tape.watch(kernel)
        y = call(spec)(x, kernel)
    close(tape.gradient(y, kernel, dy), expected_maps(spec, x, kernel, dy)[2])
    assert asked == ["kernel_grad"]


def test_vjp_is_not_conjugated():
    spec = GEOMETRIES["2d"]
    x, kernel, dy = arrays(spec, dtype="complex128")
    y, (dx, dkernel) = plugins.load_backend("tensorflow").vjp(call(spec), (x, kernel), dy)
    x, kernel, dy = x.numpy(), kernel.numpy(), dy.numpy()
    close(y, reference.forward(x, kernel, spec))
    close(dx, reference.input_grad(dy, kernel, spec))
    close(dkernel, reference.kernel_grad(x, dy, spec))


@pytest.mark.parametrize("limit", [GENEROUS, TIGHT])
@pytest.mark.parametrize("geometry", ["2d", "groups", "disjoint, remainder", "convolution"])
def test_unknown_batch(geometry, limit):
    spec = GEOMETRIES[geometry]
    specification = tf.TensorSpec((None, *spec.input_shape), tf.float64)

    @tf.function(autograph=False)
    def step(x, kernel, dy):
        with lcmulti.config(max_workspace=limit):
            name = "blocked" if limit == TIGHT else "auto"
            return value_and_gradients(call(spec, name), x, kernel, dy)

    traced = step.get_concrete_function(
        specification,
        tf.TensorSpec(spec.kernel_shape, tf.float64),
        tf.TensorSpec((None, *spec.output_shape), tf.float64),
    )
    for batch in (0, 1, 7):
        x, kernel, dy = arrays(spec, batch)
        for ours, theirs in zip(
            traced(x, kernel, dy), expected_maps(spec, x, kernel, dy), strict=True
        ):
            assert ours.shape == theirs.shape
            close(ours, theirs)


class Layer(tf.Module):
    def __init__(self, spec, kernel):
        super().__init__()
        self.kernel = tf.Variable(kernel)
        self.function = call(spec)
        signature = [tf.TensorSpec((None, *spec.input_shape), kernel.dtype)]
        self.apply = tf.function(self._apply, autograph=False, input_signature=signature)

    def _apply(self, x):
        return self.function(x, self.kernel)


def test_saved_model_round_trip(tmp_path):
    spec = GEOMETRIES["strides, uneven padding"]
    x, kernel, dy = arrays(spec)
    tf.saved_model.save(Layer(spec, kernel), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loaded.apply(x)
    actual = (y, *tape.gradient(y, (x, loaded.kernel), dy))
    for ours, theirs in zip(actual, expected_maps(spec, x, kernel, dy), strict=True):
        close(ours, theirs)


ORDERS = """
import sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
x = tf.ones([int(n) for n in sys.argv[2:]], tf.float64)

def first(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(model.apply(x) ** 2)
    return tape.gradient(loss, x)

print(float(tf.reduce_sum(first(x))))
with tf.GradientTape() as tape:
    tape.watch(x)
    loss = tf.reduce_sum(first(x) ** 2)
print(tape.gradient(loss, x))
"""


def test_second_order_after_loading_raises(tmp_path):
    """TensorFlow saves custom gradients one level deep; the next is an error, never a number."""
    spec = GEOMETRIES["2d"]
    x, kernel, _ = arrays(spec)
    layer = Layer(spec, kernel)
    tf.saved_model.save(layer, str(tmp_path))
    # In this process the gradients are still registered; a fresh one knows what was saved.
    command = [sys.executable, "-c", ORDERS, str(tmp_path), *map(str, x.shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    x, kernel = np.ones(x.shape), kernel.numpy()
    expected = reference.input_grad(2 * reference.forward(x, kernel, spec), kernel, spec).sum()
    np.testing.assert_allclose(float(done.stdout), expected, rtol=1e-9)
    assert "LookupError: No gradient defined" in done.stderr


def nodes(function):
    graphs = [function.graph.as_graph_def()]
    return sum(len(g.node) + sum(len(f.node_def) for f in g.library.function) for g in graphs)


@pytest.mark.parametrize("name", ["composed", "blocked"])
def test_graph_does_not_grow_with_positions(name):
    counts = []
    for size in (63, 123, 603):
        x, kernel = tf.ones((2, size, 3)), tf.ones((size - 2, 3, 3, 4))

        @tf.function(autograph=False)
        def step(x, kernel):
            with tf.GradientTape() as tape:
                tape.watch((x, kernel))
                y = lcmulti.local_conv(x, kernel, data_format="channels_last", implementation=name)
            return tape.gradient(y, (x, kernel))

        with lcmulti.config(max_workspace=TIGHT):
            counts.append(nodes(step.get_concrete_function(x, kernel)))
    assert max(counts) < 1.5 * min(counts)  # a remainder is a few nodes; positions grow tenfold


def test_blocked_cuts_samples_and_positions():
    from lcmulti_tensorflow.rows import cut

    spec = GEOMETRIES["groups"]
    assert cut(spec, 3, "float64", "cpu", GENEROUS)[:2] == (3, 49)
    tight = cut(spec, 3, "float64", "cpu", TIGHT)
    assert tight.samples == 1
    assert tight.positions < 49


PEAK = """
import sys, tensorflow as tf
from lcmulti import LocalConvSpec, plugins
from lcmulti.backend import Resources

def field(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

blocked, resources = plugins.load_implementation("tensorflow", "blocked"), Resources(2**26)

def run(size):
    spec = LocalConvSpec((size, size, 16), 16, (5, 5), data_format="channels_last")
    x, dy = tf.ones((64, *spec.input_shape)), tf.ones((64, *spec.output_shape))
    kernel = tf.ones(spec.kernel_shape)
    arguments = {"forward": (x, kernel), "input_grad": (dy, kernel), "kernel_grad": (x, dy)}
    open("/proc/self/clear_refs", "w").write("5")
    before = field("VmRSS")
    result = getattr(blocked, sys.argv[1])(*arguments[sys.argv[1]], spec, resources)
    return field("VmHWM") - before - 4 * tf.size(result).numpy()

run(12)
print(run(96))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", ["forward", "input_grad", "kernel_grad"])
def test_blocked_holds_no_more_than_it_may(name):
    """Patches are 832 MB and the kernel 207 MB here; 64 MiB are allowed."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, name], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 2**26 * 1.1  # threads and the graph itself take something


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_padding_modes_and_data_formats(mode, data_format):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 6, 5, 3)), rng.standard_normal((6, 5, 3, 3, 3, 4))
    bias = rng.standard_normal((6, 5, 4))
    if data_format == "channels_first":
        x = np.moveaxis(x, -1, 1)
    options = {"padding": "same", "padding_mode": mode, "data_format": data_format}
    ours = lcmulti.local_conv(tf.constant(x), tf.constant(kernel), tf.constant(bias), **options)
    theirs = lcmulti.local_conv(x, kernel, bias, backend="numpy", **options)
    assert isinstance(ours, tf.Tensor)
    close(ours, theirs)


def test_variables_and_numpy_arrays_mix_with_tensors():
    spec = GEOMETRIES["2d"]
    x, kernel, dy = arrays(spec)
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        y = call(spec)(x.numpy(), variable)
    assert isinstance(y, tf.Tensor)
    expected = expected_maps(spec, x, kernel, dy)
    close(y, expected[0])
    close(tape.gradient(y, variable, dy), expected[2])
    neutral = lcmulti.local_conv(
        x.numpy(), kernel.numpy(), backend="tensorflow", data_format="channels_last"
    )
    assert isinstance(neutral, np.ndarray)
    close(neutral, expected[0])


def test_bfloat16_returns_to_numpy():
    import ml_dtypes

    x = np.ones((1, 4, 2), ml_dtypes.bfloat16)
    kernel = np.ones((3, 2, 2, 1), ml_dtypes.bfloat16)
    y = lcmulti.local_conv(x, kernel, backend="tensorflow", data_format="channels_last")
    assert y.dtype == ml_dtypes.bfloat16
    assert (y == 4).all()


def test_nan_reaches_only_what_sees_it():
    x = np.ones((1, 6, 1))
    x[0, 2] = np.nan
    for name in ("composed", "blocked"):
        y = lcmulti.local_conv(
            tf.constant(x), tf.ones((5, 2, 1, 1), tf.float64),
            data_format="channels_last", implementation=name,
        )  # fmt: skip
        assert np.isnan(y.numpy().ravel()).tolist() == [False, True, True, False, False]


def test_inputs_are_left_alone_and_calls_do_not_share_results():
    """The loops write in place; nobody else may see it."""
    spec = GEOMETRIES["2d"]
    x, kernel, dy = arrays(spec)
    before = [each.numpy().copy() for each in (x, kernel, dy)]
    with lcmulti.config(max_workspace=TIGHT):
        step = tf.function(lambda *a: value_and_gradients(call(spec), *a), autograph=False)
        first = [each.numpy().copy() for each in step(x, kernel, dy)]
        held = step(x, kernel, dy)
        step(2 * x, 3 * kernel, 5 * dy)
    for a, b in zip(held, first, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip((x, kernel, dy), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_rank_is_an_error():
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)], autograph=False)
    def unknown(x):
        return lcmulti.local_conv(x, tf.ones((3, 2, 1, 1)))

    with pytest.raises(lcmulti.errors.ShapeError, match="known rank"):
        unknown.get_concrete_function()


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
@pytest.mark.parametrize("geometry", [name for name in GEOMETRIES if "disjoint" in name])
def test_disjoint_in_blocks_is_what_it_is_at_once(geometry, dtype):
    from lcmulti_tensorflow.disjoint import cut, disjoint

    spec = GEOMETRIES[geometry]
    x, kernel, dy = arrays(spec, 5, dtype)
    pairs = {"forward": (x, kernel), "input_grad": (dy, kernel), "kernel_grad": (x, dy)}
    whole = cut(spec, 5, dtype, GENEROUS)
    for limit in (1, whole.workspace - 1):
        blocks = cut(spec, 5, dtype, limit)
        assert blocks.samples < 5
        for name, pair in pairs.items():
            apart, at_once = (
                tf.cast(getattr(disjoint, name)(*pair, spec, Resources(bytes_, None)), "complex128")
                for bytes_ in (limit, GENEROUS)
            )
            close = 2e-3 if dtype == "float16" else 1e-5
            np.testing.assert_allclose(apart, at_once, rtol=close, atol=close)


def test_tf32_is_asked_in_backward_and_einsum_too(monkeypatch):
    x, kernel = tf.ones((2, 5, 3)), tf.ones((4, 2, 3, 7))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = lcmulti.local_conv(x, kernel)
    monkeypatch.setattr("lcmulti_tensorflow.ops.has_gpu", lambda: True)
    monkeypatch.setattr("lcmulti_tensorflow.ops.device_of", lambda array: "gpu")
    for call in (
        lambda: lcmulti.local_conv(x, kernel),
        lambda: tape.gradient(y, x),
        lambda: lcmulti.low_rank_kernel(tf.ones((2, 1, 2, 3, 7)), tf.ones((4, 2))),
    ):
        with pytest.raises(UnsupportedError, match="round float32 to TensorFloat-32"):
            call()
