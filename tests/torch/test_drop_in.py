"""A layer in a convolution's place: memory of its results, hooks, and changes in place."""

from __future__ import annotations

import io
from itertools import product

import pytest

torch = pytest.importorskip("torch")

import lcmulti_torch  # noqa: E402
from lcmulti_torch import functional  # noqa: E402
from torch import nn  # noqa: E402

from lcmulti import plugins  # noqa: E402
from lcmulti.errors import UnsupportedError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.sampled]

CHANNELS, SIZE = 3, (7, 6, 4)
KINDS = {
    "plain": {},
    "padded": dict(padding="same", dilation=2),
    "strided": dict(stride=2, padding=1),
    "reflected": dict(padding=1, padding_mode="reflect"),
    "circular": dict(padding=1, padding_mode="circular"),
    "grouped": dict(groups=3),
    "tiled": dict(kernel_size=1),
    "window as stride": dict(kernel_size=2, stride=2),
    "pixels": dict(kernel_size=1, groups=3, out_channels=3),
    "shared rows": dict(shared_axes=(0,)),
    "convolution": dict(stride=2, padding=1),
    "low rank": dict(rank=2, padding=1),
    "rank 1": dict(rank=1),
    "transposed": dict(stride=2, padding=1),
    "transposed and shared": dict(stride=2),
    "lazy": dict(padding=1),
}
IMPLEMENTATIONS = [
    "auto",
    *(entry.name for entry in plugins.registry().implementations_of("torch")),
]


def layer_of(kind, ndim=2, bias=True, **more):
    more = dict(kernel_size=3, out_channels=6, bias=bias) | KINDS[kind] | more
    size = SIZE[:ndim]
    if ("shared" in kind and "transposed" in kind) or kind == "convolution":
        more["shared_axes"] = tuple(range(ndim))
    if kind == "lazy":
        layer = getattr(lcmulti_torch, f"LazyLocallyConnected{ndim}d")(**more)
        layer(sample(ndim, more.get("data_format")))
        return layer
    name = "LocallyConnectedTranspose" if "transposed" in kind else "LocallyConnected"
    return getattr(lcmulti_torch, f"{name}{ndim}d")(CHANNELS, input_size=size, **more)


def sample(ndim=2, data_format=None, batch=2):
    shape = [batch, CHANNELS, *SIZE[:ndim]]
    x = torch.randn(shape).movedim(1, -1) if data_format == "channels_last" else torch.randn(shape)
    return x.contiguous()


def variants(kind, **more):
    """Yield the name of each implementation that serves the layer, and the layer with it."""
    torch.manual_seed(0)
    plain = layer_of(kind, **more)
    for implementation in IMPLEMENTATIONS:
        try:
            layer = layer_of(kind, **more, implementation=implementation)
            layer.load_state_dict(plain.state_dict())
            layer(sample(more.get("ndim", 2), more.get("data_format")))
        except UnsupportedError:
            continue
        yield implementation, layer


def nodes(y):
    """Return the nodes of the graph between the result *y* and its leaves."""
    seen, left = [], [y.grad_fn]
    while left:
        node = left.pop()
        if node is None or type(node).__name__ == "AccumulateGrad" or node in seen:
            continue
        seen.append(node)
        left += [before for before, _ in node.next_functions]
    return seen


def is_owner(y):
    return not y._is_view() and (y.storage_offset(), y.untyped_storage().nbytes()) == (0, y.nbytes)


def assert_owner(y, where):
    stored = y.storage_offset(), y.untyped_storage().nbytes()
    assert not y._is_view(), f"{where}: a view"
    assert stored == (0, y.nbytes), f"{where}: offset and bytes {stored}, not {(0, y.nbytes)}"


def memories(x, ndim):
    yield "contiguous", x
    yield "channels apart or last", x.movedim(1, -1).contiguous().movedim(-1, 1)
    yield "every other", torch.stack([x, x], -1)[..., 0]
    yield "expanded", x[:1].expand_as(x)
    yield "no batch", x[0]
    yield "batch of one", x[:1]
    yield "batch of none", x[:0]


