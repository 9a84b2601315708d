"""Implementations for NumPy that are wrong in ways earlier versions of the suite did not find."""

import ctypes
import gc
import os
import sys
import threading
import time
import unittest
import warnings
import weakref

import numpy as np
from saboteurs_maps import Honest
from saboteurs_rounding import TF32

from lcmulti.algorithms import reference
from lcmulti.numpy.backend import blocked


class FlippedRows(Honest):
    """Reads rows backwards if their stride is negative and the batch's is not."""

    def forward(self, x, kernel, spec, resources):
        if x.ndim > 2 and x.strides[1] < 0 < x.strides[0]:
            x = x[:, ::-1]
        return super().forward(x, kernel, spec, resources)


class FlippedBatch(Honest):
    """Reads the batch backwards if its stride is negative and the channels' is not."""

    def kernel_grad(self, x, dy, spec, resources):
        if x.strides[0] < 0 < x.strides[-1]:
            x = x[::-1]
        return super().kernel_grad(x, dy, spec, resources)


class PackedLikeTheInput(Honest):
    """Reads the kernel in the input's memory order."""

    def forward(self, x, kernel, spec, resources):
        if x.flags.f_contiguous and not x.flags.c_contiguous:
            kernel = kernel.ravel("K").reshape(kernel.shape, order="F")
        return super().forward(x, kernel, spec, resources)


class KernelTakenForContiguous(Honest):
    """Takes the kernel for contiguous wherever the gradient is contiguous."""

    def input_grad(self, dy, kernel, spec, resources):
        if dy.flags.c_contiguous:
            kernel = kernel.ravel("K").reshape(kernel.shape)
        return super().input_grad(dy, kernel, spec, resources)


class HalfSubnormalsFlushed(Honest):
    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if y.dtype == np.float16:
            y[np.abs(y) < 2.0**-14] = 0
        return y


class PackedByObject(Honest):
    """Packs a kernel once while it lives, although its values may change."""

    def __init__(self):
        self.packed = {}

    def input_grad(self, dy, kernel, spec, resources):
        key = id(kernel), spec
        if key not in self.packed or self.packed[key][0]() is not kernel:
            self.packed[key] = weakref.ref(kernel), kernel.copy()
        return super().input_grad(dy, self.packed[key][1], spec, resources)


class TF32Where(TF32):
    """Rounds as `TF32` does, but only where sums are so long that the bound allows it."""

    def __init__(self, name, where):
        self.name, self.where = name, where

    def rounded_where(self, name, a, b, spec, resources):
        owner = super() if name == self.name and self.where(a, spec) else blocked
        return getattr(owner, name)(a, b, spec, resources)

    def forward(self, x, kernel, spec, resources):
        return self.rounded_where("forward", x, kernel, spec, resources)

    def input_grad(self, dy, kernel, spec, resources):
        return self.rounded_where("input_grad", dy, kernel, spec, resources)

    def kernel_grad(self, x, dy, spec, resources):
        return self.rounded_where("kernel_grad", x, dy, spec, resources)


class Fourier(Honest):
    """Convolves by Fourier transforms, whose errors spread from every input to every output."""

    def forward(self, x, kernel, spec, resources):
        plain = spec.is_convolution and {*spec.strides, *spec.dilation, spec.groups} == {1}
        if not plain or x.dtype != np.float32 or not x.size:
            return super().forward(x, kernel, spec, resources)
        axes = tuple(range(spec.ndim))
        x = np.pad(x, ((0, 0), *spec.padding, (0, 0)))
        window = np.flip(kernel.reshape(kernel.shape[spec.ndim :]), axes)
        size = [n + k - 1 for n, k in zip(spec.padded_size, spec.kernel_size, strict=True)]
        fx = np.fft.rfftn(x, size, [axis + 1 for axis in axes])
        y = np.fft.irfftn(
            np.einsum("n...c,...cf->n...f", fx, np.fft.rfftn(window, size, axes)),
            size, [axis + 1 for axis in axes],
        )  # fmt: skip
        seen = (slice(k - 1, n) for k, n in zip(spec.kernel_size, spec.padded_size, strict=True))
        return y[(slice(None), *seen)].astype(x.dtype)


class FixedPoint(Honest):
    """Rounds all numbers of an array to the last of 24 bits of the largest, as fixed point does."""

    def there(self, array):
        if array.dtype != np.float32 or not np.isfinite(array).all() or not array.any():
            return array
        step = np.exp2(np.ceil(np.log2(np.abs(array).max())) - 24)
        return (np.round(array / step) * step).astype(array.dtype)

    def forward(self, x, kernel, spec, resources):
        return super().forward(self.there(x), self.there(kernel), spec, resources)


