"""The TensorFlow backend: values, precision and memory of its implementations."""

import subprocess
import sys

import numpy as np
import pytest

import lcmulti
from lcmulti import plugins
from lcmulti.errors import UnsupportedError
from lcmulti.plugins.contract import Problem, Resources

tf = pytest.importorskip("tensorflow")

from helpers_tensorflow import (  # noqa: E402
    GENEROUS,
    GEOMETRIES,
    NAMES,
    TIGHT,
    arrays,
    call,
    close,
    expected_maps,
    value_and_gradients,
)
from helpers_variables import check_variables  # noqa: E402

pytestmark = [pytest.mark.tensorflow, pytest.mark.sampled]


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
            step(x, kernel)  # tracing without a call is for export, and would be composed
            counts.append(nodes(step.get_concrete_function(x, kernel)))
    # A smaller last block adds a few nodes, while the positions grow tenfold.
    assert max(counts) < 1.5 * min(counts)


def test_blocked_cuts_samples_and_positions():
    from lcmulti_tensorflow.rows import grid_of

    spec = GEOMETRIES["groups"]
    assert grid_of(spec, 3, "float64", "cpu", GENEROUS)[:2] == (3, 49)
    tight = grid_of(spec, 3, "float64", "cpu", TIGHT)
    assert tight.samples == 1
    assert tight.positions < 49


PEAK = """
import sys, tensorflow as tf
from lcmulti import LocalConvSpec, plugins
from lcmulti.plugins.contract import Resources

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
    """The patches would take 832 MB; 64 MiB are allowed."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, name], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 2**26 * 1.1  # threads and the graph take some memory


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
    """The loops write in place, which must change neither inputs nor earlier results."""
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
    from lcmulti_tensorflow.disjoint import disjoint, grid_of

    spec = GEOMETRIES[geometry]
    x, kernel, dy = arrays(spec, 5, dtype)
    pairs = {"forward": (x, kernel), "input_grad": (dy, kernel), "kernel_grad": (x, dy)}
    whole = grid_of(spec, 5, dtype, GENEROUS)
    for limit in (1, whole.workspace - 1):
        blocks = grid_of(spec, 5, dtype, limit)
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
    monkeypatch.setattr("lcmulti_tensorflow.precision.has_gpu", lambda: True)
    monkeypatch.setattr("lcmulti_tensorflow.precision.device_of", lambda array: "gpu")
    for call in (  # noqa: F402
        lambda: lcmulti.local_conv(x, kernel),
        lambda: tape.gradient(y, x),
        lambda: lcmulti.low_rank_kernel(tf.ones((2, 1, 2, 3, 7)), tf.ones((4, 2))),
    ):
        with pytest.raises(UnsupportedError, match="round float32 to TensorFloat-32"):
            call()


def test_a_variable_in_parts_is_taken():
    """A `ShardedVariable`, as parameter servers hold it, works and gives each part its gradient."""
    from tensorflow.python.distribute.sharded_variable import ShardedVariable

    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 2, 3, 7)).astype("float32")
    bias = rng.standard_normal((4, 7)).astype("float32")
    parts = [
        ShardedVariable([tf.Variable(each[:3]), tf.Variable(each[3:])]) for each in (kernel, bias)
    ]
    x = tf.constant(rng.standard_normal((2, 5, 3)).astype("float32"))
    with tf.GradientTape() as tape:
        y = lcmulti.local_conv(x, *parts, data_format="channels_last")
    wanted = lcmulti.local_conv(x, kernel, bias, data_format="channels_last")
    np.testing.assert_array_equal(y, wanted)
    variables = [each for part in parts for each in part.variables]
    shapes = [grad.shape for grad in tape.gradient(y, variables)]
    assert shapes == [each.shape for each in variables]


def test_operations_take_variables(tmp_path):
    path = tmp_path / "weights.safetensors"
    check_variables(tf.Variable, tf.constant, lambda tensor: tensor.numpy(), path)
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        check_variables(tf.Variable, tf.constant, lambda tensor: tensor.numpy(), path)
