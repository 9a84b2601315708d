"""Registers the JAX backend, without importing JAX."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lcmulti.plugins.contract import BackendEntry, ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")


@hookimpl
def lcmulti_backends() -> Iterable[BackendEntry]:
    """JAX."""
    yield BackendEntry(
        name="jax",
        load="lcmulti_jax.backend:backend",
        package="jax",
        # Tracers replace arrays under jit, grad and vmap, and are not a subclass of jax.Array.
        array_types=("jax:Array", "jax.core:Tracer"),
        install="pip install 'lcmulti[jax]'",
        variable_types=(
            "flax.nnx.variablelib:Variable",
            "flax.nnx.variablelib:VariableState",
            "flax.nnx.variablelib:HijaxVariable",
            "keras.src.backend.jax:Variable",
        ),
    )


@hookimpl
def lcmulti_implementations() -> Iterable[ImplementationEntry]:
    """The implementations: for special geometries, with bounded memory, and all patches at once."""
    for place, priority, summary in (
        ("convolution:conv", 40, "one kernel shared by all positions: JAX' own convolution"),
        ("disjoint:disjoint", 30, "windows that tile the input: sums in place, no patches"),
        ("blocked:blocked", 20, "patches of one block of positions at a time, batched products"),
        ("composed:composed", 0, "all patches at once, one batched matrix product"),
    ):
        yield ImplementationEntry(
            name=place.partition(":")[2],
            backend="jax",
            load=f"lcmulti_jax.{place}",
            summary=summary,
            priority=priority,
            # The derivative rules of `lcmulti_jax.derivatives` serve every transform.
            transformable=True,
            portable=True,
        )
