"""The JAX backend: results, devices and precision of its implementations."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from helpers_jax import (  # noqa: E402
    IMPLEMENTATIONS,
    RESOURCES,
    TRANSFORMED,
    _x64,  # noqa: F401 - a fixture
    arrays_of,
    cases,
    load,
    naive,
    near,
    operation,
    problem_of,
    random,
    spec_of,
)
from jax import export  # noqa: E402
from jax_releases import enable_x64  # noqa: E402
from lcmulti_jax import array_operations  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti import plugins  # noqa: E402
from lcmulti.algorithms import reference  # noqa: E402
from lcmulti.errors import DtypeError  # noqa: E402
from lcmulti.plugins.contract import Resources  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.sampled]


def maps(implementation, spec, resources=RESOURCES):
    """Return the three maps, each compiled by `jax.jit` when it is called."""
    names = ("forward", "input_grad", "kernel_grad")
    return [
        jax.jit(partial(getattr(load(implementation), name), spec=spec, resources=resources))
        for name in names
    ]


@pytest.mark.parametrize(("name", "implementation"), cases())
def test_maps_equal_the_reference(name, implementation):
    check_maps(name, implementation, RESOURCES)


@pytest.mark.parametrize("limit", [300, 2000])
@pytest.mark.parametrize("name", ["grouped", "shared rows", "deep padding", "3d"])
def test_blocks_equal_the_reference(name, limit):
    check_maps(name, "blocked", Resources(limit))


def test_blocks_that_each_reach_the_whole_input_are_added():
    padding = ((2, 1), (1, 2))
    spec = lcmulti.LocalConvSpec((2, 3, 2), 3, (4, 5), padding=padding, data_format="channels_last")
    _, kernel, dy = arrays_of(spec)
    got = maps("blocked", spec.computed(), Resources(3000))[1](dy, kernel)
    near(got, reference.input_grad(np.asarray(dy), np.asarray(kernel), spec.computed()))


@pytest.mark.parametrize("most_terms", [1, 32])
@pytest.mark.parametrize("name", ["grouped", "shared rows", "deep padding", "3d", "4d"])
def test_what_a_gpu_runs_equals_the_reference(name, most_terms, monkeypatch):
    monkeypatch.setattr("lcmulti_jax.array_operations.default_device", lambda: "gpu")
    monkeypatch.setattr("lcmulti_jax.array_operations.MOST_TERMS", most_terms)
    check_maps(name, "composed", RESOURCES)


def test_export_of_what_a_gpu_runs_with_a_symbolic_batch(monkeypatch):
    monkeypatch.setattr("lcmulti_jax.array_operations.default_device", lambda: "gpu")
    spec = spec_of("grouped").computed()
    _, kernel, dy = arrays_of(spec, batch=3)
    input_grad = maps("composed", spec)[1]
    (batch,) = export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, *dy.shape[1:]), dy.dtype)
    exported = export.export(input_grad)(shape, kernel)
    near(exported.call(dy, kernel), input_grad(dy, kernel))


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (dict(input_shape=(4, 3, 4, 3, 2), filters=2, kernel_size=2), "more than three axes"),
        (dict(input_shape=(9, 2), filters=2, kernel_size=2, strides=3), "gaps between windows"),
    ],
)
def test_convolutions_that_a_gpu_gets_wrong_are_declined(geometry, reason):
    shared = tuple(range(len(geometry["input_shape"]) - 1))
    spec = lcmulti.LocalConvSpec(**geometry, shared_axes=shared, data_format="channels_last")
    problem = problem_of(spec)
    assert load("conv").decline(problem) is None
    assert reason in load("conv").decline(problem._replace(device="gpu"))


def test_the_default_device_is_that_of_the_context(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert array_operations.default_device() == "gpu"
    for cpu in ("cpu", jax.devices("cpu")[0]):
        with jax.default_device(cpu):
            assert array_operations.default_device() == "cpu"
    facts = plugins.load_backend("jax").facts
    assert facts(jnp.ones(3)).device == "gpu"  # an array without a device goes to the default
    assert facts(jax.device_put(jnp.ones(3), jax.devices("cpu")[0])).device == "cpu"


def check_maps(name, implementation, resources):
    spec = spec_of(name).computed()
    x, kernel, dy = arrays_of(spec, batch=3)
    forward, input_grad, kernel_grad = maps(implementation, spec, resources)
    arguments = tuple(map(np.asarray, (x, kernel, dy)))
    near(forward(x, kernel), reference.forward(arguments[0], arguments[1], spec))
    near(input_grad(dy, kernel), reference.input_grad(arguments[2], arguments[1], spec))
    near(kernel_grad(x, dy), reference.kernel_grad(arguments[0], arguments[2], spec))


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize(("name", "implementation"), cases(TRANSFORMED))
def test_batch_of_none_and_of_one(name, implementation, batch):
    spec = spec_of(name)
    x, kernel, dy = arrays_of(spec, batch)
    y, pull_back = jax.vjp(operation(spec, implementation), x, kernel)
    expected, naive_pull_back = jax.vjp(naive(spec), x, kernel)
    assert y.shape == dy.shape
    near((y, pull_back(dy)), (expected, naive_pull_back(dy)))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes_and_data_formats_equal_numpy(padding_mode, data_format):
    x, kernel, bias = random(0, (2, 5, 6, 4), (7, 6, 3, 2, 2, 6), (7, 1, 6))
    if data_format == "channels_first":
        x = jnp.moveaxis(x, -1, 1)
    call = partial(
        lcmulti.local_conv,
        padding=((2, 2), (1, 0)),
        padding_mode=padding_mode,
        groups=2,
        data_format=data_format,
    )
    y = jax.jit(call)(x, kernel, bias)
    assert isinstance(y, jax.Array)
    near(y, call(*map(np.asarray, (x, kernel, bias)), backend="numpy"))
    gradient = jax.grad(lambda bias: call(x, kernel, bias).sum())(bias)
    near(gradient, np.full(bias.shape, 2 * y.shape[-1 if data_format != "channels_last" else 2]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("max_workspace", ["256MiB", "500KiB"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_half_types_are_summed_in_float32(implementation, dtype, max_workspace):
    # A sum of ones in bfloat16 stops at 256, and in float16 at 2048.
    channels = 300 if dtype == "bfloat16" else 2050
    shared = implementation == "conv"
    if implementation == "disjoint":
        channels, batch, filters = 1, channels, 2
    else:
        batch, filters = 2, channels
    x = jnp.ones((batch, 3, channels), dtype)
    kernel = jnp.ones((1 if shared else 3, 1, channels, filters), dtype)
    with lcmulti.config(max_workspace=max_workspace):
        run = partial(lcmulti.local_conv, implementation=implementation)
        y, pull_back = jax.vjp(run, x, kernel)
        gradients = pull_back(jnp.ones_like(y))
    assert {each.dtype.name for each in (y, *gradients)} == {dtype}
    sums = (channels, filters, batch * (3 if shared else 1))
    for array, expected in zip((y, *gradients), sums, strict=True):
        assert (array == jnp.asarray(expected, dtype)).all()


def test_float32_is_not_rounded_to_fewer_bits():
    spec = spec_of("grouped")
    for primitive in ("dot_general", "conv_general_dilated"):
        for implementation in ("blocked", "conv"):
            call = load(implementation).forward
            chosen = spec if implementation == "blocked" else spec_of("convolution")
            x, kernel, _ = arrays_of(chosen, dtype="float32")
            jaxpr = jax.make_jaxpr(lambda *a: call(*a, chosen, RESOURCES))(x, kernel)  # noqa: B023
            for equation in jaxpr.eqns:
                if equation.primitive.name == primitive:
                    highest = jax.lax.Precision.HIGHEST
                    assert equation.params["precision"] == (highest, highest)


def test_auto_takes_the_special_geometries():
    for name, expected in (
        ("grouped", "blocked"), ("convolution", "conv"), ("disjoint 1d", "disjoint"),
    ):  # fmt: skip
        spec = spec_of(name)
        x, kernel, _ = arrays_of(spec)
        verdicts = lcmulti.explain(x, kernel, **operation(spec).keywords).verdicts
        serving = [each.name for each in verdicts if each.reason is None and each.name != "native"]
        assert serving[0] == expected


def test_numpy_arrays_go_there_and_back():
    x, kernel, _ = map(np.asarray, arrays_of(spec_of("disjoint 1d")))
    y = lcmulti.local_conv(x, kernel, strides=2, backend="jax")
    assert type(y) is np.ndarray
    assert y.flags.writeable
    near(y, lcmulti.local_conv(x, kernel, strides=2, backend="numpy"))


def test_bfloat16_to_numpy():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    backend = plugins.load_backend("jax")
    array = backend.from_numpy(np.ones(3, ml_dtypes.bfloat16))
    assert array.dtype == jnp.bfloat16
    assert backend.to_numpy(array).dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_wide_types_need_x64(dtype):
    x, kernel = np.ones((1, 4, 1), dtype), np.ones((4, 1, 1, 1), dtype)
    assert lcmulti.local_conv(x, kernel, backend="jax").dtype == dtype
    with enable_x64(False), pytest.raises(DtypeError, match="jax_enable_x64"):
        lcmulti.local_conv(x, kernel, backend="jax")


def test_from_numpy_does_not_alias():
    backend = plugins.load_backend("jax")
    source = np.zeros(1024, "float32")
    array = backend.from_numpy(source)
    source += 1
    assert not array.any()
