"""Geometries for the tests of layouts, and the positions and taps of a kernel in loops."""

import itertools

import lcmulti

# All sizes differ and there are several channels, so that a wrong order fails.
SPECS = {
    1: lcmulti.LocalConvSpec((9, 3), 4, 2, strides=3, data_format="channels_last"),
    2: lcmulti.LocalConvSpec((5, 8, 3), 4, (2, 3), strides=(1, 2), data_format="channels_last"),
    3: lcmulti.LocalConvSpec((3, 4, 6, 2), 5, (1, 2, 3), data_format="channels_last"),
}


def spec_of(axes, data_format="channels_last", padding="valid", channels=3, kernel=None):
    size, k, s = {1: ((9,), (2,), (3,)), 2: ((5, 8), (2, 3), (1, 2))}[axes]
    shape = (*size, channels) if data_format == "channels_last" else (channels, *size)
    return lcmulti.LocalConvSpec(
        shape, 4, kernel or k, strides=s, padding=padding, data_format=data_format
    )


def indices(spec):
    """Yield every ``(o, k, c, f)``: position, tap, channel within the group, and filter."""
    ranges = [spec.output_size, spec.kernel_size, (spec.in_channels,), (spec.filters,)]
    flat = list(itertools.chain(*ranges))
    for index in itertools.product(*map(range, flat)):
        n = spec.ndim
        o, k, (c, f) = index[:n], index[n : 2 * n], index[2 * n :]
        yield o, k, c, f


def seen(spec, o, k):
    """Return the input position that tap *k* of position *o* reads, and whether it is inside."""
    i = tuple(
        a * s + t - low for a, t, s, (low, _) in zip(o, k, spec.strides, spec.padding, strict=True)
    )
    return i, all(0 <= a < n for a, n in zip(i, spec.input_size, strict=True))
