"""Resources: workspace, peak memory, threads, and forked processes."""

from __future__ import annotations

from itertools import product

import pytest

from lcmulti.conformance.case import Case
from lcmulti.conformance.certify import probe, probe_memory, probe_threads
from lcmulti.conformance.certify.check_entry import PLAIN
from lcmulti.conformance.certify.expectation import expectation_of, without_bias
from lcmulti.conformance.certify.frameworks import TRACING, framework_of
from lcmulti.conformance.certify.geometries import CONTRACT, STATISTICS
from lcmulti.conformance.certify.probe import Probes
from lcmulti.conformance.certify.subject import CORE_DTYPE, Subject
from lcmulti.plugins.contract import Resources

WORKSPACE = (0, 1500, 2**14, 2**20, 2**31, 2**40)
POOLS = (None, 1, 3, 8)
WHOLE = ("2d-window_over_input", "2d-convolution_window_over_input")
"""Geometries in which each of several blocks reaches the whole input."""


@pytest.mark.geometries((*CONTRACT, *WHOLE))
def test_resources_of_every_size(named: Subject, case: Case, dtype: str) -> None:
    """Results are right for any limit of workspace and any number of threads.

    Small limits give many blocks, with borders; a large limit need not fit 31 bits.
    """
    named.require(case, dtype)
    case = without_bias(case)
    if case.spec.computed() != case.spec:
        pytest.skip("not as an implementation receives it")
    known = expectation_of(case, dtype)
    there = known.inputs.each(named.array)
    few = zip(WORKSPACE, (3, 1, None, 8, 3, 1), strict=True)
    every = few if framework_of(named.backend) in TRACING else product(WORKSPACE, POOLS)
    for held, threads in every:
        resources = Resources(held, threads)
        for name, pair in there.operands().items():
            got = named.program(name, case.spec, resources)(*pair)
            value, bound = getattr(known.values, name), getattr(known.limits, name)
            named.verify(f"{name} with {resources}", got, there.x, value, bound)


@pytest.mark.measured("memory")
@pytest.mark.parametrize("dtype", probe_memory.DTYPES_MEASURED)
@pytest.mark.parametrize("name", probe_memory.LARGE)
def test_memory_stays_under_its_ceiling(
    subject: Subject, name: str, dtype: str, probes: Probes
) -> None:
    """Peak memory of each map is at most its result, its `workspace` and some slack.

    The results are also right, and the workspace is within ``max_workspace``.
    """
    subject.require(probe_memory.LARGE[name], dtype)
    if not measurable(subject) or not probe.can_measure():
        pytest.skip("peak memory is measured on a CPU under Linux")
    found = probes.measured("memory")[f"{subject.implementation} {name} {dtype}"]
    assert "error" not in found, found["error"]
    if "refused" in found:
        pytest.skip(f"{subject}: refuses what would take more workspace than it may hold")
    for map_, worst in found["deviations"].items():
        assert worst["fraction"] <= 1, f"{map_}: off by {worst['error']:.3g} at {worst['place']}"
    for names, step in found["steps"].items():
        held, allowed = step["held"], step["allowed"]
        assert held <= allowed, f"{names}: {held:,} bytes held, at most {allowed:,} ({step})"


@pytest.mark.measured("growth")
def test_nothing_piles_up(subject: Subject, probes: Probes) -> None:
    """Memory does not grow over many calls with gradients, each with new values."""
    if not measurable(subject) or not probe.can_measure():
        pytest.skip("memory is measured on a CPU under Linux")
    found = probes.measured("growth")
    if subject.implementation not in found:
        pytest.skip(f"{subject}: declines every geometry of this check")
    grown, most = found[subject.implementation], probe_memory.GROWTH
    assert grown <= most, f"{grown:,.0f} bytes stayed of each call, at most {most:,}"


LEAST = 0.85
"""Share of all processor time that the framework's own threads must have, if one may compute."""


@pytest.mark.measured("threads")
def test_threads_are_no_more_than_allowed(subject: Subject, probes: Probes) -> None:
    """With ``threads=1``, no thread computes beside those that the framework has on one core."""
    if not measurable(subject) or not probe_threads.can_count():
        pytest.skip("threads are counted on a CPU under Linux")
    found = probes.measured("threads")
    if subject.implementation not in found:
        pytest.skip(f"{subject}: declines every geometry of this check")
    for step, share in found[subject.implementation].items():
        assert share >= LEAST, f"{step}: with threads=1 further threads had {1 - share:.0%} of it"


def measurable(subject: Subject) -> bool:
    """Whether measurements of a process are those of the subject."""
    return subject.problem(PLAIN, CORE_DTYPE).device == "cpu"


@pytest.mark.capabilities("fork")
def test_fork_after_use(subject: Subject) -> None:
    """A child process that is forked after the parent has computed computes the same bits."""
    names = [n for n, case in STATISTICS.items() if subject.refusal(case, CORE_DTYPE) is None]
    if not names or not probe.can_fork():
        pytest.skip("nothing to fork")
    found = probe.run("fork", subject.backend, subject.implementation, names[0])
    assert found["same"], f"the forked child: {found['came']}"
