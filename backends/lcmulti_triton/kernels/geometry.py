"""Coordinates and offsets of windows, for one number or a tensor of them."""

import triton
import triton.language as tl


@triton.jit
def cut(pid, size, SIDE: tl.constexpr):
    """The *SIDE* indices, of *size*, that program *pid* owns, and what is left of *pid*."""
    parts = tl.cdiv(size, SIDE)
    return (pid % parts) * SIDE + tl.arange(0, SIDE), pid // parts


@triton.jit
def coordinates(flat, sizes, ND: tl.constexpr):
    """The index along each axis of a row-major *flat* index; the first axis is the slowest."""
    found = ()
    for back in tl.static_range(ND - 1):
        size = sizes[ND - 1 - back]
        found = (flat % size,) + found
        flat = flat // size
    return (flat,) + found


@triton.jit
def offset(at, steps, ND: tl.constexpr, INDEX: tl.constexpr):
    """The offset of the element at the coordinates *at*."""
    total = at[0].to(INDEX) * steps[0]
    for axis in tl.static_range(1, ND):
        total += at[axis].to(INDEX) * steps[axis]
    return total


@triton.jit
def lie(sample, channel, a, b, c, d, UNIT: tl.constexpr, INDEX: tl.constexpr):
    """Steps in memory. They are multiples of *UNIT*, so that the compiler knows a divisor.

    With a unit of 0, channels are not adjacent; otherwise the step along them is 1.
    """
    # PyTorch's compiler makes a constant of a number that is 1, and a constant has no `to`.
    sample = tl.cast(sample, tl.int64)
    a, b, c, d = tl.cast(a, INDEX), tl.cast(b, INDEX), tl.cast(c, INDEX), tl.cast(d, INDEX)
    if UNIT > 0:
        return sample * UNIT, 1, (a * UNIT, b * UNIT, c * UNIT, d * UNIT)
    else:  # needed: Triton compiles code after a return, but not a branch that is never taken
        return sample, tl.cast(channel, INDEX), (a, b, c, d)


@triton.jit
def corner(at, S, L, ND: tl.constexpr):
    """The first input that the window at output position *at* sees; negative in the padding."""
    found = (at[0] * S[0] - L[0],)
    for axis in tl.static_range(1, ND):
        found = found + (at[axis] * S[axis] - L[axis],)
    return found


@triton.jit
def at_tap(first, tap, D, ND: tl.constexpr):
    """The input that tap *tap* of the window with corner *first* sees."""
    found = (first[0] + tap[0] * D[0],)
    for axis in tl.static_range(1, ND):
        found = found + (first[axis] + tap[axis] * D[axis],)
    return found


@triton.jit
def inside(at, sizes, ND: tl.constexpr):
    """Whether *at* is an element and no padding."""
    found = (at[0] >= 0) & (at[0] < sizes[0])
    for axis in tl.static_range(1, ND):
        found &= (at[axis] >= 0) & (at[axis] < sizes[axis])
    return found


@triton.jit
def shared_and_own(O, WS, ND: tl.constexpr):
    """Sizes of the output along which weights differ, and along which they are shared."""
    own = (tl.where(WS[0] == 0, 1, O[0]),)
    shared = (tl.where(WS[0] == 0, O[0], 1),)
    for axis in tl.static_range(1, ND):
        own = own + (tl.where(WS[axis] == 0, 1, O[axis]),)
        shared = shared + (tl.where(WS[axis] == 0, O[axis], 1),)
    return own, shared


@triton.jit
def volume(sizes, ND: tl.constexpr):
    """The product of *sizes*."""
    total = sizes[0]
    for axis in tl.static_range(1, ND):
        total *= sizes[axis]
    return total


@triton.jit
def both(a, b, ND: tl.constexpr):
    """The sum of two coordinates."""
    found = (a[0] + b[0],)
    for axis in tl.static_range(1, ND):
        found = found + (a[axis] + b[axis],)
    return found


@triton.jit
def terms(e, K, C: tl.constexpr, TAPS: tl.constexpr, APART: tl.constexpr, ND: tl.constexpr):
    """Channel, tap and row in the weights of the terms *e*, in the order that reads x in runs.

    Channels lie next to each other in x, or with *APART* the inputs of one channel do.
    """
    if APART:
        channel = e // TAPS
        tap = e % TAPS
    else:
        channel = e % C
        tap = e // C
    return channel, coordinates(tap, K, ND), tap * C + channel
