"""The checks that pytest collects: their cases, their order, and a sample of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.frameworks import TRACING, framework_of
from lcmulti.conformance.certify.geometries import GEOMETRIES
from lcmulti.conformance.certify.random_geometries import CI, Examples
from lcmulti.conformance.certify.result import Result
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject
from lcmulti.dtypes import DTYPES

__all__ = [
    "Drawn",
    "Rows",
    "again",
    "order",
    "rows_of",
    "sample",
    "shared",
    "subject_of",
]

Rows = Iterable[tuple[Case, str]]
SAMPLE = 4
"""Number of calls of one check and one implementation in a quick run."""
ORDER = tuple(DTYPES)


@dataclass(frozen=True)
class Drawn:
    """An endless supply of random cases; a run takes as many as it has examples."""

    function: Callable[[int], Iterable[tuple[Case, str]]]
    examples: Examples

    def __iter__(self) -> Iterator[tuple[Case, str]]:
        return iter(self.function(self.examples.seed))


def rows_of(definition: pytest.Function, backend: str, examples: Examples) -> Rows | None:
    """The cases and dtypes of a check: a list, or an endless supply of random ones."""
    compiles = framework_of(backend) in TRACING
    if (mark := definition.get_closest_marker("geometries")) is not None:
        rows = _rows(*mark.args, compiles=compiles, **mark.kwargs)
        return [(GEOMETRIES[n], d) for n, d in rows]
    if (mark := definition.get_closest_marker("rows")) is not None:
        return list(mark.kwargs["of"](compiles))
    if (mark := definition.get_closest_marker("drawn")) is not None:
        return Drawn(mark.kwargs["of"], examples)
    return None


def _rows(
    names: Mapping[str, Any] | Sequence[str],
    others: Sequence[str] = (),
    dtypes: Sequence[str] = tuple(DTYPES),
    compiling: Sequence[str] = (),
    computed: bool = False,
    *,
    compiles: bool,
) -> list[tuple[str, str]]:
    """Pairs of name and dtype: all names in the core dtype, *others* in all other *dtypes*.

    With *computed*, only geometries that reach an implementation unchanged. *compiling* takes the
    place of all names where the framework compiles a program, or traces a graph, for each; then it
    has others only if they are in it.
    """
    if compiles and compiling:
        names, others = compiling, [name for name in others if name in compiling]
    rows = [(name, CORE_DTYPE) for name in names]
    rows += [(name, dtype) for dtype in dtypes if dtype != CORE_DTYPE for name in others]
    if computed:
        rows = [(n, d) for n, d in rows if GEOMETRIES[n].spec.computed() == GEOMETRIES[n].spec]
    return rows


def order(item: pytest.Item) -> tuple[bool, str, str, int]:
    """The key by which checks are sorted; what other processes measure comes last."""
    parameters = _parameters(item)
    case = parameters.get("case")
    if case is None:
        return item.get_closest_marker("measured") is not None, "", "", 0
    return False, case.group, case.name, ORDER.index(parameters["dtype"])


def sample(items: list[pytest.Item]) -> list[pytest.Item]:
    """A few calls of each check and subject, evenly spread over geometries and dtypes.

    Checks that start another process are left out.
    """
    of_one: dict[Any, list[pytest.Item]] = {}
    for item in items:
        of_one.setdefault((item.path, item.originalname, subject_of(item)), []).append(item)  # type: ignore[attr-defined]
    kept: set[pytest.Item] = set()
    for (path, _, _), each in of_one.items():
        if path.name != "check_resources.py":
            kept.update(each[:: -(-len(each) // SAMPLE)])
    return [item for item in items if item in kept]


def shared(items: Sequence[pytest.Item], number: int) -> list[list[pytest.Item]]:
    """Deal the checks out to a *number* of processes.

    Checks of one geometry and dtype stay together, because they use the same program. What other
    processes measure stays together, too.
    """
    groups: dict[object, list[pytest.Item]] = {}
    for item in items:
        is_measured, *key = order(item)
        alone = not is_measured and _parameters(item).get("case") is None
        groups.setdefault(item.nodeid if alone else (is_measured, *key), []).append(item)
    shares: list[list[pytest.Item]] = [[] for _ in range(number)]
    measured = groups.pop((True, "", "", 0), [])
    for index, group in enumerate(groups.values()):
        shares[index % number] += group
    shares[0] += measured  # last: they are waited for
    return shares


def _parameters(item: pytest.Item) -> dict[str, Any]:
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return parameters


def subject_of(item: pytest.Item) -> Subject | None:
    """The implementation that a check tests, if it tests one."""
    parameters = _parameters(item)
    return parameters.get("subject", parameters.get("named"))


def again(item: pytest.Item, result: Result, examples: Examples) -> str:
    """The call of a check, and the command that repeats it."""
    parameters = _parameters(item)
    subject, case = subject_of(item), parameters.get("case")
    lines = [f"seed {examples.seed}"]
    if case is not None:
        lines[0] += f", batch {case.batch}, {parameters['dtype']}, {case.spec}"
    command = ["lcmulti certify", result.backend]
    if subject is not None and subject.implementation != AUTO:
        command += ["--implementation", subject.implementation]
    if result.device is not None:
        command += ["--device", result.device]
    if examples.seed or examples.number > CI[0]:
        command += ["--seed", str(examples.seed)]
    if examples.number > CI[0]:
        command += ["--nightly"]
    command += ["--check", getattr(item, "originalname", item.name)]
    if case is not None:
        command += ["-k", f"{case.name}-{parameters['dtype']}"]
    return "\n".join([*lines, " ".join(command)])
