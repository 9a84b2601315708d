"""PyTorch's layers: arguments, parameters, their life in files, and what users do with modules."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lcmulti_torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError  # noqa: E402

pytestmark = pytest.mark.torch

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


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


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
    uneven = lcmulti_torch.LocallyConnected1d(2, 3, 2, 6, padding=[(0, 1)], bias=False).share_()
    with pytest.raises(ArgumentError, match="the same on both sides"):
        uneven.to_conv()


def test_reset_parameters_draws_as_a_convolution_at_every_position():
    """Same distribution: uniform within the same bound, and independent between positions."""
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
    for batch in (1, 64):  # either way of computing
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
    """It reaches the parameters behind them, or says that it cannot."""
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
    last.load_state_dict(first.state_dict())  # one layout of weights
    x = torch.randn(2, 3, 7, 6)
    y = last(x.movedim(1, -1).contiguous())
    torch.testing.assert_close(y, first(x).movedim(1, -1))
    assert y.is_contiguous()


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_lazy_learns_its_geometry_from_the_first_batch(ndim, bias, rank):
    lazy = layer_class(ndim, "Lazy")(4, 3, stride=2, padding=1, bias=bias, rank=rank)
    optimizer = torch.optim.SGD(lazy.parameters(), 0.1)  # holds the very parameters
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
    again.load_state_dict(lazy.state_dict())  # before it knows its geometry
    torch.testing.assert_close(again(x), lazy(x))
    unbatched = layer_class(ndim, "Lazy")(4, 3)
    assert unbatched(x[0]).shape[0] == 4


LAYERS = {
    "plain": lambda: lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), padding="same"),
    "rank": lambda: lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), rank=2),
    "transposed": lambda: lcmulti_torch.LocallyConnectedTranspose2d(3, 4, 3, (7, 6), 2),
}


SHAPES = LAYERS | {
    "stride of the window": lambda: lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), 3),
    "few weights": lambda: lcmulti_torch.LocallyConnected2d(3, 1, 1, (7, 6)),
    "convolution": lambda: lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), shared_axes=(0, 1)),
    "shared rows": lambda: lcmulti_torch.LocallyConnected2d(3, 4, 3, (7, 6), shared_axes=(1,)),
    "reflected": lambda: lcmulti_torch.LocallyConnected2d(
        3, 4, 3, (7, 6), padding=1, padding_mode="reflect"
    ),
    "transposed convolution": lambda: lcmulti_torch.LocallyConnectedTranspose2d(
        3, 4, 3, (7, 6), shared_axes=(0, 1)
    ),
    "composed": lambda: lcmulti_torch.LocallyConnected2d(
        3, 4, 3, (7, 6), implementation="composed"
    ),
}
WATCHED = {
    "eager": lambda layer, x: layer(x),
    "vmap": lambda layer, x: torch.vmap(layer)(x[None])[0],
    "jvp": lambda layer, x: torch.func.jvp(layer, (x,), (x,))[1],
    "trace": lambda layer, x: torch.jit.trace(layer, x)(x),
    "export": lambda layer, x: torch.export.export(layer, (x,)).module()(x),
    "meta": lambda layer, x: layer.to("meta")(x.to("meta")),
}


@pytest.mark.parametrize("how", WATCHED)
@pytest.mark.parametrize("kind", SHAPES)
def test_results_lie_in_memory_as_those_of_a_convolution(kind, how):
    """So that ``y.view(y.shape[0], -1)`` may follow, as people write."""
    layer, x = SHAPES[kind](), torch.randn(2, 3, 7, 6)
    assert WATCHED[how](layer, x).is_contiguous()


@pytest.mark.parametrize("kind", SHAPES)
def test_results_keep_the_memory_format(kind):
    layer, x = SHAPES[kind](), torch.randn(2, 3, 7, 6)
    y = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, layer(x))


def test_one_position_grows_in_the_memory_format_of_its_input():
    """The first layer of a generator: ``(N, C, 1, 1)`` in, an image out."""
    layer = lcmulti_torch.LocallyConnectedTranspose2d(6, 4, 3, 1)
    assert layer(torch.randn(2, 6, 1, 1)).is_contiguous()


@pytest.mark.parametrize("kind", LAYERS)
def test_pickle_deepcopy_and_state_dict(kind, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    layer, x = LAYERS[kind](), torch.randn(2, 3, 7, 6)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), loaded):
        torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)
    safetensors.save_model(layer, str(tmp_path / "model.safetensors"))
    fresh = LAYERS[kind]()
    assert not torch.equal(fresh(x), layer(x))
    safetensors.load_model(fresh, str(tmp_path / "model.safetensors"))
    torch.testing.assert_close(fresh(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("kind", ["LocallyConnected2d", "LocallyConnectedTranspose2d"])
def test_a_state_of_another_geometry_is_refused_with_both(kind, rank):
    make = getattr(lcmulti_torch, kind)
    layer, other = make(3, 4, 3, 8, rank=rank), nn.Sequential(make(3, 4, 3, 9, rank=rank))
    state = {f"0.{k}": v for k, v in layer.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(RuntimeError) as caught:
            other.load_state_dict(state, strict=strict)
        name = "weight" if rank is None else "coefficients"
        assert f"0.{name} is for positions {layer.spec.positions_shape}" in str(caught.value)
        ours = other[0].spec.positions_shape
        assert f"this layer is for positions {ours}" in str(caught.value)


def test_a_state_of_another_rank():
    full, low = (lcmulti_torch.LocallyConnected2d(3, 4, 3, 8, rank=rank) for rank in (None, 2))
    other = lcmulti_torch.LocallyConnected2d(3, 4, 3, 8, rank=3)
    with pytest.raises(RuntimeError, match="channels, of rank 3; this layer is .*, of rank 2"):
        low.load_state_dict(other.state_dict())
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "weight"'):
        low.load_state_dict(full.state_dict())
    assert full.load_state_dict(low.state_dict(), strict=False).missing_keys == ["weight"]


@pytest.mark.parametrize("rank", [None, 2])
def test_a_lazy_layer_with_loaded_weights_refuses_a_first_batch_they_are_not_for(rank):
    state = lcmulti_torch.LocallyConnected2d(3, 4, 3, 8, rank=rank).state_dict()
    layer = lcmulti_torch.LazyLocallyConnected2d(4, 3, rank=rank)
    layer.load_state_dict(state)
    with pytest.raises(ShapeError) as caught:
        layer(torch.zeros(2, 3, 9, 8))
    assert "the weights that were loaded, of positions (6, 6)" in str(caught.value)
    assert "got (3, 9, 8), for which a layer has positions (7, 6)" in str(caught.value)
    assert layer(torch.zeros(2, 3, 8, 8)).shape == (2, 4, 6, 6)


def test_repr_is_in_the_form_of_a_convolution():
    layer = lcmulti_torch.LocallyConnected2d(3, 4, 3, 8, padding=1, groups=1, bias=False)
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    ours, theirs = repr(layer), repr(conv)
    assert ours.replace(", input_size=(8, 8)", "") == theirs.replace("Conv2d", "LocallyConnected2d")
    assert "rank=2" in repr(LAYERS["rank"]())
    assert "padding='same'" in repr(LAYERS["plain"]())


@pytest.mark.parametrize("kind", LAYERS)
def test_wrong_input_says_how_to_rebuild(kind):
    layer = LAYERS[kind]()
    with pytest.raises(ShapeError) as caught:
        layer(torch.randn(2, 3, 8, 6))
    assert "expected samples of shape (3, 7, 6)" in str(caught.value)
    assert "in_channels=3, input_size=(8, 6)" in str(caught.value)
    with pytest.raises(ShapeError, match="rank 4, or 3 without a batch"):
        layer(torch.randn(3, 7))


def test_wrong_input_says_so_in_compiled_code_too():
    model = nn.Sequential(LAYERS["plain"](), LAYERS["plain"]())
    with pytest.raises(ShapeError, match="in_channels=4"):
        torch.compile(model, backend="eager")(torch.randn(2, 3, 7, 6))


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        (dict(in_channels=0), "in_channels"),
        (dict(out_channels="4"), "out_channels"),
        (dict(kernel_size=9), "kernel_size"),
        (dict(input_size=(8, 8, 8)), "input_size"),
        (dict(groups=2), "groups"),
        (dict(stride=0), "stride"),
        (dict(padding="some"), "padding"),
        (dict(padding_mode="mirror"), "padding_mode"),
        (dict(data_format="NCHW"), "data_format"),
        (dict(shared_axes=(2,)), "shared_axes"),
        (dict(rank=0), "rank"),
    ],
)
def test_wrong_arguments(changes, argument):
    right = dict(in_channels=3, out_channels=4, kernel_size=3, input_size=8)
    with pytest.raises(ArgumentError) as caught:
        lcmulti_torch.LocallyConnected2d(**(right | changes))
    assert caught.value.argument == argument
    if "padding" in changes or "padding_mode" in changes:  # the transposed has no modes
        return
    right["kernel_size"], changes = (
        4,
        {"output_padding": 1} if "kernel_size" in changes else changes,
    )
    with pytest.raises(ArgumentError) as caught:
        lcmulti_torch.LocallyConnectedTranspose2d(**(right | changes))
    assert caught.value.argument == next(iter(changes))


@pytest.mark.parametrize("what", [[[1.0]], np.ones((2, 3, 7, 6), "float32"), None])
def test_what_is_no_tensor_is_refused(what):
    for call in (LAYERS["plain"](), lambda x: lcmulti_torch.functional.local_conv2d(x, None)):
        with pytest.raises(ArgumentTypeError, match="input: expected a torch.Tensor"):
            call(what)


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


def test_device_and_dtype():
    layer = lcmulti_torch.LocallyConnected2d(3, 4, 3, 8, device="meta", dtype=torch.bfloat16)
    assert layer.weight.is_meta
    assert layer.weight.dtype == torch.bfloat16
    real = layer.to_empty(device="cpu")
    real.reset_parameters()
    assert real(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


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


def test_the_package_imports_nothing_until_a_layer_is_asked_for():
    code = (
        "import sys, lcmulti_torch, lcmulti_torch.plugin\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'LocallyConnected2d' in dir(lcmulti_torch)\n"
        "lcmulti_torch.LocallyConnected2d\n"
        "assert 'torch' in sys.modules\n"
        "from lcmulti_torch import *\n"
        "LazyLocallyConnected3d, LocallyConnectedTranspose1d, functional.local_conv1d"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Conv4d'"):
        lcmulti_torch.Conv4d


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
