"""`ShareEvery`: an optax transformation that moves the weights of positions towards each other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcmulti.errors import ArgumentError, MissingExtraError
from lcmulti.geometry.arguments import integer
from lcmulti.untying import Where, chosen, strength_of
from lcmulti_jax import base
from lcmulti_jax.compat import names_in

try:
    import optax
except ImportError as error:
    raise MissingExtraError(
        "lcmulti_jax.sharing needs optax; install it with: pip install optax"
    ) from error

__all__ = ["ShareEvery"]

SHARED = ("kernel", "weight", "coefficients", "bias")


class _State(NamedTuple):
    count: Any


def ShareEvery(  # noqa: N802 - in all frameworks of one name
    model: Any,
    steps: int,
    axes: Sequence[int] | None = None,
    strength: float = 1.0,
    where: Where = None,
) -> optax.GradientTransformation:
    """Every *steps* updates, move the weights of each layer towards their mean over positions.

    Dynamic weight sharing (Pogodin, Mehta, Lillicrap and Latham, "Towards biologically plausible
    convolutional networks", NeurIPS 2021): locally connected layers that share their weights from
    time to time become similar to convolutions. It must be the last transformation of
    `optax.chain`, because its input must be the final update of the parameters.

    Parameters
    ----------
    model : flax.nnx.Module or equinox.Module
        A model with locally connected layers, whose parameters are trained. No reference to it is
        kept.
    steps : int
        The weights are moved at every *steps*-th update.
    axes : tuple of int, optional
        Spatial axes to average along; None takes all.
    strength : float, default 1.0
        How far the weights move: 1 is all the way to the mean.
    where : str, type, callable or a list of these, optional
        Which layers; as for `untie`.

    Returns
    -------
    optax.GradientTransformation

    Raises
    ------
    ArgumentError
        If an argument is not allowed, *model* has no locally connected layer, or *where* names
        none; at an update, if it is not given the parameters.

    Examples
    --------
    >>> optimizer = optax.chain(optax.adam(1e-3), ShareEvery(model, steps=10, strength=0.5))
    """
    steps, strength = integer("steps", steps, 1), strength_of(strength)
    layers = chosen(where, _layers(model))
    if not layers:
        raise ArgumentError("model", "a network with locally connected layers", model)
    # A state of Flax may have any of the names of a layer that has several.
    names = _names(model)
    over = {
        name: layer.spec.axes_to_average(axes)
        for first, layer in layers
        for name in names.get(id(layer), [first])
    }

    def init(params: Any) -> _State:
        return _State(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: _State, params: Any = None) -> tuple[Any, _State]:
        if params is None:
            raise ArgumentError("params", "the parameters, whose mean is taken", None)
        count = state.count + 1

        def shared(updates: Any) -> Any:
            def moved(path: Any, update: Any, param: Any) -> Any:
                along = _axes_of(path, over)
                if not along or update is None:
                    return update
                new = param + update
                return update + strength * (base.shared_mean(new, along) - new)

            return jax.tree_util.tree_map_with_path(moved, updates, params)

        updates = jax.lax.cond(count % steps == 0, shared, lambda same: same, updates)
        return updates, _State(count)

    return optax.GradientTransformation(init, update)


def _layers(model: Any) -> list[tuple[str, Any]]:
    """The layers, by the beginning of the paths of their parameters."""
    if _is_of_flax(model):
        from lcmulti_jax.nnx_base import Layer
        from lcmulti_jax.nnx_modules import named

        return [(n, each) for n, each in named(model) if isinstance(each, Layer)]
    from lcmulti_jax.equinox_untying import LAYERS, named_of

    return named_of(model, LAYERS)


def _names(model: Any) -> dict[int, list[str]]:
    """All names of each module of Flax, by its id; empty for Equinox, where each has one."""
    if not _is_of_flax(model):
        return {}
    from lcmulti_jax.nnx_modules import names_of

    return names_of(model)


def _is_of_flax(model: Any) -> bool:
    if "flax" not in sys.modules:
        return False
    from flax import nnx

    return isinstance(model, nnx.Module)


def _axes_of(path: Any, over: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Position axes of the parameter at a path of the tree; empty if no layer has it."""
    parts = names_in(path)
    if parts and parts[-1] == "value":  # the entry of a variable of Flax
        del parts[-1]
    if not parts or parts[-1] not in SHARED:
        return ()
    return over.get(".".join(parts[:-1]), ())
