"""PyTorch's layers: values, conversion from and to convolutions, lazy layers and training."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lcmulti_torch  # noqa: E402
from helpers_torch import seeded  # noqa: E402, F401 - a fixture
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti.errors import ArgumentError, ArgumentTypeError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.sampled]

SIZES = {1: (9,), 2: (7, 6), 3: (5, 4, 6)}
GEOMETRIES = [
    dict(kernel_size=3),
    dict(kernel_size=2, stride=2),
    dict(kernel_size=3, stride=2, padding=1, dilation=2),
    dict(kernel_size=3, padding="same", groups=2),
    dict(kernel_size=2, padding="valid", bias=False),
    dict(kernel_size=3, padding=1, padding_mode="reflect"),
]
TRANSPOSED = [
    dict(kernel_size=3),
    dict(kernel_size=2, stride=2),
    dict(kernel_size=3, stride=2, padding=1, output_padding=1, dilation=2),
    dict(kernel_size=3, groups=2, bias=False),
]


def layer_class(ndim, kind=""):
    return getattr(lcmulti_torch, f"{kind}LocallyConnected{ndim}d")


def transposed_class(ndim):
    return getattr(lcmulti_torch, f"LocallyConnectedTranspose{ndim}d")


def compare(layer, conv, ndim, channels=4):
    x = torch.randn(2, channels, *SIZES[ndim], dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(x), conv(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(x[0]), conv(x[0]), rtol=1e-12, atol=1e-12)
    dy = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, dy), torch.autograd.grad(theirs, x, dy), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_from_conv_computes_what_the_convolution_does(ndim, geometry):
    conv = getattr(nn, f"Conv{ndim}d")(4, 6, **geometry, dtype=torch.float64)
    layer = layer_class(ndim).from_conv(conv, SIZES[ndim])
    assert layer.weight.shape == layer.spec.kernel_shape
    assert not layer.spec.shared_axes
    compare(layer, conv, ndim)
    back = layer.to_conv()
    assert torch.equal(back.weight, conv.weight)
    compare(layer, back, ndim)


@pytest.mark.parametrize("geometry", TRANSPOSED, ids=str)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_transposed_from_conv(ndim, geometry):
    conv = getattr(nn, f"ConvTranspose{ndim}d")(4, 6, **geometry, dtype=torch.float64)
    layer = transposed_class(ndim).from_conv(conv, SIZES[ndim])
    compare(layer, conv, ndim)
    compare(layer, layer.to_conv(), ndim)
    shared = transposed_class(ndim).from_conv(conv, SIZES[ndim], shared_axes=tuple(range(ndim)))
    assert shared.weight.numel() == conv.weight.numel()
    compare(shared, conv, ndim)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_transposed_is_the_adjoint_of_the_layer(ndim):
    layer = layer_class(ndim)(3, 5, 3, SIZES[ndim], stride=2, padding=1, bias=False)
    extra = [(n + 2 - 3) % 2 for n in SIZES[ndim]]
    transposed = transposed_class(ndim)(
        5, 3, 3, layer.output_size, 2, 1, output_padding=extra, bias=False
    )
    assert transposed.output_size == SIZES[ndim]
    transposed.load_state_dict(layer.state_dict())
    x, y = torch.randn(2, 3, *SIZES[ndim]), torch.randn(2, 5, *layer.output_size)
    torch.testing.assert_close(
        (layer(x) * y).sum(), (x * transposed(y)).sum(), rtol=1e-4, atol=1e-3
    )


def test_to_conv_of_unequal_weights_says_how_far_they_differ():
    layer = lcmulti_torch.LocallyConnected2d(2, 3, 3, 6, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.5)[1, 2, 0, 0, 0, 0] += 0.25
    with pytest.raises(ArgumentError, match="differ by up to 0.25 between positions"):
        layer.to_conv()
    assert layer.to_conv(tolerance=0.25).weight.shape == (3, 2, 3, 3)
    mean = layer.to_conv(tolerance=None).weight
    torch.testing.assert_close(mean, layer.weight.mean((0, 1)).movedim((-1, -2), (0, 1)))
    same = lcmulti_torch.LocallyConnected1d(2, 3, 2, 6, padding=[(0, 1)], bias=False).share_()
    assert same.to_conv().padding == "same"
    uneven = lcmulti_torch.LocallyConnected1d(2, 3, 2, 6, padding=[(1, 0)], bias=False).share_()
    with pytest.raises(ArgumentError, match="the same on both sides"):
        uneven.to_conv()


def test_reset_parameters_draws_as_a_convolution_at_every_position():
    """Weights are uniform within a convolution's bound, and independent between positions."""
    conv = nn.Conv2d(8, 64, 5)
    layer = lcmulti_torch.LocallyConnected2d(8, 64, 5, 9)
    bound = 1 / (8 * 25) ** 0.5
    for ours, theirs in ((layer.weight, conv.weight), (layer.bias, conv.bias)):
        assert ours.abs().max() <= bound
        # The deviation of n uniform draws is known to within 5 standard errors.
        error = 5 * ours.std().item() / (2 * min(ours.numel(), theirs.numel())) ** 0.5
        assert ours.std().item() == pytest.approx(bound / 3**0.5, abs=error)
        assert theirs.std().item() == pytest.approx(bound / 3**0.5, abs=error)
    positions = layer.weight.detach().reshape(25, -1)
    assert torch.corrcoef(positions).fill_diagonal_(0).abs().max() < 0.05


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_layer(rank):
    layer = lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), padding="same", rank=rank)
    assert set(layer.state_dict()) == {"basis", "coefficients", "bias"}
    assert sum(p.numel() for p in layer.parameters()) == rank * (27 * 4 + 42) + 42 * 4
    for batch in (1, 64):  # the layer computes small and large batches in different ways
        x = torch.randn(batch, 3, 7, 6)
        y = lcmulti.local_conv(
            x, layer.kernel(), layer.bias, padding="same", data_format="channels_first"
        )
        torch.testing.assert_close(layer(x), y, rtol=1e-4, atol=1e-5)
    layer.share_()
    assert torch.equal(layer.coefficients, layer.coefficients[:1, :1].expand(7, 6, rank))
    assert layer.to_conv(tolerance=1e-6).weight.shape == (4, 3, 3, 3)


