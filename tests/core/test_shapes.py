"""Shape arithmetic agrees with its definitions, evaluated by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcmulti.conformance.bounds import covering_windows
from lcmulti.errors import ArgumentError, ArgumentTypeError, ShapeError
from lcmulti.geometry import shapes
from lcmulti.geometry.padding import check_padding_mode, explicit_padding, padding_indices

axes = st.tuples(
    st.integers(1, 24),  # size
    st.integers(1, 6),  # kernel
    st.integers(1, 5),  # stride
    st.integers(1, 3),  # dilation
)


def pair(padding, size, kernel, stride, dilation):
    return explicit_padding(padding, (size,), (kernel,), (stride,), (dilation,))[0]


@given(axes, st.integers(0, 5), st.integers(0, 5))
def test_output_length_counts_the_windows_that_fit(axis, low, high):
    size, kernel, stride, dilation = axis
    padded = size + low + high
    starts = range(0, padded, stride)
    fitting = [s for s in starts if s + (kernel - 1) * dilation + 1 <= padded]
    assert max(shapes.output_length(size, kernel, stride, low, high, dilation), 0) == len(fitting)


@given(axes)
def test_same_is_the_least_even_padding_that_keeps_ceil_of_size_over_stride(axis):
    size, kernel, stride, dilation = axis
    low, high = pair("same", *axis)
    outputs = -(-size // stride)
    # The definition is the smallest padding with this many outputs; the odd zero is at the end.
    total = next(
        t
        for t in range(1000)
        if shapes.output_length(size, kernel, stride, t, 0, dilation) >= outputs
    )
    assert (low, high) == (total // 2, total - total // 2)
    assert shapes.output_length(size, kernel, stride, low, high, dilation) == outputs


@pytest.mark.parametrize(
    "axis, expected",
    [
        # Computed by hand by the rule in TensorFlow's documentation of tf.nn.convolution.
        ((5, 2, 1, 1), (0, 1)),
        ((5, 3, 2, 1), (1, 1)),
        ((6, 3, 2, 1), (0, 1)),
        ((7, 4, 3, 1), (1, 2)),
        ((4, 1, 3, 1), (0, 0)),
        ((8, 3, 1, 2), (2, 2)),
    ],
)
def test_same_as_tensorflow_pads(axis, expected):
    assert pair("same", *axis) == expected


@given(axes)
def test_keras_same_sees_what_the_keras_2_mask_lets_through(axis):
    """Keras 2: output ceil(size / stride), window from o*stride - k//2, clipped."""
    size, kernel, stride, _ = axis
    low, high = pair("keras_same", size, kernel, stride, 1)
    outputs = -(-size // stride)
    assert shapes.output_length(size, kernel, stride, low, high, 1) == outputs
    for o in range(outputs):
        start = o * stride - kernel // 2
        mask = {i for i in range(start, start + kernel) if 0 <= i < size}
        seen = {o * stride + t - low for t in range(kernel)} & set(range(size))
        assert seen == mask


@pytest.mark.parametrize("kernel, stride", [(2, 1), (4, 1), (3, 2), (2, 3)])
def test_keras_same_differs_from_same_where_it_should(kernel, stride):
    assert pair("keras_same", 10, kernel, stride, 1) != pair("same", 10, kernel, stride, 1)


@given(axes)
def test_causal_sees_no_future(axis):
    size, kernel, stride, dilation = axis
    low, high = pair("causal", *axis)
    assert (low, high) == ((kernel - 1) * dilation, 0)
    for o in range(shapes.output_length(size, kernel, stride, low, high, dilation)):
        assert o * stride + (kernel - 1) * dilation - low == o * stride


@given(axes, st.integers(0, 4))
def test_covering_windows_is_the_largest_number_that_see_one_element(axis, low):
    size, kernel, stride, dilation = axis
    outputs = max(shapes.output_length(size, kernel, stride, low, low, dilation), 0)
    seen = np.zeros(size + 2 * low, int)
    for o in range(outputs):
        seen[o * stride : o * stride + (kernel - 1) * dilation + 1 : dilation] += 1
    bound = covering_windows(kernel, stride, dilation)
    assert seen.max(initial=0) <= bound
    # In the middle of an endless input the bound is reached.
    endless = {}
    for o in range(40):
        for t in range(kernel):
            endless.setdefault(o * stride + t * dilation, []).append(o)
    assert max(map(len, endless.values())) == bound


def test_every_spelling_of_padding():
    def explicit(padding):
        return explicit_padding(padding, (9, 8), (3, 2), (1, 1), (1, 1))

    assert explicit("VALID") == ((0, 0), (0, 0))
    assert explicit("Same") == ((1, 1), (0, 1))
    assert explicit(2) == explicit(np.int64(2)) == ((2, 2), (2, 2))
    assert explicit((1, 2)) == explicit([1, 2]) == ((1, 1), (2, 2))
    assert explicit(((1, 2), (0, 3))) == explicit([[1, 2], [0, 3]]) == ((1, 2), (0, 3))


@pytest.mark.parametrize(
    "padding, error",
    [
        ("sane", ArgumentError),
        ("causal", ArgumentError),
        (-1, ArgumentError),
        ((1,), ArgumentError),
        ((1, 2, 3), ArgumentError),
        (((1, 2),), ArgumentError),
        (((1, 2, 3), (1, 2)), ArgumentError),
        (((1, -2), (1, 2)), ArgumentError),
        (((1, 2), 3), ArgumentError),
        (1.0, ArgumentTypeError),
        (True, ArgumentTypeError),
        (None, ArgumentTypeError),
        ((1, 2.0), ArgumentTypeError),
    ],
)
def test_wrong_padding(padding, error):
    with pytest.raises(error, match="^padding: expected") as caught:
        explicit_padding(padding, (9, 8), (3, 2), (1, 1), (1, 1))
    assert type(caught.value) is error


@pytest.mark.parametrize("mode, limit", [("reflect", 4), ("circular", 5)])
def test_padding_that_reads_the_input_more_than_once_over_is_refused(mode, limit):
    check_padding_mode(mode, (5,), ((limit, limit),))
    for wrong in ((limit + 1, 0), (0, limit + 1)):
        with pytest.raises(ShapeError, match=f"at most {limit} on an axis of 5"):
            check_padding_mode(mode, (5,), (wrong,))


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("reflect", [2, 1, 0, 1, 2, 3, 2]),
        ("replicate", [0, 0, 0, 1, 2, 3, 3]),
        ("circular", [2, 3, 0, 1, 2, 3, 0]),
    ],
)
def test_padding_indices(mode, expected):
    assert padding_indices(4, 2, 1, mode).tolist() == expected


def test_beyond_32_bits():
    big = 2**31
    assert shapes.output_length(big, 3, 1, big, big, 1) == 3 * big - 2
    assert explicit_padding("same", (big + 1,), (big,), (2,), (3,)) == (
        ((3 * big - 3) // 2, 3 * big - 3 - (3 * big - 3) // 2),
    )
