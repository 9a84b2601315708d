"""Small geometries, each of which some existing locally connected layer computes wrongly.

Unless a row is about the opposite, the sides of the window differ and there are several channels:
otherwise a swapped order of window and channels would not be noticed. Sizes are so small that the
oracle, which is written in loops, takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lcmulti.conformance.case import Case

__all__ = ["traps"]

FIRST = "channels_first"


def _row(
    name: str,
    input_shape: tuple[int, ...],
    filters: int,
    kernel_size: tuple[int, ...],
    *,
    batch: int = 2,
    shared_axes: tuple[int, ...] = (),
    bias: tuple[int, ...] | None = (),
    **options: Any,
) -> Case:
    return Case(name, "traps", input_shape, filters, kernel_size, batch, shared_axes, bias, options)


def traps() -> Iterator[Case]:
    """The table."""
    # The order of the window, of the output axes and of the channels.
    yield _row("window_order_2d", (6, 7, 3), 4, (2, 3))
    yield _row("window_order_3d", (4, 5, 5, 2), 3, (2, 3, 4), batch=1)
    yield _row("window_order_4d", (3, 4, 3, 4, 2), 2, (2, 3, 1, 2), batch=1)
    yield _row("channels_first_1d", (3, 9), 4, (4,), data_format=FIRST, strides=2)
    yield _row("channels_first_2d", (3, 6, 5), 4, (3, 2), data_format=FIRST)
    yield _row("channels_first_3d", (2, 4, 5, 3), 3, (3, 2, 1), data_format=FIRST, batch=1)
    # Padding: the named rules, and pairs.
    yield _row("same_even_strided", (7, 8, 2), 3, (4, 2), strides=(2, 3), padding="same")
    yield _row("same_3d", (4, 3, 5, 2), 2, (3, 2, 1), padding="SAME", batch=1)
    yield _row("same_dilated", (9, 2), 3, (4,), dilation=2, padding="same")
    yield _row("keras_same_even", (6, 7, 2), 3, (2, 4), padding="keras_same")
    yield _row("keras_same_strided", (7, 8, 2), 3, (3, 5), strides=(2, 3), padding="keras_same")
    yield _row("causal_dilated", (10, 2), 3, (3,), dilation=2, padding="causal")
    yield _row("padding_one_int", (5, 4, 3), 3, (3, 2), padding=1)
    yield _row("padding_per_axis", (4, 5, 2), 3, (2, 3), padding=(2, 1))
    yield _row("padding_asymmetric", (4, 5, 2), 3, (2, 3), padding=((0, 2), (3, 1)))
    yield _row("padding_beyond_window", (3, 4, 2), 3, (1, 2), padding=2)
    yield _row("padding_trimmed", (6, 2), 3, (3,), strides=4, padding=((1, 2),))
    # Padding modes, with so much padding that several taps of a window read one input.
    yield _row("reflect", (5, 4, 2), 3, (3, 2), padding=((2, 1), (3, 0)), padding_mode="reflect")
    yield _row("replicate", (3, 4, 2), 3, (3, 2), padding=((4, 1), (0, 3)),
        padding_mode="replicate")  # fmt: skip
    yield _row("circular", (5, 4, 2), 3, (3, 2), padding=((5, 1), (2, 4)),
        padding_mode="circular")  # fmt: skip
    yield _row("reflect_first_strided", (2, 6, 5), 4, (3, 2), strides=2, dilation=2, groups=2,
        padding=2, padding_mode="reflect", data_format=FIRST)  # fmt: skip
    # Strides and dilation.
    yield _row("stride_over_kernel", (11, 9, 2), 3, (2, 3), strides=(4, 5))
    yield _row("stride_is_kernel", (6, 8, 2), 3, (2, 4), strides=(2, 4))
    yield _row("stride_is_kernel_remainder", (8, 11, 2), 3, (3, 4), strides=(3, 4))
    yield _row("stride_is_kernel_long", (35, 1), 4, (8,), strides=8, bias=None)
    yield _row("strides_differ", (9, 8, 2), 3, (3, 2), strides=(1, 3))
    yield _row("dilation_differs", (8, 7, 2), 3, (3, 2), dilation=(2, 3))
    yield _row("dilation_strided", (11, 10, 2), 3, (3, 2), strides=(2, 3), dilation=(3, 2))
    yield _row("dilation_of_one_tap", (5, 6, 2), 3, (1, 3), dilation=(4, 2))
    # Groups.
    yield _row("groups", (5, 6, 4), 6, (2, 3), groups=2)
    yield _row("depthwise", (5, 6, 3), 3, (3, 2), groups=3)
    yield _row("depthwise_multiplier", (6, 5, 3), 6, (2, 3), groups=3, strides=2, padding="same")
    # Extreme sizes and batches.
    yield _row("kernel_is_input", (4, 5, 3), 4, (4, 5))
    yield _row("one_position_strided", (5, 4, 2), 3, (4, 3), strides=3)
    yield _row("one_by_one", (4, 5, 3), 4, (1, 1))
    yield _row("one_channel", (6, 7, 1), 1, (2, 3))
    yield _row("batch_0", (5, 6, 2), 3, (2, 3), batch=0)
    yield _row("batch_1", (5, 6, 2), 3, (2, 3), batch=1)
    yield _row("batch_17", (4, 5, 2), 3, (2, 3), batch=17)
    yield _row("no_bias", (5, 6, 2), 3, (2, 3), bias=None)
    # Shared kernel and shared bias, together and separately.
    yield _row("shared_rows", (5, 6, 2), 3, (2, 3), shared_axes=(0,))
    yield _row("shared_columns_own_bias", (5, 6, 2), 3, (3, 2), shared_axes=(1,), bias=(0,))
    yield _row("shared_all_channel_bias", (6, 5, 2), 3, (2, 3), shared_axes=(0, 1), bias=(0, 1))
    yield _row("channel_bias", (5, 6, 2), 3, (2, 3), bias=(0, 1))
    yield _row("channels_first_shared", (4, 6, 5), 4, (3, 2), shared_axes=(0,), bias=(1,),
        groups=2, padding="same", strides=(1, 2), data_format=FIRST)  # fmt: skip
    yield _row("shared_middle_3d", (4, 5, 4, 2), 2, (2, 3, 2), shared_axes=(1,), bias=(0, 2),
        batch=1)  # fmt: skip
