"""`untie` and `retie`: the same outputs, and everything about a module that users rely on."""

import copy

import pytest

torch = pytest.importorskip("torch")
from helpers_networks import ResNet18, UNet, quietly, same  # noqa: E402
from lcmulti_torch import (  # noqa: E402
    LocallyConnected1d,
    LocallyConnected2d,
    LocallyConnectedTranspose2d,
    retie,
    untie,
)
from torch import nn  # noqa: E402

from lcmulti.errors import ArgumentError, ArgumentTypeError, TooLargeError  # noqa: E402


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    net = ResNet18(4).double()
    net(torch.randn(4, 3, 32, 32, dtype=torch.float64))  # statistics of their own
    return net


def test_resnet18(resnet):
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    untied = quietly(resnet, x)
    assert type(resnet.conv1) is nn.Conv2d
    assert not any(isinstance(m, nn.Conv2d) for m in untied.modules())
    assert isinstance(untied.layer2[0].downsample[0], LocallyConnected2d)
    same(resnet, untied, x)
    assert set(untied.state_dict()) == set(resnet.state_dict())
    back = retie(untied)
    assert not any(isinstance(m, LocallyConnected2d) for m in back.modules())
    assert all(torch.equal(a, b) for a, b in zip(
        back.state_dict().values(), resnet.state_dict().values(), strict=True
    ))  # fmt: skip


def test_unet_with_transposed_convolutions():
    net, x = UNet(4).double(), torch.randn(2, 1, 16, 12, dtype=torch.float64)
    untied = quietly(net, x)
    assert isinstance(untied.up["shallow"], LocallyConnectedTranspose2d)
    assert untied.down[0][2].padding_mode == "reflect"
    same(net, untied, x)
    same(net, retie(untied), x)


@pytest.mark.parametrize("kind, shape, options", [
    (nn.Conv1d, (2, 4, 9), dict(stride=2, padding=1, padding_mode="circular")),
    (nn.Conv2d, (2, 4, 7, 6), dict(groups=4, padding="same", dilation=2)),
    (nn.Conv2d, (2, 4, 7, 6), dict(groups=2, bias=False, padding="valid")),
    (nn.Conv3d, (2, 4, 4, 5, 3), dict(padding=1)),
    (nn.ConvTranspose1d, (2, 4, 9), dict(stride=3, output_padding=2, groups=2)),
    (nn.ConvTranspose2d, (2, 4, 5, 4), dict(stride=2, padding=1, output_padding=1)),
    (nn.ConvTranspose3d, (2, 4, 3, 2, 3), dict(stride=2, dilation=2)),
])  # fmt: skip
@pytest.mark.parametrize("rank", [None, 2])
def test_every_kind_of_convolution(kind, shape, options, rank):
    conv = kind(4, 8, 3, **options, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    for net, given in ((conv, x), (nn.Sequential(conv), x), (nn.Sequential(conv), x[0])):
        untied = quietly(net, given, rank=rank)
        assert next(untied.modules()) is not conv
        same(net, untied, given)
        same(net, retie(untied), given)


def test_shared_axes_and_rank_train(resnet):
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    untied = quietly(resnet, x, shared_axes=(1,), where="layer1.*", rank=3)
    layer = untied.layer1[0].conv1
    assert layer.coefficients.shape == (8, 1, 3)
    assert type(untied.conv1) is nn.Conv2d
    same(resnet, untied, x)
    untied.train()(x).square().sum().backward()
    assert layer.coefficients.grad[..., 1:].abs().max() > 0  # the other kernels are no zeros


def test_where(resnet):
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)

    def untied(where):
        net = quietly(resnet, x, where=where)
        return [n for n, m in net.named_modules() if isinstance(m, LocallyConnected2d)]

    assert untied("conv1") == ["conv1"]
    assert untied("layer3.*.conv?") == ["layer3.0.conv1", "layer3.0.conv2", "layer3.1.conv1",
                                        "layer3.1.conv2"]  # fmt: skip
    assert untied(["conv1", lambda name, conv: conv.kernel_size == (1, 1)]) == [
        "conv1", "layer2.0.downsample.0", "layer3.0.downsample.0", "layer4.0.downsample.0"
    ]  # fmt: skip
    assert len(untied(nn.Conv2d)) == len(untied(None)) == 20
    with pytest.raises(ArgumentError, match="where: .*'layer4.1.conv2', got 'conv9'"):
        untied("conv9")
    with pytest.raises(ArgumentError, match="where: .*got <class .*Conv3d"):
        untied(["conv1", nn.Conv3d])
    with pytest.raises(ArgumentTypeError, match="where"):
        untied(3)


