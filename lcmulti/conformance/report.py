"""The report of `parity`: as data, JSON, JUnit XML and text."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

__all__ = ["REFERENCE", "Absent", "Curve", "Record", "Report", "Skip"]

REFERENCE = "reference"
"""In place of a backend's name: the reference itself, compared with the oracle."""


class Record(NamedTuple):
    """One case on one backend.

    Parameters
    ----------
    case, group, backend : str
        *backend* may be `REFERENCE`.
    implementation : str
        The implementation that served the call.
    fractions : dict
        For the value and each gradient, the largest error of an element relative to its bound.
    worst : str
        A text about the worst of them; empty where nothing was computed.
    problem : str or None
        What is wrong, or None.
    """

    case: str
    group: str
    backend: str
    implementation: str
    fractions: dict[str, float]
    worst: str
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every element of every map is within its bound."""
        return self.problem is None

    @property
    def fraction(self) -> float:
        """The largest of `fractions`; infinite if there are none."""
        return max(self.fractions.values(), default=math.inf)


class Skip(NamedTuple):
    """A case (or all cases) that was skipped on a backend (or on ``"all"``)."""

    case: str
    backend: str
    reason: str


class Absent(NamedTuple):
    """A backend that was not run, and why: it is not installed, or its plugin is broken."""

    backend: str
    reason: str


class Curve(NamedTuple):
    """One training run.

    Parameters
    ----------
    backend : str
    losses : list of float
        Mean cross-entropy of each batch, before its step.
    accuracy : float
        Accuracy on the test images.
    fraction : float
        Largest distance from the float64 curve, relative to the largest that rounding can cause.
    problem : str or None
    """

    backend: str
    losses: list[float]
    accuracy: float
    fraction: float
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the curve coincides with the float64 one and the test accuracy is reached."""
        return self.problem is None


@dataclass
class Report:
    """The outcome of `parity`.

    Parameters
    ----------
    dtype : str
    versions : dict
        Of lcmulti, Python and each framework that was run.
    records : list of Record
    skips : list of Skip
    absent : list of Absent
    training : list of Curve
    interrupted : bool
    """

    dtype: str
    versions: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    training: list[Curve] = field(default_factory=list)
    interrupted: bool = False

    @property
    def misses(self) -> list[Record | Curve]:
        """Every record and curve that failed."""
        return [each for each in self._checks if not each.ok]

    @property
    def ok(self) -> bool:
        """Whether at least one backend was checked completely, and nothing failed."""
        return self.backends not in ([], [REFERENCE]) and not (self.misses or self.interrupted)

    @property
    def backends(self) -> list[str]:
        """Names of backends with a record or a curve, in the order of the run."""
        return list(dict.fromkeys(each.backend for each in self._checks))

    @property
    def _checks(self) -> list[Record | Curve]:
        return [*self.records, *self.training]

    def verdict(self) -> str:
        """A summary in one line."""
        parts = [f"{len(self.records)} checks of {len({r.case for r in self.records})} cases"]
        parts += [f"{len(self.training)} training runs"] if self.training else []
        what = " and ".join(parts) + f" on {', '.join(self.backends) or 'no backend'}"
        count = len(self.misses)
        misses = f"{count} miss" if count == 1 else f"{count} misses"
        if self.interrupted:
            return f"INTERRUPTED after {what}: {misses} so far"
        if self.misses:
            return f"FAIL: {misses} in {what}"
        return f"PASS: {what}, all within the bound" if self.ok else "FAIL: no backend was checked"

    def to_json(self) -> str:
        """The whole report as JSON; numbers that are not finite become null."""
        content = {
            **asdict(self),
            "records": [{**each._asdict(), "ok": each.ok} for each in self.records],
            "skips": [each._asdict() for each in self.skips],
            "absent": [each._asdict() for each in self.absent],
            "training": [{**each._asdict(), "ok": each.ok} for each in self.training],
            "ok": self.ok,
            "verdict": self.verdict(),
        }
        return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"

    def to_junit(self) -> str:
        """JUnit XML: one test case for each record, skip and training run."""
        misses, skips = len(self.misses), len(self.skips)
        count = len(self.records) + len(self.training) + skips
        suite = ET.Element(
            "testsuite", name="lcmulti.parity", tests=str(count), failures=str(misses),
            errors=str(int(self.interrupted)), skipped=str(skips),
        )  # fmt: skip
        rows = [(r.backend, r.case, r.problem) for r in self.records]
        rows += [(c.backend, "training", c.problem) for c in self.training]
        for backend, name, problem in rows:
            test = ET.SubElement(suite, "testcase", classname=f"parity.{backend}", name=name)
            if problem is not None:
                ET.SubElement(test, "failure", message=_xml(problem))
        for skip in self.skips:
            test = ET.SubElement(
                suite, "testcase", classname=f"parity.{skip.backend}", name=skip.case
            )
            ET.SubElement(test, "skipped", message=_xml(skip.reason))
        ET.indent(suite)
        return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _finite(value: object) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _xml(text: str) -> str:
    """*text* without the control characters that XML does not allow."""
    return "".join(c if c.isprintable() else " " for c in text)
