"""An implementation for NumPy: one einsum over a strided view of all windows."""

import numpy as np
from numpy.lib.stride_tricks import as_strided

O, T = "pqrs", "ijkl"  # output axes and taps; n batch, g groups, c channels, f filters


class Einsum:
    """`lcmulti.backend.Implementation`, up to 4D and without shared axes."""

    def decline(self, problem):
        if problem.spec.ndim > len(O):
            return f"it has letters for {len(O)} axes"
        return "the kernel is shared along an axis" if problem.spec.shared_axes else None

    def workspace(self, problem):
        spec, batch = problem.spec, 1024 if problem.batch is None else problem.batch
        padded = batch * int(np.prod(spec.padded_size)) * spec.in_channels
        return 16 * (2 * padded + int(np.prod(spec.kernel_shape)))

    def forward(self, x, kernel, spec, resources):
        y = self._sum("x,w->y", spec, self._windows(self._pad(x, spec), spec), kernel)
        return y.reshape(len(x), *spec.output_shape)

    def input_grad(self, dy, kernel, spec, resources):
        dx = np.zeros((len(dy), *spec.padded_size, spec.in_channels), dy.dtype)
        for tap, seen in spec.taps():  # windows overlap: one tap at a time is added
            one = kernel[(..., *(slice(t, t + 1) for t in tap), slice(None), slice(None))]
            part = self._sum("y,w->x", spec, dy, one)
            dx[(slice(None), *seen)] += part.reshape(len(dy), *spec.output_size, spec.in_channels)
        inner = (slice(a, a + n) for n, (a, _) in zip(spec.input_size, spec.padding, strict=True))
        return np.ascontiguousarray(dx[(slice(None), *inner)])

    def kernel_grad(self, x, dy, spec, resources):
        return self._sum("x,y->w", spec, self._windows(self._pad(x, spec), spec), dy).reshape(
            spec.kernel_shape
        )

    def _sum(self, terms, spec, a, b):
        o, t, g = O[: spec.ndim], T[: spec.ndim], spec.groups
        letters = {"x": f"n{o}{t}gc", "w": f"{o}{t}cgf", "y": f"n{o}gf"}
        # Channels of x and filters of w and y come as (group, one of it).
        arrays = [each.reshape(*each.shape[:-1], g, each.shape[-1] // g) for each in (a, b)]
        spelled = "".join(letters.get(each, each) for each in terms)
        return np.einsum(spelled, *arrays)

    def _pad(self, x, spec):
        return np.pad(x, ((0, 0), *spec.padding, (0, 0)))

    def _windows(self, x, spec):
        batch, *steps, channel = x.strides
        outer = (n * s for n, s in zip(steps, spec.strides, strict=True))
        taps = (n * d for n, d in zip(steps, spec.dilation, strict=True))
        shape = (len(x), *spec.output_size, *spec.kernel_size, spec.in_channels)
        return as_strided(x, shape, (batch, *outer, *taps, channel), writeable=False)


implementation = Einsum()
