"""Variants of other saboteurs for NumPy: the same fault in another map, axis or size."""

import numpy as np
from saboteurs_large import BFloat16AsFloat16, ThreadsIgnored, is_large
from saboteurs_maps import Honest
from saboteurs_sizes import positions
from saboteurs_where import WrongWhere, WrongWith

from lcmulti.numpy.backend import blocked


def is_prime(n):
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def is_over_the_input(spec):
    """Whether the window is longer than the unpadded input along every axis."""
    extents = ((k - 1) * d + 1 for k, d in zip(spec.kernel_size, spec.dilation, strict=True))
    return all(extent > n for extent, n in zip(extents, spec.input_size, strict=True))


class FiltersSummedInHalf(Honest):
    """Adds up input gradients of 64 filters each in the half type."""

    def input_grad(self, dy, kernel, spec, resources):
        if dy.dtype.itemsize > 2 or spec.filters // spec.groups <= 64:
            return super().input_grad(dy, kernel, spec, resources)
        total = np.zeros((len(dy), *spec.input_shape), dy.dtype)
        for first in range(0, spec.filters, 64):
            rows = np.arange(spec.filters) // 64 * 64 == first
            total = total + super().input_grad(dy * rows.astype(dy.dtype), kernel, spec, resources)
        return total


class WindowsAddedInHalf(Honest):
    """Adds up the gradients of overlapping windows in the half type."""

    def input_grad(self, dy, kernel, spec, resources):
        if dy.dtype.itemsize > 2:
            return super().input_grad(dy, kernel, spec, resources)
        total = np.zeros((len(dy), *spec.input_shape), dy.dtype)
        for tap, _ in spec.taps():
            one = np.zeros_like(kernel)
            at = (..., *tap, slice(None), slice(None))
            one[at] = kernel[at]
            total = total + super().input_grad(dy, one, spec, resources)
        return total


class GradientOfOldNumbers(Honest):
    """Packs an input once for its address and strides, although its values may change."""

    def __init__(self):
        self.packed = {}

    def kernel_grad(self, x, dy, spec, resources):
        key = x.ctypes.data, x.strides, x.dtype, spec
        if self.packed.get("key") != key:
            self.packed = {"key": key, "x": x.copy()}
        return super().kernel_grad(self.packed["x"], dy, spec, resources)


class GradientWrongLater(Honest):
    """Returns a wrong kernel gradient from the fiftieth call of a geometry on."""

    def __init__(self):
        self.calls = {}

    def kernel_grad(self, x, dy, spec, resources):
        self.calls[spec, x.dtype] = count = self.calls.get((spec, x.dtype), 0) + 1
        dkernel = super().kernel_grad(x, dy, spec, resources)
        return dkernel if count < 50 else dkernel * np.asarray(1.01, x.dtype)


class OneAxisTurned(Honest):
    """Reads an axis with a negative stride forwards, if it is the only such axis."""

    def __init__(self, axis):
        self.axis = axis

    def there(self, array):
        signs = [stride < 0 for stride in array.strides]
        if self.axis < array.ndim and signs[self.axis] and sum(signs) == 1:
            return np.flip(array, self.axis)
        return array

    def forward(self, x, kernel, spec, resources):
        return super().forward(x, self.there(kernel), spec, resources)

    def input_grad(self, dy, kernel, spec, resources):
        return super().input_grad(self.there(dy), kernel, spec, resources)


class BroadcastFilters(Honest):
    """Is wrong where the filters, but not the batch, have a stride of zero."""

    def kernel_grad(self, x, dy, spec, resources):
        if dy.size and dy.strides[-1] == 0 and dy.strides[0] != 0 and dy.shape[-1] > 1:
            dy = dy * np.asarray(np.arange(dy.shape[-1]) == 0, dy.dtype)
        return super().kernel_grad(x, dy, spec, resources)


class ThreadsIgnoredByAGradient(ThreadsIgnored):
    """Uses four threads in one of the three maps, whatever its resources allow."""

    forward = Honest.forward

    def kernel_grad(self, x, dy, spec, resources):
        if len(x) < 4 or not is_large(x, spec):
            return super().kernel_grad(x, dy, spec, resources)
        parts = zip(np.split(x, 4), np.split(dy, 4), strict=True)
        with self.pool() as pool:
            found = pool.map(lambda part: blocked.kernel_grad(*part, spec, resources), parts)
            return sum(found)


class OneArrayTwice(Honest):
    """Changes the gradient if both arguments share memory, as if only their square were wanted."""

    def kernel_grad(self, x, dy, spec, resources):
        if x.size and np.may_share_memory(x, dy):
            dy = np.conj(dy) if dy.dtype.kind == "c" else np.abs(dy)
        return super().kernel_grad(x, dy, spec, resources)


class HalfRangeOfAGradient(BFloat16AsFloat16):
    """Computes bfloat16 gradients of the input in float16, whose range is smaller."""

    forward = Honest.forward

    def input_grad(self, dy, kernel, spec, resources):
        return self.clipped(super().input_grad(dy, kernel, spec, resources))


class SumOfParts(Honest):
    """Computes complex products from sums of their parts, which overflow earlier."""

    def kernel_grad(self, x, dy, spec, resources):
        dkernel = super().kernel_grad(x, dy, spec, resources)
        if x.dtype.kind != "c":
            return dkernel
        both = 2 * (np.abs(dkernel.real) + np.abs(dkernel.imag))
        return np.where(np.isfinite(both), dkernel, np.nan).astype(x.dtype)


wrong_for_prime_positions = WrongWhere(
    lambda a, s: positions(s) > 1000 and is_prime(int(positions(s))), "kernel_grad"
)
wrong_for_remainders_of_filters = WrongWhere(
    lambda a, s: s.filters // s.groups > 32 and s.filters // s.groups % 16 not in (0, 1),
    "input_grad",
)
wrong_for_windows_over_the_input = WrongWhere(
    lambda a, s: s.ndim > 1 and is_over_the_input(s), "kernel_grad"
)
wrong_with_five_threads = WrongWith(lambda resources: (resources.threads or 1) > 4)
filters_summed_in_half = FiltersSummedInHalf()
windows_added_in_half = WindowsAddedInHalf()
gradient_of_old_numbers = GradientOfOldNumbers()
gradient_wrong_later = GradientWrongLater()
kernel_turned = OneAxisTurned(5)
channels_turned = OneAxisTurned(3)
broadcast_filters = BroadcastFilters()
threads_ignored_by_a_gradient = ThreadsIgnoredByAGradient()
one_array_twice = OneArrayTwice()
half_range_of_a_gradient = HalfRangeOfAGradient()
sum_of_parts = SumOfParts()
