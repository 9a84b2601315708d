"""Advice on how to make a layer faster on this machine, from the measurements."""

from __future__ import annotations

from importlib.util import find_spec

from lcmulti.bench import fresh
from lcmulti.bench.report import Report, Row

__all__ = ["advice"]

WORTH = 1.15
"""A change is mentioned if it makes a layer this many times as fast, beyond both spreads."""

NEAR = 1.5
"""Below this many times the roofline, there is little left to gain."""


def advice(report: Report) -> list[str]:
    """Lines of advice, the most useful one first; empty if nothing was measured."""
    found: list[str] = []
    for workload in report.workloads:
        autos = [r for r in _measured(report, workload.name) if r.auto]
        for auto in autos:
            found += _for_backend(report, auto)
        if len(autos) > 1:
            best, *_, worst = sorted(autos, key=lambda row: row.seconds or 0)
            if _gain(best, worst) > WORTH:
                found.append(
                    f"{workload.name}: {best.backend} is the fastest backend here, "
                    f"{_gain(best, worst):.1f} times as fast as {worst.backend}."
                )
    if found and report.device == "cpu" and find_spec("lcmulti_native") is None:
        found.append(
            "The C++ kernels are not installed; in a checkout: pip install ./backends/native"
        )
    return found


def _for_backend(report: Report, auto: Row) -> list[str]:
    where, found = f"{auto.workload}, {auto.backend}:", []
    rows = [row for row in _measured(report, auto.workload) if row.backend == auto.backend]
    named = [row for row in rows if row.kind == "ours" and not row.auto]
    quickest = min(named, key=lambda row: row.seconds or 0, default=None)
    if quickest is not None and _gain(quickest, auto) > WORTH:
        found.append(
            f'{where} implementation="{quickest.name}" is {_gain(quickest, auto):.1f} times as '
            f"fast as {auto.name}, which auto takes."
        )
    for row in rows:
        if row.kind != "variant":
            continue
        if row.data_format != auto.data_format and _gain(row, auto) > WORTH:
            found.append(f"{where} {row.data_format} is {_gain(row, auto):.1f} times as fast.")
        if row.batch != auto.batch and _gain(row, auto) > WORTH:
            found.append(
                f"{where} a batch of {row.batch} is {_gain(row, auto):.1f} times as fast a sample."
            )
    found += _for_memory(where, auto)
    over = (auto.seconds or 0) / auto.roofline
    if not found and over < NEAR:
        found.append(f"{where} at {over:.1f} times the roofline, there is little left to gain.")
    return found


def _for_memory(where: str, auto: Row) -> list[str]:
    """Advice to start Python with an allocator that keeps memory, if that makes calls faster."""
    if not auto.kept:
        return []
    usual = auto.kept[fresh.AS_IT_IS]
    name = min(auto.kept, key=lambda each: auto.kept[each])
    gain = usual / auto.kept[name] * (1 - min(2 * (auto.spread or 0), 1))
    if gain < WORTH:
        return []
    return [
        f"{where} {usual / auto.kept[name]:.1f} times as fast where {name} keeps freed memory, "
        f"which a process then holds; start Python with: {fresh.line(name)}"
    ]


def _measured(report: Report, workload: str) -> list[Row]:
    """Rows with enough calls to have a spread; others are not used for advice."""
    return [row for row in report.of(workload) if row.spread is not None]


def _gain(row: Row, than: Row) -> float:
    """How many times as fast *row* is for one sample, reduced by both spreads."""
    a, b = row.seconds or 0.0, than.seconds or 0.0
    noise = (row.spread or 0) + (than.spread or 0)
    return (b / than.batch) / (a / row.batch) * (1 - min(noise, 1))
