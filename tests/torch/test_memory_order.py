"""Sums and additions go through memory in its order, whatever the order of the axes."""

from itertools import combinations, permutations

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


@pytest.mark.parametrize("axes", [(0,), (0, 1), (0, 2)])
def test_what_is_summed_lies_in_memory_order(axes, monkeypatch):
    """Of another order, PyTorch's sum over the batch takes ten to thirty times as long."""
    seen = []

    def noted(array, *arguments):
        seen.append(array.is_contiguous())
        return own(array, *arguments)

    own = torch.Tensor.sum
    monkeypatch.setattr(torch.Tensor, "sum", noted)
    summed(torch.randn(5, 4, 3, 2).movedim(1, -1), axes)
    assert seen == [True]


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
