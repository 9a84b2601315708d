"""What people do with convolutions in models, done with layers.

They fuse normalisation, set memory formats, read arguments as attributes, and make mistakes.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import lcmulti_torch  # noqa: E402
from lcmulti_torch import functional, fuse_bn  # noqa: E402
from torch import nn  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti.errors import (  # noqa: E402
    ArgumentError,
    ArgumentTypeError,
    ShapeError,
    UnsupportedError,
)

pytestmark = pytest.mark.torch

SIZE = (6, 5, 4)


def layer_of(ndim, kind="", **more):
    arguments = dict(kernel_size=3, groups=3) | more
    if kind != "Lazy":
        cls = getattr(lcmulti_torch, f"LocallyConnected{kind}{ndim}d")
        return cls(3, 6, input_size=SIZE[:ndim], **arguments)
    layer = getattr(lcmulti_torch, f"LazyLocallyConnected{ndim}d")(6, **arguments)
    layer(torch.randn(2, 3, *SIZE[:ndim]))
    return layer


def normalisation(ndim, features=6, **more):
    bn = getattr(nn, f"BatchNorm{ndim}d")(features, **more)
    for _ in range(3):
        bn(torch.randn(8, features, *SIZE[:ndim]) * 2 + 1)
    with torch.no_grad():
        for each in bn.parameters():
            each.copy_(torch.randn_like(each))
    return bn.eval()


LAYERS = {
    "plain": {}, "no bias": dict(bias=False), "one group": dict(groups=1),
    "filters as rows": dict(kernel_size=1), "rank": dict(rank=2, groups=1),
    "convolution": dict(shared_axes=(0,)), "padded": dict(padding="same", padding_mode="circular"),
    "transposed": dict(kind="Transpose", stride=2), "lazy": dict(kind="Lazy"),
    "transposed rank": dict(kind="Transpose", rank=2, bias=False),
}  # fmt: skip


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("kind", LAYERS)
def test_fuse_bn_computes_what_both_do(kind, ndim, affine):
    more = LAYERS[kind]
    if kind == "padded":
        more = dict(padding=1, padding_mode="circular")
    layer, bn = layer_of(ndim, **more).eval(), normalisation(ndim, affine=affine)
    before = {name: each.clone() for name, each in layer.state_dict().items()}
    x = torch.randn(2, 3, *SIZE[:ndim])
    fused = fuse_bn(layer, bn)
    assert type(fused) is type(layer)
    assert not fused.training
    torch.testing.assert_close(fused(x), bn(layer(x)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.state_dict(), before)
    assert all(each.is_contiguous() and each.requires_grad for each in fused.parameters())
    again = layer_of(ndim, **(more | dict(bias=True)))
    again.load_state_dict(fused.state_dict())  # the fused bias has the shape of a layer's bias


def test_fuse_bn_keeps_type_device_and_what_asks_for_gradients():
    layer = layer_of(2, dtype=torch.bfloat16).eval().requires_grad_(False)
    fused = fuse_bn(layer, normalisation(2))
    assert {each.dtype for each in fused.parameters()} == {torch.bfloat16}
    assert not any(each.requires_grad for each in fused.parameters())
    turned = torch.nn.utils.parametrizations.weight_norm(layer_of(2))
    bn, x = normalisation(2), torch.randn(2, 3, *SIZE[:2])
    fused = fuse_bn(turned.eval(), bn)
    torch.testing.assert_close(fused(x), bn(turned(x)), rtol=1e-4, atol=1e-5)
    assert torch.nn.utils.parametrize.is_parametrized(turned, "weight")


class Grown(lcmulti_torch.LocallyConnected2d):
    """A user's layer with more in it than weights."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.gain = nn.Parameter(torch.ones(1))
        self.after = nn.Sequential(nn.Dropout(0.5))
        self.register_buffer("seen", torch.zeros(2))


def test_fuse_bn_keeps_what_a_subclass_has_besides():
    layer, bn, x = Grown(3, 6, 3, SIZE[:2]).eval(), normalisation(2), torch.randn(2, 3, *SIZE[:2])
    layer.tag = "v1"
    fused = fuse_bn(layer, bn)
    torch.testing.assert_close(fused(x), bn(layer(x)), rtol=1e-4, atol=1e-5)
    assert fused.state_dict().keys() == layer.state_dict().keys()
    assert fused.tag == "v1"
    assert not fused.after[0].training
    for ours, theirs in ((fused.gain, layer.gain), (fused.seen, layer.seen)):
        assert ours is not theirs
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["", "Transpose"])
def test_fuse_bn_rounds_half_types_once(kind):
    layer, bn = layer_of(2, kind, dtype=torch.bfloat16).eval(), normalisation(2)
    wide = layer_of(2, kind).eval()
    wide.load_state_dict(layer.state_dict())
    for ours, exact in zip(
        fuse_bn(layer, bn).parameters(), fuse_bn(wide, bn).parameters(), strict=True
    ):
        assert torch.equal(ours, exact.bfloat16())


