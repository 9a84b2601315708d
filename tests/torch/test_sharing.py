"""`ShareEvery` in a training loop of PyTorch."""

import pytest

torch = pytest.importorskip("torch")
from lcmulti_torch import LocallyConnected2d, LocallyConnectedTranspose2d, ShareEvery  # noqa: E402
from torch import nn  # noqa: E402

from lcmulti.errors import ArgumentError  # noqa: E402


def network(**options):
    return nn.Sequential(
        LocallyConnected2d(2, 3, 3, 6, **options), LocallyConnectedTranspose2d(3, 2, 2, 4)
    )


@pytest.mark.parametrize("strength", [1.0, 0.25])
@pytest.mark.parametrize("axes", [None, (1,)])
@pytest.mark.parametrize("rank", [None, 2])
def test_weights_move_to_their_mean_every_few_steps(strength, axes, rank):
    net = network(rank=rank)
    sharing = ShareEvery(net, 3, axes, strength)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    assert [sharing.step() for _ in range(2)] == [False, False]
    assert all(torch.equal(before[n], p) for n, p in net.named_parameters())
    assert sharing.step()
    over = (0, 1) if axes is None else axes
    for name, parameter in net.named_parameters():
        old = before[name]
        if not name.endswith("basis"):
            mean = old.mean(over, keepdim=True).expand_as(old)
            old = old + strength * (mean - old)
        torch.testing.assert_close(parameter.detach(), old)
        assert parameter.requires_grad and parameter.grad is None


def test_weights_of_two_layers_move_once():
    net = nn.Sequential(*(LocallyConnected2d(2, 2, 3, 6, padding=1) for _ in range(2)))
    net[1].weight = net[0].weight
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    ShareEvery(net, 1, strength=0.5).step()
    assert net[1].weight is net[0].weight and len(before) == 3
    for name, parameter in net.named_parameters():
        halfway = (before[name] + before[name].mean((0, 1), keepdim=True)) / 2
        torch.testing.assert_close(parameter.detach(), halfway)


def test_where_state_and_wrong_calls():
    net = network()
    first = net[0].weight.detach().clone()
    ShareEvery(net, 1, where="1").step()
    assert torch.equal(net[0].weight, first)
    sharing = ShareEvery(net, 2)
    sharing.step()
    other = ShareEvery(net, 2)
    other.load_state_dict(sharing.state_dict())
    assert other.step()
    for wrong, arguments in (
        ("steps", (net, 0)), ("axes", (net, 1, (2,))), ("strength", (net, 1, None, 0.0)),
        ("strength", (net, 1, None, 1.5)), ("model", (nn.Linear(1, 1), 1)),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=f"^{wrong}: expected"):
            ShareEvery(*arguments)


@pytest.mark.parametrize("axes", [None, (0, 1), [1, 0]])
def test_the_bias_of_a_single_input_position_is_averaged(axes):
    """A transposed layer may have one kernel and many positions of the bias."""
    layer = LocallyConnectedTranspose2d(3, 4, 3, 1)
    mean = layer.bias.detach().mean((0, 1), keepdim=True).expand_as(layer.bias)
    assert not torch.allclose(layer.bias, mean)
    torch.testing.assert_close(layer.share_(axes).bias.detach(), mean)
