"""Whether TensorFlow may round float32: a switch of the process, which is read at every call."""

from __future__ import annotations

from functools import cache

import tensorflow as tf

from lcmulti.errors import UnsupportedError


@cache
def has_gpu() -> bool:
    """Whether a tensor may be on a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def device_of(array: tf.Tensor) -> str:
    """``"cpu"`` or ``"gpu"``; a symbolic tensor without a device may be on any GPU there is."""
    placed = array.device
    return "gpu" if ("GPU" in placed if placed else has_gpu()) else "cpu"


def refuse_rounding(array: tf.Tensor) -> None:
    """Raise if the GPU would round the float32 of *array* to TensorFloat-32.

    Raises
    ------
    UnsupportedError
        Names the command that forbids it.
    """
    if not has_gpu() or array.dtype not in (tf.float32, tf.complex64) or device_of(array) != "gpu":
        return
    if tf.config.experimental.tensor_float_32_execution_enabled():
        raise UnsupportedError(
            f"TensorFlow would round {array.dtype.name} to TensorFloat-32 on this GPU; call "
            "tf.config.experimental.enable_tensor_float_32_execution(False)"
        )
