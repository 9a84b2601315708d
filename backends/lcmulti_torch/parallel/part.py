"""The part of one rank: its output positions, computed from a window of the input.

The three maps of a rank's part are those of an implementation on a window; rows travel before or
after them. So the derivatives of each map are the other two, and any implementation can compute
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from lcmulti import plugins
from lcmulti.choosing import dispatch
from lcmulti.choosing.settings import Settings
from lcmulti.geometry.sharding import Seen, local_spec
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Map, Problem, Resources
from lcmulti_torch.parallel.exchange import Cut, gather, scatter

__all__ = [
    "HALF", "Part", "blank", "closed", "outputs_of", "raw", "rows_of", "unblank",
]  # fmt: skip


HALF = (torch.float16, torch.bfloat16)


class Part(NamedTuple):
    """A rank's part of a call.

    Parameters
    ----------
    whole : LocalConvSpec
        The geometry of all ranks together.
    cuts : tuple of Cut
        How the input of *whole* is divided; one entry for each spatial axis.
    batch : int or None
        Number of samples; None if it is symbolic.
    wish : str
        The implementation that the caller asked for.
    settings : Settings
    """

    whole: LocalConvSpec
    cuts: tuple[Cut, ...]
    batch: int | None
    wish: str
    settings: Settings

    @property
    def first(self) -> bool:
        """Whether the caller's arrays have channels first."""
        return self.whole.data_format == "channels_first"

    @property
    def seen(self) -> tuple[Seen, ...]:
        """What the rank's positions read along each axis."""
        return tuple(cut.part for cut in self.cuts)

    @property
    def spec(self) -> LocalConvSpec | None:
        """The spec that an implementation computes; None for a rank without positions."""
        return _computed(self.whole, self.seen)

    @property
    def resources(self) -> Resources:
        """The resources, as for any call."""
        return Resources(self.settings.max_workspace, self.settings.threads)

    def last(self, array: Tensor) -> Tensor:
        """An array of the caller with channels last."""
        return array.movedim(1, -1) if self.first else array

    def back(self, array: Tensor) -> Tensor:
        """A channels-last array in the caller's data format."""
        return array.movedim(-1, 1) if self.first else array


@lru_cache(maxsize=4096)
def _computed(whole: LocalConvSpec, seen: tuple[Seen, ...]) -> LocalConvSpec | None:
    spec = local_spec(whole, seen)
    return None if spec is None else spec.computed()


@lru_cache(maxsize=4096)
def serving(part: Part, seen: tuple[Seen, ...], dtype: str, device: str, transformed: bool) -> str:
    """Name of the implementation that computes a part.

    It is the first one that would also serve the whole layer, because results must be equal to
    those of the whole layer, bit for bit. (A single row of a layer that is shared along the other
    axis is a convolution, but the whole layer is not.)
    """
    spec, settings = _computed(part.whole, seen), part.settings
    assert spec is not None  # asked only of ranks with positions
    device = "gpu" if device in ("cuda", "xpu", "mps") else device
    local = Problem(spec, part.batch, dtype, device, transformed, part.resources)
    entry, verdicts = dispatch.choose("torch", local, part.wish, settings)
    boundless = Resources(2**62, settings.threads)
    whole = local._replace(spec=part.whole.computed(), resources=boundless)
    for verdict in verdicts if part.wish == settings.implementation == "auto" else ():
        if verdict.reason is None:
            found = plugins.load_implementation("torch", verdict.name)
            if found.decline(whole) is None:
                return verdict.name
    return entry.name


def blank(x: Tensor, cuts: Sequence[Cut], seen: Sequence[Seen] = ()) -> Tensor:
    """A window, with zeros along axes on which it has nothing but padding.

    *seen* is what the window is for; by default what the rank's positions read.
    """
    for cut, each in zip(cuts, seen or [cut.part for cut in cuts], strict=True):
        if each.outputs and not each.window:
            shape = list(x.shape)
            shape[cut.dim] = sum(each.padding)
            x = x.new_zeros(shape) + x.sum()  # an empty sum, which links the gradients
    return x


def unblank(w: Tensor, cuts: Sequence[Cut]) -> Tensor:
    """The gradient of what `blank` was given, from the gradient of what it returned."""
    for cut in cuts:
        if cut.part.outputs and not cut.part.window:
            w = w.narrow(cut.dim, 0, 0)
    return w


def closed(part: Part, map_: Map, a: Tensor, b: Tensor, transformed: bool) -> Tensor:
    """One differentiable map of this rank's window. Without positions it is empty, but recorded."""
    spec, a, b = part.spec, part.last(a), part.last(b) if map_ == "kernel_grad" else b
    if spec is None:
        # Empty sums keep the graph connected: in the backward pass, other ranks wait for this one.
        y = a.new_zeros(_shape(part, map_, len(a))) + (a.sum() + b.sum())
    else:
        name = serving(part, part.seen, str(a.dtype)[6:], a.device.type, transformed)
        y = dispatch.operation("torch", name, map_)(a, b, spec, part.resources)
    return y if map_ == "kernel_grad" else part.back(y)


def raw(part: Part, map_: Map, a: Tensor, b: Tensor, seen: tuple[Seen, ...]) -> Tensor:
    """One map of the part *seen*, channels last, without recording it."""
    spec = _computed(part.whole, seen)
    if spec is None:
        return a.new_zeros(_shape(part, map_, len(a)))
    name = serving(part, seen, str(a.dtype)[6:], a.device.type, False)
    return getattr(plugins.load_implementation("torch", name), map_)(a, b, spec, part.resources)


def _shape(part: Part, map_: Map, batch: int) -> tuple[int, ...]:
    """The shape of a map's result if there are no positions, channels last."""
    whole, outputs = part.whole, tuple(len(cut.part.outputs) for cut in part.cuts)
    if map_ == "kernel_grad":
        positions = (1 if axis in whole.shared_axes else n for axis, n in enumerate(outputs))
        return (*positions, *whole.kernel_shape[whole.ndim :])
    if map_ == "forward":
        return (batch, *outputs, whole.filters)
    return (batch, *(cut.part.window for cut in part.cuts), whole.in_channels)


def outputs_of(x: Tensor, kernel: Tensor, part: Part, transformed: bool) -> Tensor:
    """Outputs of this rank, from the input rows it owns."""
    w = blank(gather(x, part.cuts), part.cuts)
    return closed(part, "forward", w, kernel, transformed)


def rows_of(x: Tensor, kernel: Tensor, part: Part, transformed: bool) -> Tensor:
    """Rows of the transposed result that this rank owns, from its positions.

    With half types, the sums over ranks are in float32.
    """
    wide = x.dtype in HALF and any(cut.group for cut in part.cuts)
    a, b = (x.float(), kernel.float()) if wide else (x, kernel)
    w = closed(part, "input_grad", a, b, transformed)
    return scatter(unblank(w, part.cuts), part.cuts).to(x.dtype)
