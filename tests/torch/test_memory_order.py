"""Sums and additions go through memory in its order, whatever the order of the axes."""

from itertools import combinations, permutations
from time import perf_counter

import pytest
import torch
from lcmulti_torch import LocallyConnected2d
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


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_a_bias_costs_as_much_as_its_bytes(data_format):
    """PyTorch's sum over the batch of a transposed view took 30 times as long, its addition 6."""
    shape = (64, 32, 24, 24) if data_format == "channels_first" else (64, 24, 24, 32)
    layers = [
        LocallyConnected2d(2, 32, 1, 24, data_format=data_format, bias=bias)
        for bias in (False, True)
    ]
    x = torch.randn(shape).narrow(1 if data_format == "channels_first" else 3, 0, 2).contiguous()
    above = torch.randn(shape)

    def step(layer):
        return lambda: torch.autograd.grad(layer(x), list(layer.parameters()), above)

    without, with_bias = (least(step(layer)) for layer in layers)
    row = torch.ones(shape[1:])
    own = least(lambda: above.sum(0)) + least(lambda: above.add_(row))
    assert with_bias - without < 6 * own
