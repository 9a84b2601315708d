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
    """Writes its result into the input, where the shapes fit, and returns a view of it."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if y.shape != x.shape or spec.terms != x.shape[-1]:
            return y
        x[...] = y
        return x[:]


class ScratchReturned(Honest):
    """Returns the same buffer at every call with the same shapes."""

    def __init__(self):
        self.buffers = {}

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        buffer = self.buffers.setdefault((y.shape, y.dtype.name), np.empty_like(y))
        buffer[...] = y
        return buffer


class ThreadUnsafe(Honest):
    """Uses one scratch buffer in all calls of a shape, also in calls of other threads."""

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
    """Changes the last bit of some results at random, as sums in another order would."""

    def forward(self, x, kernel, spec, resources):
        y = super().forward(x, kernel, spec, resources)
        if y.dtype == np.float32:
            y = np.where(RNG.random(y.shape) < 0.1, np.nextafter(y, np.float32(0)), y)
        return y


class DeclinesEverything(Honest):
    def decline(self, problem):
        return "not today"


class DeclinesAllButOne(Honest):
    """Declines all geometries but the simplest."""

    def decline(self, problem):
        one = problem.spec.ndim == 1 and problem.spec.kernel_size == (1,)
        return None if one else "not quite"


class ContiguousAssumed(Honest):
    """Reads the input in the order of memory, whatever its strides are."""

    def forward(self, x, kernel, spec, resources):
        x = x.ravel("K").reshape(x.shape)
        return super().forward(x, kernel, spec, resources)


class MaskedDense(Honest):
    """Multiplies by one matrix from all inputs to all outputs, with zeros between windows."""

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
    """Copies all patches at once, but says that it needs no workspace."""

    def workspace(self, problem):
        return 0


class KernelRemembered(Honest):
    """Keeps the first kernel of each shape and uses it in all later calls."""

    def __init__(self):
        self.packed = {}

    def forward(self, x, kernel, spec, resources):
        kernel = self.packed.setdefault((spec, kernel.dtype.name), kernel.copy())
        return super().forward(x, kernel, spec, resources)


class WorkspaceIsNoNumber(Honest):
    def workspace(self, problem):
        return 1.5 * blocked.workspace(problem)


class ZerosSkipped(Honest):
    """Treats infinities and NaN of the input as zeros."""

    def forward(self, x, kernel, spec, resources):
        return super().forward(np.where(np.isfinite(x), x, 0), kernel, spec, resources)


class KernelMutated(Honest):
    """Doubles the kernel in place, and halves the result."""

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
    """Keeps results by the identity of the arrays, whose values may have changed."""

    def __init__(self):
        self.found = {}

    def forward(self, x, kernel, spec, resources):
        key = id(x), id(kernel), spec
        if key not in self.found:
            self.found[key] = x, kernel, super().forward(x, kernel, spec, resources)
        return self.found[key][2].copy()


class RandomStateUsed(Honest):
    """Draws from NumPy's global random generator."""

    def forward(self, x, kernel, spec, resources):
        np.random.random()
        return super().forward(x, kernel, spec, resources)


class ErrorsSilenced(Honest):
    """Turns off NumPy's warnings and leaves them off."""

    def kernel_grad(self, x, dy, spec, resources):
        np.seterr(over="warn" if np.geterr()["over"] == "ignore" else "ignore")
        return super().kernel_grad(x, dy, spec, resources)


class WrongLater(Honest):
    """Returns a wrong result at every fiftieth call."""

    def __init__(self):
        self.calls = 0

    def forward(self, x, kernel, spec, resources):
        self.calls += 1
        y = super().forward(x, kernel, spec, resources)
        return y if self.calls % 50 else y * np.asarray(2, y.dtype)


class FailsWhereItServes(Honest):
    """Raises a KeyError for geometries that it did not decline."""

    def forward(self, x, kernel, spec, resources):
        if spec.ndim == 3:
            raise KeyError("three")
        return super().forward(x, kernel, spec, resources)


class DeclineRaises(Honest):
    """Raises an error in `decline` instead of returning a reason."""

    def decline(self, problem):
        if problem.spec.groups > 1:
            raise ValueError("no groups")


class NotANumberDropped(Honest):
    """Replaces NaN by zero in its results."""

    def forward(self, x, kernel, spec, resources):
        return np.nan_to_num(super().forward(x, kernel, spec, resources))


class NotANumberOfPadding(Honest):
    """Spreads a NaN to the last row of every sample if there is padding."""

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
