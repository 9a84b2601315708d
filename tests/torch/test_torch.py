"""The PyTorch backend: results, devices, precision and memory of its implementations."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers_torch import GEOMETRIES, RESOURCES, TIGHT, cases, operation, spec_of, tensors  # noqa: E402
from lcmulti_torch import blocked, convolution, disjoint, precision  # noqa: E402
from lcmulti_torch.precision import convolutions_round, refuse_rounding  # noqa: E402
from releases import before  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti import plugins  # noqa: E402
from lcmulti.algorithms import reference  # noqa: E402
from lcmulti.choosing import dispatch, settings  # noqa: E402
from lcmulti.conformance.inputs import numpy_dtype  # noqa: E402
from lcmulti.errors import DtypeError, UnsupportedError  # noqa: E402
from lcmulti.plugins.contract import Facts, Problem, Resources  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.sampled]


@pytest.mark.parametrize("resources", [RESOURCES, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize(("name", "implementation"), cases())
def test_maps_equal_the_reference(name, implementation, batch, resources):
    spec = spec_of(name).computed()
    maps = plugins.load_implementation("torch", implementation)
    x, kernel, _ = tensors(spec, batch, requires_grad=False)
    dy = torch.randn((batch, *spec.output_shape), dtype=torch.float64)
    args = [each.numpy() for each in (x, kernel, dy)]
    pairs = [
        (maps.forward(x, kernel, spec, resources), reference.forward(args[0], args[1], spec)),
        (
            maps.input_grad(dy, kernel, spec, resources),
            reference.input_grad(args[2], args[1], spec),
        ),
        (maps.kernel_grad(x, dy, spec, resources), reference.kernel_grad(args[0], args[2], spec)),
    ]
    for ours, expected in pairs:
        assert ours.dtype == torch.float64
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_meta_tensors_beyond_2_to_31_elements():
    x = torch.empty(64, 4096, 4096, 4, device="meta")
    kernel = torch.empty(4094, 4094, 3, 3, 4, 2, device="meta")
    y = lcmulti.local_conv(x, kernel, data_format="channels_last")
    assert y.shape == (64, 4094, 4094, 2)
    assert y.device.type == "meta"


@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_zero_batch_has_zero_kernel_gradient(name):
    spec = spec_of(name)
    x, kernel, bias = tensors(spec, batch=0)
    y = operation(spec)(x, kernel, bias)
    assert y.shape == (0, *spec.output_shape)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not kernel.grad.any()


@pytest.mark.parametrize("implementation", ["blocked", "composed"])
def test_memory_formats_and_strides(implementation):
    x = torch.randn(2, 3, 8, 7)
    kernel = torch.randn(6, 6, 3, 2, 3, 4)

    def run(x, kernel=kernel):
        return lcmulti.local_conv(
            x, kernel, data_format="channels_first", implementation=implementation
        )

    expected = run(x)
    torch.testing.assert_close(run(x.to(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(run(x.flip(2).contiguous().flip(2)), expected)
    torch.testing.assert_close(run(x[:1].expand(2, -1, -1, -1)), run(x[:1].repeat(2, 1, 1, 1)))
    every_other = torch.randn(4, 3, 8, 7)
    torch.testing.assert_close(run(every_other[::2]), run(every_other[::2].contiguous()))
    turned = kernel.permute(5, 4, 3, 2, 1, 0).contiguous().permute(5, 4, 3, 2, 1, 0)
    torch.testing.assert_close(run(x, turned), expected)


def test_blocks_hold_no_more_than_max_workspace():
    """The profiler's memory events say how much PyTorch's allocator holds."""
    x, kernel = torch.randn(8, 40, 40, 8), torch.randn(36, 36, 5, 5, 8, 8)
    limit = 2**20
    with lcmulti.config(max_workspace=limit), torch.no_grad():
        run = lambda: lcmulti.local_conv(x, kernel, data_format="channels_last")  # noqa: E731
        run()
        with torch.profiler.profile(profile_memory=True) as profile:
            y = run()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert peak > 0
    assert peak - y.numel() * 4 <= limit


def test_half_types_and_refused_types():
    x, kernel = torch.randn(2, 5, 3), torch.randn(4, 2, 3, 4)
    for dtype in (torch.float16, torch.bfloat16):
        assert lcmulti.local_conv(x.to(dtype), kernel.to(dtype)).dtype == dtype
    with pytest.raises(DtypeError, match="x: expected dtype"):
        lcmulti.local_conv(x.int(), kernel.int())
    with pytest.raises(DtypeError, match="kernel: expected dtype float32"):
        lcmulti.local_conv(x, kernel.double())


class Device:
    """A stand-in for a tensor on a GPU."""

    dtype, is_cuda = torch.float32, True


@pytest.fixture
def precisions():
    """Restore PyTorch's switches after the test."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [switch.fp32_precision for switch in switches]
    yield switches
    for switch, value in zip(switches, before, strict=True):
        switch.fp32_precision = value


