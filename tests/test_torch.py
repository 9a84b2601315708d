"""The PyTorch backend: every way PyTorch differentiates, traces and transforms the operation."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lcmulti_torch import blocked, convolution, disjoint  # noqa: E402
from lcmulti_torch.precision import convolutions_round, refuse_rounding  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti import dispatch, plugins, reference, settings  # noqa: E402
from lcmulti.backend import Facts, Problem, Resources  # noqa: E402
from lcmulti.conformance.inputs import numpy_dtype  # noqa: E402
from lcmulti.errors import DtypeError, UnsupportedError  # noqa: E402

pytestmark = pytest.mark.torch

RESOURCES = Resources(2**28)
TIGHT = Resources(2000)
GEOMETRIES = {
    "grouped": dict(input_shape=(9, 8, 4), filters=6, kernel_size=(3, 2), groups=2,
                    padding=((1, 2), (0, 3)), strides=(2, 3), dilation=(2, 1)),
    "shared rows": dict(input_shape=(9, 8, 4), filters=3, kernel_size=(3, 2), padding=2,
                        dilation=(2, 3), strides=(3, 2), shared_axes=(0,)),
    "convolution": dict(input_shape=(9, 8, 4), filters=6, kernel_size=(3, 2), groups=2,
                        padding=((1, 2), (0, 3)), strides=2, shared_axes=(0, 1)),
    "disjoint 1d": dict(input_shape=(12, 3), filters=4, kernel_size=2, strides=2),
    "disjoint rest": dict(input_shape=(13, 7, 3), filters=4, kernel_size=(2, 3), strides=(2, 3)),
    "few weights": dict(input_shape=(7, 9, 2), filters=2, kernel_size=(2, 3), groups=2,
                        strides=(1, 2), padding=1, dilation=(2, 1), shared_axes=(1,)),
    "3d": dict(input_shape=(5, 4, 6, 2), filters=3, kernel_size=(2, 3, 2), padding="same"),
    "4d": dict(input_shape=(4, 3, 4, 3, 2), filters=2, kernel_size=(2, 1, 3, 2)),
}  # fmt: skip
IMPLEMENTATIONS = ("conv", "elementwise", "disjoint", "blocked", "composed")
TRANSFORMABLE = ("conv", "disjoint", "composed")


def spec_of(name):
    return lcmulti.LocalConvSpec(**GEOMETRIES[name], data_format="channels_last")


def keywords(spec):
    return dict(
        strides=spec.strides,
        padding=spec.padding,
        dilation=spec.dilation,
        groups=spec.groups,
        data_format=spec.data_format,
    )


def tensors(spec, batch=2, dtype=torch.float64, requires_grad=True):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, *spec.input_shape), spec.kernel_shape, spec.bias_shape)
    return tuple(
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_(requires_grad)
        for shape in shapes
    )


def serves(implementation, spec, batch=2, dtype="float64", transformed=False):
    entry = plugins.registry().implementations["torch", implementation]
    if transformed and not entry.transformable:
        return False
    problem = Problem(spec.computed(), batch, dtype, "cpu", transformed, RESOURCES)
    return plugins.load_implementation("torch", implementation).decline(problem) is None


def cases(names=tuple(GEOMETRIES), implementations=IMPLEMENTATIONS, transformed=False):
    return [
        pytest.param(name, implementation, id=f"{name}-{implementation}")
        for name in names
        for implementation in implementations
        if serves(implementation, spec_of(name), transformed=transformed)
    ]


def operation(spec, implementation="auto"):
    def run(x, kernel, bias=None):
        return lcmulti.local_conv(x, kernel, bias, implementation=implementation, **keywords(spec))

    return run


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


@pytest.mark.parametrize(("name", "implementation"), cases())
def test_gradcheck_with_forward_ad_and_batched_gradients(name, implementation):
    spec = spec_of(name)
    forward = implementation in TRANSFORMABLE and serves(implementation, spec, transformed=True)
    assert torch.autograd.gradcheck(
        operation(spec, implementation),
        tensors(spec),
        check_forward_ad=forward,
        check_batched_grad=True,
        check_batched_forward_grad=forward,
        fast_mode=True,
    )


@pytest.mark.parametrize(("name", "implementation"), cases())
def test_gradgradcheck(name, implementation):
    spec = spec_of(name)
    assert torch.autograd.gradgradcheck(
        operation(spec, implementation), tensors(spec), check_batched_grad=True, fast_mode=True
    )


def test_complex_gradients():
    spec = spec_of("grouped")
    args = tensors(spec, dtype=torch.complex128)
    assert torch.autograd.gradcheck(operation(spec), args, fast_mode=True)
    assert torch.autograd.gradgradcheck(operation(spec), args, fast_mode=True)


@pytest.mark.parametrize(
    ("name", "implementation"),
    [*cases(implementations=TRANSFORMABLE, transformed=True), *((n, "auto") for n in GEOMETRIES)],
)
def test_forward_ad_has_right_values(name, implementation):
    """A silent zero tangent is what a custom operator returns here, so values are compared."""
    spec = spec_of(name)
    args = tensors(spec, requires_grad=False)
    tangents = tuple(torch.randn_like(each) for each in args)
    _, tangent = torch.func.jvp(operation(spec, implementation), args, tangents)
    x, kernel, _ = (each.numpy() for each in args)
    dx, dkernel, dbias = (each.numpy() for each in tangents)
    computed = spec.computed()
    expected = (
        reference.forward(dx, kernel, computed) + reference.forward(x, dkernel, computed) + dbias
    )
    np.testing.assert_allclose(tangent.numpy(), expected, rtol=1e-11, atol=1e-11)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(args[0], tangents[0])
        out = operation(spec, implementation)(dual, args[1])
        found = torch.autograd.forward_ad.unpack_dual(out).tangent
    np.testing.assert_allclose(
        found.numpy(), reference.forward(dx, kernel, computed), rtol=1e-11, atol=1e-11
    )


def test_eager_forward_then_backward_under_forward_ad():
    """The value was made in eager mode; only its derivative is watched."""
    spec = spec_of("grouped")
    x, kernel, _ = tensors(spec)
    y = operation(spec)(x, kernel)
    dy, direction = torch.randn_like(y), torch.randn_like(y)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(dy, direction)
        (dx,) = torch.autograd.grad(y, x, dual)
        tangent = torch.autograd.forward_ad.unpack_dual(dx).tangent
    expected = reference.input_grad(direction.numpy(), kernel.detach().numpy(), spec.computed())
    np.testing.assert_allclose(tangent.detach().numpy(), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("argument", [0, 1, 2])
@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_vmap_over_each_argument(name, argument):
    spec = spec_of(name)
    args = list(tensors(spec, requires_grad=False))
    args[argument] = torch.stack([args[argument], 2 * args[argument], -args[argument]])
    dims = tuple(0 if i == argument else None for i in range(3))
    batched = torch.vmap(operation(spec), in_dims=dims)(*args)
    for i in range(3):
        single = [a[i] if j == argument else a for j, a in enumerate(args)]
        torch.testing.assert_close(batched[i], operation(spec)(*single), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_per_sample_gradients(name):
    spec = spec_of(name)
    x, kernel, bias = tensors(spec, batch=3, requires_grad=False)

    def loss(kernel, sample):
        return operation(spec)(sample[None], kernel, bias).square().sum()

    per_sample = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(kernel, x)
    for i in range(3):
        torch.testing.assert_close(per_sample[i], torch.func.grad(loss)(kernel, x[i]))


def test_hessian():
    spec = lcmulti.LocalConvSpec((4, 2), 2, 2, data_format="channels_last")
    x, kernel, _ = tensors(spec, requires_grad=False)
    hessian = torch.func.hessian(lambda k: operation(spec)(x, k).pow(3).sum())(kernel)
    eager = torch.autograd.functional.hessian(lambda k: operation(spec)(x, k).pow(3).sum(), kernel)
    assert hessian.abs().max() > 0
    torch.testing.assert_close(hessian, eager)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ["grouped", "disjoint 1d", "disjoint rest", "convolution"])
def test_compile_fullgraph(name, dynamic):
    spec = spec_of(name)
    args = tensors(spec)
    torch._dynamo.reset()
    dispatch._named.cache_clear()  # the first call of a process may be a compiled one
    compiled = torch.compile(operation(spec), fullgraph=True, dynamic=dynamic, backend="aot_eager")
    y = compiled(*args)
    expected = operation(spec)(*args)
    torch.testing.assert_close(y, expected)
    dy = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(y, args, dy), torch.autograd.grad(expected, args, dy), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_compile_by_inductor_with_padding_modes(mode):
    x, kernel = torch.randn(3, 4, 7, 6), torch.randn(7, 1, 3, 2, 4, 5)

    def run(x, kernel):
        return lcmulti.local_conv(
            x, kernel, padding=((1, 1), (1, 0)), padding_mode=mode, data_format="channels_first"
        )

    torch.testing.assert_close(torch.compile(run, fullgraph=True)(x, kernel), run(x, kernel))


@pytest.mark.parametrize("strict", [False, True], ids=["nonstrict", "strict"])
def test_export_with_dynamic_batch(strict):
    spec = spec_of("grouped")
    x, kernel, bias = tensors(spec, dtype=torch.float32, requires_grad=False)

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel, self.bias = torch.nn.Parameter(kernel), torch.nn.Parameter(bias)

        def forward(self, x):
            return operation(spec)(x, self.kernel, self.bias)

    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = torch.export.export(Layer(), (x,), dynamic_shapes=({0: batch},), strict=strict)
    other = torch.randn(5, *spec.input_shape)
    torch.testing.assert_close(exported.module()(other), operation(spec)(other, kernel, bias))


def test_autocast_sums_in_float32():
    spec = lcmulti.LocalConvSpec((6, 300), 2, 5, data_format="channels_last")
    x, kernel, bias = tensors(spec, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = operation(spec)(x, kernel, bias)
        assert y.dtype == torch.bfloat16
    exact = operation(spec)(
        x.bfloat16().double(), kernel.bfloat16().double(), bias.bfloat16().double()
    )
    # One rounding of the sum and one after the bias, not one for each of 1,500 terms.
    assert ((y.double() - exact).abs() <= 2 * 2**-8 * (exact.abs() + 1e-2)).all()
    y.sum().backward()
    assert x.grad.dtype == kernel.grad.dtype == torch.float32


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
    """PyTorch's own allocator, watched through the profiler's memory events."""
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


def test_only_needed_gradients_are_computed(monkeypatch):
    spec = spec_of("grouped").computed()
    maps = plugins.load_implementation("torch", "blocked")
    monkeypatch.setattr(type(maps), "input_grad", lambda *_: pytest.fail("dx was not asked for"))
    x, kernel, _ = tensors(spec)
    operation(spec, "blocked")(x.detach(), kernel).sum().backward()
    assert kernel.grad is not None


def test_named_implementation_that_cannot_be_transformed_raises():
    spec = spec_of("grouped")
    x, kernel, _ = tensors(spec, requires_grad=False)
    with pytest.raises(UnsupportedError, match="'blocked' .*cannot be transformed"):
        torch.vmap(operation(spec, "blocked"), in_dims=(0, None))(x[None], kernel)


def test_half_types_and_refused_types():
    x, kernel = torch.randn(2, 5, 3), torch.randn(4, 2, 3, 4)
    for dtype in (torch.float16, torch.bfloat16):
        assert lcmulti.local_conv(x.to(dtype), kernel.to(dtype)).dtype == dtype
    with pytest.raises(DtypeError, match="x: expected dtype"):
        lcmulti.local_conv(x.int(), kernel.int())
    with pytest.raises(DtypeError, match="kernel: expected dtype float32"):
        lcmulti.local_conv(x, kernel.double())


def test_checkpoint_and_saved_tensor_hooks():
    spec = spec_of("grouped")
    x, kernel, bias = tensors(spec)
    plain = torch.autograd.grad(operation(spec)(x, kernel, bias).sum(), (x, kernel))
    y = torch.utils.checkpoint.checkpoint(operation(spec), x, kernel, bias, use_reentrant=False)
    for ours, theirs in zip(torch.autograd.grad(y.sum(), (x, kernel)), plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_in_place_change_of_a_saved_input_is_noticed():
    x, kernel = torch.randn(2, 5, 3), torch.randn(4, 2, 3, 4, requires_grad=True)
    y = lcmulti.local_conv(x, kernel)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


class Device:
    """Stands for a tensor on a GPU."""

    dtype, is_cuda = torch.float32, True


@pytest.fixture
def precisions():
    """PyTorch's switches, put back."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [switch.fp32_precision for switch in switches]
    yield switches
    for switch, value in zip(switches, before, strict=True):
        switch.fp32_precision = value


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

    monkeypatch.setattr("lcmulti_torch.rules.refuse_rounding", refuse)
    monkeypatch.setattr("lcmulti_torch.backend.refuse_rounding", refuse)
    for call in (
        lambda: lcmulti.local_conv(x, kernel),
        lambda: y.sum().backward(),
        lambda: lcmulti.low_rank_kernel(basis, coefficients),
    ):
        with pytest.raises(UnsupportedError, match="rounds"):
            call()


