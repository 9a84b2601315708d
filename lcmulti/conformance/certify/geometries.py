"""The fixed geometries: at least 60 each in 1D, 2D and 3D, and some in 4D.

One table serves every number of dimensions: rows have values for four axes, of which the first ones
are used. Unless a row is about the opposite, the sides of the window differ and there are several
channels: otherwise a swapped order of window and channels would not be noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from lcmulti.conformance.case import Case

__all__ = [
    "CONTRACT",
    "COVERING",
    "DERIVATIVES",
    "GEOMETRIES",
    "LARGE",
    "STATISTICS",
    "TINY",
    "TRANSFORMED",
]

Row = tuple[str, dict[str, Any]]
ALL = "all"
FIRST: dict[str, Any] = {"data_format": "channels_first"}
PAIRS = ((1, 2), (0, 1), (2, 0), (0, 0))
SPARSE = {"size": (9, 8, 7, 4), "strides": (4, 5, 3, 2), "kernel": (2, 3, 1, 1)}
TILED = {"size": (6, 8, 6, 2), "kernel": (2, 4, 3, 1), "strides": (2, 4, 3, 1)}
REMAINDER = TILED | {"size": (7, 11, 7, 3)}
MIXED = {
    "kernel": (3, 2, 1, 2), "strides": (2, 1, 3, 1), "dilation": (1, 3, 2, 1), "channels": 4,
    "filters": 6, "groups": 2, "padding": PAIRS,
}  # fmt: skip

ROWS: tuple[Row, ...] = (
    ("plain", {}),
    ("channels_first", FIRST),
    ("window_turned", {"kernel": (4, 2, 3, 2), "size": (6, 5, 4, 3)}),
    ("filters_over_channels", {"channels": 2, "filters": 5}),
    ("channels_over_filters", {"channels": 5, "filters": 2}),
    ("batch_0", {"batch": 0}),
    ("batch_1", {"batch": 1}),
    ("batch_17", {"batch": 17, "size": (4, 5, 4, 2)}),
    ("one_channel", {"channels": 1, "filters": 4}),
    ("one_filter", {"channels": 3, "filters": 1}),
    ("one_of_each", {"channels": 1, "filters": 1}),
    ("one_by_one", {"kernel": (1, 1, 1, 1), "size": (4, 5, 3, 2)}),
    ("one_by_one_square", {"kernel": (1, 1, 1, 1), "size": (4, 5, 3, 2), "filters": 2}),
    ("kernel_is_input", {"size": (2, 3, 4, 1), "kernel": (2, 3, 4, 1)}),
    ("kernel_is_input_first", {"size": (4, 3, 2, 1), "kernel": (4, 3, 2, 1), **FIRST}),
    ("one_position_strided", {"size": (3, 4, 5, 1), "strides": (3, 2, 4, 1)}),
    ("no_bias", {"bias": None}),
    # Padding: the named rules, ints and pairs.
    ("same", {"padding": "same"}),
    ("same_upper_first", {"padding": "SAME", **FIRST}),
    ("same_even_strided", {"padding": "same", "kernel": (4, 2, 3, 1), "strides": (2, 3, 1, 2)}),
    ("same_dilated", {"padding": "same", "kernel": (3, 2, 1, 2), "dilation": (2, 3, 1, 1)}),
    ("keras_same_even", {"padding": "keras_same", "kernel": (2, 4, 3, 1)}),
    ("keras_same_strided", {"padding": "keras_same", "kernel": (4, 3, 2, 1),
        "strides": (2, 3, 2, 1)}),
    ("keras_same_odd_first", {"padding": "keras_same", "kernel": (3, 5, 1, 1),
        "strides": (3, 2, 1, 2), **FIRST}),
    ("padding_int", {"padding": 1, "size": (4, 4, 4, 2)}),
    ("padding_each", {"padding": (2, 1, 0, 1), "size": (4, 4, 4, 2)}),
    ("padding_asymmetric", {"padding": PAIRS}),
    ("padding_asymmetric_first", {"padding": ((2, 1), (0, 2), (1, 0), (0, 0)),
        "kernel": (3, 2, 3, 1), **FIRST}),
    ("padding_low", {"padding": ((3, 0), (1, 0), (1, 0), (1, 0))}),
    ("padding_high", {"padding": ((0, 2), (0, 1), (0, 1), (0, 1))}),
    ("padding_beyond_window", {"padding": (3, 2, 1, 0), "size": (2, 3, 3, 2),
        "kernel": (2, 1, 3, 1)}),
    ("window_over_input", {"padding": ((2, 1), (1, 2), (1, 1), (0, 0)), "size": (2, 3, 2, 1),
        "kernel": (4, 5, 3, 1)}),
    ("window_over_input_dilated_first", {"padding": ((1, 2), (2, 1), (1, 1), (0, 0)),
        "size": (3, 3, 2, 1), "kernel": (3, 2, 2, 1), "dilation": (2, 3, 1, 1), **FIRST}),
    ("padding_trimmed", {"padding": ((1, 2), (1, 1), (0, 2), (1, 0)), "strides": (4, 3, 5, 2),
        "kernel": (3, 2, 4, 1)}),
    *((f"{mode}_{name}", {"padding_mode": mode, **more})
        for mode in ("reflect", "replicate", "circular")
        for name, more in (
            ("each", {"padding": (2, 1, 1, 0), "size": (4, 4, 3, 2), "kernel": (2, 3, 1, 1)}),
            ("asymmetric", {"padding": ((2, 1), (0, 3), (1, 0), (0, 1)), "size": (4, 5, 3, 2),
                "kernel": (3, 2, 1, 1)}),
            ("strided_first", {"padding": (1, 2, 1, 0), "strides": (2, 3, 1, 1), "channels": 4,
                "filters": 2, "groups": 2, "size": (5, 4, 3, 2), "kernel": (3, 2, 1, 2), **FIRST}),
        )),
    ("replicate_far", {"padding_mode": "replicate", "padding": ((6, 1), (0, 4), (1, 0), (0, 0)),
        "size": (3, 3, 3, 2), "kernel": (2, 3, 1, 1)}),
    ("circular_whole", {"padding_mode": "circular", "padding": ((3, 3), (1, 3), (0, 2), (0, 0)),
        "size": (3, 3, 2, 2), "kernel": (2, 3, 1, 1)}),
    # Strides and dilation.
    ("strides_differ", {"strides": (2, 1, 3, 1), "kernel": (3, 2, 1, 2)}),
    ("strides_differ_first", {"strides": (3, 1, 2, 1), "kernel": (2, 3, 1, 1), **FIRST}),
    ("stride_under_kernel", {"strides": (3, 2, 3, 1), "kernel": (4, 3, 4, 1)}),
    ("stride_over_kernel", SPARSE),
    ("stride_over_kernel_same", SPARSE | {"padding": "same"}),
    ("stride_is_kernel", TILED),
    ("stride_is_kernel_first", TILED | FIRST),
    ("stride_is_kernel_remainder", REMAINDER),
    ("stride_is_kernel_remainder_first", REMAINDER | FIRST),
    ("stride_is_kernel_groups", REMAINDER | {"channels": 4, "filters": 6, "groups": 2}),
    ("stride_is_kernel_depthwise", TILED | {"channels": 3, "filters": 3, "groups": 3}),
    ("stride_is_kernel_shared", TILED | {"shared": ALL, "bias": (0,)}),
    ("stride_is_kernel_shared_row", REMAINDER | {"shared": (0,)}),
    ("stride_is_kernel_one_channel", REMAINDER | {"channels": 1, "filters": 2, "batch": 5}),
    ("stride_is_kernel_batch_0", TILED | {"batch": 0}),
    ("stride_is_kernel_batch_17", TILED | {"batch": 17, "bias": None}),
    ("stride_is_kernel_padded", TILED | {"padding": PAIRS}),
    ("dilation_differs", {"dilation": (2, 3, 1, 1), "kernel": (3, 2, 2, 1), "size": (6, 6, 4, 2)}),
    ("dilation_strided", {"dilation": (3, 2, 1, 1), "strides": (2, 3, 1, 1),
        "kernel": (3, 4, 2, 1), "size": (10, 10, 3, 2)}),
    ("dilation_padded", {"dilation": (2, 1, 3, 1), "padding": PAIRS, "kernel": (3, 4, 2, 1)}),
    ("dilation_of_one_tap", {"dilation": (1, 4, 2, 3), "kernel": (2, 1, 1, 1)}),
    ("dilation_divides_stride", {"dilation": (2, 3, 1, 1), "strides": (4, 3, 2, 1),
        "kernel": (3, 2, 1, 1), "size": (11, 9, 4, 2)}),
    # Groups.
    ("groups", {"channels": 4, "filters": 6, "groups": 2}),
    ("groups_first_strided", {"channels": 6, "filters": 3, "groups": 3, "strides": (2, 1, 1, 1),
        **FIRST}),
    ("groups_same", {"channels": 4, "filters": 2, "groups": 2, "padding": "same"}),
    ("depthwise", {"channels": 3, "filters": 3, "groups": 3}),
    ("depthwise_multiplier", {"channels": 3, "filters": 6, "groups": 3, "kernel": (3, 2, 1, 2)}),
    # One kernel for all positions: a convolution.
    *((f"convolution_{name}", {"shared": ALL, **more}) for name, more in (
        ("plain", {"bias": ALL}),
        ("first", {"bias": (), **FIRST}),
        ("same_strided", {"padding": "same", "strides": (2, 3, 2, 1)}),
        ("asymmetric", {"padding": PAIRS}),
        ("window_over_input", {"padding": ((2, 1), (1, 2), (1, 1), (0, 0)), "size": (2, 3, 2, 1),
            "kernel": (4, 5, 3, 1)}),
        ("dilated", {"dilation": (2, 3, 1, 1), "kernel": (3, 2, 2, 1), "size": (6, 6, 4, 2)}),
        ("groups", {"channels": 4, "filters": 6, "groups": 2}),
        ("depthwise", {"channels": 3, "filters": 6, "groups": 3, "bias": None}),
        ("stride_over_kernel", SPARSE),
        ("reflect", {"padding_mode": "reflect", "padding": (2, 1, 1, 0), "kernel": (3, 2, 1, 1)}),
        ("batch_0", {"batch": 0}),
        ("batch_17", {"batch": 17, "size": (4, 5, 4, 2)}),
        ("mixed", MIXED),
    )),
    # Several options at once.
    ("mixed", MIXED),
    ("mixed_first", MIXED | FIRST | {"strides": (1, 2, 1, 1), "batch": 3}),
    ("mixed_shared_row", MIXED | {"shared": (0,), "bias": (0,)}),
)  # fmt: skip

CAUSAL: tuple[Row, ...] = (
    ("causal", {"padding": "causal", "kernel": (3,)}),
    ("causal_dilated", {"padding": "causal", "dilation": 2, "kernel": (3,)}),
    ("causal_strided_first", {"padding": "CAUSAL", "strides": 2, "kernel": (4,), **FIRST}),
)
IN_4D = (
    "plain", "channels_first", "window_turned", "batch_0", "same", "padding_asymmetric",
    "reflect_each", "strides_differ", "stride_is_kernel_remainder", "dilation_differs", "groups",
    "depthwise", "convolution_plain", "convolution_groups", "mixed", "mixed_first",
)  # fmt: skip


def _case(ndim: int, name: str, row: dict[str, Any]) -> Case:
    options = dict(row)
    # In 1D there would be few positions: make the axis longer.
    size = options.pop("size", (10, 6, 6, 2) if ndim == 1 else (5, 6, 6, 2))[:ndim]
    kernel = options.pop("kernel", (3 if ndim == 1 else 2, 3, 4, 1))[:ndim]
    channels, filters = options.pop("channels", 2), options.pop("filters", 3)
    batch, shared, bias = (
        options.pop("batch", 2),
        options.pop("shared", ()),
        options.pop("bias", ()),
    )
    for key in ("strides", "dilation", "padding"):
        if isinstance(options.get(key), tuple):
            options[key] = options[key][:ndim]
    first = options.get("data_format") == "channels_first"
    shape = (channels, *size) if first else (*size, channels)
    axes = tuple(range(ndim))
    return Case(
        f"{ndim}d-{name}", f"{ndim}d", shape, filters, kernel, batch,
        axes if shared == ALL else shared, axes if bias == ALL else bias, options,
    )  # fmt: skip


def _sharing(ndim: int) -> Iterator[Row]:
    """Every set of axes along which the kernel is shared, and every set for the bias."""
    subsets = [each for n in range(ndim + 1) for each in combinations(range(ndim), n)]
    for i, kernel in enumerate(subsets):
        # In 1D and 2D, every combination; in 3D each kernel has two of the biases, and all occur.
        biases = subsets if ndim < 3 else (subsets[-1 - i], subsets[(3 * i + 1) % len(subsets)])
        for bias in biases:
            words = "".join(map(str, kernel)) or "none", "".join(map(str, bias)) or "none"
            yield f"shared_{words[0]}_bias_{words[1]}", {
                "shared": kernel, "bias": bias, "size": (4, 5, 5, 2), "kernel": (2, 3, 4, 1),
            }  # fmt: skip


def _all() -> Iterator[Case]:
    for ndim in (1, 2, 3):
        for name, row in (*ROWS, *(CAUSAL if ndim == 1 else ()), *_sharing(ndim)):
            yield _case(ndim, name, row)
    table = dict(ROWS)
    for name in IN_4D:
        yield _case(4, name, table[name])


GEOMETRIES: dict[str, Case] = {case.name: case for case in _all()}
"""Every fixed geometry by name."""

COVERING = (
    "1d-plain", "1d-causal_dilated", "1d-stride_is_kernel_remainder", "1d-convolution_groups",
    "2d-plain", "2d-channels_first", "2d-batch_0", "2d-batch_17", "2d-same_even_strided",
    "2d-reflect_asymmetric", "2d-stride_over_kernel", "2d-stride_is_kernel_groups",
    "2d-dilation_strided", "2d-depthwise_multiplier", "2d-shared_0_bias_1",
    "2d-convolution_same_strided", "2d-mixed", "3d-padding_asymmetric",
    "3d-stride_is_kernel_remainder", "3d-convolution_dilated", "3d-mixed_first",
)  # fmt: skip
"""Geometries that together have every feature, for the other dtypes."""

DERIVATIVES = (
    "1d-causal_dilated", "1d-stride_is_kernel_groups", "1d-convolution_plain",
    "2d-channels_first", "2d-circular_strided_first", "2d-stride_is_kernel_remainder",
    "2d-shared_1_bias_0", "2d-convolution_same_strided", "2d-mixed", "3d-plain",
)  # fmt: skip
"""Geometries for derivatives other than first gradients."""

CONTRACT = (
    "1d-stride_is_kernel", "2d-one_by_one_square", "2d-stride_is_kernel_remainder",
    "2d-convolution_groups", "2d-mixed", "2d-batch_17", "3d-plain",
)  # fmt: skip
"""Geometries for checks of other promises than values."""

TRANSFORMED = ("2d-mixed", "2d-stride_is_kernel", "2d-convolution_plain")
"""Geometries that are traced, mapped and compiled."""

TINY: dict[str, Case] = {
    case.name: case
    for case in (
        Case("mixed", "tiny", (3, 2, 2), 2, (2, 1), 2, (), (0,),
            {"groups": 2, "padding": ((1, 0), (0, 1))}),
        Case("tiled", "tiny", (4, 2), 2, (2,), 2, (), (), {"strides": 2}),
        Case("elementwise", "tiny", (3, 3, 1), 1, (2, 2), 2, (), ()),
        Case("convolution", "tiny", (3, 4, 2), 2, (2, 2), 1, (0, 1), (0, 1)),
        Case("circular", "tiny", (2, 3, 3), 2, (2, 2), 1, (1,), (),
            {"data_format": "channels_first", "padding_mode": "circular",
                "padding": ((1, 0), (0, 1))}),
    )
}  # fmt: skip
"""Geometries small enough for the frameworks' numeric gradient checkers."""

