"""The pytest plugin of the suite: it parametrises checks and collects their outcomes.

It is an object that is passed to `pytest.main`, not an entry point: installing lcmulti must not
change anybody's test runs.

What a record excludes, or an implementation declines, is left out at collection and counted with
its reason. Nothing of the core is ever left out for ``auto``, and a check of the core that skips
itself counts as failed.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from lcmulti import plugins
from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.asked import WHOLE, Share
from lcmulti.conformance.certify.collected import (
    Drawn,
    Rows,
    again,
    order,
    rows_of,
    sample,
    shared,
    subject_of,
)
from lcmulti.conformance.certify.frameworks import forget, wide
from lcmulti.conformance.certify.probe import Probes, can_measure
from lcmulti.conformance.certify.random_geometries import Examples
from lcmulti.conformance.certify.result import Failure, Result
from lcmulti.conformance.certify.subject import AUTO, CORE_DTYPE, Subject

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
        Module and name of every check. A check that pytest does not collect counts as not run.
    examples : Examples
        The number of random examples of each property, and their seed.
    names : sequence of str, optional
        Only these implementations; None for ``auto`` and all implementations of the backend.
    once : bool, default False
        Run no further checks of an implementation that has failed one.
    quick : bool, default False
        Run only a few of the calls of each check and each implementation.
    share : Share
        The part of the checks that this process makes.
    """

    def __init__(
        self,
        result: Result,
        expected: set[tuple[str, str]],
        examples: Examples,
        names: Sequence[str] | None = None,
        once: bool = False,
        quick: bool = False,
        share: Share = WHOLE,
    ) -> None:
        self.result, self.drawn = result, examples
        self.share, self.sizes, self.collected = share, (0,) * share.of, ""
        self.missing = set(expected)
        chosen = names is not None
        if names is None:
            names = [e.name for e in plugins.registry().implementations_of(result.backend)]
        self.named = [Subject(result.backend, name, result.device) for name in names]
        if not chosen:
            self.named = [each for each in self.named if self._serves_here(each)]
        self.auto = Subject(result.backend, AUTO, result.device)
        self.subjects = self.named if chosen else [self.auto, *self.named]
        self.once, self.wrong = once, set[Subject]()
        self.quick, self.is_interrupted, self.has_frozen = quick, False, False
        implementations = tuple(each.implementation for each in self.subjects)
        self.measured = Probes(result.backend, implementations)
        self.core: set[str] = set()
        self.pending: set[str] = set()
        self.finished = 0

    @pytest.fixture
    def examples(self) -> Examples:
        """The examples of each property."""
        return self.drawn

    @pytest.fixture
    def backend(self) -> Subject:
        """The backend, whichever implementation serves."""
        return self.auto

    @pytest.fixture
    def probes(self) -> Probes:
        """Measurements that are costly to start and are made for all subjects together."""
        return self.measured

    @pytest.fixture(autouse=True)
    def precision(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """A context in which the framework has the dtype of the check."""
        parameters = getattr(getattr(request.node, "callspec", None), "params", {})
        with wide(self.result.backend, parameters.get("dtype", CORE_DTYPE)):
            yield

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """``subject`` includes ``auto``, ``named`` does not; ``case`` goes with ``dtype``."""
        named = "named" in metafunc.fixturenames
        of_subject = named or "subject" in metafunc.fixturenames
        names = ["named" if named else "subject"] if of_subject else []
        rows = rows_of(metafunc.definition, self.result.backend, self.drawn)
        if rows is not None:
            names += ["case", "dtype"]
        if not names:
            return
        needed = metafunc.definition.get_closest_marker("capabilities")
        left_out: list[str] = []
        values, ids = [], []
        for subject in (self.named if named else self.subjects) if of_subject else (None,):
            own = (subject,) if subject is not None else ()
            if (
                subject is None
                or (reason := subject.lacking(needed.args if needed else ())) is None
            ):
                for case, dtype in self._served(subject, rows, left_out):
                    parts = (case, dtype) if case is not None else ()
                    values.append((*own, *parts))
                    ids.append("-".join(map(str, (*own, *((case.name, dtype) if case else ())))))
            else:
                left_out += [reason] * (len(rows) if isinstance(rows, list) else 1)
        if not values:  # pytest counts this one as skipped
            skip = pytest.mark.skip(reason=left_out.pop() if left_out else "no implementation")
            values, ids = [pytest.param(*(None,) * len(names), marks=skip)], ["none"]
        self.result.skipped.update(left_out)
        metafunc.parametrize(names, values, ids=ids)

    def _served(
        self, subject: Subject | None, rows: Rows | None, left_out: list[str]
    ) -> Iterator[tuple[Case | None, str]]:
        """The *rows* that are served. The reasons why others are not are added to *left_out*."""
        if rows is None:
            yield None, ""
            return
        count = 0
        for case, dtype in rows:
            if isinstance(rows, Drawn) and count == rows.examples.calls:
                return
            reason = None if subject is None else self._left_out(subject, case, dtype)
            if reason is None:
                count += 1
                yield case, dtype
            elif not isinstance(rows, Drawn):
                left_out.append(reason)

    def _serves_here(self, subject: Subject) -> bool:
        try:
            reason = subject.not_here()
        except Exception:  # third-party code: the checks will meet the error again, and fail
            return True
        self.result.skipped.update([] if reason is None else [f"{subject}: {reason}"])
        return reason is None

    @staticmethod
    def _left_out(subject: Subject, case: Case, dtype: str) -> str | None:
        if subject.implementation == AUTO and dtype == CORE_DTYPE:
            return None  # if it does not serve this case, the check fails
        try:
            return subject.refusal(case, dtype)
        except Exception:  # third-party code: the check will meet the error again, and fail
            return None

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note that the check is collected; it may still be deselected."""
        self.missing.discard((item.path.name, getattr(item, "originalname", item.name)))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sort checks by geometry and dtype, so that what is compiled serves all of them."""
        items.sort(key=order)
        if self.quick:
            kept = sample(items)
            self.result.not_run += len(items) - len(kept)
            items[:] = kept
        shares = shared(items, self.share.of)
        self.sizes = tuple(map(len, shares))
        self.collected = sha256("\n".join(each.nodeid for each in items).encode()).hexdigest()
        items[:] = shares[self.share.number - 1]
        if self.share.number != 1:  # the first process counts what is left out
            self.result.not_run = 0
            self.result.skipped.clear()
            self.missing.clear()

    def pytest_keyboard_interrupt(self) -> None:
        """Pytest ends normally when it is interrupted; the caller must know."""
        self.is_interrupted = True

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which checks are to run, and which of them are of the core."""
        is_run = not session.config.option.collectonly
        for item in session.items:
            parameters = getattr(getattr(item, "callspec", None), "params", {})
            core = item.get_closest_marker("core") is not None
            if core and parameters.get("dtype", CORE_DTYPE) == CORE_DTYPE:
                self.core.add(item.nodeid)
            self.pending.add(item.nodeid)
            measured = item.get_closest_marker("measured")
            if measured is not None and is_run and can_measure():
                self.measured.begin(*measured.args)
        # Each garbage collection would look through thousands of checks, none of which is garbage.
        self.has_frozen = gc.get_freeze_count() == 0
        if self.has_frozen:
            gc.freeze()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count a module that cannot be collected as a failure."""
        if report.failed:
            self.result.failures.append(Failure(report.nodeid, str(report.longrepr)))

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Skip a check of an implementation that has failed, if one failure is enough."""
        return True if self.once and subject_of(item) in self.wrong else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add to a failure the call, and the command that repeats it."""
        report = yield
        if report.failed:
            if (subject := subject_of(item)) is not None:
                self.wrong.add(subject)
            report.sections.append(("again", again(item, self.result, self.drawn)))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the outcome; a check that fails in any phase has failed."""
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
        again = "".join(f"\n{text}" for name, text in report.sections if name == "again")
        self.result.failures.append(Failure(report.nodeid, message + again))

    def pytest_runtest_logfinish(self) -> None:
        """Drop what was compiled for the checks so far: it would become thousands of functions."""
        self.finished += 1
        if self.finished % CHECKS_BETWEEN_CLEARING == 0:
            forget(self.result.backend)

    def pytest_sessionfinish(self) -> None:
        """A run in which a collected check did not run, for any reason, is incomplete."""
        if self.has_frozen:
            gc.unfreeze()
        self.measured.stop()
        self.result.not_run += len(self.pending) + len(self.missing)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """A run in which checks were deselected is incomplete as well."""
        self.result.not_run += len(items)


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)
