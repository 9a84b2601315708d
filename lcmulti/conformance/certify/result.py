"""The result of a certification: counts, failures and verdict, as text, JSON and a certificate."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Failure", "Result"]


class Failure(NamedTuple):
    """One check that failed.

    Parameters
    ----------
    check : str
        Its id, ``"check_values.py::test_value[numpy-blocked-2d-plain-float32]"``.
    message : str
    """

    check: str
    message: str


@dataclass
class Result:
    """The outcome of `certify`.

    Parameters
    ----------
    backend : str
    implementation : str or None
        The only one that was certified, or None for the backend and all its implementations.
    device : str or None
    arguments : tuple of str
        Further arguments of pytest.
    versions : dict
    seed : int
        Seed of the random examples.
    is_quick : bool
        Whether only a sample of the checks was requested.
    passed, core_passed, not_run : int
        Checks that passed; core checks among them; checks that were collected or deselected and
        did not run.
    failures : list of Failure
    skipped : Counter
        Number of skipped calls by reason.
    seconds : float
    """

    backend: str
    implementation: str | None = None
    device: str | None = None
    arguments: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    is_quick: bool = False
    passed: int = 0
    core_passed: int = 0
    not_run: int = 0
    failures: list[Failure] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Number of checks that failed."""
        return len({failure.check for failure in self.failures})

    @property
    def ok(self) -> bool:
        """Whether it is certified: the whole suite ran and nothing failed."""
        return not self.failures and not self.not_run and self.core_passed > 0

    @property
    def verdict(self) -> str:
        """A summary in one line."""
        name = self.backend
        if self.implementation is not None:
            name += f" with implementation {self.implementation!r}"
        if self.failures:
            return f"{name}: NOT CERTIFIED, {self.failed} checks failed"
        if self.is_quick:
            return f"{name}: nothing wrong in a quick run, which is no certificate"
        if self.not_run:
            return f"{name}: not certified, {self.not_run} checks were not run"
        if not self.core_passed:
            return f"{name}: NOT CERTIFIED, no check of the core was run"
        return f"{name}: CERTIFIED"

    def add(self, other: Result) -> None:
        """Add the counts of other checks of the same run, and their failures."""
        self.passed += other.passed
        self.core_passed += other.core_passed
        self.not_run += other.not_run
        self.failures += other.failures
        self.skipped += other.skipped

    def summary(self) -> str:
        """Counts, reasons of skips, and the verdict."""
        lines = [
            f"{self.passed} passed ({self.core_passed} of the core), {self.failed} failed, "
            f"{self.skipped.total()} skipped, {self.not_run} not run, in {self.seconds:.0f} s, "
            f"seed {self.seed}"
        ]
        lines += [f"  skipped {n:5}  {reason}" for reason, n in self.skipped.most_common()]
        return "\n".join([*lines, self.verdict])

    def to_json(self) -> str:
        """The result as JSON, with the verdict."""
        facts = {"verdict": self.verdict, "ok": self.ok, "failed": self.failed, **vars(self)}
        facts["failures"] = [failure._asdict() for failure in self.failures]
        return json.dumps(facts, indent=2)

    def to_certificate(self) -> str:
        """One page of Markdown: what ran on what, the counts, and the verdict."""
        rows = [
            ("backend", self.backend),
            ("implementation", self.implementation or "auto, and each of its own"),
            ("device", self.device or "where the backend places arrays"),
            ("pytest arguments", " ".join(self.arguments) or "none"),
            ("machine", f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} cores"),
            *self.versions.items(),
            ("seed", str(self.seed)),
            ("passed", f"{self.passed}, of the core {self.core_passed}"),
            ("failed", str(self.failed)),
            ("skipped", str(self.skipped.total())),
            ("not run", str(self.not_run)),
            ("time", f"{self.seconds:.0f} s"),
        ]
        lines = ["# lcmulti conformance", "", f"**{self.verdict}**", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in rows]
        if self.ok:
            lines += ["", "Every value and gradient was held, element by element, to the forward"]
            lines += ["error bound `(n + 2) u (|x| conv |w| + |b|)` around what is exact."]
        if self.skipped:
            lines += ["", "Skipped, and why:", ""]
            lines += [f"- {n}: {reason}" for reason, n in self.skipped.most_common(MOST_SHOWN)]
        if self.failures:
            lines += ["", "Failed:", ""]
            lines += [f"- `{check}`" for check, _ in self.failures[:MOST_SHOWN]]
        for kind in (self.skipped, self.failures):
            if len(kind) > MOST_SHOWN:
                lines.append(f"- and {len(kind) - MOST_SHOWN} more")
        return "\n".join(lines) + "\n"


MOST_SHOWN = 15
"""Largest number of reasons and failures on a certificate, which is one page."""