_LONG: dict[str, Any] = {"channels": 8, "filters": 8, "batch": 16}
STATISTICS: dict[str, Case] = {
    case.name: case
    for case in (
        _case(1, "long", _LONG | {"size": (64,), "kernel": (16,)}),
        _case(1, "long_tiled", _LONG | {"size": (128,), "kernel": (16,), "strides": (16,)}),
        _case(1, "long_convolution", _LONG | {"size": (64,), "kernel": (16,), "shared": ALL}),
        _case(2, "long", _LONG | {"size": (12, 11), "kernel": (5, 4)}),
        _case(2, "long_tiled",
            _LONG | {"size": (20, 12), "kernel": (5, 4), "strides": (5, 4)}),
        _case(2, "long_convolution", _LONG | {"size": (12, 11), "kernel": (5, 4), "shared": ALL}),
        _case(2, "long_grouped", _LONG | {"size": (12, 11), "kernel": (5, 4), "groups": 2}),
        _case(2, "long_square", _LONG | {"size": (12, 11), "kernel": (3, 3), "shared": ALL}),
        _case(3, "long", _LONG | {"size": (5, 6, 7), "kernel": (2, 3, 4)}),
        # More than a thousand terms in a sum, above which many libraries use other code.
        _case(1, "long_over_channels", _LONG | {"size": (12,), "kernel": (10,), "channels": 128}),
        _case(1, "long_over_filters", {"size": (6,), "filters": 600, "batch": 8}),
        _case(1, "long_over_batch", {"size": (4,), "batch": 1200}),
    )
}  # fmt: skip
"""Geometries with long sums, where a systematic loss of digits is visible."""

_PADDED = {"padding": 1}
LARGE: dict[str, Case] = {
    case.name: case
    for case in (
        Case("large", "large", (14, 14, 32), 32, (3, 3), 4, (), (), _PADDED),
        Case("large-tiled", "large", (32, 32, 16), 32, (4, 4), 16, (), (), {"strides": 4}),
        Case("large-convolution", "large", (14, 14, 32), 32, (3, 3), 4, (0, 1), (0, 1), _PADDED),
        Case("large-batch", "large", (8, 8, 8), 16, (3, 3), 1024),
    )
}
"""Cases of seven to forty million products."""