def test_where_convolutions_round_patches_serve(monkeypatch):
    x, kernel = torch.randn(2, 6, 3), torch.randn(1, 3, 3, 5)
    problem = dispatch.problem_of(
        "torch",
        (Facts((2, 6, 3), "float32", "gpu"), Facts((1, 3, 3, 5), "float32", "gpu"), None),
        (1, 1, "zeros", 1, 1, "channels_last"),
        settings.DEFAULTS,
    )[1]
    assert convolution.implementation.decline(problem) is None
    dy, rest = torch.randn(2, 6, 5), (problem.spec, problem.resources)
    arguments = {"forward": (x, kernel), "input_grad": (dy, kernel), "kernel_grad": (x, dy)}
    expected = [getattr(convolution.implementation, n)(*a, *rest) for n, a in arguments.items()]
    monkeypatch.setattr(convolution, "convolutions_round", lambda array: True)
    monkeypatch.setattr(convolution, "_CONVOLUTIONS", {})
    monkeypatch.setattr(convolution, "_backward", None)
    for (name, arrays), right in zip(arguments.items(), expected, strict=True):
        torch.testing.assert_close(getattr(convolution.implementation, name)(*arrays, *rest), right)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_arrays_are_placed_on_the_default_device(dtype, monkeypatch):
    asked, array = [], np.ones(3, numpy_dtype(dtype))
    from_numpy = plugins.load_backend("torch").from_numpy
    with torch.device("meta"):  # which would lose the values
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
        used = blocked.implementation.workspace(problem)
        assert (used == needed) == whole
        x = torch.empty(2, *spec.input_shape, device="meta")
        assert (blocked.implementation._maps(x, spec, resources) is blocked._whole) == whole
        assert (
            blocked.implementation._maps(torch.empty(2, *spec.input_shape), spec, resources)
            is not blocked._whole
        )


def test_blocks_where_there_is_no_data():
    spec = spec_of("grouped").computed()
    dy, kernel = torch.empty(2, *spec.output_shape), torch.empty(spec.kernel_shape)
    dx = blocked.implementation.input_grad(dy.to("meta"), kernel.to("meta"), spec, TIGHT)
    assert dx.shape == (2, *spec.input_shape)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(("run", "filters"), [(4, 64), (64, 1)])
def test_disjoint_pieces_stay_within_their_workspace(run, filters, device):
    spec = lcmulti.LocalConvSpec(
        (run * 100_000, 1), filters, run, strides=run, data_format="channels_last"
    )
    problem = Problem(spec.computed(), 32, "float32", device, False, RESOURCES)
    assert disjoint.implementation.workspace(problem) <= RESOURCES.max_workspace
    small = problem._replace(spec=spec_of("disjoint 1d").computed())
    assert disjoint.implementation.workspace(small) < 20_000