class ReluAfter(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input).relu()


class ReluBefore(lcmulti_torch.LocallyConnected2d):
    def forward(self, input):
        return super().forward(input).relu()


@pytest.mark.parametrize("wrong, argument", [
    (lambda: fuse_bn(layer_of(2).eval(), ReluAfter(6).eval()), "bn"),
    (lambda: fuse_bn(ReluBefore(3, 6, 3, SIZE[:2]).eval(), normalisation(2)), "layer"),
    (lambda: fuse_bn(layer_of(2), normalisation(2)), "layer"),
    (lambda: fuse_bn(layer_of(2).eval(), normalisation(2).train()), "bn"),
    (lambda: fuse_bn(layer_of(2).eval(), normalisation(2, 5)), "bn"),
    (lambda: fuse_bn(layer_of(2).eval(), nn.ReLU()), "bn"),
    (lambda: fuse_bn(nn.Conv2d(3, 6, 3).eval(), normalisation(2)), "layer"),
    (lambda: fuse_bn(lcmulti_torch.LazyLocallyConnected2d(6, 3).eval(), normalisation(2)), "layer"),
    (lambda: fuse_bn(layer_of(2).eval(), nn.BatchNorm2d(6, track_running_stats=False).eval()),
     "bn"),
    (lambda: fuse_bn(lcmulti_torch.LocallyConnected2d(
        3, 6, 3, (6, 5), data_format="channels_last").eval(), normalisation(2)), "layer"),
])  # fmt: skip
def test_fuse_bn_refuses_what_it_cannot(wrong, argument):
    with pytest.raises(ArgumentError) as caught:
        wrong()
    assert caught.value.argument == argument


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["", "Transpose"])
def test_torchs_own_fusion_fails_loudly(kind, bias):
    """Where filters equal rows, PyTorch's function would find fitting shapes and be wrong."""
    layer = layer_of(2, kind, kernel_size=1, bias=bias).eval()  # 6 filters, 6 rows
    for transpose in (False, True):
        with pytest.raises((UnsupportedError, RuntimeError)) as caught:
            nn.utils.fuse_conv_bn_eval(layer, normalisation(2), transpose)
        assert "fuse_bn" in str(caught.value) or not isinstance(caught.value, UnsupportedError)
    with pytest.raises(UnsupportedError, match="fuse_bn"):
        nn.utils.fuse_conv_bn_eval(layer, normalisation(2))
    fused = nn.utils.fuse_conv_bn_eval(nn.Conv2d(3, 6, 3).eval(), normalisation(2))
    assert fused.bias is not None


FORMATS = {
    "channels_last": (2, torch.channels_last),
    "channels_last_3d": (3, torch.channels_last_3d),
}


@pytest.mark.parametrize("name", FORMATS)
def test_parameters_have_no_memory_format(name):
    ndim, memory_format = FORMATS[name]
    conv = getattr(nn, f"Conv{ndim}d")(3, 3, 3)
    ours = [
        layer_of(n, **more)
        for n in (1, 2, 3)
        for more in ({}, dict(rank=2, groups=1), dict(kind="Transpose"))
    ]
    ours += [torch.nn.utils.parametrizations.weight_norm(layer_of(1))]
    model = nn.Sequential(conv, *ours)
    before = [(p.data_ptr(), p.stride()) for m in ours[:-1] for p in m.parameters()]
    assert model.to(memory_format=memory_format) is model
    assert conv.weight.is_contiguous(memory_format=memory_format)
    assert [(p.data_ptr(), p.stride()) for m in ours[:-1] for p in m.parameters()] == before
    assert all(p.is_contiguous() for p in ours[-1].parameters())
    model.to(torch.bfloat16, memory_format=memory_format)
    assert all(p.is_contiguous() and p.dtype == torch.bfloat16 for p in ours[0].parameters())
    x = torch.randn(2, 3, *SIZE[:ndim]).to(torch.bfloat16, memory_format=memory_format)
    of_rank = ours[(ndim - 1) * 3]
    assert of_rank(x).is_contiguous(memory_format=memory_format)


def test_what_else_is_applied_to_parameters_still_is():
    layer = layer_of(1, rank=2, groups=1)
    layer(torch.randn(2, 3, 6)).sum().backward()
    assert layer.double().basis.grad.dtype == torch.float64
    assert all(each.is_shared() for each in layer.share_memory().parameters())
    parameters = list(layer.parameters())
    assert all(a is b for a, b in zip(parameters, layer.float().parameters(), strict=True))
    assert {each.device.type for each in layer.to("meta").parameters()} == {"meta"}
    shapes = {
        name: tuple(each.shape) for name, each in layer.to_empty(device="cpu").named_parameters()
    }
    assert shapes == {"basis": (2, 1, 3, 3, 6), "coefficients": (4, 2), "bias": (4, 6)}


def message(call):
    with pytest.raises(Exception) as caught:
        call()
    return caught


