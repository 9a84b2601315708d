"""Recipes that people write in PyTorch by hand, channels first, beside lcmulti."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import unfold

import lcmulti
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["Layer", "contenders", "layers", "tiny"]


class Layer(NamedTuple):
    """One layer of a published network, and its batch."""

    name: str
    spec: LocalConvSpec
    batch: int


def layers() -> list[Layer]:
    """Return the layers of lcmulti's conformance suite that come from papers, at full size."""
    from lcmulti.conformance.cases import select

    return [Layer(case.name, case.spec.computed(), case.batch) for case in select(["workloads"])]


def tiny() -> list[Layer]:
    """Return layers so small that an interpreter computes them in seconds."""
    make = LocalConvSpec
    return [
        Layer("tiles", make((2, 3, 2), 5, 2, data_format="channels_last"), 9),
        Layer("few weights", make((4, 1), 2, 2, data_format="channels_last"), 2),
        Layer("windows", make((4, 2), 3, 2, strides=2, data_format="channels_last"), 9),
    ]


Call = Callable[[Any, Any], Any]


def contenders(layer: Layer) -> dict[str, tuple[Call, str]]:
    """Return ``function(x, weights)`` of each, and its layout of weights: "lcmulti" or "rows"."""
    spec = layer.spec
    rest = {"strides": spec.strides, "padding": spec.padding, "data_format": "channels_first"}

    def ours(implementation: str) -> Call:
        return lambda x, w: lcmulti.local_conv(x, w, implementation=implementation, **rest)

    found = {
        "triton": (ours("triton"), "lcmulti"),
        "blocked": (ours("blocked"), "lcmulti"),
        "views + einsum": (lambda x, w: views(x, w, spec), "lcmulti"),
        "compiled recipe": (compiled(spec), "lcmulti"),
    }
    if spec.ndim <= 2:
        found["unfold + einsum"] = (lambda x, w: unfolded(x, w, spec, by_bmm=False), "rows")
        found["unfold + bmm"] = (lambda x, w: unfolded(x, w, spec, by_bmm=True), "rows")
    return found


def weights_of(kernel: Any, spec: LocalConvSpec, how: str) -> Any:
    """Return the kernel in a contender's layout. In "rows", channels come before taps."""
    if how == "lcmulti":
        return kernel
    positions = spec.ndim
    moved = kernel.movedim(-2, positions).reshape(-1, spec.terms, spec.filters)
    return moved.detach().contiguous()


def padded(x: Any, spec: LocalConvSpec) -> Any:
    """Pad the input with zeros."""
    pads = [n for pair in reversed(spec.padding) for n in pair]
    return torch.nn.functional.pad(x, pads) if any(pads) else x


def views(x: Any, w: Any, spec: LocalConvSpec) -> Any:
    """Compute with strided views and an ``einsum``, which copies them."""
    o, k = "opq"[: spec.ndim], "ijk"[: spec.ndim]
    patches = padded(x, spec)
    for axis, (size, step) in enumerate(zip(spec.kernel_size, spec.strides, strict=True)):
        patches = patches.unfold(axis + 2, size, step)
    return torch.einsum(f"nc{o}{k},{o}{k}cf->nf{o}", patches, w)


def unfolded(x: Any, w: Any, spec: LocalConvSpec, by_bmm: bool) -> Any:
    """Compute with ``unfold`` and one product."""
    flat = spec.ndim == 1
    window, strides = spec.kernel_size, spec.strides
    if flat:
        window, strides = (1, *window), (1, *strides)
    x = padded(x, spec)
    patches = unfold(x[:, :, None] if flat else x, window, stride=strides)
    if by_bmm:
        return (
            torch.bmm(patches.permute(2, 0, 1), w).permute(1, 2, 0).unflatten(-1, spec.output_size)
        )
    return torch.einsum("nkp,pkf->nfp", patches, w).unflatten(-1, spec.output_size)


def compiled(spec: LocalConvSpec) -> Call:
    """Compile the first recipe as a whole. On a CPU it is only traced, without a C++ compiler."""
    backend = "inductor" if torch.cuda.is_available() else "eager"
    return torch.compile(
        lambda x, w: views(x, w, spec), fullgraph=True, dynamic=False, backend=backend
    )
