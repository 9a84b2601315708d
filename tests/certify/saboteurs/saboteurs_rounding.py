"""Implementations for NumPy that compute the right map, but round it, cut it off or move it."""

import numpy as np
from saboteurs_maps import Honest

from lcmulti.algorithms import reference


class Rounded(Honest):
    """Computes with rounded inputs."""

    def rounded(self, array):
        raise NotImplementedError

    def forward(self, x, kernel, spec, resources):
        y = super().forward(self.rounded(x), self.rounded(kernel), spec, resources)
        return y.astype(x.dtype)

    def input_grad(self, dy, kernel, spec, resources):
        dx = super().input_grad(self.rounded(dy), self.rounded(kernel), spec, resources)
        return dx.astype(dy.dtype)

    def kernel_grad(self, x, dy, spec, resources):
        dkernel = super().kernel_grad(self.rounded(x), self.rounded(dy), spec, resources)
        return dkernel.astype(x.dtype)


class Float32InFloat64(Rounded):
    def rounded(self, array):
        return array.astype(np.float32) if array.dtype == np.float64 else array


class TF32(Rounded):
    """Rounds inputs to 10 bits of significand, as tensor cores do."""

    def rounded(self, array):
        if array.dtype != np.float32:
            return array
        return ((array.view(np.uint32) + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)


class Chopped(Honest):
    """Chops the sum after each tap: within the bound, but the errors all have one sign."""

    def forward(self, x, kernel, spec, resources):
        if x.dtype != np.float32:
            return super().forward(x, kernel, spec, resources)
        total = np.zeros((len(x), *spec.output_shape))
        for tap, _ in spec.taps():
            one = np.zeros_like(kernel)
            one[(..., *tap, slice(None), slice(None))] = kernel[
                (..., *tap, slice(None), slice(None))
            ]
            total += reference.forward(x.astype(float), one.astype(float), spec)
            down = total.astype(np.float32)
            down = np.where(np.abs(down) > np.abs(total), np.nextafter(down, np.float32(0)), down)
            total = down.astype(float)
        return total.astype(np.float32)


class HalfAccumulation(Honest):
    """Rounds sums of half types to the half type after every tap."""

    def forward(self, x, kernel, spec, resources):
        if x.dtype != np.float16:
            return super().forward(x, kernel, spec, resources)
        y = np.zeros((len(x), *spec.output_shape), x.dtype)
        for tap, _ in spec.taps():
            one = np.zeros_like(kernel)
            one[(..., *tap, slice(None), slice(None))] = kernel[
                (..., *tap, slice(None), slice(None))
            ]
            y += reference.forward(x, one, spec)
        return y


class Clipped(Honest):
    """Saturates what is large, as if it were stored in half precision."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        return y if y.dtype.kind == "c" else np.clip(y, -65504, 65504).astype(y.dtype)


class EpsilonAdded(Honest):
    """Adds 1e-12 to every result."""

    def forward(self, x, kernel, spec, resources):
        return super().forward(x, kernel, spec, resources) + np.asarray(1e-12, x.dtype)


class FlushedToZero(Honest):
    """Replaces small gradients by zero."""

    def input_grad(self, dy, kernel, spec, resources):
        dx = super().input_grad(dy, kernel, spec, resources)
        return np.where(np.abs(dx) < 1e-9, 0, dx).astype(dx.dtype)


float32_in_float64 = Float32InFloat64()
tf32 = TF32()
chopped = Chopped()
half_accumulation = HalfAccumulation()
clipped = Clipped()
epsilon_added = EpsilonAdded()
flushed_to_zero = FlushedToZero()
