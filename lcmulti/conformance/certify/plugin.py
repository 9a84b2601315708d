"""The suite as pytest runs it: what each check is parametrised by, and what came of it.

An object handed to `pytest.main`, not an entry point: installing lcmulti changes nobody's tests.

What a record declares, or an implementation declines, is left out when checks are collected and
counted with its reason. Nothing of the core is ever left out for ``auto``, and a check of the
core that skips itself has failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lcmulti import plugins
from lcmulti.conformance.certify.frameworks import forget, wide
from lcmulti.conformance.certify.geometries import GEOMETRIES
from lcmulti.conformance.certify.random_geometries import Examples
from lcmulti.conformance.certify.result import Failure, Result
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject
from lcmulti.dtypes import DTYPES

__all__ = ["Suite"]

CHECKS_BETWEEN_CLEARING = 100
SUITE = Path(__file__).resolve().parent


class Suite:
    """Pytest plugin: parametrises the checks for one backend and counts their outcomes.

    Parameters
    ----------
    result : Result
        Filled in as the checks run.
    expected : set of (str, str)
        Module and name of every check; one that pytest does not collect was not run.
    examples : Examples
        How many random examples of each property, and which.
    start : float
        `time.perf_counter` at the start.
    """

    def __init__(
        self, result: Result, expected: set[tuple[str, str]], examples: Examples, start: float
    ) -> None:
        self.result, self.drawn, self.start = result, examples, start
        self.missing = set(expected)
        names = [e.name for e in plugins.registry().implementations_of(result.backend)]
        if result.implementation is not None:
            names = [result.implementation]
        self.named = [Subject(result.backend, name, result.device) for name in names]
        if result.implementation is None:
            self.named = [each for each in self.named if self._is_for_the_device(each)]
        self.auto = Subject(result.backend, AUTO, result.device)
        only = result.implementation is not None
        self.subjects = self.named if only else [self.auto, *self.named]
        self.core: set[str] = set()
        self.pending: set[str] = set()
        self.finished = 0

    @pytest.fixture
    def examples(self) -> Examples:
        """Examples of each property."""
        return self.drawn

    @pytest.fixture
    def backend(self) -> Subject:
        """The backend, whichever implementation serves."""
        return self.auto

    @pytest.fixture
    def implementations(self) -> tuple[str, ...]:
        """All that is certified: what is costly to start is measured for them together."""
        return tuple(subject.implementation for subject in self.subjects)

    @pytest.fixture(autouse=True)
    def precision(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """Whatever a framework must be asked for to compute in the dtype of the check."""
        parameters = getattr(getattr(request.node, "callspec", None), "params", {})
        with wide(self.result.backend, parameters.get("dtype", CORE_DTYPE)):
            yield

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """``subject`` counts ``auto`` in, ``named`` does not; ``case`` comes with ``dtype``."""
        names = [n for n in ("subject", "named", "case", "dtype") if n in metafunc.fixturenames]
        geometries = metafunc.definition.get_closest_marker("geometries")
        if not {"subject", "named"} & set(names):
            if geometries is not None:
                rows = _rows(*geometries.args, **geometries.kwargs)
                metafunc.parametrize(("case", "dtype"), [(GEOMETRIES[n], d) for n, d in rows],
                    ids=[f"{n}-{d}" for n, d in rows])  # fmt: skip
            return
        subjects = self.named if "named" in names else self.subjects
        rows = [("", "")]
        if geometries is not None:
            rows = _rows(*geometries.args, **geometries.kwargs)
        names = names[: 3 if geometries is not None else 1]
        names += ["dtype"] if geometries is not None and "dtype" not in names else []
        needed = metafunc.definition.get_closest_marker("capabilities")
        values, ids, left_out = [], [], []
        for subject in subjects:
            for name, dtype in rows:
                reason = subject.lacking(needed.args if needed is not None else ())
                if reason is None and name:
                    reason = self._left_out(subject, name, dtype)
                if reason is not None:
                    left_out.append(reason)
                    continue
                values.append((subject, GEOMETRIES[name], dtype) if name else (subject,))
                ids.append(f"{subject}-{name}-{dtype}" if name else str(subject))
        if not values:  # pytest counts this one as skipped
            skip = pytest.mark.skip(reason=left_out.pop() if left_out else "no implementation")
            values, ids = [pytest.param(*(None,) * len(names), marks=skip)], ["none"]  # type: ignore[list-item]
        self.result.skipped.update(left_out)
        metafunc.parametrize(names, values, ids=ids)

    def _is_for_the_device(self, subject: Subject) -> bool:
        try:
            reason = subject.lacks_device()
        except Exception:  # a stranger's code: the checks themselves will meet it again, and fail
            return True
        self.result.skipped.update([] if reason is None else [f"{subject}: {reason}"])
        return reason is None

    @staticmethod
    def _left_out(subject: Subject, name: str, dtype: str) -> str | None:
        if subject.implementation == AUTO and dtype == CORE_DTYPE:
            return None  # if it does not serve this, it fails
        try:
            return subject.refusal(GEOMETRIES[name], dtype)
        except Exception:  # a stranger's code: the check itself will meet it again, and fail
            return None

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Tick off the check, which may yet be deselected."""
        self.missing.discard((item.path.name, getattr(item, "originalname", item.name)))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """One geometry in one dtype after the other: what is compiled for it serves all checks."""
        items.sort(key=_geometry)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what is to be run, and which of it is the core."""
        for item in session.items:
            parameters = getattr(getattr(item, "callspec", None), "params", {})
            core = item.get_closest_marker("core") is not None
            if core and parameters.get("dtype", CORE_DTYPE) == CORE_DTYPE:
                self.core.add(item.nodeid)
            self.pending.add(item.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be collected is a failure."""
        if report.failed:
            self.result.failures.append(Failure(report.nodeid, str(report.longrepr)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count; a check that fails in any phase has failed."""
        if report.when == "teardown" and report.passed:
            self.pending.discard(report.nodeid)
        if report.failed:
            self._fail(report, _message(report))
        elif hasattr(report, "wasxfail"):
            self._fail(report, f"no check is expected to fail: {report.wasxfail}")
        elif report.skipped and isinstance(report.longrepr, tuple):
            path, _, message = report.longrepr
            reason = message.removeprefix("Skipped: ")
            self.result.skipped[reason] += 1
            if report.nodeid in self.core:
                self._fail(report, f"the core cannot be skipped: {reason}")
            elif not Path(path).resolve().is_relative_to(SUITE):
                self._fail(report, f"skipped by {path}, not by the suite: {reason}")
        elif report.when == "call":
            self.result.passed += 1
            self.result.core_passed += report.nodeid in self.core

    def _fail(self, report: pytest.TestReport, message: str) -> None:
        self.result.failures.append(Failure(report.nodeid, message))

    def pytest_runtest_logfinish(self) -> None:
        """Let go of what was compiled for the checks so far, thousands of functions in the end."""
        self.finished += 1
        if self.finished % CHECKS_BETWEEN_CLEARING == 0:
            forget(self.result.backend)

    def pytest_sessionfinish(self) -> None:
        """What was collected and not run, for whatever reason, makes the run a part of one."""
        self.result.not_run += len(self.pending) + len(self.missing)
        self.result.seconds = time.perf_counter() - self.start

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """What was not selected does so, too."""
        self.result.not_run += len(items)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Counts, reasons and verdict below pytest's own lines."""
        terminalreporter.section(f"lcmulti certify {self.result.backend}")
        terminalreporter.write_line(self.result.summary())


def _geometry(item: pytest.Item) -> tuple[str, str]:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    case = parameters.get("case")
    return ("", "") if case is None else (case.name, parameters["dtype"])


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)


def _rows(
    names: Mapping[str, Any] | Sequence[str],
    others: Sequence[str] = (),
    dtypes: Sequence[str] = tuple(DTYPES),
    computed: bool = False,
) -> list[tuple[str, str]]:
    """Names with dtypes: all in the core's, *others* in every other of *dtypes*.

    With *computed*, only geometries that an implementation receives as they stand.
    """
    rows = [(name, CORE_DTYPE) for name in names]
    rows += [(name, dtype) for dtype in dtypes if dtype != CORE_DTYPE for name in others]
    if computed:
        rows = [(n, d) for n, d in rows if GEOMETRIES[n].spec.computed() == GEOMETRIES[n].spec]
    return rows
