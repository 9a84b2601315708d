"""One run of pytest over the suite, or over a share of it, in this process."""

from __future__ import annotations

import ast
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import lcmulti
from lcmulti.choosing.settings import DEFAULTS, VARIABLES
from lcmulti.conformance.certify.asked import WHOLE, Asked, Share
from lcmulti.conformance.certify.result import Failure, Result
from lcmulti.errors import ArgumentError, described

if TYPE_CHECKING:
    from lcmulti.conformance.certify.plugin import Suite

__all__ = ["SUITE", "Asked", "Outcome", "checks_in", "make", "run"]

SUITE = Path(__file__).parent


@dataclass
class Outcome:
    """What came of a share of the checks.

    Parameters
    ----------
    result : Result
    collected : str
        A digest of the ids of all checks, those of other shares among them.
    sizes : tuple of int
        Number of checks in each share.
    is_interrupted : bool
    said : str
        What pytest has printed, if it was not to print.
    """

    result: Result
    collected: str
    sizes: tuple[int, ...]
    is_interrupted: bool
    said: str


def make(asked: Asked, share: Share = WHOLE) -> Outcome:
    """Make a share of the checks in this process.

    Raises
    ------
    ArgumentError
        If pytest refuses an argument.
    """
    import pytest

    from lcmulti.conformance.certify.frameworks import programs_kept
    from lcmulti.conformance.certify.plugin import Suite

    result = Result(
        asked.backend, asked.implementation, asked.device, asked.arguments, asked.versions,
        asked.examples.seed, is_quick=asked.quick,
    )  # fmt: skip
    only = None if asked.implementation is None else [asked.implementation]
    suite = Suite(result, set(asked.expected), asked.examples, only, quick=asked.quick, share=share)
    options = [] if asked.junit is None else ["--junit-xml", asked.junit]
    said = io.StringIO()
    hidden = redirect_stdout(said) if asked.quiet else nullcontext()
    with hidden, programs_kept(asked.backend):
        code = run(suite, [*asked.nodes, *options, *asked.arguments])
    if code == pytest.ExitCode.USAGE_ERROR:
        given = described(" ".join(asked.arguments))
        raise ArgumentError("arguments", "arguments of pytest", given)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not result.not_run:
        result.failures.append(Failure("pytest", f"ended with {pytest.ExitCode(code)!r}"))
    return Outcome(result, suite.collected, suite.sizes, suite.is_interrupted, said.getvalue())


def run(suite: Suite, arguments: Sequence[str]) -> int:
    """Run pytest with the configuration of the suite only."""
    import pytest

    # Workers of xdist are other processes, which would not have the plugin object. Failures of
    # another run must not influence this one.
    command = ["-c", str(SUITE / "pytest.ini"), "--rootdir", str(SUITE), "--noconftest"]
    command += ["-p", "no:xdist", "-p", "no:cacheprovider"]
    with _undisturbed():
        # Resolve paths first: pytest would resolve them against another folder.
        return int(pytest.main([*command, *arguments], plugins=[suite]))


def checks_in(path: Path) -> Iterator[str]:
    """Names of the checks in a module, independent of what pytest is told to collect."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Default settings, without pytest options and plugins from the environment."""
    with (
        lcmulti.config(**DEFAULTS._asdict()),
        mock.patch.dict(os.environ, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
    ):
        for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", *VARIABLES):
            os.environ.pop(name, None)
        yield
