"""Implementations for NumPy that are wrong for some calls only."""

import numpy as np
from saboteurs_maps import Honest

from lcmulti.numpy.backend import blocked


class WrongOverBatch16(Honest):
    """Forgets the samples after the sixteenth."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        y[16:] = 0
        return y


class WrongInTheLastRow(Honest):
    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if spec.output_size[0] > 2:
            y[:, -1] *= 1 + 1e-3
        return y


class WrongWith(Honest):
    """Leaves out the middle row where a condition on the resources holds."""

    def __init__(self, where):
        self.where = where

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if self.where(resources):
            y[:, spec.output_size[0] // 2] = 0
        return y


class WrongWhere(Honest):
    """Makes one element wrong by a hundredth where a condition on the call holds."""

    def __init__(self, where, name="forward"):
        self.where, self.name = where, name

    def _maybe(self, name, a, b, spec, resources):
        result = getattr(blocked, name)(a, b, spec, resources)
        if name == self.name and result.size and self.where(a, spec):
            numbers = result.reshape(-1)
            seen = np.flatnonzero(numbers)  # a tap that sees padding alone has a gradient of zero
            numbers[seen[-1:]] *= np.asarray(1.01, result.dtype)
        return result

    def forward(self, x, kernel, spec, resources):
        return self._maybe("forward", x, kernel, spec, resources)

    def input_grad(self, dy, kernel, spec, resources):
        return self._maybe("input_grad", dy, kernel, spec, resources)

    def kernel_grad(self, x, dy, spec, resources):
        return self._maybe("kernel_grad", x, dy, spec, resources)


class LastBlockAlone(Honest):
    """Under a small workspace, returns the last block's part of the input's gradient.

    It does so where each block reaches the whole input, so that the shapes agree.
    """

    def input_grad(self, dy, kernel, spec, resources):
        if resources.max_workspace < 2000 and min(spec.kernel_size) >= max(spec.input_size):
            dy = np.concatenate([np.zeros_like(dy[:, :-1]), dy[:, -1:]], axis=1)
        return super().input_grad(dy, kernel, spec, resources)


def is_square(spec):
    return len(set(spec.kernel_size)) < spec.ndim and max(spec.kernel_size) > 1


wrong_over_batch_16 = WrongOverBatch16()
wrong_in_the_last_row = WrongInTheLastRow()
wrong_in_blocks = WrongWith(lambda resources: resources.max_workspace < 2000)
last_block_alone = LastBlockAlone()
wrong_with_threads = WrongWith(lambda resources: resources.threads is not None)
wrong_with_much_workspace = WrongWith(lambda resources: resources.max_workspace >= 2**31)
wrong_for_one_sample = WrongWhere(lambda a, spec: len(a) == 1, "kernel_grad")
wrong_in_float16 = WrongWhere(lambda a, spec: a.dtype == np.float16)
wrong_in_complex128 = WrongWhere(lambda a, spec: a.dtype == np.complex128, "input_grad")
wrong_for_grouped_dilation = WrongWhere(lambda a, s: s.groups > 1 and max(s.dilation) > 1)
wrong_for_odd_sizes = WrongWhere(lambda a, s: all(n % 2 for n in s.input_size), "input_grad")
wrong_for_square_windows = WrongWhere(lambda a, s: is_square(s), "kernel_grad")
wrong_for_different_sides = WrongWhere(lambda a, s: len(set(s.kernel_size)) == s.ndim > 1)
wrong_for_equal_channels = WrongWhere(lambda a, s: s.in_channels == s.filters > 1)
wrong_for_many_channels = WrongWhere(lambda a, s: s.in_channels > 64, "kernel_grad")
wrong_for_many_positions = WrongWhere(lambda a, s: np.prod(s.output_size) > 4096, "input_grad")
wrong_for_long_windows = WrongWhere(lambda a, s: np.prod(s.kernel_size) > 64, "kernel_grad")
wrong_for_large_batches = WrongWhere(lambda a, s: len(a) > 256, "kernel_grad")
wrong_in_4d = WrongWhere(lambda a, s: s.ndim == 4, "kernel_grad")
wrong_for_batches_of_8 = WrongWhere(lambda a, s: len(a) == 8, "kernel_grad")
wrong_for_sides_of_7 = WrongWhere(lambda a, s: 7 in s.kernel_size, "input_grad")
wrong_for_16_filters = WrongWhere(lambda a, s: s.filters == 16)
wrong_for_4_groups = WrongWhere(lambda a, s: s.groups == 4, "kernel_grad")
wrong_for_dilation_of_4 = WrongWhere(lambda a, s: max(s.dilation) >= 4)
wrong_over_16_bits = WrongWhere(lambda a, s: np.prod(s.input_size) > 32767)
wrong_for_millions = WrongWhere(lambda a, s: a.size > 2_000_000)