def test_low_rank_weights_start_with_the_variance_of_full_ones():
    full = lcmulti_torch.LocallyConnected2d(8, 16, 3, 34)
    low = lcmulti_torch.LocallyConnected2d(8, 16, 3, 34, rank=4)
    assert low.kernel().std().item() == pytest.approx(full.weight.std().item(), rel=0.1)


def test_low_rank_transposed():
    layer = lcmulti_torch.LocallyConnectedTranspose1d(3, 4, 3, 5, 2, rank=2)
    full = lcmulti_torch.LocallyConnectedTranspose1d(3, 4, 3, 5, 2)
    with torch.no_grad():
        full.weight.copy_(layer.kernel())
        full.bias.copy_(layer.bias)
    x = torch.randn(2, 3, 5)
    torch.testing.assert_close(layer(x), full(x))


@pytest.mark.parametrize("shared_axes", [(0,), (1,), (0, 1)])
def test_shared_axes(shared_axes):
    layer = lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), shared_axes=shared_axes)
    assert all(layer.weight.shape[axis] == 1 for axis in shared_axes)
    assert all(layer.bias.shape[axis] == 1 for axis in shared_axes)
    assert layer(torch.randn(2, 3, 7, 6)).shape == (2, 4, 5, 4)


@pytest.mark.parametrize("axes", [None, (0,), (1,)])
def test_share_averages_in_place(axes):
    layer = lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6))
    weight, before = layer.weight, layer.weight.detach().clone()
    assert layer.share_(axes) is layer
    assert layer.weight is weight
    over = (0, 1) if axes is None else axes
    torch.testing.assert_close(layer.weight, before.mean(over, keepdim=True).expand_as(before))


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight

    def right_inverse(self, weight):
        return weight / 2


def test_share_of_weights_that_are_computed():
    """`share_` changes the parameters of a parametrization, and refuses a pruned weight."""
    layer = lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6))
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    mean = layer.weight.detach().mean((0, 1))
    torch.testing.assert_close(layer.share_().weight, mean.expand_as(layer.weight))
    pruned = lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6))
    prune.l1_unstructured(pruned, "weight", amount=0.5)
    with pytest.raises(ArgumentTypeError, match="weight: expected a parameter"):
        pruned.share_()


