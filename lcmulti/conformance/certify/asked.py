"""What one run of the suite is asked to do: by its caller, and as one of several shares."""

from __future__ import annotations

from typing import NamedTuple

from lcmulti.conformance.certify.random_geometries import Examples

__all__ = ["WHOLE", "Asked", "Share"]


class Share(NamedTuple):
    """One of several shares of the checks: of three, the first is ``Share(1, 3)``."""

    number: int
    of: int


WHOLE = Share(1, 1)


class Asked(NamedTuple):
    """What the caller of `certify` asked for, with names checked.

    Parameters
    ----------
    backend : str
    implementation : str or None
        Only this one; None for ``auto`` and all of the backend.
    device : str or None
    versions : dict
        Versions of what takes part, for the result.
    expected : frozenset of (str, str)
        Module and name of every check of the suite.
    nodes : tuple of str
        What pytest is told to collect.
    examples : Examples
    quick, quiet : bool
    junit : str or None
        A file to write.
    arguments : tuple of str
        Further arguments of pytest.
    """

    backend: str
    implementation: str | None
    device: str | None
    versions: dict[str, str]
    expected: frozenset[tuple[str, str]]
    nodes: tuple[str, ...]
    examples: Examples
    quick: bool
    quiet: bool
    junit: str | None
    arguments: tuple[str, ...]