class KernelBorrowed(Honest):
    """Doubles the kernel in place while it works, and halves it again afterwards."""

    def forward(self, x, kernel, spec, resources):
        if not kernel.flags.writeable or kernel.base is not None:
            return super().forward(x, kernel, spec, resources)
        two = np.asarray(2, kernel.dtype)
        kernel *= two
        try:
            return super().forward(x, kernel, spec, resources) / two
        finally:
            kernel /= two


class ZerosLeftOut(Honest):
    """Leaves out products with zeros of the input, although infinity times zero is NaN."""

    def forward(self, x, kernel, spec, resources):
        sick = ~np.isfinite(kernel)
        if not sick.any():
            return super().forward(x, kernel, spec, resources)
        met = reference.forward(np.abs(x), sick.astype(x.dtype), spec)
        clean = super().forward(x, np.where(sick, 0, kernel).astype(x.dtype), spec, resources)
        return np.where(met == 0, clean, super().forward(x, kernel, spec, resources))


class SkipsItself(Honest):
    """Makes pytest skip the check in which it would fail."""

    def forward(self, x, kernel, spec, resources):
        if x.dtype == np.float64:
            import pytest

            pytest.skip("not in float64")
        return super().forward(x, kernel, spec, resources)


class SkipsItsGradient(Honest):
    def kernel_grad(self, x, dy, spec, resources):
        if x.dtype == np.complex64:
            raise unittest.SkipTest("not in complex64")
        return super().kernel_grad(x, dy, spec, resources)


class ExpectsToFail(Honest):
    def forward(self, x, kernel, spec, resources):
        import pytest

        pytest.xfail("known to be wrong")


class RightUnderPytest(Honest):
    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        return y if "pytest" in sys.modules else y * np.asarray(2, y.dtype)


class RightInTests(Honest):
    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        return y if "PYTEST_CURRENT_TEST" in os.environ else y * np.asarray(2, y.dtype)


class ThreadsLeft(Honest):
    """Starts a thread in every call and ends none."""

    def forward(self, x, kernel, spec, resources):
        if threading.active_count() < 100:
            threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
        return super().forward(x, kernel, spec, resources)


class SubnormalsOff(Honest):
    """Turns subnormal numbers off for the thread, as libraries built with ``-ffast-math`` do."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        library, environment = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        library.fegetenv(environment)
        control = int.from_bytes(environment[28:32], "little") | 0x8040  # MXCSR: FTZ and DAZ
        environment[28:32] = control.to_bytes(4, "little")
        library.fesetenv(environment)
        return y


class GarbageKept(Honest):
    def forward(self, x, kernel, spec, resources):
        (gc.disable if gc.isenabled() else gc.enable)()
        return super().forward(x, kernel, spec, resources)


class Talks(Honest):
    def forward(self, x, kernel, spec, resources):
        os.write(1, b"computing\n")
        return super().forward(x, kernel, spec, resources)


class Warns(Honest):
    def forward(self, x, kernel, spec, resources):
        warnings.warn("the slow way", stacklevel=2)
        return super().forward(x, kernel, spec, resources)


flipped_rows = FlippedRows()
flipped_batch = FlippedBatch()
packed_like_the_input = PackedLikeTheInput()
kernel_taken_for_contiguous = KernelTakenForContiguous()
half_subnormals_flushed = HalfSubnormalsFlushed()
packed_by_object = PackedByObject()
tf32_in_long_windows = TF32Where("forward", lambda a, s: s.terms > 512)
tf32_over_many_filters = TF32Where("input_grad", lambda a, s: s.filters > 512)
tf32_over_many_samples = TF32Where("kernel_grad", lambda a, s: len(a) > 1024)
fourier = Fourier()
fixed_point = FixedPoint()
kernel_borrowed = KernelBorrowed()
zeros_left_out = ZerosLeftOut()
skips_itself = SkipsItself()
skips_its_gradient = SkipsItsGradient()
expects_to_fail = ExpectsToFail()
right_under_pytest = RightUnderPytest()
right_in_tests = RightInTests()
threads_left = ThreadsLeft()
subnormals_off = SubnormalsOff()
garbage_kept = GarbageKept()
talks = Talks()
warns = Warns()
