"""Run a module once to find the input sizes of its convolutions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcmulti.errors import ArgumentError, described
from lcmulti.untying import arguments_of
from lcmulti_torch.base import LocallyConnectedNd

__all__ = ["Seen", "sizes_seen"]

CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
)  # fmt: skip
DETACH = torch.ops.aten.detach.default
"""This operation is no use of a parameter: it reads no values."""


class Seen(NamedTuple):
    """What a run of the example showed.

    Parameters
    ----------
    sizes : dict of str to list of tuple
        Spatial sizes of what each of the wanted convolutions was called with, by name.
    elsewhere : dict of str to str
        Convolutions whose parameters something else read as well, and what that was.
    functions : int
        How many convolutions were called as functions rather than modules.
    """

    sizes: dict[str, list[tuple[int, ...]]]
    elsewhere: dict[str, str]
    functions: int


class _Watch(TorchDispatchMode):
    """Notes who reads which parameters, and convolutions that no module calls."""

    def __init__(self, model: nn.Module, wanted: dict[str, Any]) -> None:
        super().__init__()
        holders = Counter(
            id(parameter)
            for module in model.modules()
            for parameter in module.parameters(recurse=False)
        )
        # For parameters that several modules hold, `untie` has a better error.
        self.owners = {
            id(parameter): (name, conv)
            for name, conv in wanted.items()
            for parameter in conv.parameters(recurse=False)
            if holders[id(parameter)] == 1
        }
        self.running: list[Any] = []
        self.functions = 0
        self.elsewhere: dict[str, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.running:
            self.functions += func.overloadpacket is torch.ops.aten.convolution
        for each in tree_leaves((args, kwargs)):
            name, conv = self.owners.get(id(each), ("", None))
            if conv is not None and conv not in self.running and func is not DETACH:
                self.elsewhere.setdefault(name, str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def sizes_seen(model: nn.Module, example: Any, wanted: dict[str, Any]) -> Seen:
    """Run the example once, without any effect on the model.

    Raises
    ------
    ArgumentError
        If one of the *wanted* convolutions is called with an ``output_size``.
    """
    arguments, named = arguments_of(example)
    sizes: dict[str, list[tuple[int, ...]]] = {}
    watch = _Watch(model, wanted)

    def note(name: str) -> Any:
        def hook(conv: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = arguments[0] if arguments else named["input"]
            if named.get("output_size") is not None or len(arguments) > 1:
                what = "transposed convolutions without output_size, which a layer fixes"
                shown = described(f"{name!r}, called with one; give it output_padding instead")
                raise ArgumentError("model", what, shown)
            axes = len(conv.kernel_size)
            sizes.setdefault(name, []).append(tuple(map(int, x.shape[-axes:])))

        return hook

    def enter(module: Any, _: Any) -> None:
        watch.running.append(module)

    def leave(*_: Any) -> None:
        watch.running.pop()

    handles = [
        conv.register_forward_pre_hook(note(name), with_kwargs=True)
        for name, conv in wanted.items()
    ]
    for module in model.modules():
        # Layers of this package may also call convolutions, which must not be counted.
        if isinstance(module, (*CONVOLUTIONS, LocallyConnectedNd)):
            handles += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave),
            ]
    try:
        with _unchanged(model), watch:
            model(*arguments, **named)
    finally:
        for handle in handles:
            handle.remove()
    return Seen(sizes, watch.elsewhere, watch.functions)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restore modes, buffers and random states afterwards."""
    modes = {module: module.training for module in model.modules()}
    held = [
        (module, dict(module._buffers))
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)  # whose code writes to buffers in place
    ]
    buffers = [(each, each.detach().clone()) for each in model.buffers()]
    draws, numpy_draws = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(list(devices)):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        random.setstate(draws)
        np.random.set_state(numpy_draws)  # noqa: NPY002
        for module, by_name in held:  # a module may replace a buffer instead of writing to it
            module._buffers.update(by_name)
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
