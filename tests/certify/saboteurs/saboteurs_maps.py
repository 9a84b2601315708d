"""Implementations for NumPy that compute the wrong map, beside `Honest`, which is right.

Most are consistent: their gradients belong to their wrong values. Only a comparison with the
definition can tell.
"""

import numpy as np

from lcmulti.algorithms import reference
from lcmulti.geometry.fields import replace_fields
from lcmulti.numpy.backend import blocked


class Honest:
    def decline(self, problem):
        return None

    def workspace(self, problem):
        return blocked.workspace(problem)

    def forward(self, x, kernel, spec, resources):
        return blocked.forward(x, kernel, spec, resources)

    def input_grad(self, dy, kernel, spec, resources):
        return blocked.input_grad(dy, kernel, spec, resources)

    def kernel_grad(self, x, dy, spec, resources):
        return blocked.kernel_grad(x, dy, spec, resources)


class OtherKernel(Honest):
    """Computes with a rearranged kernel."""

    def there(self, kernel, spec):
        raise NotImplementedError

    def back(self, kernel, spec):
        return self.there(kernel, spec)

    def forward(self, x, kernel, spec, resources):
        return super().forward(x, self.there(kernel, spec), spec, resources)

    def input_grad(self, dy, kernel, spec, resources):
        return super().input_grad(dy, self.there(kernel, spec), spec, resources)

    def kernel_grad(self, x, dy, spec, resources):
        return self.back(super().kernel_grad(x, dy, spec, resources), spec)


class WindowOrder(OtherKernel):
    """Reads the window as (c, k...) instead of (k..., c)."""

    def there(self, kernel, spec):
        n = spec.ndim
        shape = (*kernel.shape[:n], kernel.shape[-2], *spec.kernel_size, kernel.shape[-1])
        return np.moveaxis(kernel.reshape(shape), n, -2)

    def back(self, kernel, spec):
        return np.moveaxis(kernel, -2, spec.ndim).reshape(kernel.shape)


class KernelFlipped(OtherKernel):
    """Flips the kernel: convolution instead of correlation, as in Theano."""

    def there(self, kernel, spec):
        return np.flip(kernel, tuple(range(spec.ndim, 2 * spec.ndim))).copy()


class PositionsTransposed(OtherKernel):
    """Counts positions with the first axis fastest."""

    def there(self, kernel, spec):
        positions = spec.positions_shape
        rest = kernel.shape[spec.ndim :]
        turned = kernel.reshape(*positions[::-1], *rest)
        return np.moveaxis(turned, range(spec.ndim), reversed(range(spec.ndim))).copy()

    def back(self, kernel, spec):
        turned = np.moveaxis(kernel, range(spec.ndim), reversed(range(spec.ndim)))
        return turned.reshape(kernel.shape)


class OtherSpec(Honest):
    """Computes another geometry of the same output shape, where there is one."""

    def other(self, spec):
        raise NotImplementedError

    def fitting(self, spec):
        other = self.other(spec)
        fits = all(
            (o - 1) * s + (k - 1) * d + 1 <= n + low + high
            for o, s, k, d, n, (low, high) in zip(
                spec.output_size, other.strides, spec.kernel_size, other.dilation,
                spec.input_size, other.padding, strict=True,
            )
        )  # fmt: skip
        return other if fits else spec

    def forward(self, x, kernel, spec, resources):
        return reference.forward(x, kernel, self.fitting(spec))

    def input_grad(self, dy, kernel, spec, resources):
        return reference.input_grad(dy, kernel, self.fitting(spec))

    def kernel_grad(self, x, dy, spec, resources):
        return reference.kernel_grad(x, dy, self.fitting(spec))


class PadOffByOne(OtherSpec):
    """Pads with one zero too few before the input and one too many after it."""

    def other(self, spec):
        pads = tuple((low - 1, high + 1) if low else (low, high) for low, high in spec.padding)
        return replace_fields(spec, padding=pads)


