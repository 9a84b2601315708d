"""Run a module once to find the input sizes of its convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lcmulti.errors import ArgumentError, described
from lcmulti_torch.base import LocallyConnectedNd

__all__ = ["sizes_seen"]

CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
)  # fmt: skip


class _Counted(TorchDispatchMode):
    """Counts convolutions, also those called as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func.overloadpacket is torch.ops.aten.convolution
        return func(*args, **(kwargs or {}))


def sizes_seen(
    model: nn.Module, example: Any, wanted: dict[str, Any]
) -> tuple[dict[str, list[tuple[int, ...]]], int]:
    """Run the example once, without any effect on the model.

    Returns
    -------
    seen : dict of str to list of tuple
        Spatial sizes of all inputs of each of the *wanted* convolutions, by name.
    functions : int
        How many convolutions were called as functions instead of modules.

    Raises
    ------
    ArgumentError
        If one is called with an ``output_size``.
    """
    seen: dict[str, list[tuple[int, ...]]] = {}
    calls = [0]
    convolutions = [m for m in model.modules() if isinstance(m, CONVOLUTIONS)]

    def watch(name: str) -> Any:
        def hook(conv: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = arguments[0] if arguments else named["input"]
            if named.get("output_size") is not None or len(arguments) > 1:
                what = "transposed convolutions without output_size, which a layer fixes"
                shown = described(f"{name!r}, called with one; give it output_padding instead")
                raise ArgumentError("model", what, shown)
            axes = len(conv.kernel_size)
            seen.setdefault(name, []).append(tuple(map(int, x.shape[-axes:])))

        return hook

    def count(*_: Any) -> None:
        calls[0] += 1

    handles = [
        conv.register_forward_pre_hook(watch(name), with_kwargs=True)
        for name, conv in wanted.items()
    ]
    handles += [each.register_forward_pre_hook(count) for each in convolutions]
    counted = _Counted()
    # Layers of this package may also call convolutions, which must not be counted.
    untied = any(isinstance(module, LocallyConnectedNd) for module in model.modules())
    try:
        with _unchanged(model), nullcontext() if untied else counted:
            _call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return seen, max(counted.calls - calls[0], 0)


def _call(model: nn.Module, example: Any) -> None:
    if isinstance(example, dict):
        model(**example)
    elif isinstance(example, (tuple, list)):
        model(*example)
    else:
        model(example)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restore modes, buffers and random states afterwards."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(each, each.detach().clone()) for each in model.buffers()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(list(devices)):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
