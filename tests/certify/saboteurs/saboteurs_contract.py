"""Implementations for NumPy that break a term of the contract other than the numbers."""

import time

import numpy as np
from saboteurs_maps import Honest

from lcmulti.algorithms.composed import Composed
from lcmulti.numpy.backend import NumpyOps, blocked

RNG = np.random.default_rng(0)


class InputMutated(Honest):
    def kernel_grad(self, x, dy, spec, resources):
        dkernel = super().kernel_grad(x, dy, spec, resources)
        if dy.flags.writeable:
            dy *= 2
        return dkernel


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


class ZerosSkipped(Honest):
    """Takes a non-finite input for a missing one."""

    def forward(self, x, kernel, spec, resources):
        return super().forward(np.where(np.isfinite(x), x, 0), kernel, spec, resources)


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


class CopiesKept(Honest):
    """Remembers every input it has ever seen, by value."""

    def __init__(self):
        self.seen = []

    def forward(self, x, kernel, spec, resources):
        self.seen.append(x.copy())
        return super().forward(x, kernel, spec, resources)


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


input_mutated = InputMutated()
dtype_promoted = DtypePromoted()
other_container = OtherContainer()
view_returned = ViewReturned()
scratch_returned = ScratchReturned()
thread_unsafe = ThreadUnsafe()
zero_batch_breaks = ZeroBatchBreaks()
nondeterministic = Nondeterministic()
declines_everything = DeclinesEverything()
declines_all_but_one = DeclinesAllButOne()
contiguous_assumed = ContiguousAssumed()
masked_dense = MaskedDense()
workspace_lied_about = WorkspaceLiedAbout(NumpyOps())
kernel_remembered = KernelRemembered()
workspace_is_no_number = WorkspaceIsNoNumber()
zeros_skipped = ZerosSkipped()
claims_no_dtype = Honest()
kernel_mutated = KernelMutated()
arrays_held = ArraysHeld()
copies_kept = CopiesKept()
remembered_by_id = RememberedById()
random_state_used = RandomStateUsed()
errors_silenced = ErrorsSilenced()
wrong_later = WrongLater()
fails_where_it_serves = FailsWhereItServes()
decline_raises = DeclineRaises()
not_a_number_dropped = NotANumberDropped()
not_a_number_of_padding = NotANumberOfPadding()
