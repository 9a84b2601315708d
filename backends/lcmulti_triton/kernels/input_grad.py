"""``dx[n, i, c] = sum over o, t, f with o*S + t*D - L = i of dy[n, o, f] * w[o, t, c, f]``.

A program owns one input position, a tile of channels and a tile of samples. It walks only the taps
through which a window sees that input. If no two windows share an input, a program owns a window;
if a position has few weights, it owns a row of inputs.
"""

import triton
import triton.language as tl

from lcmulti_triton.kernels.forward import product
from lcmulti_triton.kernels.geometry import (
    at_tap,
    coordinates,
    corner,
    cut,
    inside,
    lie,
    offset,
    terms,
)


@triton.jit
def reached(at, O, K, S, D, L, GCD, INVERSE, ND: tl.constexpr):
    """Along each axis: the first tap that sees input *at*, the number of such taps, their distance.

    A tap t is one where ``at + L - t*D`` is a multiple of S. With ``g = gcd(S, D)`` there is none
    unless g divides ``at + L``; else those congruent to ``(at + L)/g * (D/g)^-1`` modulo ``S/g``.
    """
    firsts = ()
    counts = ()
    apart = ()
    for axis in tl.static_range(ND):
        along = at[axis] + L[axis]
        step = S[axis] // GCD[axis]
        residue = ((along // GCD[axis]) % step) * INVERSE[axis] % step
        too_far = along - (O[axis] - 1) * S[axis]
        least = tl.maximum(too_far + D[axis] - 1, 0) // D[axis]
        first = least + (residue + step - least % step) % step
        last = tl.minimum(along // D[axis], K[axis] - 1)
        count = tl.where(last < first, 0, tl.maximum(last - first, 0) // step + 1)
        counts = counts + (tl.where(along % GCD[axis] == 0, count, 0),)
        firsts = firsts + (first,)
        apart = apart + (step,)
    return firsts, counts, apart


@triton.jit
def through(number, at, firsts, counts, apart, K, S, D, L, ND: tl.constexpr):
    """The row-major index of tap *number* of those that see *at*, and its window's position."""
    which = coordinates(number, counts, ND)
    tap = 0
    window = ()
    for axis in tl.static_range(ND):
        t = firsts[axis] + which[axis] * apart[axis]
        tap = tap * K[axis] + t
        window = window + ((at[axis] + L[axis] - t * D[axis]) // S[axis],)
    return tap, window


@triton.jit
def tiles(
    y, w, x, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf, GCD, INVERSE,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    INDEX: tl.constexpr, SUM: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BC: tl.constexpr, BF: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    n, pid = cut(tl.program_id(0), batch, BN)
    c, pid = cut(pid, C, BC)
    group = pid % G
    at = coordinates(pid // G, I, ND)
    is_n, is_c = n < batch, c < C
    firsts, counts, apart = reached(at, O, K, S, D, L, GCD, INVERSE, ND)
    number = counts[0]
    for axis in tl.static_range(1, ND):
        number *= counts[axis]
    y += n.to(tl.int64)[:, None] * yn
    w += group * F
    if DOT:
        total = tl.zeros((BN, BC), SUM)
    else:
        total = tl.zeros((BN, BF, BC), SUM)
    PIECES: tl.constexpr = (F + BF - 1) // BF
    steps = number * PIECES
    if F < BF:  # a step has the filters of several taps
        steps = tl.cdiv(number * F, BF)
    for step in tl.range(steps, num_stages=STAGES):
        if F < BF:
            e = step * BF + tl.arange(0, BF)
            f = e % F
            is_f = e < number * F
            which = tl.where(is_f, e // F, 0)  # any tap will do beyond the last: nothing is read
        else:
            f = (step % PIECES) * BF + tl.arange(0, BF)
            is_f = f < F
            which = step // PIECES
        tap, window = through(which, at, firsts, counts, apart, K, S, D, L, ND)
        from_y = offset(window, YS, ND, tl.int64) + (group * F + f).to(INDEX) * yf
        from_w = offset(window, WS, ND, tl.int64) + tap * (C * F * G) + f
        a = tl.load(y + from_y[None, :], mask=is_n[:, None] & is_f[None, :], other=0)
        b = tl.load(
            w + from_w[None, :] + c[:, None] * (F * G), mask=is_c[:, None] & is_f[None, :], other=0
        )
        total = product(a, tl.trans(b), total, DOT, PRECISION)
    if not DOT:
        total = tl.sum(total, axis=1)
    x += n.to(tl.int64)[:, None] * xn + offset(at, XS, ND, tl.int64)
    here = (group * C + c).to(INDEX) * xc
    tl.store(x + here[None, :], total.to(x.dtype.element_ty), mask=is_n[:, None] & is_c[None, :])


@triton.jit
def windows(
    y, w, x, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    APART: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    BN: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """If no two windows share an input, a program writes all gradients of a piece of a window."""
    T: tl.constexpr = TAPS * C
    n, pid = cut(tl.program_id(0), batch, BN)
    e, pid = cut(pid, T, BT)
    group = pid % G
    at = coordinates(pid // G, O, ND)
    is_n, is_e = n < batch, e < T
    channel, tap, row_of_w = terms(e, K, C, TAPS, APART, ND)
    y += n.to(tl.int64)[:, None] * yn + offset(at, YS, ND, tl.int64)
    w += offset(at, WS, ND, tl.int64) + group * F + row_of_w[:, None] * (F * G)
    if DOT:
        total = tl.zeros((BN, BT), SUM)
    else:
        total = tl.zeros((BN, BF, BT), SUM)
    for step in tl.range(tl.cdiv(F, BF), num_stages=STAGES):
        f = step * BF + tl.arange(0, BF)
        is_f = f < F
        from_y = (group * F + f).to(INDEX) * yf
        a = tl.load(y + from_y[None, :], mask=is_n[:, None] & is_f[None, :], other=0)
        b = tl.load(w + f[None, :], mask=is_e[:, None] & is_f[None, :], other=0)
        total = product(a, tl.trans(b), total, DOT, PRECISION)
    if not DOT:
        total = tl.sum(total, axis=1)
    seen = at_tap(corner(at, S, L, ND), tap, D, ND)
    is_x = is_e & inside(seen, I, ND)
    here = offset(seen, XS, ND, INDEX) + (channel + group * C).to(INDEX) * xc
    tl.store(
        x + n.to(tl.int64)[:, None] * xn + here[None, :],
        total.to(x.dtype.element_ty),
        mask=is_n[:, None] & is_x[None, :],
    )


@triton.jit
def lanes(
    y, w, x, batch, positions, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    SLIDES: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
    BN: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    n, pid = cut(tl.program_id(0), batch, BN)
    group = pid % G
    p = (pid // G) * BP + tl.arange(0, BP)
    c = tl.arange(0, BC)
    is_n, is_p, is_c = n < batch, p < positions, c < C
    at = coordinates(p, I, ND)
    y += n.to(tl.int64)[:, None] * yn
    w += group * F
    total = tl.zeros((BN, BP, BC), SUM)
    for number in tl.range(TAPS, num_stages=STAGES):
        tap = coordinates(number, K, ND)
        is_y = is_p
        window = ()
        for axis in tl.static_range(ND):
            along = at[axis] + L[axis] - tap[axis] * D[axis]
            if SLIDES:
                o = along
            else:
                o = tl.maximum(along, 0) // S[axis]
                is_y &= o * S[axis] == along
            is_y &= (along >= 0) & (o < O[axis])
            window = window + (o,)
        from_y = offset(window, YS, ND, INDEX) + (group * F) * yf
        from_w = offset(window, WS, ND, INDEX) + number * (C * F * G)
        for f in tl.static_range(F):
            a = tl.load(y + (from_y + f * yf)[None, :], mask=is_n[:, None] & is_y[None, :], other=0)
            b = tl.load(
                w + (from_w + f)[:, None] + c[None, :] * (F * G),
                mask=is_y[:, None] & is_c[None, :], other=0,
            )  # fmt: skip
            total += a.to(SUM)[:, :, None] * b.to(SUM)[None, :, :]
    here = offset(at, XS, ND, INDEX)[:, None] + ((group * C + c).to(INDEX) * xc)[None, :]
    tl.store(
        x + n.to(tl.int64)[:, None, None] * xn + here[None, :, :],
        total.to(x.dtype.element_ty),
        mask=is_n[:, None, None] & is_p[None, :, None] & is_c[None, None, :],
    )


@triton.jit
def input_grad(
    y, w, x, batch, positions,
    o0, o1, o2, o3, i0, i1, i2, i3, k0, k1, k2, k3, s0, s1, s2, s3, d0, d1, d2, d3, l0, l1, l2, l3,
    x0, x1, x2, x3, y0, y1, y2, y3, w0, w1, w2, w3, xn, xc, yn, yf,
    gcd0, gcd1, gcd2, gcd3, inverse0, inverse1, inverse2, inverse3,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    XU: tl.constexpr, YU: tl.constexpr, APART: tl.constexpr, SLIDES: tl.constexpr,
    WIDE: tl.constexpr, DOUBLE: tl.constexpr,
    FAMILY: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One program of *FAMILY*."""
    INDEX: tl.constexpr = tl.int64 if WIDE else tl.int32
    SUM: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    O, I, K, S = (o0, o1, o2, o3), (i0, i1, i2, i3), (k0, k1, k2, k3), (s0, s1, s2, s3)
    D, L = (d0, d1, d2, d3), (l0, l1, l2, l3)
    xn, xc, XS = lie(xn, xc, x0, x1, x2, x3, XU, INDEX)
    yn, yf, YS = lie(yn, yf, y0, y1, y2, y3, YU, INDEX)
    _, _, WS = lie(batch, batch, w0, w1, w2, w3, TAPS * C * F * G, INDEX)
    if FAMILY == "lanes":
        lanes(
            y, w, x, batch, positions, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
            ND, C, F, G, TAPS, SLIDES, INDEX, SUM, BN, BT, BF, STAGES,
        )  # fmt: skip
    elif FAMILY == "windows" or FAMILY == "thin windows":
        windows(
            y, w, x, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
            ND, C, F, G, TAPS, APART, INDEX, SUM, FAMILY == "windows", PRECISION,
            BN, BT, BF, STAGES,
        )  # fmt: skip
    else:
        GCD = (gcd0, gcd1, gcd2, gcd3)
        INVERSE = (inverse0, inverse1, inverse2, inverse3)
        tiles(
            y, w, x, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf, GCD, INVERSE,
            ND, C, F, G, TAPS, INDEX, SUM, FAMILY == "tiles", PRECISION,
            BN, BT, BF, STAGES,
        )  # fmt: skip
