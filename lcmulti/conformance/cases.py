"""What is computed: cases as data, and how they are chosen by name.

Three groups: ``docs`` (the examples of Keras' documentation), ``workloads`` (published layers at
their own sizes) and ``traps`` (`lcmulti.conformance.traps`). Inputs are random, seeded by the
name of the case, so that every backend and every run sees the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, cached_property
from importlib import resources
from math import prod
from typing import Any, NamedTuple

from lcmulti.dtypes import DTYPES
from lcmulti.errors import ArgumentError, described
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["Case", "Documented", "all_cases", "select"]

GROUPS = ("docs", "workloads", "traps")


class Documented(NamedTuple):
    """What a library's documentation says comes out.

    Parameters
    ----------
    output_shape : tuple
        With None for the batch.
    parameters : int
        Elements of kernel and bias.
    """

    output_shape: tuple[int | None, ...]
    parameters: int


@dataclass(frozen=True)
class Case:
    """One call, without its numbers.

    Parameters
    ----------
    name, group : str
    input_shape : tuple of int
        Of one sample, in the data format of *options* (channels last if it names none).
    filters : int
    kernel_size : int or tuple of int
    batch : int, default 2
    shared_axes : tuple of int, default ()
        Output axes along which the kernel is shared.
    bias_shared_axes : tuple of int or None, default ()
        Output axes along which the bias is shared; None for no bias.
    options : mapping
        Further arguments of `lcmulti.local_conv` as a caller writes them.
    documented : Documented, optional
    """

    name: str
    group: str
    input_shape: tuple[int, ...]
    filters: int
    kernel_size: int | tuple[int, ...]
    batch: int = 2
    shared_axes: tuple[int, ...] = ()
    bias_shared_axes: tuple[int, ...] | None = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    documented: Documented | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `lcmulti.local_conv`; configuration decides none of them."""
        return {"data_format": "channels_last", **self.options}

    @cached_property
    def spec(self) -> LocalConvSpec:
        """The geometry."""
        return LocalConvSpec(
            self.input_shape, self.filters, self.kernel_size,
            shared_axes=self.shared_axes, **self.arguments,
        )  # fmt: skip

    @property
    def bias_shape(self) -> tuple[int, ...] | None:
        """``(*output_size, filters)``, 1 where shared; None without a bias."""
        if self.bias_shared_axes is None:
            return None
        return self.spec.sharing(self.bias_shared_axes).bias_shape

    @property
    def products(self) -> int:
        """Products in one forward pass."""
        return self.spec.flops(self.batch) // 2

    def memory(self, dtype: str) -> int:
        """Bytes it takes to check the case, estimated.

        Inputs and results in *dtype* twice (the framework's and NumPy's), and in double
        precision the inputs, the reference's results, their bounds and a difference.
        """
        spec = self.spec
        per_sample = prod(spec.input_shape) + prod(spec.output_shape)
        elements = self.batch * per_sample + prod(spec.kernel_shape)
        return elements * (4 * 8 + 4 * DTYPES[dtype].itemsize)


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
    """Every case, in the order they are run."""
    from lcmulti.conformance.traps import traps

    return (*_documented(), *_workloads(), *traps())


def select(names: Iterable[str] | None) -> tuple[Case, ...]:
    """The cases that names, groups or globs choose, in the order of `all_cases`.

    Raises
    ------
    ArgumentError
        If one of *names* chooses nothing, or there is none.
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
