"""``y[n, o, f] = sum over t, c of x[n, o*S + t*D - L, c] * w[o, t, c, f]``.

A program owns one output position, a tile of filters and a tile of samples: a product of
``(BN, T)`` and ``(T, BF)``, of which the left factor is read from the windows as they lie. Where
a position has few weights, a program owns a row of positions instead.
"""

import triton
import triton.language as tl

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
def product(a, b, total, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """``total + a @ b``. Without *DOT*, the products are left to be summed over axis 1.

    A dot pads its rows to 16, which a few samples would not fill.
    """
    if DOT:
        return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)
    else:
        return total + a.to(total.dtype)[:, :, None] * b.to(total.dtype)[None, :, :]


@triton.jit
def tiles(
    x, w, y, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    RUNS: tl.constexpr, APART: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = TAPS * C
    n, pid = cut(tl.program_id(0), batch, BN)
    f, pid = cut(pid, F, BF)
    group = pid % G
    at = coordinates(pid // G, O, ND)
    first = corner(at, S, L, ND)
    is_n, is_f = n < batch, f < F
    x += n.to(tl.int64)[:, None] * xn + group * C * xc
    w += offset(at, WS, ND, tl.int64) + group * F + f[None, :]
    if DOT:
        total = tl.zeros((BN, BF), SUM)
    else:
        total = tl.zeros((BN, BT, BF), SUM)
    steps = tl.cdiv(T, BT)
    if RUNS:
        # Along the last axis a window is one run of memory: no term is taken apart.
        run = K[ND - 1] * C
        pieces = tl.cdiv(run, BT)
        steps = TAPS // K[ND - 1] * pieces
        start = first[ND - 1].to(INDEX) * C
        end = tl.cast(I[ND - 1], INDEX) * C
    for step in tl.range(steps, num_stages=STAGES):
        if RUNS:
            row = step // pieces
            e = (step % pieces) * BT + tl.arange(0, BT)
            row_of_w = row * run + e
            is_e = e < run
            here, stop = start.to(tl.int64), end
            if ND > 1:
                seen = at_tap(first, coordinates(row, K, ND - 1), D, ND - 1)
                here += offset(seen, XS, ND - 1, tl.int64)
                stop = tl.where(inside(seen, I, ND - 1), end, 0)  # padding has none
            is_x = is_e & (start + e >= 0) & (start + e < stop)
            from_x = here + e
        else:
            e = step * BT + tl.arange(0, BT)
            channel, tap, row_of_w = terms(e, K, C, TAPS, APART, ND)
            is_e = e < T
            seen = at_tap(first, tap, D, ND)
            is_x = is_e & inside(seen, I, ND)
            from_x = offset(seen, XS, ND, INDEX) + channel * xc
        a = tl.load(x + from_x[None, :], mask=is_n[:, None] & is_x[None, :], other=0)
        b = tl.load(w + row_of_w[:, None] * (F * G), mask=is_e[:, None] & is_f[None, :], other=0)
        total = product(a, b, total, DOT, PRECISION)
    if not DOT:
        total = tl.sum(total, axis=1)
    y += n.to(tl.int64)[:, None] * yn + offset(at, YS, ND, tl.int64)
    here = (group * F + f).to(INDEX) * yf
    tl.store(y + here[None, :], total.to(y.dtype.element_ty), mask=is_n[:, None] & is_f[None, :])


@triton.jit
def lanes(
    x, w, y, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf, positions,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    INDEX: tl.constexpr, SUM: tl.constexpr,
    BN: tl.constexpr, BP: tl.constexpr, BF: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    n, pid = cut(tl.program_id(0), batch, BN)
    group = pid % G
    p = (pid // G) * BP + tl.arange(0, BP)
    f = tl.arange(0, BF)
    is_n, is_p, is_f = n < batch, p < positions, f < F
    at = coordinates(p, O, ND)
    first = corner(at, S, L, ND)
    x += n.to(tl.int64)[:, None] * xn + group * C * xc
    w += offset(at, WS, ND, INDEX)[:, None] + group * F + f[None, :]
    total = tl.zeros((BN, BP, BF), SUM)
    for e in tl.range(TAPS * C, num_stages=STAGES):
        channel, tap, row_of_w = terms(e, K, C, TAPS, False, ND)
        seen = at_tap(first, tap, D, ND)
        is_x = is_p & inside(seen, I, ND)
        here = offset(seen, XS, ND, INDEX) + channel * xc
        a = tl.load(x + here[None, :], mask=is_n[:, None] & is_x[None, :], other=0).to(SUM)
        b = tl.load(w + row_of_w * (F * G), mask=is_p[:, None] & is_f[None, :], other=0).to(SUM)
        total += a[:, :, None] * b[None, :, :]
    here = offset(at, YS, ND, INDEX)[:, None] + ((group * F + f).to(INDEX) * yf)[None, :]
    tl.store(
        y + n.to(tl.int64)[:, None, None] * yn + here[None, :, :],
        total.to(y.dtype.element_ty),
        mask=is_n[:, None, None] & is_p[None, :, None] & is_f[None, None, :],
    )


@triton.jit
def forward(
    x, w, y, batch, positions,
    o0, o1, o2, o3, i0, i1, i2, i3, k0, k1, k2, k3, s0, s1, s2, s3, d0, d1, d2, d3, l0, l1, l2, l3,
    x0, x1, x2, x3, y0, y1, y2, y3, w0, w1, w2, w3, xn, xc, yn, yf,
    ND: tl.constexpr, C: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    RUNS: tl.constexpr, XU: tl.constexpr, YU: tl.constexpr, APART: tl.constexpr,
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
            x, w, y, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf, positions,
            ND, C, F, G, TAPS, INDEX, SUM, BN, BT, BF, STAGES,
        )  # fmt: skip
    else:
        tiles(
            x, w, y, batch, O, I, K, S, D, L, XS, YS, WS, xn, xc, yn, yf,
            ND, C, F, G, TAPS, RUNS, APART, INDEX, SUM, FAMILY == "tiles", PRECISION,
            BN, BT, BF, STAGES,
        )  # fmt: skip
