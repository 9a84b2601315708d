"""What `parity` found, as data, as JSON, as JUnit XML and as text."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

__all__ = ["Absent", "Curve", "Record", "Report", "Skip"]


REFERENCE = "reference"
"""In the place of a backend's name: the reference itself, held against the oracle."""


class Record(NamedTuple):
    """One case on one backend.

    Parameters
    ----------
    case, group, backend : str
        *backend* may be `REFERENCE`.
    implementation : str
        What served the call.
    fractions : dict
        For the value and each gradient, the worst element's error over its bound.
    worst : str
        The worst of them and where, to read; empty where nothing was computed.
    problem : str or None
        What is wrong, if anything is.
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
        """The largest of `fractions`; infinite where there is none."""
        return max(self.fractions.values(), default=math.inf)


class Skip(NamedTuple):
    """A case, or every case, that was not run on a backend or (``"all"``) on any."""

    case: str
    backend: str
    reason: str


class Absent(NamedTuple):
    """A backend that was not run, and why: not installed, or its plugin is broken."""

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
        On the test images.
    fraction : float
        Largest distance from the float64 curve over the largest that rounding explains.
    problem : str or None
    """

    backend: str
    losses: list[float]
    accuracy: float
    fraction: float
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the curve coincides and the test accuracy is reached."""
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
        """Everything that is not as it should be."""
        return [each for each in self._checks if not each.ok]

    @property
    def ok(self) -> bool:
        """Whether some backend was checked, to the end, and nothing missed."""
        return self.backends not in ([], [REFERENCE]) and not (self.misses or self.interrupted)

    @property
    def backends(self) -> list[str]:
        """Names with a record or a curve, in the order they were run."""
        return list(dict.fromkeys(each.backend for each in self._checks))

    @property
    def _checks(self) -> list[Record | Curve]:
        return [*self.records, *self.training]

    def verdict(self) -> str:
        """One line."""
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
        """The whole report; numbers that are not finite are null."""
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


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _xml(text: str) -> str:
    """*text* without the control characters XML cannot hold."""
    return "".join(c if c.isprintable() else " " for c in text)
