"""PyTorch's layers as modules: memory formats, files, wrong arguments and laziness."""

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
from helpers_torch import LAYERS, seeded  # noqa: E402, F401 - a fixture
from torch import nn  # noqa: E402

from lcmulti.errors import (  # noqa: E402
    ArgumentError,
    ArgumentTypeError,
    ShapeError,
)

pytestmark = [pytest.mark.torch, pytest.mark.sampled]


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
    """Results are contiguous, because people write ``y.view(y.shape[0], -1)``."""
    layer, x = SHAPES[kind](), torch.randn(2, 3, 7, 6)
    assert WATCHED[how](layer, x).is_contiguous()


@pytest.mark.parametrize("kind", SHAPES)
def test_a_trace_serves_any_batch_and_warns_of_no_size(kind, recwarn):
    layer = SHAPES[kind]()
    traced = torch.jit.trace(layer, torch.randn(2, 3, 7, 6))
    assert not [each for each in recwarn if each.category is torch.jit.TracerWarning]
    x = torch.randn(5, 3, 7, 6)
    torch.testing.assert_close(traced(x), layer(x))


@pytest.mark.parametrize("kind", SHAPES)
def test_results_keep_the_memory_format(kind):
    layer, x = SHAPES[kind](), torch.randn(2, 3, 7, 6)
    y = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, layer(x))


def test_one_position_grows_in_the_memory_format_of_its_input():
    """The first layer of a generator takes ``(N, C, 1, 1)`` and returns a contiguous image."""
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


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # the compiler reads .grad
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
    if "padding" in changes or "padding_mode" in changes:  # transposed layers have no modes
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


def test_device_and_dtype():
    layer = lcmulti_torch.LocallyConnected2d(3, 4, 3, 8, device="meta", dtype=torch.bfloat16)
    assert layer.weight.is_meta
    assert layer.weight.dtype == torch.bfloat16
    real = layer.to_empty(device="cpu")
    real.reset_parameters()
    assert real(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


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


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_lazy_layer_has_no_memory_format(ndim, rank):
    """`to` applies the dtype and leaves out the memory format, as for layers that are not lazy."""
    layer = getattr(lcmulti_torch, f"LazyLocallyConnected{ndim}d")(4, 3, rank=rank)
    model = nn.Sequential(layer)
    for memory_format in (torch.channels_last, torch.channels_last_3d):
        model.to(dtype=torch.float64, memory_format=memory_format)
    assert model(torch.randn(2, 3, *(5,) * ndim, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("lazy", ["", "Lazy"])
def test_the_state_of_a_convolution_is_told_where_to_go(lazy):
    sizes = (4, 3) if lazy else (3, 4, 3, 6)
    layer = getattr(lcmulti_torch, f"{lazy}LocallyConnected2d")(*sizes)
    with pytest.raises(RuntimeError, match=r"LocallyConnected2d\.from_conv\(conv, input_size="):
        layer.load_state_dict(nn.Conv2d(3, 4, 3).state_dict())
