"""`untie` of modules that hold, share, compute or lend their convolutions and weights."""

import random
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from helpers_networks import quietly, same  # noqa: E402
from lcmulti_torch import LocallyConnected2d, retie  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

from lcmulti.errors import ArgumentError  # noqa: E402


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


@pytest.mark.parametrize("rank", [None, 2])
def test_shared_parameters_need_the_same_positions(rank):
    class Both(nn.Module):
        def __init__(self, first, second):
            super().__init__()
            self.first, self.second = first, second
            second.weight, second.bias = first.weight, first.bias

        def forward(self, x):
            return self.first(x).sum() + self.second(x).sum()

    x = torch.randn(1, 3, 6, 6)
    strided = Both(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1, stride=2))
    with pytest.raises(ArgumentError, match="'first', whose weight is that of 'second' too"):
        quietly(strided, x, rank=rank)
    dilated = Both(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=2, dilation=2))
    untied = quietly(dilated, x, rank=rank)
    same(dilated, untied, x, rtol=1e-4, atol=1e-5)
    assert [*untied.first.parameters()] == [*untied.second.parameters()]
    tied = retie(untied, tolerance=None)
    assert tied.first.weight is tied.second.weight and tied.first.bias is tied.second.bias
    assert torch.equal(tied.first.weight, dilated.first.weight)


def test_the_example_changes_no_buffers_and_no_draws():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3)
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", None)

        def forward(self, x):
            self.calls, self.last = self.calls + 1, x
            return self.conv(x) + random.random() + np.random.random()

    net, states = Counts(), (random.getstate(), np.random.get_state()[2])
    untied = quietly(net, torch.randn(1, 1, 5, 5))
    assert states == (random.getstate(), np.random.get_state()[2])
    for each in (net, untied):
        assert each.calls == 0 and each.last is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_parts_stay_as_they_are():
    part = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)))
    net, x = nn.Sequential(nn.Conv2d(3, 3, 3), part).eval(), torch.randn(1, 3, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        untied = quietly(net, x)
    assert isinstance(untied[0], LocallyConnected2d)
    same(net, untied, x, rtol=1e-4, atol=1e-5)


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


def test_what_others_gave_a_convolution_is_carried_over():
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 6, 6)
    conv.register_buffer("seen", torch.tensor(2.0))
    conv.add_module("after", nn.ReLU())
    conv.scale = 3.0
    conv.register_forward_hook(lambda module, _, y: module.after(y) * module.scale * module.seen)
    net = nn.Sequential(conv)
    untied = quietly(net, x)
    assert set(untied.state_dict()) == set(net.state_dict())
    torch.testing.assert_close(untied(x), net(x))
    untied[0].seen += 1
    assert conv.seen == 2
    untied[0].seen -= 1
    torch.testing.assert_close(retie(untied)(x), net(x))
    with torch.inference_mode():
        assert not quietly(net, x)[0].weight.is_inference()


def test_weights_that_are_read_elsewhere_stay():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.a(x) * self.a.weight.norm() + self.b(x)

    net, x = Reads(), torch.randn(1, 3, 6, 6)
    assert quietly(net, x, dry_run=True).left == (
        ("a", "its weights are read elsewhere, too, by aten.linalg_vector_norm"),
    )
    torch.testing.assert_close(quietly(net, x)(x), net(x))
    net.a.forward = lambda x: x[..., 2:, 2:]  # of one module alone
    assert "something of its own in forward" in quietly(net, x, dry_run=True).left[0][1]