class SameOfTheWrongRule(OtherSpec):
    """Puts the odd zero of padding before the input instead of after it."""

    def other(self, spec):
        pads = tuple((h, low) if h == low + 1 else (low, h) for low, h in spec.padding)
        return replace_fields(spec, padding=pads)


class StridesTransposed(OtherSpec):
    def other(self, spec):
        return replace_fields(spec, strides=spec.strides[::-1])


class DilationIgnored(OtherSpec):
    def other(self, spec):
        return replace_fields(spec, dilation=(1,) * spec.ndim)


class GroupsMixed(Honest):
    """Takes every n-th channel as a group, instead of neighbouring channels."""

    def turn(self, x, spec, back=False):
        count = spec.in_channels // spec.groups
        shape = (spec.groups, count) if back else (count, spec.groups)
        order = np.arange(spec.in_channels).reshape(shape).T.ravel()
        return x[..., order].copy()

    def forward(self, x, kernel, spec, resources):
        return super().forward(self.turn(x, spec), kernel, spec, resources)

    def input_grad(self, dy, kernel, spec, resources):
        return self.turn(super().input_grad(dy, kernel, spec, resources), spec, back=True)

    def kernel_grad(self, x, dy, spec, resources):
        return super().kernel_grad(self.turn(x, spec), dy, spec, resources)


class OutputUninitialised(Honest):
    """Leaves memory uninitialised in the gradient of inputs that no window sees."""

    def input_grad(self, dy, kernel, spec, resources):
        dx = super().input_grad(dy, kernel, spec, resources)
        seen = reference.input_grad(np.ones_like(dy), np.ones_like(kernel), spec)
        dx[seen == 0] = 1e30 if dx.dtype.itemsize > 2 else 1e3
        return dx


class KernelGradOfLastBatchBlock(Honest):
    """Returns the kernel gradient of the batch's last block instead of the sum over blocks."""

    def kernel_grad(self, x, dy, spec, resources):
        return super().kernel_grad(x[-8:], dy[-8:], spec, resources)


class OverlapLost(Honest):
    """Overwrites the gradient of an input element where several windows see it."""

    def input_grad(self, dy, kernel, spec, resources):
        pads = [(0, 0), *spec.padding, (0, 0)]
        dx = np.pad(np.zeros((len(dy), *spec.input_shape), dy.dtype), pads)
        for tap, seen in spec.taps():
            one = np.zeros_like(kernel)
            one[(..., *tap, slice(None), slice(None))] = kernel[
                (..., *tap, slice(None), slice(None))
            ]
            part = np.pad(super().input_grad(dy, one, spec, resources), pads)
            dx[(slice(None), *seen)] = part[(slice(None), *seen)]
        inner = tuple(
            slice(a, a + n) for n, (a, _) in zip(spec.input_size, spec.padding, strict=True)
        )
        return dx[(slice(None), *inner)].copy()


class SharedAxisIgnored(Honest):
    """Gives a shared kernel the gradient of its first position only."""

    def kernel_grad(self, x, dy, spec, resources):
        first = np.zeros_like(dy)
        index = tuple(
            slice(0, 1) if axis in spec.shared_axes else slice(None) for axis in range(spec.ndim)
        )
        first[(slice(None), *index)] = dy[(slice(None), *index)]
        return super().kernel_grad(x, first, spec, resources)


class Conjugated(Honest):
    """Conjugates the kernel in the input's gradient, which the contract does not."""

    def input_grad(self, dy, kernel, spec, resources):
        return super().input_grad(dy, kernel.conj(), spec, resources)


honest = Honest()
window_order = WindowOrder()
kernel_flipped = KernelFlipped()
positions_transposed = PositionsTransposed()
pad_off_by_one = PadOffByOne()
same_of_the_wrong_rule = SameOfTheWrongRule()
strides_transposed = StridesTransposed()
dilation_ignored = DilationIgnored()
groups_mixed = GroupsMixed()
output_uninitialised = OutputUninitialised()
kernel_grad_of_last_batch_block = KernelGradOfLastBatchBlock()
overlap_lost = OverlapLost()
shared_axis_ignored = SharedAxisIgnored()
conjugated = Conjugated()
