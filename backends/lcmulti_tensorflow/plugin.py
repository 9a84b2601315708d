"""Registers the TensorFlow backend, without importing TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lcmulti.plugins.contract import BackendEntry, ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")


@hookimpl
def lcmulti_backends() -> Iterable[BackendEntry]:
    """TensorFlow."""
    yield BackendEntry(
        name="tensorflow",
        load="lcmulti_tensorflow.backend:backend",
        package="tensorflow",
        array_types=("tensorflow:Tensor",),
        install="pip install 'lcmulti[tensorflow]'",
        variable_types=(
            "tensorflow:Variable",
            # There is no public name for it.
            "tensorflow.python.distribute.sharded_variable:ShardedVariable",
            "keras.src.backend.tensorflow:Variable",
        ),
    )


@hookimpl
def lcmulti_implementations() -> Iterable[ImplementationEntry]:
    """The implementations, fastest first; ``blocked`` serves every call."""
    yield ImplementationEntry(
        name="conv",
        backend="tensorflow",
        load="lcmulti_tensorflow.convolution:conv",
        summary="one kernel shared by all positions: TensorFlow's own convolution",
        priority=40,
        dtypes=("float16", "bfloat16", "float32", "float64"),
        portable=True,
    )
    yield ImplementationEntry(
        name="disjoint",
        backend="tensorflow",
        load="lcmulti_tensorflow.disjoint:disjoint",
        summary="windows that tile the input: one batched product, no patches",
        priority=30,
    )
    yield ImplementationEntry(
        name="blocked",
        backend="tensorflow",
        load="lcmulti_tensorflow.blocked:blocked",
        summary="patches of one block of positions at a time, in a loop of constant graph size",
        priority=20,
    )
    yield ImplementationEntry(
        name="composed",
        backend="tensorflow",
        load="lcmulti_tensorflow.composed:composed",
        summary="all patches at once, in operations that every transform can see",
        priority=10,
        transformable=True,
        portable=True,
    )
