"""Implementations for NumPy that are wrong in large or many calls, or near a dtype's limits."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from saboteurs_maps import Honest

from lcmulti.algorithms import reference
from lcmulti.algorithms.composed import Composed
from lcmulti.numpy.backend import NumpyOps, blocked

RNG = np.random.default_rng(0)
MILLIONS = 2_000_000
whole = Composed(NumpyOps())


def is_large(a, spec):
    return spec.flops(len(a)) > 2 * MILLIONS


class GradientsKept(Honest):
    """Keeps a copy of each gradient forever."""

    def __init__(self):
        self.seen = []

    def kernel_grad(self, x, dy, spec, resources):
        dkernel = super().kernel_grad(x, dy, spec, resources)
        self.seen.append(dkernel.copy())
        return dkernel


class BytesKept(Honest):
    """Keeps *count* bytes more after each call."""

    def __init__(self, count):
        self.count, self.seen = count, []

    def forward(self, x, kernel, spec, resources):
        self.seen.append(np.ones(self.count, np.uint8))
        return super().forward(x, kernel, spec, resources)


class ScratchWhenLarge(Honest):
    """Uses one buffer in all large calls of a shape, also in calls of other threads."""

    def __init__(self):
        self.buffers = {}

    def forward(self, x, kernel, spec, resources):
        if not is_large(x, spec):
            return super().forward(x, kernel, spec, resources)
        buffer = self.buffers.setdefault((x.shape, x.dtype.name), np.empty_like(x))
        buffer[...] = x
        time.sleep(0)
        return super().forward(buffer, kernel, spec, resources)


class UnstableWhenLarge(Honest):
    """Changes the last bit of large results at random, as sums in the order of threads would."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if is_large(x, spec) and y.dtype == np.float32:
            y = np.where(RNG.random(y.shape) < 0.1, np.nextafter(y, np.float32(0)), y)
        return y


class ThreadsIgnored(Honest):
    """Uses four threads, whatever its resources allow."""

    @staticmethod
    def pool():
        return ThreadPoolExecutor(4)

    def forward(self, x, kernel, spec, resources):
        if len(x) < 4 or not is_large(x, spec):
            return super().forward(x, kernel, spec, resources)
        with self.pool() as pool:
            parts = pool.map(lambda p: blocked.forward(p, kernel, spec, resources), np.split(x, 4))
            return np.concatenate(list(parts))


class WorkspaceIgnoredByOne(Honest):
    """Works in blocks in two of three maps, and ignores the limit in the third."""

    def kernel_grad(self, x, dy, spec, resources):
        return whole.kernel_grad(x, dy, spec, resources)


class WorkspaceIgnoredInHalf(Honest):
    """Works in blocks, but ignores the limit for float16."""

    def forward(self, x, kernel, spec, resources):
        owner = whole if x.dtype == np.float16 else blocked
        return owner.forward(x, kernel, spec, resources)


class RoundedBetweenBlocks(Honest):
    """Adds up kernel gradients of 64 samples each in the half type."""

    def kernel_grad(self, x, dy, spec, resources):
        if x.dtype.itemsize > 2 or len(x) <= 64:
            return super().kernel_grad(x, dy, spec, resources)
        total = np.zeros(spec.kernel_shape, x.dtype)
        for first in range(0, len(x), 64):
            rows = slice(first, first + 64)
            total = total + super().kernel_grad(x[rows], dy[rows], spec, resources)
        return total


class SummedInHalf(Honest):
    """Adds up long sums of half types in the half type, one tap after the other."""

    def forward(self, x, kernel, spec, resources):
        if x.dtype.itemsize > 2 or not spec.terms > 200 or len(list(spec.taps())) > 600:
            return super().forward(x, kernel, spec, resources)
        y = np.zeros((len(x), *spec.output_shape), x.dtype)
        for tap, _ in spec.taps():
            one = np.zeros_like(kernel)
            at = (..., *tap, slice(None), slice(None))
            one[at] = kernel[at]
            y = y + super().forward(x, one, spec, resources)
        return y


class BFloat16AsFloat16(Honest):
    """Computes bfloat16 in float16, whose range is smaller."""

    @staticmethod
    def clipped(result):
        if result.dtype.name != "bfloat16":
            return result
        wide, limit = result.astype(np.float32), np.finfo(np.float16).max
        return np.where(np.abs(wide) > limit, np.sign(wide) * np.inf, wide).astype(result.dtype)

    def forward(self, x, kernel, spec, resources):
        return self.clipped(super().forward(x, kernel, spec, resources))


class ThreeProducts(Honest):
    """Uses Gauss's product of complex numbers, whose sums overflow earlier."""

    def forward(self, x, kernel, spec, resources):
        if x.dtype != np.complex64:
            return super().forward(x, kernel, spec, resources)

        def product(a, b):
            return reference.forward(np.ascontiguousarray(a), np.ascontiguousarray(b), spec)

        real, imag = product(x.real, kernel.real), product(x.imag, kernel.imag)
        both = product(x.real + x.imag, kernel.real + kernel.imag)
        if np.isfinite(both).all():  # right but for the smaller range
            return super().forward(x, kernel, spec, resources)
        return (real - imag + 1j * (both - real - imag)).astype(x.dtype)


class SubnormalsFlushed(Honest):
    """Replaces subnormal results by zero, as ``-ffast-math`` does."""

    def input_grad(self, dy, kernel, spec, resources):
        dx = super().input_grad(dy, kernel, spec, resources)
        if dx.dtype.name == "float32":
            dx[np.abs(dx) < np.finfo(np.float32).tiny] = 0
        return dx


class SubnormalInputsFlushed(Honest):
    """Replaces subnormal inputs by zero, as ``-ffast-math`` does."""

    def forward(self, x, kernel, spec, resources):
        if x.dtype == np.float64:
            x = np.where(np.abs(x) < np.finfo(np.float64).tiny, 0, x)
        return super().forward(x, kernel, spec, resources)


class ScaledByTheLargest(Honest):
    """Divides by the largest number and multiplies again, so small numbers underflow."""

    def kernel_grad(self, x, dy, spec, resources):
        if x.dtype != np.float64 or not x.size or not np.isfinite(x).all() or not x.any():
            return super().kernel_grad(x, dy, spec, resources)
        most = 2.0 ** np.floor(np.log2(np.abs(x).max()) + 1)
        with np.errstate(all="ignore"):
            dkernel = super().kernel_grad(x / most, dy / most, spec, resources)
            return dkernel * most * most


gradients_kept = GradientsKept()
half_a_megabyte_kept = BytesKept(500_000)
bytes_kept = BytesKept(90_000)
scratch_when_large = ScratchWhenLarge()
unstable_when_large = UnstableWhenLarge()
threads_ignored = ThreadsIgnored()
workspace_ignored_by_one = WorkspaceIgnoredByOne()
workspace_ignored_in_half = WorkspaceIgnoredInHalf()
rounded_between_blocks = RoundedBetweenBlocks()
summed_in_half = SummedInHalf()
bfloat16_as_float16 = BFloat16AsFloat16()
three_products = ThreeProducts()
subnormals_flushed = SubnormalsFlushed()
subnormal_inputs_flushed = SubnormalInputsFlushed()
scaled_by_the_largest = ScaledByTheLargest()