def test_tf32_by_the_switches_of_older_releases(monkeypatch):
    monkeypatch.setattr(precision, "_has_precisions", lambda: False)
    for allowed in (False, True):
        switch = SimpleNamespace(allow_tf32=allowed)
        monkeypatch.setattr(torch.backends.cuda, "matmul", switch)
        monkeypatch.setattr(torch.backends, "cudnn", switch)
        assert convolutions_round(Device()) == allowed
        with (
            pytest.raises(UnsupportedError, match="allow_tf32 = False")
            if allowed
            else nullcontext()
        ):
            refuse_rounding(Device())


@before("torch", 2, 9, lacks="fp32_precision")
def test_tf32_is_asked_at_every_call(precisions):
    matmul, conv = precisions
    matmul.fp32_precision = conv.fp32_precision = "ieee"
    refuse_rounding(Device())
    assert not convolutions_round(Device())
    matmul.fp32_precision = conv.fp32_precision = "tf32"
    assert convolutions_round(Device())
    assert not convolutions_round(torch.ones(1))
    refuse_rounding(torch.ones(1))
    with pytest.raises(UnsupportedError, match="fp32_precision = 'ieee'"):
        refuse_rounding(Device())
    torch.backends.cuda.matmul.allow_tf32 = False
    refuse_rounding(Device())


def test_tf32_is_asked_in_backward_and_einsum_too(monkeypatch):
    x, kernel = torch.ones(2, 5, 3, requires_grad=True), torch.ones(4, 2, 3, 7)
    basis, coefficients = torch.ones(2, 1, 2, 3, 7), torch.ones(4, 2)
    y = lcmulti.local_conv(x, kernel)

    def refuse(array):
        raise UnsupportedError("rounds")

    monkeypatch.setattr("lcmulti_torch.derivatives.refuse_rounding", refuse)
    monkeypatch.setattr("lcmulti_torch.backend.refuse_rounding", refuse)
    for call in (
        lambda: lcmulti.local_conv(x, kernel),
        lambda: y.sum().backward(),
        lambda: lcmulti.low_rank_kernel(basis, coefficients),
    ):
        with pytest.raises(UnsupportedError, match="rounds"):
            call()


def test_a_convolution_that_would_end_the_process_is_computed_otherwise():
    x, kernel = torch.randn(1, 700, 8, 9, 1), torch.randn(1, 1, 1, 2, 1, 3, 1, 4)
    found = lcmulti.explain(x, kernel, strides=(16, 1, 1))
    assert found.implementation != "conv"
    y = lcmulti.local_conv(x, kernel, strides=(16, 1, 1))
    ours = lcmulti.local_conv(x.numpy(), kernel.numpy(), strides=(16, 1, 1))
    np.testing.assert_allclose(y, ours, rtol=1e-5, atol=1e-5)


def test_where_convolutions_round_patches_serve(monkeypatch):
    x, kernel = torch.randn(2, 6, 3), torch.randn(1, 3, 3, 5)
    problem = dispatch.problem_of(
        "torch",
        (Facts((2, 6, 3), "float32", "gpu"), Facts((1, 3, 3, 5), "float32", "gpu"), None),
        (1, 1, "zeros", 1, 1, "channels_last"),
        settings.DEFAULTS,
    )[1]
    assert convolution.conv.decline(problem) is None
    dy, rest = torch.randn(2, 6, 5), (problem.spec, problem.resources)
    arguments = {"forward": (x, kernel), "input_grad": (dy, kernel), "kernel_grad": (x, dy)}
    expected = [getattr(convolution.conv, n)(*a, *rest) for n, a in arguments.items()]
    monkeypatch.setattr(convolution, "convolutions_round", lambda array: True)
    monkeypatch.setattr(convolution, "_CONVOLUTIONS", {})
    monkeypatch.setattr(convolution, "_backward", None)
    for (name, arrays), right in zip(arguments.items(), expected, strict=True):
        torch.testing.assert_close(getattr(convolution.conv, name)(*arrays, *rest), right)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_arrays_are_placed_on_the_default_device(dtype, monkeypatch):
    asked, array = [], np.ones(3, numpy_dtype(dtype))
    from_numpy = plugins.load_backend("torch").from_numpy
    with torch.device("meta"):  # an array placed there would lose its values
        assert from_numpy(array).tolist() == [1, 1, 1]
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch, "get_default_device", lambda: asked.append(1) or cpu)
    from_numpy(array)
    assert asked


