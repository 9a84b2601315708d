"""Hypothesis strategies that several test files use."""

from hypothesis import strategies as st

from lcmulti import LocalConvSpec


@st.composite
def specs(draw, max_axes=3):
    ndim = draw(st.integers(1, max_axes))

    def per_axis(low, high):
        return draw(st.tuples(*[st.integers(low, high)] * ndim))

    kernel, dilation = per_axis(1, 3), per_axis(1, 2)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(e + draw(st.integers(0, 4)) for e in extent)
    groups = draw(st.integers(1, 2))
    return LocalConvSpec(
        (*size, groups * draw(st.integers(1, 2))),
        groups * draw(st.integers(1, 3)),
        kernel,
        strides=per_axis(1, 3),
        padding=tuple(zip(per_axis(0, 3), per_axis(0, 3), strict=True)),
        dilation=dilation,
        groups=groups,
        shared_axes=tuple(a for a in range(ndim) if draw(st.booleans())),
    )
