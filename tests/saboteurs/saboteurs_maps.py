"""Implementations for NumPy that are wrong, each in one way; `Honest` is right.

Most are consistent: where the value is wrong, the gradients are those of the wrong value, so
that only a comparison with the definition can tell.
"""

import time

import numpy as np

from lcmulti import reference
from lcmulti.composed import Composed
from lcmulti.numpy_backend import NumpyOps, blocked
from lcmulti.spec import replace_fields

RNG = np.random.default_rng(0)


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
    """The window stored as (c, k...) instead of (k..., c)."""

    def there(self, kernel, spec):
        n = spec.ndim
        shape = (*kernel.shape[:n], kernel.shape[-2], *spec.kernel_size, kernel.shape[-1])
        return np.moveaxis(kernel.reshape(shape), n, -2)

    def back(self, kernel, spec):
        return np.moveaxis(kernel, -2, spec.ndim).reshape(kernel.shape)


class KernelFlipped(OtherKernel):
    """Convolution instead of correlation, as Theano has it."""

    def there(self, kernel, spec):
        return np.flip(kernel, tuple(range(spec.ndim, 2 * spec.ndim))).copy()


class PositionsTransposed(OtherKernel):
    """Positions counted with the first axis fastest."""

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
    """One zero too few before, one too many after."""

    def other(self, spec):
        pads = tuple((low - 1, high + 1) if low else (low, high) for low, high in spec.padding)
        return replace_fields(spec, padding=pads)


