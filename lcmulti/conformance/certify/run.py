"""`certify`: run the suite on one backend."""

from __future__ import annotations

import importlib.util
import platform
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import lcmulti
from lcmulti import plugins
from lcmulti.conformance.certify.random_geometries import CI, NIGHTLY, QUICK, Examples
from lcmulti.conformance.certify.result import Result
from lcmulti.conformance.certify.session import SUITE, Asked, checks_in
from lcmulti.errors import Interrupted, LcmultiError, MissingExtraError
from lcmulti.files import require_writable, write_file
from lcmulti.geometry.arguments import choice, integer
from lcmulti.processors import cores

__all__ = ["certify"]

MOST_PROCESSES = 4
"""Used unless more are asked for: each process has the framework in memory."""


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
    processes: int | None = 1,
) -> Result:
    """Check that a backend and its implementations keep everything that lcmulti promises.

    pytest runs the suite with its own configuration. Tests, environment and settings of the caller
    have no effect on it, nor it on them. A failed check does not raise; it is in the result.

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
        Run a sample of every check; it certifies nothing.
    checks : sequence of str
        Run only these, by name (``"test_any_call"``); a part certifies nothing.
    seed : int, optional
        Seed of the random examples; None for 0, or a new one with *nightly*. The result has it.
    quiet : bool, default True
        Print nothing.
    arguments : sequence of str
        Further arguments of pytest. A run that they shorten certifies nothing.
    processes : int, optional
        Number of processes that share the checks. Further ones import the backend by its installed
        plugin. None for one for each core, four at most, if the whole suite runs on a CPU, and
        else one.

    Returns
    -------
    Result
        ``result.ok`` tells whether the backend is certified; ``print(result.summary())``.

    Raises
    ------
    ArgumentError
        If a name or number is not allowed, a file may not be written, or pytest refuses
        *arguments*.
    FileError
        If a file cannot be written after all.
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
    from lcmulti.conformance.certify.frameworks import framework_of
    from lcmulti.conformance.certify.shares import certified_by
    from lcmulti.conformance.certify.subject import device_of

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
        if path is not None:
            require_writable(name, path)
    if processes is None:
        is_whole = not (checks or arguments) and (device or device_of(backend)) == "cpu"
        processes = min(cores(), MOST_PROCESSES) if is_whole else 1

    seed = secrets.randbelow(2**32) if seed is None and nightly else integer("seed", seed or 0, 0)
    files = sorted(SUITE.glob("check_*.py"))
    files += sorted(SUITE.glob(f"frameworks/check_{framework_of(backend)}*.py"))
    expected = {(path.name, name): path for path in files for name in checks_in(path)}
    nodes = [*map(str, files)]
    if checks:
        choice_of = sorted({name for _, name in expected})
        wanted = {choice("checks", each, choice_of) for each in checks}
        nodes = [f"{path}::{name}" for (_, name), path in expected.items() if name in wanted]
    asked = Asked(
        backend, implementation, device, _versions(backend), frozenset(expected), tuple(nodes),
        Examples(*(NIGHTLY if nightly else QUICK if quick else CI), seed), quick, quiet,
        None if junit is None else str(Path(junit).absolute()), tuple(arguments),
    )  # fmt: skip

    def say(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    start = time.perf_counter()
    outcome = certified_by(integer("processes", processes, 1), asked, say)
    result = outcome.result
    result.seconds = time.perf_counter() - start
    say(f"\n{result.summary()}")
    for path, text in ((json, result.to_json()), (certificate, result.to_certificate())):
        if path is not None:
            write_file(path, text)
    if outcome.is_interrupted:
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
