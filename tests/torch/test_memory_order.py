"""Sums and additions go through memory in its order, whatever the order of the axes."""

from itertools import combinations, permutations
from time import perf_counter

import pytest
import torch
from lcmulti_torch import LocallyConnected2d, derivatives
from lcmulti_torch.memory import summed


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
def test_sums_over_some_axes_of_any_memory_order(order):
    array = torch.arange(120.0).reshape(2, 3, 4, 5).permute(order)
    for count in (1, 2, 3):
        for axes in combinations(range(4), count):
            torch.testing.assert_close(summed(array, axes), array.sum(axes))


def test_sums_of_expanded_and_empty_arrays():
    torch.testing.assert_close(
        summed(torch.ones(()).expand(3, 2, 4), (0,)), torch.full((2, 4), 3.0)
    )
    assert summed(torch.ones(0, 2, 4), (0,)).tolist() == [[0.0] * 4] * 2


def least(call):
    taken = []
    for _ in range(12):
        start = perf_counter()
        call()
        taken.append(perf_counter() - start)
    return min(taken)


def test_a_sum_takes_the_time_of_its_bytes():
    """PyTorch's own sum over the batch of such a view takes ten to thirty times as long."""
    view = torch.randn(64, 32, 24, 24).movedim(1, -1)
    assert least(lambda: summed(view, (0,))) < least(lambda: view.sum(0)) / 2


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_a_bias_is_added_and_summed_in_the_order_of_the_memory(data_format, monkeypatch):
    layer = LocallyConnected2d(2, 4, 3, 6, data_format=data_format)
    added, sums = [], []
    own_add, own_sum = torch.Tensor.add_, derivatives.summed

    def add_(y, bias):
        added.append((y.stride()[1:], bias.stride()))
        return own_add(y, bias)

    def noted(array, axes):
        sums.append(axes)
        return own_sum(array, axes)

    monkeypatch.setattr(torch.Tensor, "add_", add_)
    monkeypatch.setattr(derivatives, "summed", noted)
    x = torch.randn(3, 2, 6, 6) if data_format == "channels_first" else torch.randn(3, 6, 6, 2)
    y = layer(x)
    monkeypatch.setattr(torch.Tensor, "add_", own_add)
    y.sum().backward()
    ((of_y, of_bias),) = added
    assert of_y == of_bias
    assert sums == [(0,)]