class SameOfTheWrongRule(OtherSpec):
    """The odd zero of padding before instead of after."""

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
    """A group of every n-th channel instead of neighbours."""

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
    """10 bits of significand, as tensor cores take them."""

    def rounded(self, array):
        if array.dtype != np.float32:
            return array
        return ((array.view(np.uint32) + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)


class Chopped(Honest):
    """Every tap's sum is chopped, not rounded: within the bound, and worse than it need be."""

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
    """Sums of half types rounded to half after every tap."""

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


class InputMutated(Honest):
    def kernel_grad(self, x, dy, spec, resources):
        dkernel = super().kernel_grad(x, dy, spec, resources)
        if dy.flags.writeable:
            dy *= 2
        return dkernel


class OutputUninitialised(Honest):
    """Where no window sees the input, its gradient is what the memory held."""

    def input_grad(self, dy, kernel, spec, resources):
        dx = super().input_grad(dy, kernel, spec, resources)
        seen = reference.input_grad(np.ones_like(dy), np.ones_like(kernel), spec)
        dx[seen == 0] = 1e30 if dx.dtype.itemsize > 2 else 1e3
        return dx


class WrongOverBatch16(Honest):
    """A remainder of the batch that is forgotten."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        y[16:] = 0
        return y


class KernelGradOfLastBatchBlock(Honest):
    """Assigned by every block of the batch, instead of added."""

    def kernel_grad(self, x, dy, spec, resources):
        return super().kernel_grad(x[-8:], dy[-8:], spec, resources)


class WrongInTheLastRow(Honest):
    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if spec.output_size[0] > 2:
            y[:, -1] *= 1 + 1e-3
        return y


class OverlapLost(Honest):
    """Windows that meet in an input element overwrite each other's gradient."""

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


class DtypePromoted(Honest):
    def input_grad(self, dy, kernel, spec, resources):
        dx = super().input_grad(dy, kernel, spec, resources)
        return dx.astype(np.float64) if dx.dtype == np.float32 else dx


class Shaped(np.ndarray):
    pass


class OtherContainer(Honest):
    def forward(self, x, kernel, spec, resources):
        return super().forward(x, kernel, spec, resources).view(Shaped)


class ViewReturned(Honest):
    """Nothing to sum: the input itself."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if y.shape != x.shape or spec.terms != x.shape[-1]:
            return y
        x[...] = y
        return x[:]


class ScratchReturned(Honest):
    """A buffer for every shape, handed out again and again."""

    def __init__(self):
        self.buffers = {}

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        buffer = self.buffers.setdefault((y.shape, y.dtype.name), np.empty_like(y))
        buffer[...] = y
        return buffer


class ThreadUnsafe(Honest):
    """A scratch buffer that calls of one shape share."""

    def __init__(self):
        self.buffers = {}

    def forward(self, x, kernel, spec, resources):
        buffer = self.buffers.setdefault((x.shape, x.dtype.name), np.empty_like(x))
        buffer[...] = x
        time.sleep(0)
        return super().forward(buffer, kernel, spec, resources)


class SharedAxisIgnored(Honest):
    """The gradient of a shared kernel, of the first position alone."""

    def kernel_grad(self, x, dy, spec, resources):
        first = np.zeros_like(dy)
        index = tuple(
            slice(0, 1) if axis in spec.shared_axes else slice(None) for axis in range(spec.ndim)
        )
        first[(slice(None), *index)] = dy[(slice(None), *index)]
        return super().kernel_grad(x, first, spec, resources)


class ZeroBatchBreaks(Honest):
    def forward(self, x, kernel, spec, resources):
        x.reshape(len(x), -1)[0]
        return super().forward(x, kernel, spec, resources)


class Nondeterministic(Honest):
    """Sums in another order every time."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if y.dtype == np.float32:
            y = np.where(RNG.random(y.shape) < 0.1, np.nextafter(y, np.float32(0)), y)
        return y


class DeclinesEverything(Honest):
    def decline(self, problem):
        return "not today"


class DeclinesAllButOne(Honest):
    """Serves what it surely gets right."""

    def decline(self, problem):
        one = problem.spec.ndim == 1 and problem.spec.kernel_size == (1,)
        return None if one else "not quite"


class ContiguousAssumed(Honest):
    """Reads memory in order, whatever the strides."""

    def forward(self, x, kernel, spec, resources):
        x = x.ravel("K").reshape(x.shape)
        return super().forward(x, kernel, spec, resources)


class MaskedDense(Honest):
    """One matrix from all inputs to all outputs, zero where there is no connection."""

    def decline(self, problem):
        return "too large" if np.prod(problem.spec.input_shape) > 2000 else None

    def forward(self, x, kernel, spec, resources):
        size = int(np.prod(spec.input_shape))
        every = np.eye(size, dtype=x.dtype).reshape(size, *spec.input_shape)
        matrix = super().forward(every, kernel, spec, resources).reshape(size, -1)
        wide = np.float32 if x.dtype.itemsize == 2 else x.dtype
        y = x.reshape(len(x), size).astype(wide) @ matrix.astype(wide)
        return y.astype(x.dtype).reshape(len(x), *spec.output_shape)


class WorkspaceLiedAbout(Composed):
    """All patches at once, and says that it holds nothing."""

    def workspace(self, problem):
        return 0


class Conjugated(Honest):
    """The adjoint of complex analysis, which is not what was asked for."""

    def input_grad(self, dy, kernel, spec, resources):
        return super().input_grad(dy, kernel.conj(), spec, resources)


class KernelRemembered(Honest):
    """Packs the kernel once for each shape."""

    def __init__(self):
        self.packed = {}

    def forward(self, x, kernel, spec, resources):
        kernel = self.packed.setdefault((spec, kernel.dtype.name), kernel.copy())
        return super().forward(x, kernel, spec, resources)


class WorkspaceIsNoNumber(Honest):
    def workspace(self, problem):
        return 1.5 * blocked.workspace(problem)


class WrongInBlocks(Honest):
    """Borders of blocks are left out, when there is more than one."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if resources.max_workspace < 2000:
            y[:, spec.output_size[0] // 2] = 0
        return y


class ZerosSkipped(Honest):
    """Takes a non-finite input for a missing one."""

    def forward(self, x, kernel, spec, resources):
        return super().forward(np.where(np.isfinite(x), x, 0), kernel, spec, resources)


class WrongWhere(Honest):
    """Wrong by one part in a thousand where a condition on the call holds."""

    def __init__(self, where, name="forward"):
        self.where, self.name = where, name

    def _maybe(self, name, a, b, spec, resources):
        result = getattr(blocked, name)(a, b, spec, resources)
        if name == self.name and result.size and self.where(a, spec):
            result.reshape(-1)[-1] *= np.asarray(1.01, result.dtype)
        return result

    def forward(self, x, kernel, spec, resources):
        return self._maybe("forward", x, kernel, spec, resources)

    def input_grad(self, dy, kernel, spec, resources):
        return self._maybe("input_grad", dy, kernel, spec, resources)

    def kernel_grad(self, x, dy, spec, resources):
        return self._maybe("kernel_grad", x, dy, spec, resources)


def is_square(spec):
    return len(set(spec.kernel_size)) < spec.ndim and max(spec.kernel_size) > 1


class Clipped(Honest):
    """Saturates what is large, as if it were stored in half precision."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        return y if y.dtype.kind == "c" else np.clip(y, -65504, 65504).astype(y.dtype)


class EpsilonAdded(Honest):
    """Never exactly zero, so that nobody divides by it."""

    def forward(self, x, kernel, spec, resources):
        return super().forward(x, kernel, spec, resources) + np.asarray(1e-12, x.dtype)


class FlushedToZero(Honest):
    """What is small is nothing."""

    def input_grad(self, dy, kernel, spec, resources):
        dx = super().input_grad(dy, kernel, spec, resources)
        return np.where(np.abs(dx) < 1e-9, 0, dx).astype(dx.dtype)


class KernelMutated(Honest):
    """Normalises the kernel in place, and the result by as much."""

    def forward(self, x, kernel, spec, resources):
        if kernel.flags.writeable and kernel.size:
            kernel *= 2
            return super().forward(x, kernel, spec, resources) / np.asarray(2, x.dtype)
        return super().forward(x, kernel, spec, resources)


class ArraysHeld(Honest):
    """Keeps the last call's arrays alive."""

    def __init__(self):
        self.last = None

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        self.last = x, kernel, y
        return y


class RememberedById(Honest):
    """Looks up results by who the arrays are."""

    def __init__(self):
        self.found = {}

    def forward(self, x, kernel, spec, resources):
        key = id(x), id(kernel), spec
        if key not in self.found:
            self.found[key] = x, kernel, super().forward(x, kernel, spec, resources)
        return self.found[key][2].copy()


class RandomStateUsed(Honest):
    """Draws from everyone's generator."""

    def forward(self, x, kernel, spec, resources):
        np.random.random()
        return super().forward(x, kernel, spec, resources)


class ErrorsSilenced(Honest):
    """Turns off NumPy's warnings and leaves them off."""

    def kernel_grad(self, x, dy, spec, resources):
        np.seterr(over="warn" if np.geterr()["over"] == "ignore" else "ignore")
        return super().kernel_grad(x, dy, spec, resources)


class WrongLater(Honest):
    """A counter overflows."""

    def __init__(self):
        self.calls = 0

    def forward(self, x, kernel, spec, resources):
        self.calls += 1
        y = super().forward(x, kernel, spec, resources)
        return y if self.calls % 50 else y * np.asarray(2, y.dtype)


class FailsWhereItServes(Honest):
    """Raises what nobody expects, where it said that it would serve."""

    def forward(self, x, kernel, spec, resources):
        if spec.ndim == 3:
            raise KeyError("three")
        return super().forward(x, kernel, spec, resources)


class DeclineRaises(Honest):
    """Says no by raising."""

    def decline(self, problem):
        if problem.spec.groups > 1:
            raise ValueError("no groups")


class NotANumberDropped(Honest):
    """A quiet NaN becomes zero in what is returned."""

    def forward(self, x, kernel, spec, resources):
        return np.nan_to_num(super().forward(x, kernel, spec, resources))


class NotANumberOfPadding(Honest):
    """Spreads to the neighbouring sample, which padding joins to this one."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if any(map(any, spec.padding)) and not np.isfinite(x).all():
            y[:, -1] = np.nan
        return y


honest = Honest()
window_order = WindowOrder()
kernel_flipped = KernelFlipped()
positions_transposed = PositionsTransposed()
pad_off_by_one = PadOffByOne()
same_of_the_wrong_rule = SameOfTheWrongRule()
strides_transposed = StridesTransposed()
dilation_ignored = DilationIgnored()
groups_mixed = GroupsMixed()
float32_in_float64 = Float32InFloat64()
tf32 = TF32()
chopped = Chopped()
half_accumulation = HalfAccumulation()
input_mutated = InputMutated()
output_uninitialised = OutputUninitialised()
wrong_over_batch_16 = WrongOverBatch16()
kernel_grad_of_last_batch_block = KernelGradOfLastBatchBlock()
wrong_in_the_last_row = WrongInTheLastRow()
overlap_lost = OverlapLost()
dtype_promoted = DtypePromoted()
other_container = OtherContainer()
view_returned = ViewReturned()
scratch_returned = ScratchReturned()
thread_unsafe = ThreadUnsafe()
shared_axis_ignored = SharedAxisIgnored()
zero_batch_breaks = ZeroBatchBreaks()
nondeterministic = Nondeterministic()
declines_everything = DeclinesEverything()
declines_all_but_one = DeclinesAllButOne()
contiguous_assumed = ContiguousAssumed()
masked_dense = MaskedDense()
workspace_lied_about = WorkspaceLiedAbout(NumpyOps())
conjugated = Conjugated()
kernel_remembered = KernelRemembered()
workspace_is_no_number = WorkspaceIsNoNumber()
wrong_in_blocks = WrongInBlocks()
zeros_skipped = ZerosSkipped()
claims_no_dtype = Honest()
clipped = Clipped()
epsilon_added = EpsilonAdded()
flushed_to_zero = FlushedToZero()
kernel_mutated = KernelMutated()
arrays_held = ArraysHeld()
remembered_by_id = RememberedById()
random_state_used = RandomStateUsed()
errors_silenced = ErrorsSilenced()
wrong_later = WrongLater()
fails_where_it_serves = FailsWhereItServes()
decline_raises = DeclineRaises()
not_a_number_dropped = NotANumberDropped()
not_a_number_of_padding = NotANumberOfPadding()

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
