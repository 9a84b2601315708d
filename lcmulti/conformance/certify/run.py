"""`certify`: run the suite on one backend."""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import platform
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

import lcmulti
from lcmulti import plugins
from lcmulti.choosing.settings import DEFAULTS, VARIABLES
from lcmulti.conformance.certify.random_geometries import CI, NIGHTLY, QUICK, Examples
from lcmulti.conformance.certify.result import Failure, Result
from lcmulti.errors import (
    ArgumentError,
    Interrupted,
    LcmultiError,
    MissingExtraError,
    described,
)
from lcmulti.geometry.arguments import choice, integer

if TYPE_CHECKING:
    from lcmulti.conformance.certify.plugin import Suite

__all__ = ["certify", "run"]

SUITE = Path(__file__).parent


def certify(
    backend: str,
    *,
    implementation: str | None = None,
    device: str | None = None,
    json: str | Path | None = None,
    junit: str | Path | None = None,
    certificate: str | Path | None = None,
    nightly: bool = False,
    quick: bool = False,
    checks: Sequence[str] = (),
    seed: int | None = None,
    quiet: bool = True,
    arguments: Sequence[str] = (),
) -> Result:
    """Check that a backend and its implementations keep everything that lcmulti promises.

    pytest runs the suite in this process, with its own configuration. Tests, environment and
    settings of the caller have no effect on it, and the other way around. A failed check does not
    raise; it is in the result.

    Parameters
    ----------
    backend : str
        Name of a registered backend.
    implementation : str, optional
        Certify only this one; None for ``auto`` and all implementations of the backend.
    device : {"cpu", "gpu"}, optional
        Where to place the arrays; None for the default of the backend.
    json, junit, certificate : path, optional
        Files to write: everything as JSON, JUnit XML, and one page of Markdown.
    nightly : bool, default False
        10,000 examples of each property and 2,000 random calls, instead of 50 and 200.
    quick : bool, default False
        Run a sample of every check, in under a minute; it certifies nothing.
    checks : sequence of str
        Run only these, by name (``"test_any_call"``); a part certifies nothing.
    seed : int, optional
        Seed of the random examples; None for 0, or a new one with *nightly*. The result has it.
    quiet : bool, default True
        Print nothing.
    arguments : sequence of str
        Further arguments of pytest. A run that they shorten certifies nothing.

    Returns
    -------
    Result
        ``result.ok`` tells whether the backend is certified; ``print(result.summary())``.

    Raises
    ------
    ArgumentError
        If a name is unknown, a file could not be written, or pytest refuses *arguments*.
    MissingBackendError, MissingExtraError
        If the backend's framework, pytest or hypothesis is not installed.
    Interrupted
        If the user interrupts; its ``report`` is the result so far.
    LcmultiError
        If Python runs without assertions (``-O``).

    Examples
    --------
    >>> from lcmulti.conformance import certify
    >>> def test_my_backend():
    ...     assert certify("numpy").ok
    """
    _require_what_it_takes()
    import pytest

    from lcmulti.conformance.certify.frameworks import framework_of, programs_kept
    from lcmulti.conformance.certify.plugin import Suite

    registry = plugins.registry()
    backend = choice("backend", backend, registry.backends)
    if implementation is not None:
        names = [entry.name for entry in registry.implementations_of(backend)]
        implementation = choice("implementation", implementation, names)
    if device is not None:
        device = choice("device", device, ("cpu", "gpu"))
        plugins.placement(backend, device)
    plugins.load_backend(backend)
    for name, path in (("json", json), ("junit", junit), ("certificate", certificate)):
        if path is not None and (not Path(path).parent.is_dir() or Path(path).is_dir()):
            raise ArgumentError(name, "a file in a folder that exists", described(str(path)))

    seed = secrets.randbelow(2**32) if seed is None and nightly else integer("seed", seed or 0, 0)
    examples = Examples(*(NIGHTLY if nightly else QUICK if quick else CI), seed)
    result = Result(
        backend, implementation, device, tuple(arguments), _versions(backend), seed, is_quick=quick
    )
    files = sorted(SUITE.glob("check_*.py"))
    files += sorted(SUITE.glob(f"frameworks/check_{framework_of(backend)}*.py"))
    expected = {(path.name, name): path for path in files for name in _names(path)}
    nodes = [*map(str, files)]
    if checks:
        choice_of = sorted({name for _, name in expected})
        wanted = {choice("checks", each, choice_of) for each in checks}
        nodes = [f"{path}::{name}" for (_, name), path in expected.items() if name in wanted]
    options = [] if junit is None else ["--junit-xml", str(Path(junit).absolute())]
    start = time.perf_counter()
    only = None if implementation is None else [implementation]
    suite = Suite(result, set(expected), examples, start, only, quick=quick)
    with redirect_stdout(io.StringIO()) if quiet else nullcontext(), programs_kept(backend):
        code = run(suite, [*nodes, *options, *arguments])
    result.seconds = time.perf_counter() - start
    if code == pytest.ExitCode.USAGE_ERROR:
        raise ArgumentError("arguments", "arguments of pytest", described(" ".join(arguments)))
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not result.not_run:
        result.failures.append(Failure("pytest", f"ended with {pytest.ExitCode(code)!r}"))
    for path, text in ((json, result.to_json()), (certificate, result.to_certificate())):
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
    if suite.is_interrupted:
        raise Interrupted(result)
    return result


def _require_what_it_takes() -> None:
    for package in ("pytest", "hypothesis"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"certify needs {package}; install it with: pip install 'lcmulti[conformance]'"
            )
    if not __debug__:
        raise LcmultiError(
            "certify is made of assertions, which python -O leaves out; run it without"
        )


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


def _names(path: Path) -> Iterator[str]:
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


def _versions(backend: str) -> dict[str, str]:
    registry = plugins.registry()
    entry = registry.backends[backend]
    origins = [registry.origins[backend]]
    origins += [registry.origins[backend, e.name] for e in registry.implementations_of(backend)]
    return {
        "lcmulti": lcmulti.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        entry.package: plugins.framework_version(entry) or "unknown",
        "plugins": ", ".join(dict.fromkeys(map(str, origins))),
    }
