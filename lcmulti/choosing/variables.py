"""Settings in environment variables: ``LCMULTI_`` and the name of a setting, in capitals."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

__all__ = ["Variables"]

PREFIX = "LCMULTI_"
OTHERS = ("LCMULTI_NATIVE_ISA",)
"""Variables of our packages that are no settings."""


class Variables:
    """The environment variables of settings.

    A variable that begins with ``LCMULTI_`` and is none of them is told once, as a warning: it may
    be misspelt. It is no error, as it is in a file of ours, because it may be another program's.

    Parameters
    ----------
    settings : sequence of str
        Names of the settings.
    """

    def __init__(self, settings: Sequence[str]) -> None:
        self.names = tuple(f"{PREFIX}{name.upper()}" for name in settings)
        self._keys = tuple(map(getattr(os.environ, "encodekey", str), self.names))
        self.forget()

    def forget(self) -> None:
        """Tell of unknown variables again."""
        self._count = -1  # of all variables, when they were last looked through
        self._told: set[str] = set()

    def values(self) -> tuple[str | None, ...]:
        """Their values in the order of the settings; None for one that is not set."""
        # Read at every call. `os.environ` itself raises two exceptions for each unset variable.
        held = getattr(os.environ, "_data", None)
        if self._count != len(os.environ if held is None else held):
            self._tell_unknown()
        if held is None:
            return tuple(map(os.environ.get, self.names))
        found = map(held.get, self._keys)
        return tuple(None if raw is None else os.environ.decodevalue(raw) for raw in found)

    def _tell_unknown(self) -> None:
        self._count = len(os.environ)
        known = (*self.names, *OTHERS)
        ours = {name for name in os.environ if name.upper().startswith(PREFIX)}
        for name in sorted(ours - self._told - set(known)):
            self._told.add(name)
            warnings.warn(
                f"the environment variable {name} is no setting of lcmulti and changes nothing; "
                f"{_nearest(name, known)}",
                RuntimeWarning,
                stacklevel=2,
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    # Without the prefix, which all have in common.
    suffixes = {each.removeprefix(PREFIX): each for each in known}
    near = get_close_matches(name.upper().removeprefix(PREFIX), suffixes, cutoff=0.75)
    if near:
        return f"did you mean {' or '.join(suffixes[each] for each in near)}?"
    return f"there are {', '.join(known)}"