def test_channels_last_data_format():
    first = lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6))
    last = lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), data_format="channels_last")
    last.load_state_dict(first.state_dict())  # both have the same layout of weights
    x = torch.randn(2, 3, 7, 6)
    y = last(x.movedim(1, -1).contiguous())
    torch.testing.assert_close(y, first(x).movedim(1, -1))
    assert y.is_contiguous()


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_lazy_learns_its_geometry_from_the_first_batch(ndim, bias, rank):
    lazy = layer_class(ndim, "Lazy")(4, 3, stride=2, padding=1, bias=bias, rank=rank)
    optimizer = torch.optim.SGD(lazy.parameters(), 0.1)  # must hold the parameters of later
    assert lazy.has_uninitialized_params()
    repr(lazy)
    x = torch.randn(2, 3, *SIZES[ndim])
    y = lazy(x)
    assert type(lazy) is layer_class(ndim)
    assert (lazy.in_channels, lazy.input_size) == (3, SIZES[ndim])
    names = {"weight"} if rank is None else {"basis", "coefficients"}
    assert {n for n, _ in lazy.named_parameters()} == names | ({"bias"} if bias else set())
    y.sum().backward()
    before = [p.detach().clone() for p in lazy.parameters()]
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, lazy.parameters(), strict=True))
    again = layer_class(ndim, "Lazy")(4, 3, stride=2, padding=1, bias=bias, rank=rank)
    again.load_state_dict(lazy.state_dict())  # before the layer knows its geometry
    torch.testing.assert_close(again(x), lazy(x))
    unbatched = layer_class(ndim, "Lazy")(4, 3)
    assert unbatched(x[0]).shape[0] == 4


def test_from_conv_of_a_lazy_layer_is_the_layer():
    layer = lcmulti_torch.LazyLocallyConnected2d.from_conv(nn.Conv2d(3, 4, 3), 8)
    assert type(layer) is lcmulti_torch.LocallyConnected2d


@pytest.mark.parametrize("trained", [True, False])
def test_convolutions_and_back_keep_what_is_trained(trained):
    conv = nn.Conv2d(3, 4, 3, dtype=torch.complex64).requires_grad_(trained)
    layer = lcmulti_torch.LocallyConnected2d.from_conv(conv, 8)
    for each in (layer, layer.to_conv()):
        assert {p.requires_grad for p in each.parameters()} == {trained}


def test_from_conv_refuses_other_modules():
    with pytest.raises(ArgumentTypeError, match="conv: expected a torch.nn.Conv2d"):
        lcmulti_torch.LocallyConnected2d.from_conv(nn.Linear(2, 2), 8)
    with pytest.raises(ArgumentTypeError, match="conv: expected a torch.nn.Conv2d"):
        lcmulti_torch.LocallyConnected2d.from_conv(nn.ConvTranspose2d(2, 2, 2), 8)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_functional_in_the_order_of_torch(ndim):
    functional = lcmulti_torch.functional
    x, size = torch.randn(2, 4, *SIZES[ndim]), (1,) * ndim
    weight = torch.randn(*size, *(3,) * ndim, 2, 6)
    bias = torch.randn(*size, 6)
    conv = getattr(torch.nn.functional, f"conv{ndim}d")
    ours = getattr(functional, f"local_conv{ndim}d")(x, weight, bias, 2, 1, 1, 2)
    flat = weight.reshape(weight.shape[ndim:]).movedim((-1, -2), (0, 1))
    torch.testing.assert_close(ours, conv(x, flat, bias.flatten(), 2, 1, 1, 2))
    weight = torch.randn(*size, *(3,) * ndim, 3, 4)
    bias = torch.randn(*size, 6)
    conv = getattr(torch.nn.functional, f"conv_transpose{ndim}d")
    ours = getattr(functional, f"local_conv_transpose{ndim}d")(x, weight, bias, 2, 1, 1, 2)
    flat = weight.reshape(weight.shape[ndim:]).movedim((-1, -2), (0, 1))
    torch.testing.assert_close(ours, conv(x, flat, bias.flatten(), 2, 1, 1, 2))


@pytest.mark.slow
def test_training_digits_beats_chance_by_far():
    from lcmulti.conformance import digits

    training, testing = digits.load()
    model = nn.Sequential(
        lcmulti_torch.LocallyConnected2d(1, 8, 3, 8, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    x = torch.from_numpy(np.moveaxis(training.images, -1, 1).copy())
    labels = torch.from_numpy(training.labels.astype("int64"))
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    x = torch.from_numpy(np.moveaxis(testing.images, -1, 1).copy())
    right = model(x).argmax(1) == torch.from_numpy(testing.labels.astype("int64"))
    assert right.double().mean() > 0.93