def test_the_example_leaves_no_trace(resnet):
    resnet.train()
    resnet.layer1.eval()
    resnet.add_module("drop", nn.Dropout())
    before = copy.deepcopy(resnet.state_dict())
    modes = [m.training for m in resnet.modules()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    untied = quietly(resnet, x.requires_grad_())
    assert torch.equal(torch.get_rng_state(), state)
    assert x.grad is None and torch.is_grad_enabled()
    assert [m.training for m in resnet.modules()] == modes
    assert [m.training for m in untied.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in resnet.state_dict().items())
    assert not any(m._forward_pre_hooks for m in (*resnet.modules(), *untied.modules()))
    with pytest.raises(RuntimeError):
        quietly(resnet, x[..., 0])
    assert [m.training for m in resnet.modules()] == modes
    assert not any(m._forward_pre_hooks for m in resnet.modules())


def test_training_saving_and_compiling(resnet, tmp_path):
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    untied = quietly(resnet, x, where="layer1.*").train()
    optimizer = torch.optim.Adam(untied.parameters(), 1e-3)
    first = last = untied(x).square().mean()
    for _ in range(3):
        optimizer.zero_grad()
        last = untied(x).square().mean()
        last.backward()
        optimizer.step()
    assert last < first
    torch.save(untied.state_dict(), tmp_path / "state.pt")
    other = quietly(resnet, x, where="layer1.*")
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    same(untied, other, x)
    kernel = untied.layer1[0].conv1.weight
    with pytest.raises(ArgumentError, match=r"layer1.0.conv1.weight: .*differ by up to"):
        retie(untied)
    mean = retie(untied, tolerance=None).layer1[0].conv1.weight
    torch.testing.assert_close(mean, kernel.mean((0, 1)).movedim((-1, -2), (0, 1)))


@pytest.mark.slow
def test_compiled(resnet):
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    untied = quietly(resnet, x, where="layer1.*").eval()
    compiled = torch.compile(untied, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), untied(x))


def test_in_place():
    net, x = UNet(2), torch.randn(1, 1, 8, 8)
    expected = net(x)
    assert quietly(net, x, inplace=True) is net
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    assert retie(net, inplace=True) is net and type(net.out) is nn.Conv2d
    with pytest.raises(ArgumentError, match="inplace"):
        quietly(nn.Conv2d(1, 1, 1), x, inplace=True)


def test_it_tells_and_refuses_before_anything_is_made(resnet, capsys):
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    plan = untie(resnet, x, dry_run=True)
    assert capsys.readouterr().out == ""
    table = str(plan)
    assert max(map(len, table.splitlines())) <= 80
    untied = quietly(resnet, x)
    after = sum(m.weight.numel() for m in untied.modules() if isinstance(m, LocallyConnected2d))
    assert plan.parameters[1] == after and plan.bytes[1] == 8 * after
    untie(resnet, x)
    assert capsys.readouterr().out.strip() == table.strip()
    with pytest.raises(TooLargeError, match=r"1.0 MiB, the limit, got .*layer1.0.conv1 \("):
        quietly(resnet, x, memory="1MiB")
    wide = nn.Sequential(nn.Conv2d(4096, 4096, 3, padding=1, device="meta"))
    with pytest.raises(TooLargeError, match="the memory this machine has"):
        quietly(wide, torch.randn(1, 4096, 64, 64, device="meta"))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_tying_again_what_same_padding_and_broken_weights_are():
    net, x = nn.Sequential(nn.Conv2d(3, 4, (2, 4), padding="same")), torch.randn(1, 3, 5, 6)
    untied = quietly(net, x)
    assert retie(untied)[0].padding == "same"
    torch.testing.assert_close(retie(untied)(x), net(x))
    with pytest.raises(ArgumentError, match="tolerance: "):
        retie(untied, tolerance=-1)
    with torch.no_grad():
        untied[0].weight[0, 0] = float("nan")
    with pytest.raises(ArgumentError, match=r"0.weight: .*not finite"):
        retie(untied, tolerance=1.0)


def test_wrong_calls():
    with pytest.raises(ArgumentTypeError, match="model: expected a torch.nn.Module"):
        untie(3, None)
    with pytest.raises(ArgumentError, match="model: .*convolutions that the example reaches"):
        quietly(nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(ArgumentError, match="model: .*locally connected layers"):
        retie(nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="0: shared_axes"):
        quietly(nn.Sequential(nn.Conv1d(1, 1, 1)), torch.ones(1, 1, 4), shared_axes=(1,))
    assert isinstance(quietly(nn.Conv1d(1, 1, 1), torch.ones(1, 1, 4)), LocallyConnected1d)
