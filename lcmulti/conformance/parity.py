"""`parity`: every installed backend against the reference, and the reference against the oracle."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lcmulti
from lcmulti import plugins
from lcmulti.conformance import oracle
from lcmulti.conformance.bounds import Expected, bounds, compare, dot_bound, expect, terms
from lcmulti.conformance.calls import MAPS, BackendRunner, Inputs, Results
from lcmulti.conformance.case import Case
from lcmulti.conformance.cases import select
from lcmulti.conformance.inputs import draw, from_file, numpy_dtype
from lcmulti.conformance.report import REFERENCE, Absent, Curve, Record, Report, Skip
from lcmulti.conformance.training import TWINS, Exact, Single, Twin, Yardstick, judged, train
from lcmulti.dtypes import DTYPES
from lcmulti.errors import (
    ArgumentError,
    Interrupted,
    MissingBackendError,
    TooLargeError,
    described,
)
from lcmulti.geometry.arguments import byte_size, choice
from lcmulti.types import Array
from lcmulti.untying import human

__all__ = ["MEMORY", "Progress", "parity"]

MEMORY = "2GiB"
ORACLE_PRODUCTS = 10_000
"""Up to this many products in a forward pass, the reference is compared with the loops."""


class Progress(NamedTuple):
    """The progress of `parity`: *done* steps of *total*, and a text about the next one."""

    done: int
    total: int
    text: str


def parity(
    backends: Iterable[str] | None = None,
    cases: Iterable[str] | None = None,
    dtype: str = "float32",
    memory: int | str = MEMORY,
    input: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    training: bool = True,
) -> Report:
    """Check that every element of every backend's results is within its forward error bound.

    The value and all gradients of each case are computed by `lcmulti.local_conv` and the backend's
    own differentiation, and compared with the float64 reference on the same inputs. In small cases
    the reference itself is compared with an independent oracle in extended precision. Then a
    classifier of handwritten digits is trained on every backend (in float32), and the loss curves
    are compared.

    Parameters
    ----------
    backends : iterable of str, optional
        Names of backends; None for all that are installed.
    cases : iterable of str, optional
        Names, globs or groups (``docs``, ``workloads``, ``traps``). None for all; with *input*,
        None for the case of *input* only.
    dtype : str, default "float32"
        The dtype to compute in. A backend without it is skipped, and the report says so.
    memory : int or str, default "2GiB"
        Cases whose arrays are estimated to take more bytes are skipped, and the report says so.
        Memory that the frameworks hold for themselves is not counted.
    input : path, optional
        A ``.npy`` file with an array ``(N, *size, C)``, for one more case with window 3 and 8
        filters.
    progress : callable, optional
        Called with a `Progress` before each step.
    training : bool, default True
        Whether to train the classifier.

    Returns
    -------
    Report
        ``report.ok`` tells whether all checks passed; ``report.misses`` lists those that failed.

    Raises
    ------
    ArgumentError
        If a name is unknown, or *input* cannot be read.
    MissingBackendError
        If a named backend is not installed, or an installed one is broken.
    TooLargeError
        If a case within the *memory* limit finds no room on this machine.
    Interrupted
        If the user interrupts; its ``report`` holds what was done.

    Examples
    --------
    >>> from lcmulti.conformance import parity
    >>> assert parity(backends=["numpy"], cases=["docs"], training=False).ok
    """
    dtype = choice("dtype", dtype, DTYPES)
    kind = numpy_dtype(dtype)
    limit = byte_size("memory", memory)
    own = None if input is None else from_file(input, dtype)
    chosen = list(select(cases)) if own is None or cases is not None else []
    drawn = [(case, None) for case in chosen] + ([] if own is None else [own])
    report = Report(dtype)
    runners = _runners(backends, report)
    lacking = {runner.name: reason for runner in runners if (reason := runner.lacks(kind))}
    report.skips += [Skip("every case", name, reason) for name, reason in lacking.items()]
    able = [runner for runner in runners if runner.name not in lacking]
    total = len(drawn) * (1 + len(able)) + training * (1 + TWINS + len(runners))
    steps = _Steps(progress, total)
    try:
        for case, x in drawn:
            _check(case, x, able, limit, report, steps)
        if training:
            _train(runners, report, steps)
    except KeyboardInterrupt:
        report.interrupted = True
        raise Interrupted(report) from None
    return report


class _Steps:
    """Counts steps, and reports each one before it begins."""

    def __init__(self, tell: Callable[[Progress], None] | None, total: int) -> None:
        self.tell, self.total, self.done = tell, total, 0

    def __call__(self, text: str, count: int = 1) -> None:
        if self.tell is not None:
            self.tell(Progress(self.done, self.total, text))
        self.done += count


def _runners(names: Iterable[str] | None, report: Report) -> list[BackendRunner]:
    """Load the requested backends, or all; record versions and what is absent."""
    registry = plugins.registry()
    if isinstance(names, str):
        names = (names,)
    wanted = None
    if names is not None:
        wanted = list(dict.fromkeys(choice("backends", n, registry.backends) for n in names))
        if not wanted:
            known = ", ".join(map(repr, registry.backends))
            raise ArgumentError("backends", f"at least one of {known}", described("none"))
    order = registry.backends if wanted is None else wanted
    report.versions |= {"lcmulti": lcmulti.__version__, "python": platform.python_version()}
    runners = {}
    # In reverse order, because PyTorch must be imported before TensorFlow.
    for name in sorted(order, reverse=True):
        entry = registry.backends[name]
        if wanted is None and not plugins.is_installed(entry):
            report.absent.append(Absent(name, f"not installed; install it with: {entry.install}"))
            continue
        try:
            runners[name] = BackendRunner(name)
        except MissingBackendError as error:
            if wanted is not None:
                raise
            report.records.append(Record("import", "backend", name, "", {}, "", str(error)))
            continue
        report.versions[entry.package] = plugins.framework_version(entry) or "unknown"
    if wanted is None:
        found = registry.errors.items()
        report.absent += [Absent(str(origin), f"broken: {error}") for origin, error in found]
    return [runners[name] for name in order if name in runners]


def _check(
    case: Case,
    x: Array,
    runners: Sequence[BackendRunner],
    limit: int,
    report: Report,
    steps: _Steps,
) -> None:
    """Check one case on every backend; the reference is computed once."""
    needed = case.memory(report.dtype)
    if needed > limit:
        steps(case.name, 1 + len(runners))
        reason = f"takes {human(needed)}, over memory={human(limit)} (--memory)"
        report.skips.append(Skip(case.name, "all", reason))
        return
    steps(f"{case.name}: {REFERENCE}")
    try:
        inputs = draw(case, report.dtype, x)
        expected = expect(case, inputs)
        if case.products <= ORACLE_PRODUCTS:
            report.records.append(_reference_record(case, inputs, expected))
        limits, kind = bounds(case, expected, inputs.bias, report.dtype), inputs.x.dtype
    except MemoryError as error:
        raise TooLargeError(
            "memory",
            "a limit that skips what does not fit here, as --memory 256MiB does",
            described(f"{limit:,} bytes, and none left for case {case.name!r} ({error})"),
        ) from error
    for runner in runners:
        steps(f"{case.name}: {runner.name}")
        try:
            results = runner.results(case, inputs)
        except Exception as error:  # a failing backend is a result, and the run goes on
            problem = f"{type(error).__name__}: {error}"
            report.records.append(
                Record(case.name, case.group, runner.name, runner.implementation, {}, "", problem)
            )
            continue
        report.records.append(
            _record(case, runner.name, runner.implementation, kind, results, expected, limits)
        )


def _record(
    case: Case,
    backend: str,
    implementation: str,
    dtype: np.dtype,
    results: Results,
    expected: Expected,
    limits: Results,
) -> Record:
    """Compare container, shape and dtype, then values."""
    fractions, worst, problems = {}, (-1.0, ""), []
    shapes = [array.shape if array is not None else None for array in expected.values]
    for name, got, shape, value, bound in zip(
        MAPS, results, shapes, expected.values, limits, strict=True
    ):
        if value is None:
            continue
        wanted = f"ndarray {shape} {dtype}"
        came = f"{type(got).__name__} {getattr(got, 'shape', '')} {getattr(got, 'dtype', '')}"
        if came != wanted:
            problems.append(f"{name}: expected {wanted}, got {came}")
            continue
        deviation = compare(got, value, bound)
        where = f"{name} off by {deviation.error:.3g} at {deviation.place}"
        fractions[name] = deviation.fraction
        worst = max(worst, (deviation.fraction, where))
        if not deviation.ok:
            problems.append(f"{where}, {deviation.fraction:.3g} times its bound")
    problems += _undocumented(case, shapes[0])
    problem = "; ".join(problems) or None
    return Record(case.name, case.group, backend, implementation, fractions, worst[1], problem)


def _undocumented(case: Case, shape: Any) -> Iterator[str]:
    """Compare shape and number of parameters with the documentation."""
    if case.documented is None:
        return
    wanted, parameters = case.documented
    if (None, *shape[1:]) != wanted:
        yield f"documented output shape {wanted}, got {(None, *shape[1:])}"
    if case.spec.num_parameters != parameters:
        yield f"documented parameters {parameters:,}, got {case.spec.num_parameters:,}"


def _reference_record(case: Case, inputs: Inputs, expected: Expected) -> Record:
    """Compare the reference in double precision with the oracle; both have a bound."""
    is_complex = np.iscomplexobj(inputs.x)
    unit = DTYPES["float64"].roundoff + oracle.roundoff()
    count = terms(case.spec, case.batch, case.bias_shape)
    limits = Results(
        *(
            None if size is None else dot_bound(n, size, unit, is_complex)
            for n, size in zip(count, expected.magnitudes, strict=True)
        )
    )
    exact = oracle.results(inputs.x, inputs.kernel, inputs.bias, inputs.dy, case.spec)
    return _record(
        case, REFERENCE, "oracle", expected.values.forward.dtype, expected.values,
        Expected(Results(*exact), expected.magnitudes), limits,
    )  # fmt: skip


def _train(runners: Sequence[BackendRunner], report: Report, steps: _Steps) -> None:
    """Train in float64, then its twins, then every backend."""
    steps("training: reference in float64")
    exact = train(Exact())
    twins = []
    for seed in range(TWINS):
        steps(f"training: reference with full-size rounding, {seed + 1} of {TWINS}")
        twins.append(train(Twin(seed)))
    yardstick = Yardstick.of(exact, twins)
    report.training.append(judged(REFERENCE, exact, yardstick))
    for runner in runners:
        steps(f"training: {runner.name}")
        try:
            run = train(Single(runner))
        except Exception as error:  # as for a case
            problem = f"{type(error).__name__}: {error}"
            report.training.append(Curve(runner.name, [], 0.0, math.inf, problem))
            continue
        report.training.append(judged(runner.name, run, yardstick))
