"""The implementation ``triton``: which calls it serves, and its three maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from lcmulti_torch.precision import refuse_rounding
from lcmulti_torch.watched import is_only_compiled, is_transformed
from torch import Tensor

from lcmulti import plugins
from lcmulti.errors import UnsupportedError
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Implementation, Map, Problem, Resources
from lcmulti_triton import failing, state
from lcmulti_triton.layer import Layer, layer_of, refusal

if TYPE_CHECKING:
    from lcmulti_triton.launch import Ready

__all__ = ["implementation"]

MAPS: tuple[Map, ...] = ("forward", "input_grad", "kernel_grad")


class Triton:
    """`lcmulti.backend.Implementation` by fused kernels, in any memory layout."""

    never_rounds = True
    """It never uses TensorFloat-32, even where PyTorch's own products may."""

    def decline(self, problem: Problem) -> str | None:
        """Under a transform, serves only a compiler; on the CPU, serves only in the interpreter."""
        spec = problem.spec
        if problem.transformed and not is_only_compiled():
            return "only compilers can take it as an opaque operation"
        if reason := state.unavailable(problem.device):
            return reason
        return refusal(spec, problem.samples) or _failed(problem) or state.broken()

    def unavailable(self) -> str | None:
        """A sentence that says why neither a GPU nor the interpreter serves here, or None."""
        return state.without_triton() or (None if state.is_interpreted() else state.on_gpu())

    def details(self, problem: Problem) -> tuple[str, ...]:
        """The tile of each map, and why it was chosen."""
        from lcmulti_triton.decision import decided

        device = _device(problem.device)
        resources = problem.resources
        # An explanation must not measure anything.
        tiles = "tuned" if resources.tiles == "measured" else resources.tiles
        return tuple(
            f"{layer.map} in {decided(layer, device, (resources.precision, tiles))}"
            for layer in _layers(problem)
        )

    def tune(
        self, problem: Problem, told: Callable[[str, str, float | None], None]
    ) -> tuple[str, ...]:
        """Measure the candidates of each map on this machine, and keep the fastest.

        Parameters
        ----------
        problem : Problem
            A layer with its batch, dtype and device.
        told : callable
            Called with ``(map, candidate, seconds)`` after each measurement. The seconds are None
            where the candidate failed.

        Returns
        -------
        tuple of str
            What was chosen, in a line a map, and where it is kept.

        Raises
        ------
        UnsupportedError
            If no candidate can be compiled, or arrays of this size find no room.
        """
        from lcmulti_triton import tuned

        device = _device(problem.device)
        lines = []
        for layer in _layers(problem):

            def heard(one: tuned.Measured, map_: Map = layer.map) -> None:
                told(map_, str(one.tile), one.seconds)

            try:
                found = tuned.measure(layer, device, problem.resources.precision, heard)
            except torch.OutOfMemoryError as error:
                raise UnsupportedError("the GPU has no room for this layer's arrays") from error
            best, failed = tuned.keep(layer, device, found)
            if best is None:
                raise UnsupportedError(f"no tile of {layer.map} compiles here: {found[-1].error}")
            lines.append(f"{layer.map}: {best.tile}")
        return (*lines, failed or f"kept in {tuned.file_of(device)}")

    def workspace(self, problem: Problem) -> int:
        """It holds nothing besides inputs and outputs."""
        return 0

    def forward(
        self, x: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.forward`."""
        return _run("forward", x, kernel, spec, resources)

    def input_grad(
        self, dy: Tensor, kernel: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.input_grad`."""
        return _run("input_grad", dy, kernel, spec, resources)

    def kernel_grad(
        self, x: Tensor, dy: Tensor, spec: LocalConvSpec, resources: Resources
    ) -> Tensor:
        """See `lcmulti.backend.Implementation.kernel_grad`."""
        return _run("kernel_grad", x, dy, spec, resources)


def _device(kind: str) -> int | None:
    return torch.cuda.current_device() if kind == "gpu" else None


def _layers(problem: Problem) -> list[Layer]:
    """The layers of the three maps of a problem, for arrays with channels last."""
    batch = problem.samples
    return [layer_of(map_, problem.spec, problem.dtype, batch) for map_ in MAPS]


def _failed(problem: Problem) -> str | None:
    """Why Triton cannot compile a map of a problem, if that was tried in this process; or None."""
    if not failing.failures:
        return None
    device, resources = _device(problem.device), problem.resources
    settings = (resources.precision, resources.tiles)
    kinds = (failing.kind_of(layer, device, settings) for layer in _layers(problem))
    return next(filter(None, map(failing.reason_for, kinds)), None)


def _run(map_: Map, a: Tensor, b: Tensor, spec: LocalConvSpec, resources: Resources) -> Tensor:
    if is_transformed(a, b):
        return _transformed(map_, a, b, spec, resources)
    a = a.resolve_neg()
    b = b.resolve_neg() if map_ == "kernel_grad" else b.resolve_neg().contiguous()
    ready = _ready(map_, a, b, spec, resources)
    if ready is None:
        refuse_rounding(a)
        return getattr(_next(), map_)(a, b, spec, resources)
    result = torch.empty_strided(ready.shape, ready.strides, dtype=a.dtype, device=a.device)
    if ready.clear:
        result.zero_()
    ready.start(a, b, result)
    return result


def _ready(
    map_: Map, a: Tensor, b: Tensor, spec: LocalConvSpec, resources: Resources
) -> Ready | None:
    """What a call needs; None if another implementation has to serve it."""
    from lcmulti_triton.launch import prepared

    index = _index(a)
    if index is not None and state.is_old(index):
        return None
    aligned = not (a.data_ptr() | b.data_ptr()) % 16
    return prepared(
        map_, spec, a.dtype, index, len(a), a.stride(), b.stride(), aligned,
        (resources.precision, resources.tiles),
    )  # fmt: skip


def _index(array: Tensor) -> int | None:
    """Number of the GPU of an array, or None."""
    return array.get_device() if array.is_cuda else None


def _next() -> Implementation:
    return plugins.load_implementation("torch", failing.NEXT)


def _transformed(
    map_: Map, a: Tensor, b: Tensor, spec: LocalConvSpec, resources: Resources
) -> Tensor:
    if is_only_compiled():
        from lcmulti_triton import tracing

        return tracing.traced(map_, a, b, spec, resources)
    # Planned for a compiler, but called within another transform of the same shapes.
    refuse_rounding(a)
    composed = plugins.load_implementation("torch", "composed")
    return getattr(composed, map_)(a, b, spec, resources)


implementation = Triton()
