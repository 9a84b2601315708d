"""The shared algorithm block by block: strided views for windows, sums in place, buffers kept.

On a GPU the fewest operations are the fastest: where all patches fit there is a view, a product and
a fold, and nothing is kept. So it is on a CPU where all of it stays in the cache.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import torch

from lcmulti.algorithms.blocked import Blocked
from lcmulti.algorithms.composed import Composed, axis_taps
from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Facts, Problem, Resources
from lcmulti_torch.composed import FEW_COLUMNS, HALF, TorchOps, for_mkl
from lcmulti_torch.memory import is_channels_first, to_last

STAYS_IN_CACHE = 2**19
"""Bytes up to which a call on a CPU takes all patches at once."""


class TorchBlocked(Blocked):
    """`lcmulti.backend.Implementation`; it keeps no state, its calls do."""

    def decline(self, problem: Problem) -> str | None:
        """Meta tensors have no memory to bound."""
        return "there is no data to work through" if problem.device == "meta" else None

    def forward(self, x: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Blocked.forward`."""
        return self._maps(x, spec, resources).forward(x, kernel, spec, resources)

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Blocked.input_grad`."""
        return self._maps(dy, spec, resources).input_grad(dy, kernel, spec, resources)

    def kernel_grad(self, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Blocked.kernel_grad`."""
        return self._maps(x, spec, resources).kernel_grad(x, dy, spec, resources)

    def _maps(self, array: Any, spec: LocalConvSpec, resources: Resources) -> Composed:
        """Those of one call."""
        dtype = str(array.dtype)[6:]
        whole = fits(spec, len(array), dtype, array.device.type, resources)
        return _whole if whole else _Call()

    def workspace(self, problem: Problem) -> int:
        """See `Blocked.workspace`; of all patches where they are taken at once."""
        spec, samples, dtype = problem.spec, problem.samples, problem.dtype
        if fits(spec, samples, dtype, problem.device, problem.resources):
            return whole_bytes(spec, samples, dtype)
        return super().workspace(problem)


class _Buffers:
    """Memory that the blocks of one call use one after another, by what it holds.

    A block's arrays are a few MiB. Taken anew for every block, the system would clear their
    pages each time, which costs as much as the products.
    """

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Any) -> Any:
        """An array of *shape* in the dtype of *like*, its contents undefined."""
        size, held = prod(shape), self._held.get(name)
        if held is None or held.numel() < size:
            held = self._held[name] = like.new_empty(size)
        return held[:size].view(shape)


class _CallOps(TorchOps):
    """Products into a buffer: a block makes one, and uses it up before the next."""

    def __init__(self, buffers: _Buffers) -> None:
        self.buffers = buffers

    def product(self, a: Any, b: Any) -> Any:
        """See `TorchOps.product`."""
        if a.device.type != "cpu":
            return torch.bmm(a, b)
        narrow = b.shape[2] < FEW_COLUMNS
        a, b = (for_mkl(b.mT), for_mkl(a.mT)) if narrow else (for_mkl(a), for_mkl(b))
        out = self.buffers.take("product", (a.shape[0], a.shape[1], b.shape[2]), a)
        torch.bmm(a, b, out=out)
        return out.mT if narrow else out


class _Call(Blocked):
    """The maps of one call."""

    def __init__(self) -> None:
        self.buffers = _Buffers()
        super().__init__(_CallOps(self.buffers))

    def new(self, shape: tuple[int, ...], like: Any, wide: bool, zeros: bool) -> Any:
        """See `Blocked.new`."""
        dtype = torch.float32 if wide and like.dtype in HALF else like.dtype
        make = torch.zeros if zeros else torch.empty
        return make(shape, dtype=dtype, device=like.device)

    def facts(self, array: Any) -> Facts:
        """See `Blocked.facts`."""
        return Facts(tuple(array.shape), str(array.dtype)[6:], array.device.type)

    def output(self, x: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Blocked.output`; laid out as `memory` would, which then copies nothing."""
        if not is_channels_first(x):
            return super().output(x, spec, resources)
        shape = (len(x), spec.filters, *spec.output_size)
        return to_last(self.new(shape, x, wide=False, zeros=False))

    def put(self, y: Any, part: Any) -> None:
        """Bring each sample's channels together before they are taken apart, channels first.

        Products lie positions first. Straight from there PyTorch would fetch single numbers
        that are often a power of two apart and fall on the same few lines of the cache.
        """
        y.copy_(part if y.stride(-1) == 1 else self._channels_last("outputs", part))

    def seen_grad(self, dy: Any) -> Any:
        """See `Blocked.seen_grad`; a channels-first one is transposed block by block."""
        return self.ops.widen(dy if dy.stride(-1) == 1 else self._channels_last("outputs", dy))

    def _channels_last(self, name: str, part: Any) -> Any:
        return self.buffers.take(name, tuple(part.shape), part).copy_(part)

    def windows(self, x: Any, spec: LocalConvSpec) -> Any:
        """A view: nothing is copied until it is put in matrix order.

        Only an input with its channels apart (channels first) is brought together before: a
        block of it is small, and its patches show every element many times.
        """
        return view(x if x.stride(-1) == 1 else self._channels_last("input", x), spec)

    def flat(self, array: Any, shape: tuple[int, ...], taps: tuple[int, ...]) -> Any:
        """See `Composed.flat`; patches are copied into a buffer."""
        if not taps:
            return array.reshape(shape)
        buffer = self.buffers.take("patches", tuple(array.shape), array).copy_(array)
        return buffer.view(shape)

    def put_kernel_grad(
        self, out: Any, x: Any, dy: Any, spec: LocalConvSpec, resources: Resources
    ) -> None:
        """Multiply right into the gradient, the largest array of all, where its layout allows."""
        direct = spec.groups == 1 and spec.filters >= FEW_COLUMNS and out.dtype == x.dtype
        if not (direct and out.is_contiguous()):
            return super().put_kernel_grad(out, x, dy, spec, resources)
        patches, dy = self._patch_matrices(x, spec), self._by_position(dy, (), spec)
        torch.bmm(patches.mT, for_mkl(dy), out=out.view(-1, spec.terms, spec.filters))
        return None

    def fold(self, patches: Any, spec: LocalConvSpec) -> Any:
        """One axis at a time, in place; positions lie before samples in memory, as in patches."""
        if patches.device.type != "cpu":
            return fold(patches, spec)
        positions = tuple(range(spec.ndim))
        for axis in reversed(positions):
            batch, *size, channels = patches.shape
            size[axis] = spec.input_size[axis]
            del size[-1]
            shape = (*size[: spec.ndim], batch, *size[spec.ndim :], channels)
            total = self.buffers.take(f"axis {axis}", shape, patches).zero_().movedim(spec.ndim, 0)
            for tap, seen in enumerate(axis_taps(spec, axis)):
                total[seen] += patches[..., tap, :]
            patches = total
        return patches


