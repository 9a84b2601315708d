"""The shared algorithm block by block: strided views for windows, sums in place, reused buffers.

On a GPU, few operations are faster than small blocks. So where all patches fit in the workspace,
they are taken at once, by a view, a product and a fold. The same holds on a CPU where all of it
stays in the cache.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

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
    """`lcmulti.backend.Implementation`. It has no state; buffers belong to a call."""

    def decline(self, problem: Problem) -> str | None:
        """Serves every call but those on meta tensors, which have no memory to bound."""
        return "there is no data to work through" if problem.device == "meta" else None

    def forward(
        self, x: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `Blocked.forward`."""
        return self._maps(x, spec, resources).forward(x, kernel, spec, resources)

    def input_grad(
        self, dy: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `Blocked.input_grad`."""
        return self._maps(dy, spec, resources).input_grad(dy, kernel, spec, resources)

    def kernel_grad(
        self, x: Tensor, dy: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `Blocked.kernel_grad`."""
        return self._maps(x, spec, resources).kernel_grad(x, dy, spec, resources)

    def _maps(self, array: Tensor, spec: LocalConvSpec, resources: Resources) -> Composed:
        """The maps of one call."""
        dtype = str(array.dtype)[6:]
        whole = fits(spec, len(array), dtype, array.device.type, resources)
        return _whole if whole else _Buffered()

    def workspace(self, problem: Problem) -> int:
        """See `Blocked.workspace`; of all patches where they are taken at once."""
        spec, samples, dtype = problem.spec, problem.samples, problem.dtype
        if fits(spec, samples, dtype, problem.device, problem.resources):
            return whole_bytes(spec, samples, dtype)
        return super().workspace(problem)


class _Buffers:
    """Memory that the blocks of one call use one after the other, by name.

    A block's arrays are a few MiB. If they were allocated for every block, the system would clear
    their pages each time, which costs as much as the products.
    """

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An array of *shape* in the dtype of *like*, with undefined contents."""
        size, held = prod(shape), self._held.get(name)
        if held is None or held.numel() < size:
            held = self._held[name] = like.new_empty(size)
        return held[:size].view(shape)


class _BufferedOps(TorchOps):
    """Products go into a buffer, because a block has finished with one before it makes the next."""

    def __init__(self, buffers: _Buffers) -> None:
        self.buffers = buffers

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """See `TorchOps.product`."""
        if a.device.type != "cpu":
            return torch.bmm(a, b)
        narrow = b.shape[2] < FEW_COLUMNS
        a, b = (for_mkl(b.mT), for_mkl(a.mT)) if narrow else (for_mkl(a), for_mkl(b))
        out = self.buffers.take("product", (a.shape[0], a.shape[1], b.shape[2]), a)
        torch.bmm(a, b, out=out)
        return out.mT if narrow else out


class _Buffered(Blocked):
    """The maps of one call."""

    def __init__(self) -> None:
        self.buffers = _Buffers()
        super().__init__(_BufferedOps(self.buffers))

    def new(self, shape: tuple[int, ...], like: Tensor, wide: bool, zeros: bool) -> Tensor:
        """See `Blocked.new`."""
        dtype = torch.float32 if wide and like.dtype in HALF else like.dtype
        make = torch.zeros if zeros else torch.empty
        return make(shape, dtype=dtype, device=like.device)

    def facts(self, array: Tensor) -> Facts:
        """See `Blocked.facts`."""
        return Facts(tuple(array.shape), str(array.dtype)[6:], array.device.type)

    def output(self, x: Tensor, spec: LocalConvSpec, resources: Resources) -> Tensor:
        """See `Blocked.output`; laid out as `memory` would, which then copies nothing."""
        if not is_channels_first(x):
            return super().output(x, spec, resources)
        shape = (len(x), spec.filters, *spec.output_size)
        return to_last(self.new(shape, x, wide=False, zeros=False))

    def put(self, y: Tensor, part: Tensor) -> None:
        """Make each sample's channels contiguous before they are copied to channels first.

        Products have their positions first. A direct copy would read single numbers that are often
        a power of two apart in memory, and would use only a few lines of the cache.
        """
        y.copy_(part if y.stride(-1) == 1 else self._channels_last("outputs", part))

    def seen_grad(self, dy: Tensor) -> Tensor:
        """See `Blocked.seen_grad`; a channels-first one is transposed block by block."""
        return self.ops.widen(dy if dy.stride(-1) == 1 else self._channels_last("outputs", dy))

    def _channels_last(self, name: str, part: Tensor) -> Tensor:
        return self.buffers.take(name, tuple(part.shape), part).copy_(part)

    def windows(self, x: Tensor, spec: LocalConvSpec) -> Tensor:
        """A view; only putting it in matrix order copies it.

        An input with channels first is made channels last before: a block of it is small, and its
        patches repeat every element many times.
        """
        return view(x if x.stride(-1) == 1 else self._channels_last("input", x), spec)

    def flat(self, array: Tensor, shape: tuple[int, ...], taps: tuple[int, ...]) -> Tensor:
        """See `Composed.flat`; patches are copied into a buffer."""
        if not taps:
            return array.reshape(shape)
        buffer = self.buffers.take("patches", tuple(array.shape), array).copy_(array)
        return buffer.view(shape)

    def put_kernel_grad(
        self, out: Tensor, x: Tensor, dy: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> None:
        """Multiply directly into the gradient, the largest array, if its layout allows it."""
        direct = spec.groups == 1 and spec.filters >= FEW_COLUMNS and out.dtype == x.dtype
        if not (direct and out.is_contiguous()):
            return super().put_kernel_grad(out, x, dy, spec, resources)
        patches, dy = self._patch_matrices(x, spec), self._by_position(dy, (), spec)
        torch.bmm(patches.mT, for_mkl(dy), out=out.view(-1, spec.terms, spec.filters))
        return None

    def fold(self, patches: Tensor, spec: LocalConvSpec) -> Tensor:
        """One axis at a time, in place. In memory, positions come before samples, as in patches."""
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
    """All patches at once, in as few operations as possible."""

    def input_grad(
        self, dy: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `Composed.input_grad`; no part of a larger, padded array."""
        return super().input_grad(dy, kernel, spec, resources).contiguous()

    def windows(self, x: Tensor, spec: LocalConvSpec) -> Tensor:
        """See `view`."""
        return view(x, spec)

    def fold(self, patches: Tensor, spec: LocalConvSpec) -> Tensor:
        """See `fold`."""
        return fold(patches, spec)


@lru_cache(maxsize=4096)
def fits(spec: LocalConvSpec, samples: int, dtype: str, device: str, resources: Resources) -> bool:
    """Whether all patches are taken at once."""
    room = resources.max_workspace
    room = min(room, STAYS_IN_CACHE) if device == "cpu" else room
    return whole_bytes(spec, samples, dtype) <= room


def whole_bytes(spec: LocalConvSpec, samples: int, dtype: str) -> int:
    """Bytes of patches, of the same folded along the last axis, and twice of input and output."""
    outputs, taps = prod(spec.output_size), prod(spec.kernel_size)
    patches = outputs * taps * spec.in_channels
    folded = patches // spec.output_size[-1] // spec.kernel_size[-1] * spec.padded_size[-1]
    around = prod(spec.padded_size) * spec.in_channels + outputs * spec.filters
    copied = DTYPES[dtype].is_half or spec.groups > 1
    elements = samples * (patches + folded + 2 * around) + copied * prod(spec.kernel_shape)
    return elements * DTYPES[DTYPES[dtype].accumulator].itemsize


def view(x: Tensor, spec: LocalConvSpec) -> Tensor:
    """``(N, *I, C)`` as a view ``(N, *output_size, *kernel_size, C)``."""
    batch, *steps, channel = x.stride()
    outer = (step * s for step, s in zip(steps, spec.strides, strict=True))
    taps = (step * d for step, d in zip(steps, spec.dilation, strict=True))
    shape = (len(x), *spec.output_size, *spec.kernel_size, x.shape[-1])
    return x.as_strided(shape, (batch, *outer, *taps, channel))


def fold(patches: Tensor, spec: LocalConvSpec) -> Tensor:
    """The adjoint of `view`: one axis at a time, last first, in one operation if possible."""
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
