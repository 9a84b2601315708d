"""What a type checker must understand of Keras' layers, and refuse where marked."""

from typing import reveal_type

import keras  # type: ignore[import-untyped]
from lcmulti_keras import (
    LocallyConnected1D,
    LocallyConnected2D,
    LocallyConnected2DTranspose,
    load_legacy_model,
    load_legacy_weights,
    retie,
    untie,
)

layer = LocallyConnected2D(8, 3, padding="same", name="local", dtype="float32")
reveal_type(LocallyConnected2D)  # R: type[LocallyConnected2D]
reveal_type(layer)  # R: LocallyConnected2D
reveal_type(layer.spec)  # R: LocalConvSpec
reveal_type(layer.kernel_size)  # R: tuple[int, ...]
reveal_type(layer.kernel)  # R by pyright: Variable
reveal_type(layer.bias)  # R by pyright: Variable | None
reveal_type(layer(None))  # R: Any
reveal_type(layer.filters)  # R: int
reveal_type(layer.share_())  # R: LocallyConnected2D
up = LocallyConnected2DTranspose(8, (3, 3), strides=2, output_padding=1)
reveal_type(up)  # R: LocallyConnected2DTranspose
LocallyConnected1D(8, 3, input_length=12, input_dim=2)
model = load_legacy_model("old.h5", custom_objects={})
reveal_type(load_legacy_weights(model, "old.h5", by_name=True))  # R: LoadedWeights
LocallyConnected2D("8", 3)  # E
LocallyConnected2D(8, 3, stride=2)  # E
LocallyConnected2D(8, 3, inptu_shape=(12, 12, 3))  # E
LocallyConnected2DTranspose(8, 3, use_bais=False)  # E
load_legacy_model("old.h5", custom_object={})  # E
load_legacy_weights(model, "old.h5", byname=True)  # E


def changed(sequential: keras.Sequential, functional: keras.Model) -> None:
    reveal_type(untie(sequential, tell=None))  # R by pyright: Sequential
    reveal_type(untie(functional, shared_axes=[0]))  # R by pyright: Model
    reveal_type(untie(functional, dry_run=True))  # R: Untying
    reveal_type(retie(sequential, tolerance=None))  # R by pyright: Sequential
    reveal_type(retie(functional))  # R by pyright: Model
    untie(sequential, mermory="1GiB")  # E
    retie(sequential, where=3)  # E