class _Whole(Composed):
    """All patches at once, in as few operations as there are."""

    def input_grad(self, dy: Any, kernel: Any, spec: LocalConvSpec, resources: Resources) -> Any:
        """See `Composed.input_grad`; no part of a larger, padded array."""
        return super().input_grad(dy, kernel, spec, resources).contiguous()

    def windows(self, x: Any, spec: LocalConvSpec) -> Any:
        """See `view`."""
        return view(x, spec)

    def fold(self, patches: Any, spec: LocalConvSpec) -> Any:
        """See the function."""
        return fold(patches, spec)


@lru_cache(maxsize=4096)
def fits(spec: LocalConvSpec, samples: int, dtype: str, device: str, resources: Resources) -> bool:
    """Whether all patches are taken at once."""
    room = resources.max_workspace
    room = min(room, STAYS_IN_CACHE) if device == "cpu" else room
    return whole_bytes(spec, samples, dtype) <= room


def whole_bytes(spec: LocalConvSpec, samples: int, dtype: str) -> int:
    """Patches, the same folded along the last axis, and input and output twice."""
    outputs, taps = prod(spec.output_size), prod(spec.kernel_size)
    patches = outputs * taps * spec.in_channels
    folded = patches // spec.output_size[-1] // spec.kernel_size[-1] * spec.padded_size[-1]
    around = prod(spec.padded_size) * spec.in_channels + outputs * spec.filters
    copied = DTYPES[dtype].is_half or spec.groups > 1
    elements = samples * (patches + folded + 2 * around) + copied * prod(spec.kernel_shape)
    return elements * DTYPES[DTYPES[dtype].accumulator].itemsize


def view(x: Any, spec: LocalConvSpec) -> Any:
    """``(N, *I, C)`` as ``(N, *output_size, *kernel_size, C)``, of the same memory."""
    batch, *steps, channel = x.stride()
    outer = (step * s for step, s in zip(steps, spec.strides, strict=True))
    taps = (step * d for step, d in zip(steps, spec.dilation, strict=True))
    shape = (len(x), *spec.output_size, *spec.kernel_size, x.shape[-1])
    return x.as_strided(shape, (batch, *outer, *taps, channel))


def fold(patches: Any, spec: LocalConvSpec) -> Any:
    """The adjoint of `view`: one axis at a time, last first, each in one operation if it can be."""
    for axis in reversed(range(spec.ndim)):
        *shape, taps, channels = patches.shape
        shape = [*shape, channels]
        shape[axis + 1] = spec.padded_size[axis]
        if spec.dilation[axis] == 1:
            patches = torch.ops.aten.unfold_backward(
                patches.movedim(-2, -1), shape, axis + 1, taps, spec.strides[axis]
            )
            continue
        total = patches.new_zeros(shape)
        for tap, seen in enumerate(axis_taps(spec, axis)):
            total[seen] += patches[..., tap, :]
        patches = total
    return patches


_whole = _Whole(TorchOps())
blocked = TorchBlocked(TorchOps())