@pytest.mark.parametrize("ndim", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
@pytest.mark.parametrize("kind", KINDS)
def test_the_result_owns_its_memory_behind_one_node(kind, ndim):
    for bias, data_format in product((True, False), ("channels_first", "channels_last")):
        more = dict(ndim=ndim, bias=bias, data_format=data_format)
        for implementation, layer in variants(kind, **more):
            for memory, x in memories(sample(ndim, data_format), ndim):
                where = f"{ndim}D, {data_format}, {implementation}, {memory}"
                y = layer(x)
                assert_owner(y, where)
                assert y.requires_grad and not y.is_leaf, where
                most = 2 if memory == "no batch" else 1
                assert "rank" in kind or len(nodes(y)) == most, f"{where}: {nodes(y)}"
            for mode in (torch.no_grad, torch.inference_mode):
                with mode():
                    assert_owner(layer(sample(ndim, data_format)), f"{where}, {mode.__name__}")


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_own_their_memory(kind):
    for implementation, layer in variants(kind):
        for memory, x in memories(sample(), 2):
            asked = x.detach().requires_grad_()
            y = layer(asked)
            for grad in torch.autograd.grad(y, [asked, *layer.parameters()], torch.randn_like(y)):
                assert "rank" in kind or memory == "no batch" or is_owner(grad), (
                    implementation, memory, grad.shape,
                )  # fmt: skip


IN_PLACE = {
    "relu_": nn.functional.relu_,
    "ReLU(inplace=True)": nn.ReLU(inplace=True),
    "SiLU(inplace=True)": nn.SiLU(inplace=True),
    "+= r": lambda y: y.add_(torch.ones_like(y)),
    "-= its mean": lambda y: y.sub_(y.detach().mean()),
    "*= g": lambda y: y.mul_(torch.full_like(y, 0.5)),
    "[:, 0] = 0": lambda y: y.__setitem__((slice(None), 0), 0) or y,
    "[0] += 1": lambda y: y.__setitem__(0, y[0] + 1) or y,
    "view(-1).clamp_": lambda y: y.view(-1).clamp_(min=0) is None or y,
    "dropout": lambda y: nn.functional.dropout(y, 0.5, True, inplace=True),
    "masked_fill_": lambda y: y.masked_fill_(torch.ones_like(y).tril() > 0, 0),
}


def in_place_gradients(layer, x, change, copy):
    """Return loss and gradients after *change* changed the layer's result, or a copy of it."""
    torch.manual_seed(1)
    y = layer(x)
    y = change(y.clone() if copy else y)
    loss = (y.square() * torch.linspace(0, 1, y.numel()).view_as(y)).sum()
    return loss, *torch.autograd.grad(loss, list(layer.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_operations_in_place(kind):
    for (name, change), bias in product(IN_PLACE.items(), (True, False)):
        layer = layer_of(kind, bias=bias)
        for x in (sample(), sample()[0]):
            ours = in_place_gradients(layer, x, change, copy=False)
            theirs = in_place_gradients(layer, x, change, copy=True)
            torch.testing.assert_close(ours, theirs, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_is_called_once_with_the_gradient_before_relu(kind):
    for bias in (True, False):
        for implementation, layer in variants(kind, bias=bias):
            seen, kept = [], []
            y = layer(sample())
            y.register_hook(seen.append)
            y.grad_fn.register_hook(lambda *grads, kept=kept: kept.append(grads))
            positive = y.detach() > 0
            nn.functional.relu_(y)
            y.sum().backward()
            assert len(seen) == len(kept) == 1, implementation
            torch.testing.assert_close(seen[0], positive.float())


def test_module_hooks_and_retain_grad_as_with_a_convolution():
    def told(module):
        seen = []
        module.register_full_backward_pre_hook(lambda m, dy: seen.append(dy[0].sum()))
        module.register_full_backward_hook(lambda m, dx, dy: seen.append(dx[0].sum()))
        model, x = nn.Sequential(module, nn.ReLU(inplace=True)), sample().requires_grad_()
        try:
            y = model(x)
        except RuntimeError as error:  # PyTorch's hooks turn any result into a view
            return str(error)[:50]
        y.sum().backward()
        return seen

    conv = nn.Conv2d(CHANNELS, 6, 3)
    torch.manual_seed(0)
    theirs = told(conv)
    torch.manual_seed(0)
    ours = told(lcmulti_torch.LocallyConnected2d.from_conv(conv, SIZE[:2]))
    torch.testing.assert_close(ours, theirs) if isinstance(theirs, list) else None
    assert type(ours) is type(theirs)
    kept = [nn.Conv2d(CHANNELS, 6, 3), lcmulti_torch.LocallyConnected2d(CHANNELS, 6, 3, SIZE[:2])]
    for layer in kept:
        y = layer(sample())
        y.retain_grad()
        y.sum().backward()
        assert torch.equal(y.grad, torch.ones_like(y))


WATCHED = {
    "compile": lambda layer: torch.compile(layer, fullgraph=True, backend="aot_eager"),
    "jit.trace": lambda layer: torch.jit.trace(layer, sample()),
    "export": lambda layer: torch.export.export(layer, (sample(),)).module(),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", WATCHED)
@pytest.mark.parametrize("kind", ["plain", "convolution", "tiled", "transposed", "low rank"])
def test_what_a_tracer_gives_is_no_view(kind, how):
    for bias in (True, False):
        layer = layer_of(kind, bias=bias)
        torch._dynamo.reset()
        for x in (sample(), sample().to(memory_format=torch.channels_last)):
            y = WATCHED[how](layer)(x)
            assert not y._is_view(), (bias, x.stride())
            nn.functional.relu_(y).sum().backward()
            torch.testing.assert_close(y, layer(x).relu())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Constant folding")
@pytest.mark.parametrize("ndim", [2, 1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_without_dynamo(kind, ndim):
    """The older exporter writes what onnxruntime computes, also for a single sample."""
    onnxruntime = pytest.importorskip("onnxruntime")
    layer, batch = layer_of(kind, ndim).eval(), sample(ndim)
    for x, more in ((batch, dict(dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})), (batch[0], {})):
        file = io.BytesIO()
        torch.onnx.export(
            layer, (x,), file, dynamo=False, input_names=["x"], output_names=["y"], **more
        )
        session = onnxruntime.InferenceSession(file.getvalue())
        for each in (x, torch.cat([x, x])) if more else (x,):
            (y,) = session.run(None, {"x": each.numpy()})
            torch.testing.assert_close(torch.from_numpy(y), layer(each).detach())


OPERATIONS = {
    "conv": (nn.functional.conv2d, (6, 3, 3, 3), (6,)),
    "local_conv2d": (functional.local_conv2d, (5, 4, 3, 3, 3, 6), (5, 4, 6)),
    "local_conv_transpose2d": (functional.local_conv_transpose2d, (7, 6, 3, 3, 6, 3), (9, 8, 6)),
}


@pytest.mark.parametrize("where", ["x", "weight", "bias"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_what_a_result_was_made_of_are_noticed(name, where):
    """The backward pass notices a change of the arrays it needs, and ignores other changes."""
    function, weight, bias = OPERATIONS[name]
    arrays = dict(x=sample(), weight=torch.randn(weight), bias=torch.randn(bias))
    arrays = {name: each.requires_grad_() for name, each in arrays.items()}
    held = {name: each * 1 for name, each in arrays.items()}
    y = function(held["x"], held["weight"], held["bias"])
    held[where].detach().zero_()
    if where == "bias":
        y.sum().backward()
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_result_is_new_each_time():
    layer, x = layer_of("plain"), sample()
    with torch.no_grad():
        one, two = layer(x), layer(x)
        one.zero_()
    assert two.abs().sum() > 0
    assert torch.equal(layer(x), two)
