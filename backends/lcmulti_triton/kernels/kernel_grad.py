"""``dw[o, t, c, f] = sum over n of x[n, o*S + t*D - L, c] * dy[n, o, f]``.

A program owns a tile of one position's weights. It walks the samples, and the positions that share
these weights, in a fixed order. If a position has few weights, a program owns those of a row of
positions. The gradient of a weight that sees only padding is 0, even if dy is not finite.
"""

import triton
import triton.language as tl

from lcmulti_triton.kernels.geometry import (
    at_tap,
    both,
    coordinates,
    corner,
    cut,
    inside,
    lie,
    offset,
    shared_and_own,
    terms,
    volume,
)


@triton.jit
def tiles(
    x, y, w, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    APART: tl.constexpr, SHARED: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = TAPS * C
    f, pid = cut(tl.program_id(0), F, BF)
    e, pid = cut(pid, T, BT)
    group = pid % G
    is_e, is_f = e < T, f < F
    own, shared = shared_and_own(O, WS, ND)
    at = coordinates(pid // G, own, ND)
    channel, tap, row_of_w = terms(e, K, C, TAPS, APART, ND)
    column = (channel + group * C).to(INDEX) * xc
    row_of_y = (group * F + f).to(INDEX) * yf
    total = tl.zeros((BT, BF), SUM)
    batches = tl.cdiv(batch, BN)
    turns = volume(shared, ND) if SHARED else 1
    seen = at_tap(corner(at, S, L, ND), tap, D, ND)
    is_x = is_e & inside(seen, I, ND)
    ever = is_x
    from_x = offset(seen, XS, ND, INDEX) + column
    from_y = offset(at, YS, ND, tl.int64)
    for step in tl.range(batches * turns, num_stages=STAGES):
        n = (step % batches) * BN + tl.arange(0, BN)
        if SHARED:
            here = both(at, coordinates(step // batches, shared, ND), ND)
            seen = at_tap(corner(here, S, L, ND), tap, D, ND)
            is_x = is_e & inside(seen, I, ND)
            ever = ever | is_x
            from_x = offset(seen, XS, ND, INDEX) + column
            from_y = offset(here, YS, ND, tl.int64)
        is_n = n < batch
        a = tl.load(
            x + n.to(tl.int64)[:, None] * xn + from_x[None, :],
            mask=is_n[:, None] & is_x[None, :], other=0,
        )  # fmt: skip
        b = tl.load(
            y + n.to(tl.int64)[:, None] * yn + from_y + row_of_y[None, :],
            mask=is_n[:, None] & is_f[None, :], other=0,
        )  # fmt: skip
        if DOT:
            total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION, out_dtype=SUM)
        else:  # a step has one sample
            total += tl.trans(a).to(SUM) * b.to(SUM)
    total = tl.where(ever[:, None], total, 0)
    w += offset(at, WS, ND, tl.int64) + group * F
    tl.store(
        w + row_of_w[:, None] * (F * G) + f[None, :],
        total.to(w.dtype.element_ty),
        mask=is_e[:, None] & is_f[None, :],
    )


@triton.jit
def lanes(
    x, y, w, batch, positions, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    SHARED: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
    BN: tl.constexpr, BP: tl.constexpr, BF: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Sum one term after the other, for a row of positions at once, in registers."""
    pid = tl.program_id(0)
    group = pid % G
    p = (pid // G) * BP + tl.arange(0, BP)
    is_p = p < positions
    own, shared = shared_and_own(O, WS, ND)
    at = coordinates(p, own, ND)
    samples = tl.arange(0, BN)
    turns = volume(shared, ND) if SHARED else 1
    chunks = tl.cdiv(batch, BN)
    f = tl.arange(0, BF)
    is_f = f < F
    w += offset(at, WS, ND, INDEX)[:, None] + group * F + f[None, :]
    row_of_y = (group * F + f) * yf
    for e in range(TAPS * C):
        channel, tap, row_of_w = terms(e, K, C, TAPS, False, ND)
        total = tl.zeros((BP, BF), SUM)
        ever = is_p
        if SHARED:
            ever = p < 0
        for step in tl.range(turns * chunks, num_stages=STAGES):
            n = (step % chunks) * BN + samples
            is_n = n < batch
            here = both(at, coordinates(step // chunks, shared, ND), ND) if SHARED else at
            seen = at_tap(corner(here, S, L, ND), tap, D, ND)
            is_x = is_p & inside(seen, I, ND)
            if SHARED:
                ever = ever | is_x
            else:
                ever = is_x
            from_x = offset(seen, XS, ND, INDEX) + (group * C + channel) * xc
            from_y = offset(here, YS, ND, INDEX)[:, None] + row_of_y[None, :]
            mask = is_n[:, None] & is_x[None, :]
            a = tl.load(x + n.to(tl.int64)[:, None] * xn + from_x[None, :], mask=mask, other=0)
            b = tl.load(
                y + n.to(tl.int64)[:, None, None] * yn + from_y[None, :, :],
                mask=mask[:, :, None] & is_f[None, None, :], other=0,
            )  # fmt: skip
            total += tl.sum(a.to(SUM)[:, :, None] * b.to(SUM), axis=0)
        total = tl.where(ever[:, None], total, 0)
        tl.store(
            w + row_of_w * (F * G), total.to(w.dtype.element_ty), mask=is_p[:, None] & is_f[None, :]
        )


@triton.jit
def kernel_grad(
    x, y, w, batch, positions,
    o0, o1, o2, o3, i0, i1, i2, i3, k0, k1, k2, k3, s0, s1, s2, s3, d0, d1, d2, d3, l0, l1, l2, l3,
    x0, x1, x2, x3, y0, y1, y2, y3, w0, w1, w2, w3, xn, xc, yn, yf,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    XU: tl.constexpr, YU: tl.constexpr, APART: tl.constexpr, SHARED: tl.constexpr,
    WIDE: tl.constexpr, DOUBLE: tl.constexpr,
    FAMILY: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One program of *FAMILY*; *positions* are those that have weights of their own."""
    INDEX: tl.constexpr = tl.int64 if WIDE else tl.int32
    SUM: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    O, I, K, S = (o0, o1, o2, o3), (i0, i1, i2, i3), (k0, k1, k2, k3), (s0, s1, s2, s3)
    D, L = (d0, d1, d2, d3), (l0, l1, l2, l3)
    xn, xc, XS = lie(xn, xc, x0, x1, x2, x3, XU, INDEX)
    yn, yf, YS = lie(yn, yf, y0, y1, y2, y3, YU, INDEX)
    _, _, WS = lie(batch, batch, w0, w1, w2, w3, TAPS * C * F * G, INDEX)
    if FAMILY == "lanes":
        lanes(
            x, y, w, batch, positions, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
            ND, C, F, G, TAPS, SHARED, INDEX, SUM, BN, BT, BF, STAGES,
        )  # fmt: skip
    else:
        tiles(
            x, y, w, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
            ND, C, F, G, TAPS, APART, SHARED, INDEX, SUM, FAMILY == "tiles", PRECISION,
            BN, BT, BF, STAGES,
        )  # fmt: skip
