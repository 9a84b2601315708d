"""What a type checker must understand of operations on TensorFlow's arrays, and refuse."""

from typing import reveal_type

import lcmulti


class Tensor:
    """Stands for TensorFlow's, which comes without types."""


def local(x: Tensor, kernel: Tensor) -> Tensor:
    """The result has the type of the arguments."""
    reveal_type(lcmulti.local_conv(x, kernel, strides=(2, 2)))  # R: Tensor
    reveal_type(lcmulti.local_conv_transpose(x, kernel))  # R: Tensor
    reveal_type(lcmulti.local_conv_low_rank(x, kernel, kernel))  # R: Tensor
    lcmulti.local_conv(x, kernel, stride=2)  # E
    lcmulti.local_conv(x)  # E
    lcmulti.local_conv(x, kernel, padding_mode=3)  # E
    return lcmulti.local_conv(x, kernel)


spec = lcmulti.LocalConvSpec((12, 12, 3), filters=8, kernel_size=3)
reveal_type(spec.output_shape)  # R: tuple[int, ...]
with lcmulti.config(max_workspace="64MiB") as settings:
    reveal_type(settings.max_workspace)  # R: int
