"""Trace a Flax NNX module once to find the input sizes of its convolutions."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from lcmulti.untying import arguments_of
from lcmulti_jax.nnx_modules import CONVOLUTIONS, counterparts, named, swapped
from lcmulti_jax.untying import Seen

__all__ = ["normalised", "watched"]

NORMS: tuple[type[Any], ...] = tuple(
    getattr(nnx, name) for name in ("SpectralNorm", "WeightNorm") if hasattr(nnx, name)
)
"""Modules that compute the weights of the layer that they hold, whatever its attributes are."""


class _Watched(nnx.Module):
    """A convolution that records the sizes of its inputs, and whether others read its weights."""

    def __init__(self, conv: Any, seen: Seen) -> None:
        self.conv = conv
        self._seen = nnx.static(seen) if hasattr(nnx, "static") else seen

    def __call__(self, inputs: Any, *arguments: Any, **named: Any) -> Any:
        axes = len(self.conv.kernel_size)
        _plain(self._seen).sizes.append(tuple(map(int, inputs.shape[-axes - 1 : -1])))
        return self.conv(inputs, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name == "conv" or name.startswith("_"):
            raise AttributeError(name)
        if name in ("kernel", "bias"):
            _plain(self._seen).elsewhere = True
        return getattr(self.conv, name)


def _plain(seen: Any) -> Seen:
    plain: Seen = getattr(seen, "value", seen)
    return plain


def watched(model: Any, example: Any) -> dict[str, Seen]:
    """What a trace of the example shows of each convolution, by name."""
    left = normalised(model)
    there = {name: each for name, each in named(model) if isinstance(each, CONVOLUTIONS)}
    seen = {name: Seen() for name in there}
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(arguments_of(example))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if hasattr(leaf, "shape")}

    def run(state: Any, arrays: dict[int, Any]) -> None:
        # Numbers and truth values stay what they are: a network may branch on them.
        mixed = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
        arguments, keywords = jax.tree.unflatten(tree, mixed)
        copy = nnx.merge(graph, state)
        new = {
            id(each): _Watched(each, seen[name])
            for name, each in counterparts(model, copy).items()
            if name in there and id(there[name]) not in left
        }
        swapped(copy, new, set())(*arguments, **keywords)

    jax.eval_shape(run, state, arrays)
    return seen


def normalised(model: Any) -> dict[int, str]:
    """Why convolutions whose weights a module normalises stay, by their id."""
    return {
        id(each.layer_instance): f"its weights are computed by {type(each).__name__}"
        for _, each in named(model)
        if isinstance(each, NORMS)
    }
