"""Replace modules, and carry over what others gave the old ones."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import nn

from lcmulti.errors import ArgumentError, described

__all__ = ["carry_over", "replaced"]

HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks",
    "_backward_pre_hooks",
)  # fmt: skip


def carry_over(old: nn.Module, new: nn.Module, plain: nn.Module) -> None:
    """Copy mode, hooks, and what others gave *old*, which a *plain* module of its kind lacks."""
    new.training = old.training
    for name in HOOKS:
        if name in old.__dict__:
            setattr(new, name, old.__dict__[name].copy())
    for name, buffer in old._buffers.items():
        persistent = name not in old._non_persistent_buffers_set
        new.register_buffer(name, None if buffer is None else buffer.clone(), persistent)
    for name, child in old._modules.items():
        if name != "parametrizations":
            new.add_module(name, deepcopy(child))
    for name in old.__dict__.keys() - plain.__dict__.keys() - new.__dict__.keys():
        setattr(new, name, old.__dict__[name])


def replaced(
    model: nn.Module, old: dict[int, Any], new: dict[int, nn.Module], inplace: bool
) -> nn.Module:
    """*model*, or a copy of it, with some modules replaced."""
    if not inplace:
        try:
            return deepcopy(model, dict(new))
        except (TypeError, RuntimeError) as error:
            shown = described(f"one of which copy.deepcopy says: {error}")
            what = "a module that can be copied; or pass inplace=True"
            raise ArgumentError("model", what, shown) from error
    if id(model) in new:
        what = "a module that holds convolutions; a convolution cannot become another in place"
        raise ArgumentError("inplace", what, True)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and id(child) in new:
                module._modules[name] = new[id(child)]
    return model