X = torch.randn(2, 3, 8, 8)
KERNEL = torch.randn(6, 6, 3, 3, 3, 8)


@pytest.mark.parametrize("call, kind, argument, said", [
    (lambda: functional.local_conv2d(X, torch.randn(8, 3, 3, 3)), ShapeError, "weight",
     ("LocallyConnected2d.from_conv", "(8, 3, 3, 3)", "output_size")),
    (lambda: functional.local_conv_transpose2d(X, torch.randn(3, 8, 3, 3)), ShapeError, "weight",
     ("LocallyConnectedTranspose2d.from_conv",)),
    (lambda: functional.local_conv1d(X[0], torch.randn(8, 3, 3)), ShapeError, "weight",
     ("LocallyConnected1d.from_conv",)),
    (lambda: functional.local_conv3d(X[None], torch.randn(8, 3, 3, 3, 3)), ShapeError, "weight",
     ("LocallyConnected3d.from_conv",)),
    (lambda: functional.local_conv2d(X, KERNEL, stride="2"), ArgumentTypeError, "stride", ("'2'",)),
    (lambda: functional.local_conv2d(X.movedim(1, -1), KERNEL), ShapeError, "input",
     ("data_format='channels_last'",)),
    (lambda: lcmulti.local_conv(X, KERNEL), ShapeError, "x", ("data_format='channels_first'",)),
    (lambda: lcmulti.local_conv_transpose(torch.randn(2, 8, 6, 6), KERNEL), ShapeError, "x",
     ("data_format='channels_first'",)),
    (lambda: lcmulti.local_conv(X, torch.randn(8, 3, 3, 3)), ShapeError, "kernel",
     ("(8, 3, 3, 3)", "convolution", "rank 6")),
    (lambda: lcmulti_torch.LocallyConnected2d(3, 8, 3), ArgumentTypeError, "input_size",
     ("LazyLocallyConnected2d",)),
    (lambda: lcmulti_torch.LocallyConnectedTranspose1d(3, 8, 3), ArgumentTypeError, "input_size",
     ("spatial size",)),
    (lambda: lcmulti_torch.LocallyConnected2d(3, 8, 3, 9)(torch.randn(2, 9, 9, 3)), ShapeError,
     "input", ("channels_last", "movedim(-1, 1)", "data_format")),
    (lambda: lcmulti_torch.LocallyConnected2d(3, 8, 3, 9, data_format="channels_last")(
        torch.randn(2, 3, 9, 9)), ShapeError, "input", ("channels_first", "movedim(1, -1)")),
    (lambda: lcmulti_torch.LocallyConnected2d.from_conv(nn.LazyConv2d(8, 3), 9), ArgumentError,
     "conv", ("first batch",)),
])  # fmt: skip
def test_errors_say_what_to_do(call, kind, argument, said):
    error = message(call).value
    assert type(error) is kind, error
    assert error.argument == argument
    assert all(each in str(error) for each in said), error
    assert "_Loc" not in str(error)


@pytest.mark.parametrize("kind, conv", [
    ("", nn.Conv1d), ("", nn.Conv2d), ("", nn.Conv3d), ("Transpose", nn.ConvTranspose2d),
])  # fmt: skip
def test_the_state_of_a_convolution_is_told_from_conv(kind, conv):
    ndim = int(conv.__name__[-2])
    layer = layer_of(ndim, kind, groups=1)
    model = nn.Sequential(nn.ReLU(), layer)
    error = str(message(lambda: model.load_state_dict(
        nn.Sequential(nn.ReLU(), conv(3, 6, 3)).state_dict())).value)  # fmt: skip
    assert f"1.weight is that of a {conv.__name__}" in error
    assert f"{type(layer).__name__}.from_conv(conv, input_size={SIZE[:ndim]})" in error
    assert "positions" not in error


@pytest.mark.parametrize("kind, conv", [("", nn.Conv2d), ("Transpose", nn.ConvTranspose2d)])
def test_arguments_are_attributes_under_torchs_names(kind, conv):
    ours, theirs = layer_of(2, kind, stride=2, padding=1), conv(3, 6, 3, 2, 1, groups=3)
    names = "in_channels out_channels kernel_size stride padding dilation groups padding_mode"
    names += " output_padding" * (kind == "Transpose")
    for name in names.split():
        assert getattr(ours, name) == getattr(theirs, name), name
    assert (ours.input_size, ours.data_format, ours.shared_axes, ours.rank) == (
        (6, 5), "channels_first", (), None,
    )  # fmt: skip
    assert ours.output_size == tuple(ours(torch.randn(1, 3, 6, 5)).shape[2:])
    assert ours.full_kernel() is ours.weight


def test_from_conv_takes_the_mode_over():
    conv = nn.Conv2d(3, 4, 3).eval()
    layer = lcmulti_torch.LocallyConnected2d.from_conv(conv, 8)
    assert not layer.training
    assert not layer.to_conv().training
