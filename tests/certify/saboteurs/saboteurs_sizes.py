"""Implementations for NumPy that are wrong beyond some size, or for common kinds of layers."""

import numpy as np
from saboteurs_where import WrongWhere


def positions(spec):
    return np.prod(spec.output_size)


def taps(spec):
    return np.prod(spec.kernel_size)


def is_padded_3x3(spec):
    return spec.kernel_size == (3, 3) and spec.padding == ((1, 1), (1, 1))


def is_a_layer(spec):
    return min(positions(spec), spec.in_channels, spec.filters) >= 32


wrong_for_3x3_padded = WrongWhere(lambda a, s: is_padded_3x3(s), "kernel_grad")
wrong_for_layers = WrongWhere(lambda a, s: is_a_layer(s) and s.groups == 1)
wrong_for_layers_in_half = WrongWhere(lambda a, s: is_a_layer(s) and a.dtype.itemsize == 2)
wrong_over_150_channels = WrongWhere(lambda a, s: s.in_channels > 150 and s.groups == 1)
wrong_over_300_filters = WrongWhere(lambda a, s: s.filters // s.groups > 300, "input_grad")
wrong_over_1200_samples = WrongWhere(lambda a, s: len(a) > 1200, "kernel_grad")
wrong_over_638_positions_in_3d = WrongWhere(lambda a, s: s.ndim == 3 and positions(s) > 638)
wrong_in_float16_over_175_positions = WrongWhere(
    lambda a, s: a.dtype == np.float16 and positions(s) > 175, "kernel_grad"
)
wrong_in_bfloat16_over_150_channels = WrongWhere(
    lambda a, s: a.dtype.name == "bfloat16" and s.in_channels // s.groups > 150, "kernel_grad"
)
wrong_in_float64_over_175_positions = WrongWhere(
    lambda a, s: a.dtype == np.float64 and positions(s) > 175
)
wrong_in_float64_over_500_samples = WrongWhere(
    lambda a, s: a.dtype == np.float64 and len(a) > 500, "input_grad"
)
wrong_for_long_shared_axes = WrongWhere(
    lambda a, s: any(s.output_size[axis] > 9 for axis in s.shared_axes) and not s.is_convolution,
    "kernel_grad",
)
wrong_for_long_convolutions = WrongWhere(lambda a, s: s.is_convolution and positions(s) > 3000)
wrong_for_dilation_over_6 = WrongWhere(lambda a, s: max(s.dilation) > 6)
wrong_for_strides_over_20 = WrongWhere(lambda a, s: max(s.strides) > 20, "input_grad")
wrong_for_wide_padding = WrongWhere(lambda a, s: max(map(max, s.padding)) > 40)
wrong_over_64_groups = WrongWhere(lambda a, s: s.groups > 64, "kernel_grad")
wrong_over_1000_taps = WrongWhere(lambda a, s: taps(s) > 1000, "input_grad")
wrong_for_130_to_250_channels = WrongWhere(lambda a, s: 126 < s.in_channels // s.groups < 140)
wrong_at_512_filters = WrongWhere(lambda a, s: s.filters // s.groups == 512)
wrong_over_40_tiles_of_many_channels = WrongWhere(
    lambda a, s: s.strides == s.kernel_size and s.in_channels > 100 and max(s.strides) > 1
)
