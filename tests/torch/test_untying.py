"""`untie` and `retie`: the same outputs, and everything about a module that users rely on."""

import copy
import warnings

import pytest

torch = pytest.importorskip("torch")
from helpers_networks import ResNet18, UNet  # noqa: E402
from lcmulti_torch import (  # noqa: E402
    LocallyConnected1d,
    LocallyConnected2d,
    LocallyConnectedTranspose2d,
    retie,
    untie,
)
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

from lcmulti.errors import ArgumentError, ArgumentTypeError, TooLargeError  # noqa: E402

# A bound on outputs of many layers is that of one, summed over them: in float64 it is far below.
CLOSE = dict(rtol=1e-9, atol=1e-11)


def quietly(model, x, **options):
    return untie(model, x, tell=None, **options)


def same(model, other, *inputs, **tolerance):
    for each in (model, other):
        each.eval()
    with torch.no_grad():
        torch.testing.assert_close(other(*inputs), model(*inputs), **(tolerance or CLOSE))


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


def test_two_sizes_are_an_error_that_names_both():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Conv2d(3, 3, 3)
            self.own = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.own(self.shared(self.shared(x)))

    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(ArgumentError, match=r"'shared', which is called on \(6, 6\) and \(8, 8\)"):
        quietly(Pyramid(), x)
    untied = quietly(Pyramid(), x, where="own")
    assert isinstance(untied.own, LocallyConnected2d)


def test_one_module_in_two_places_stays_one():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.again = self.first
            self.others = [self.first]  # no module list: deep copies find it there, too

        def forward(self, x):
            return self.others[0](self.again(self.first(x)))

    net, x = Twice(), torch.randn(1, 3, 5, 5)
    untied = quietly(net, x)
    assert untied.first is untied.again is untied.others[0]
    assert isinstance(untied.first, LocallyConnected2d)
    same(net, untied, x, rtol=1e-4, atol=1e-5)


def test_parameters_that_are_shared():
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))
    net[2].weight = net[0].weight
    x = torch.randn(1, 3, 5, 5)
    untied = quietly(net, x)
    assert untied[0].weight is untied[2].weight and untied[0].bias is not untied[2].bias
    same(net, untied, x, rtol=1e-4, atol=1e-5)
    with pytest.raises(ArgumentError, match="'0', whose weight is that of '2' too"):
        quietly(net, x, where="0")


def test_computed_weights_and_other_forwards():
    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3))
    pruned = nn.Conv2d(3, 3, 3)
    prune.random_unstructured(pruned, "weight", 0.5)
    x = torch.randn(1, 3, 9, 9)
    net = nn.Sequential(nn.Conv2d(3, 3, 3), normed, pruned, Own(3, 3, 3))
    plan = quietly(net, x, dry_run=True)
    assert [row.name for row in plan.rows] == ["0"]
    assert [name for name, _ in plan.left] == ["1", "2", "3"]
    assert "parametrization" in str(plan) and "something of its own in forward" in str(plan)
    same(net, quietly(net, x), x, rtol=1e-4, atol=1e-5)
    with pytest.raises(ArgumentError, match="where: .*1: its weight is computed"):
        quietly(net, x, where="1")


def test_what_the_example_does_not_reach():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.aside = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

        def forward(self, x, more=None):
            y = self.used(x)
            return self.aside(y) if more is not None else y

    net, x = Aside(), torch.randn(1, 3, 8, 8)
    assert quietly(net, x, dry_run=True).left == (("aside", "the example does not reach it"),)
    assert quietly(net, dict(x=x, more=1), dry_run=True).left == ()
    assert quietly(net, (x, 1), dry_run=True).left == ()


def test_functions_are_counted():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)
            self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3))

        def forward(self, x):
            return nn.functional.conv2d(self.conv(x), self.kernel)

    x = torch.randn(1, 3, 8, 8)
    with pytest.warns(UserWarning, match=r"1 convolution\(s\) are called as functions"):
        untied = quietly(Functional(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quietly(untied.conv and nn.Sequential(nn.Conv2d(3, 3, 3)), x)


def test_lazy_modules_and_output_size():
    x = torch.randn(1, 3, 8, 8)
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(4, 2, 1))
    with pytest.raises(ArgumentError, match="lazy modules that have seen no batch: '0'"):
        quietly(lazy, x)
    lazy(x)
    assert isinstance(quietly(lazy, x)[0], LocallyConnected2d)

    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(3, 3, 2, 2)

        def forward(self, x):
            return self.up(x, output_size=[16, 16])

    with pytest.raises(ArgumentError, match="give it output_padding instead"):
        quietly(Sized(), x)


def test_what_belongs_to_a_convolution_is_carried_over():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)).to(torch.bfloat16)
    net[0].weight.requires_grad_(False)
    seen = []
    net[0].register_forward_hook(lambda module, given, y: seen.append(type(module)))
    x = torch.randn(1, 3, 6, 6, dtype=torch.bfloat16)
    untied = quietly(net, x)
    seen.clear()
    untied(x)
    assert seen == [LocallyConnected2d]
    assert untied[0].weight.dtype == torch.bfloat16
    assert not untied[0].weight.requires_grad and untied[0].bias.requires_grad
    meta = nn.Sequential(nn.Conv2d(3, 4, 3)).to("meta")
    assert quietly(meta, torch.randn(1, 3, 6, 6, device="meta"))[0].weight.device.type == "meta"


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


def test_weights_that_are_no_numbers_are_not_tied():
    untied = quietly(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(1, 3, 5, 5))
    with torch.no_grad():
        untied[0].weight[0, 0] = float("nan")
    with pytest.raises(ArgumentError, match="0.weight"):
        retie(untied, tolerance=1.0)


def test_a_forward_of_one_module_alone():
    net, x = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 1)), torch.randn(1, 3, 5, 5)
    net[0].forward = lambda x: x[..., 2:, 2:]
    assert "something of its own in forward" in quietly(net, x, dry_run=True).left[0][1]


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