@pytest.mark.parametrize("batch", [0, 3])
@pytest.mark.parametrize("dtype", ["float64", "complex128", "bfloat16"])
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_what_a_gpu_runs_equals_the_reference(name, channels_first, dtype, batch):
    spec = spec_of(name).computed()
    rng = np.random.default_rng(0)
    shapes = (batch, *spec.input_shape), spec.kernel_shape, (batch, *spec.output_shape)
    given = [
        torch.from_numpy(rng.standard_normal(shape)).to(getattr(torch, dtype)) for shape in shapes
    ]
    wide = [each.to(torch.promote_types(each.dtype, torch.float64)).numpy() for each in given]
    if channels_first:
        given[::2] = (each.movedim(-1, 1).contiguous().movedim(1, -1) for each in given[::2])
    near = 1e-2 if dtype == "bfloat16" else 1e-12
    for map_, a, b in (("forward", 0, 1), ("input_grad", 2, 1), ("kernel_grad", 0, 2)):
        got = getattr(blocked._whole, map_)(given[a], given[b], spec, RESOURCES)
        assert got.dtype == given[a].dtype
        expected = getattr(reference, map_)(wide[a], wide[b], spec)
        np.testing.assert_allclose(
            got.to(torch.promote_types(got.dtype, torch.float64)).numpy(),
            expected,
            rtol=near,
            atol=5 * near,
        )


def test_what_a_gpu_runs_takes_a_broadcast_gradient():
    spec = spec_of("3d").computed()
    kernel = torch.rand(spec.kernel_shape, dtype=torch.float64)
    dy = torch.ones((), dtype=torch.float64).expand(2, *spec.output_shape)
    got = blocked._whole.input_grad(dy, kernel, spec, RESOURCES)
    expected = reference.input_grad(dy.numpy(), kernel.numpy(), spec)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["grouped", "disjoint 1d", "3d"])
def test_patches_of_a_gpu_are_taken_at_once_where_they_fit(name):
    spec = spec_of(name).computed()
    needed = blocked.whole_bytes(spec, 2, "float32")
    for limit, whole in ((needed, True), (needed - 1, False)):
        resources = Resources(limit)
        problem = Problem(spec, 2, "float32", "gpu", False, resources)
        used = blocked.blocked.workspace(problem)
        assert (used == needed) == whole
        x = torch.empty(2, *spec.input_shape, device="meta")
        assert (blocked.blocked._maps(x, spec, resources) is blocked._whole) == whole
        on_cpu = blocked.blocked._maps(torch.empty(2, *spec.input_shape), spec, resources)
        in_cache = needed <= blocked.STAYS_IN_CACHE
        assert (on_cpu is blocked._whole) == (whole and in_cache)


def test_blocks_where_there_is_no_data():
    spec = spec_of("grouped").computed()
    dy, kernel = torch.empty(2, *spec.output_shape), torch.empty(spec.kernel_shape)
    dx = blocked.blocked.input_grad(dy.to("meta"), kernel.to("meta"), spec, TIGHT)
    assert dx.shape == (2, *spec.input_shape)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(("run", "filters"), [(4, 64), (64, 1)])
def test_disjoint_pieces_stay_within_their_workspace(run, filters, device):
    spec = lcmulti.LocalConvSpec(
        (run * 100_000, 1), filters, run, strides=run, data_format="channels_last"
    )
    problem = Problem(spec.computed(), 32, "float32", device, False, RESOURCES)
    assert disjoint.disjoint.workspace(problem) <= RESOURCES.max_workspace
    small = problem._replace(spec=spec_of("disjoint 1d").computed())
    assert disjoint.disjoint.workspace(small) < 20_000
