"""`sheet_smoothness` in PyTorch: blocks of pairs of filters, memory, derivatives and autocast."""

import pytest

torch = pytest.importorskip("torch")

from lcmulti_torch import pairs  # noqa: E402

import lcmulti  # noqa: E402

SPEC = lcmulti.LocalConvSpec((7, 6, 2), 12, (3, 2), data_format="channels_last")


@pytest.fixture(autouse=True)
def without_native_kernels():
    with lcmulti.config(implementation="composed"):
        yield


def value_and_gradients(kernel, bias, sheet=(3, 4)):
    leaves = [each.detach().clone().requires_grad_() for each in (kernel, bias)]
    value = lcmulti.sheet_smoothness(*leaves, SPEC, sheet=sheet, neighbours=8, circular=True)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


@pytest.mark.parametrize("block", [1, 1000, 2**20])
@pytest.mark.parametrize("most_filters", [0, 128])
@pytest.mark.parametrize("sheet", [(3, 4), (1, 12), (12, 1)])
def test_blocks_are_the_whole(block, most_filters, sheet, monkeypatch):
    kernel, bias = (
        torch.randn(s, dtype=torch.float64) for s in (SPEC.kernel_shape, SPEC.bias_shape)
    )
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(pairs, "_Products", None)  # without gradients it is not needed
        plain = lcmulti.sheet_smoothness(
            kernel, bias, SPEC, sheet=sheet, neighbours=8, circular=True
        )
    with monkeypatch.context() as patch:
        patch.setattr(pairs, "is_transformed", lambda *_: True)
        expected = value_and_gradients(kernel, bias, sheet)
    monkeypatch.setattr(pairs, "BLOCK", block)
    monkeypatch.setattr(pairs, "MOST_FILTERS", most_filters)
    found = value_and_gradients(kernel, bias, sheet)
    torch.testing.assert_close(plain, expected[0])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("order", ["contiguous", "filters first", "a slice"])
def test_any_memory_order(order):
    kernel, bias = torch.randn(SPEC.kernel_shape), torch.randn(SPEC.bias_shape)
    expected = value_and_gradients(kernel, bias)
    if order == "filters first":
        kernel = kernel.movedim(-1, 0).contiguous().movedim(0, -1)
    elif order == "a slice":
        kernel = torch.stack([kernel, kernel], -1)[..., 0]
    for ours, theirs in zip(value_and_gradients(kernel, bias), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_derivatives_and_transforms():
    spec = lcmulti.LocalConvSpec((2, 3, 1), 4, (1, 2), data_format="channels_last")
    kernel = torch.randn(spec.kernel_shape, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(spec.bias_shape, dtype=torch.float64, requires_grad=True)

    def run(kernel, bias):
        return lcmulti.sheet_smoothness(kernel, bias, spec, sheet=(2, 2), neighbours=8)

    assert torch.autograd.gradcheck(run, (kernel, bias), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, (kernel, bias))
    several = torch.randn(3, *spec.kernel_shape, dtype=torch.float64)
    mapped = torch.func.vmap(run, (0, None))(several, bias.detach())
    each = torch.stack([run(one, bias.detach()) for one in several])
    torch.testing.assert_close(mapped, each)


@pytest.mark.slow
def test_compiled_as_a_whole():
    kernel, bias = torch.randn(SPEC.kernel_shape), torch.randn(SPEC.bias_shape)
    expected = value_and_gradients(kernel, bias)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def run(kernel, bias):
        return lcmulti.sheet_smoothness(
            kernel, bias, SPEC, sheet=(3, 4), neighbours=8, circular=True
        )

    leaves = [each.requires_grad_() for each in (kernel, bias)]
    value = run(*leaves)
    found = [value.detach(), *torch.autograd.grad(value, leaves)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_it_stays_float32_under_autocast():
    kernel, bias = torch.randn(SPEC.kernel_shape), torch.randn(SPEC.bias_shape)
    expected = lcmulti.sheet_smoothness(kernel, bias, SPEC, sheet=(3, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lcmulti.sheet_smoothness(kernel, bias, SPEC, sheet=(3, 4)), expected)


def test_no_copy_of_the_kernel_is_made():
    """Beyond the kernel's gradient, a step holds only blocks and sums."""
    spec = lcmulti.LocalConvSpec((34, 34, 16), 64, 3, data_format="channels_last")
    kernel = torch.randn(spec.kernel_shape, requires_grad=True)
    size = kernel.numel() * 4
    assert size > 2 * pairs.BLOCK

    def peak(run):
        with torch.profiler.profile(profile_memory=True) as profile:
            run()
        held = most = 0
        for event in sorted(
            (e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"),
            key=lambda e: e.start_ns(),
        ):
            held += event.nbytes()
            most = max(most, held)
        return most

    def run():
        lcmulti.sheet_smoothness(kernel, None, spec, sheet=(8, 8)).backward()

    assert size <= peak(run) < 1.8 * size
