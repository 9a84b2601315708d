"""What one rank computes: its output positions, from a window of the input.

The three maps of a rank's part are those of an implementation, on a window, with rows that travel
before or after. So the derivatives of each are the other two, and whatever implementation serves
there computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

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
        Of the input of *whole*, one a spatial axis.
    batch : int or None
        Samples; None while they are symbolic.
    wish : str
        The implementation asked for.
    settings : Settings
    """

    whole: LocalConvSpec
    cuts: tuple[Cut, ...]
    batch: int | None
    wish: str
    settings: Settings

    @property
    def first(self) -> bool:
        """Whether arrays come with their channels first."""
        return self.whole.data_format == "channels_first"

    @property
    def seen(self) -> tuple[Seen, ...]:
        """What the rank's positions see along each axis."""
        return tuple(cut.part for cut in self.cuts)

    @property
    def spec(self) -> LocalConvSpec | None:
        """What an implementation computes; None without positions."""
        return _computed(self.whole, self.seen)

    @property
    def resources(self) -> Resources:
        """As for any call."""
        return Resources(self.settings.max_workspace, self.settings.threads)

    def last(self, array: torch.Tensor) -> torch.Tensor:
        """Channels last, as implementations take them."""
        return array.movedim(1, -1) if self.first else array

    def back(self, array: torch.Tensor) -> torch.Tensor:
        """As arrays come."""
        return array.movedim(-1, 1) if self.first else array


@lru_cache(maxsize=4096)
def _computed(whole: LocalConvSpec, seen: tuple[Seen, ...]) -> LocalConvSpec | None:
    spec = local_spec(whole, seen)
    return None if spec is None else spec.computed()


@lru_cache(maxsize=4096)
def serving(part: Part, seen: tuple[Seen, ...], dtype: str, device: str, transformed: bool) -> str:
    """Name of the implementation that computes what *seen* sees.

    The first that would also serve the whole layer, for whose results these are to be to the bit:
    a single row of a layer shared along the other axis is a convolution, the layer is none.
    """
    spec, settings = _computed(part.whole, seen), part.settings
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


def blank(x: torch.Tensor, cuts: Sequence[Cut]) -> torch.Tensor:
    """A window with the zeros of axes along which there is nothing but padding."""
    for cut in cuts:
        if cut.part.outputs and not cut.part.window:
            shape = list(x.shape)
            shape[cut.dim] = sum(cut.part.padding)
            x = x.new_zeros(shape) + x.sum()  # of nothing; a link for gradients
    return x


def unblank(w: torch.Tensor, cuts: Sequence[Cut]) -> torch.Tensor:
    """The rows that come of an input's, of a window's gradient."""
    for cut in cuts:
        if cut.part.outputs and not cut.part.window:
            w = w.narrow(cut.dim, 0, 0)
    return w


def closed(part: Part, map_: Map, a: torch.Tensor, b: torch.Tensor, transformed: bool) -> Any:
    """One differentiable map of this rank's window; without positions nothing, but recorded."""
    spec, a, b = part.spec, part.last(a), part.last(b) if map_ == "kernel_grad" else b
    if spec is None:
        # Sums of nothing, a link: in the derivatives other ranks wait for messages of this one.
        y = a.new_zeros(_shape(part, map_, len(a))) + (a.sum() + b.sum())
    else:
        name = serving(part, part.seen, str(a.dtype)[6:], a.device.type, transformed)
        y = dispatch.operation("torch", name, map_)(a, b, spec, part.resources)
    return y if map_ == "kernel_grad" else part.back(y)


def raw(part: Part, map_: Map, a: torch.Tensor, b: torch.Tensor, seen: tuple[Seen, ...]) -> Any:
    """One map, not recorded, of what *seen* sees; channels last."""
    spec = _computed(part.whole, seen)
    if spec is None:
        return a.new_zeros(_shape(part, map_, len(a)))
    name = serving(part, seen, str(a.dtype)[6:], a.device.type, False)
    return getattr(plugins.load_implementation("torch", name), map_)(a, b, spec, part.resources)


def _shape(part: Part, map_: Map, batch: int) -> tuple[int, ...]:
    """Of a map's result where there are no positions, channels last."""
    whole, outputs = part.whole, tuple(len(cut.part.outputs) for cut in part.cuts)
    if map_ == "kernel_grad":
        positions = (1 if axis in whole.shared_axes else n for axis, n in enumerate(outputs))
        return (*positions, *whole.kernel_shape[whole.ndim :])
    if map_ == "forward":
        return (batch, *outputs, whole.filters)
    return (batch, *(cut.part.window for cut in part.cuts), whole.in_channels)


def outputs_of(x: torch.Tensor, kernel: torch.Tensor, part: Part, transformed: bool) -> Any:
    """Outputs of this rank, from the input rows it owns."""
    w = blank(gather(x, part.cuts), part.cuts)
    return closed(part, "forward", w, kernel, transformed)


def rows_of(x: torch.Tensor, kernel: torch.Tensor, part: Part, transformed: bool) -> Any:
    """Rows of the transposed result that this rank owns, from its positions.

    Of half types, what ranks add to each other is float32.
    """
    wide = x.dtype in HALF and any(cut.group for cut in part.cuts)
    a, b = (x.float(), kernel.float()) if wide else (x, kernel)
    w = closed(part, "input_grad", a, b, transformed)
    return scatter(unblank(w, part.cuts), part.cuts).to(x.dtype)
