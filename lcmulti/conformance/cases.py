"""The tables of cases, and how to select cases by name.

Three groups: ``docs`` (the examples of Keras' documentation), ``workloads`` (published layers at
their own sizes) and ``traps`` (`lcmulti.conformance.traps`). Inputs are random, with the name of
the case as the seed, so that they are the same for every backend and every run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any

from lcmulti.conformance.case import Case, Documented
from lcmulti.conformance.traps import traps
from lcmulti.errors import ArgumentError, described

__all__ = ["all_cases", "select"]

GROUPS = ("docs", "workloads", "traps")


def _documented() -> Iterable[Case]:
    """The examples in the docstrings of Keras 2's ``LocallyConnected1D`` and ``2D``."""
    rows: tuple[tuple[Any, ...], ...] = (
        ("keras_1d_layer1", (10, 32), 64, (None, 8, 64), 8 * (3 * 32 * 64) + 8 * 64),
        ("keras_1d_layer2", (8, 64), 32, (None, 6, 32), 6 * (3 * 64 * 32) + 6 * 32),
        ("keras_2d_layer1", (32, 32, 3), 64, (None, 30, 30, 64),
            (30 * 30) * (3 * 3 * 3 * 64) + (30 * 30) * 64),
        ("keras_2d_layer2", (30, 30, 64), 32, (None, 28, 28, 32),
            (28 * 28) * (3 * 3 * 64 * 32) + (28 * 28) * 32),
    )  # fmt: skip
    for name, shape, filters, output_shape, parameters in rows:
        documented = Documented(output_shape, parameters)
        yield Case(name, "docs", shape, filters, 3, documented=documented)


def _workloads() -> Iterable[Case]:
    text = (resources.files(__package__) / "data" / "workloads.json").read_text(encoding="utf-8")
    for row in json.loads(text):
        yield Case(
            row["name"],
            "workloads",
            (*row["input_size"], row["in_channels"]),
            row["filters"],
            tuple(row["kernel_size"]),
            batch=row["batch"],
            options={"strides": tuple(row["strides"]), "padding": row["padding"]},
        )


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case, in the order in which they run."""
    return (*_documented(), *_workloads(), *traps())


def select(names: Iterable[str] | None) -> tuple[Case, ...]:
    """The cases that names, groups or globs select, in the order of `all_cases`.

    Raises
    ------
    ArgumentError
        If one of *names* selects nothing, or *names* is empty.
    """
    known = all_cases()
    if names is None:
        return known
    choices = f"a group ({', '.join(GROUPS)}), a glob or one of "
    choices += ", ".join(case.name for case in known)
    chosen: set[str] = set()
    for pattern in (names,) if isinstance(names, str) else names:
        found = {c.name for c in known if c.group == pattern or fnmatchcase(c.name, pattern)}
        if not found:
            raise ArgumentError("cases", choices, pattern)
        chosen |= found
    if not chosen:
        raise ArgumentError("cases", choices, described("none"))
    return tuple(case for case in known if case.name in chosen)
