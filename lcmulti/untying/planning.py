"""What untying a network will do: which convolutions, at which size, and what stays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from lcmulti.errors import ArgumentError, described
from lcmulti.untying.table import Row, Untying

__all__ = ["planned"]

Size = tuple[Any, ...]


def planned(
    wanted: Iterable[tuple[str, Any]],
    seen: Mapping[str, Collection[Size]],
    named: bool,
    unfit: Callable[[Any], str | None],
    row: Callable[[str, Any, Size], Row],
    left: Iterable[tuple[str, str]] = (),
) -> tuple[Untying, dict[str, Size]]:
    """The table of what will be done, and the input sizes of the convolutions.

    Parameters
    ----------
    wanted : iterable of (str, module)
        Convolutions by name.
    seen : mapping of str to sizes
        Sizes of all inputs of each.
    named : bool
        Whether the user named these, so that none may be left out silently.
    unfit : callable
        Why a convolution cannot be untied, or None.
    row : callable
        The row of the table, for a convolution and its input size.
    left : iterable of (str, str)
        Others that stay, and why.

    Raises
    ------
    ArgumentError
        If one that the user named cannot be untied, if one has two sizes, or if none can be untied.
    """
    rows, stay, sizes = [], [], {}
    for name, conv in wanted:
        why = unfit(conv) or (None if seen.get(name) else "the example does not reach it")
        if why and named:
            shown = described(f"{name}: {why}")
            raise ArgumentError("where", "convolutions that can be untied", shown)
        if why:
            stay.append((name, why))
            continue
        sizes[name] = _one_size(name, seen[name])
        try:
            rows.append(row(name, conv, sizes[name]))
        except ArgumentError as error:
            raise error.about(f"{name}: {error.argument}") from None
    stay += left
    if not rows:
        shown = described(", ".join(f"{n} ({why})" for n, why in stay) or "none")
        raise ArgumentError("model", "a network with convolutions that the example reaches", shown)
    return Untying(tuple(rows), tuple(stay)), sizes


def _one_size(name: str, seen: Collection[Size]) -> Size:
    """The input size of a convolution; raise if it has two."""
    sizes = set(seen)
    if len(sizes) > 1:
        shown = " and ".join(map(str, sorted(sizes, key=str)))
        raise ArgumentError(
            "model",
            f"convolutions that see one size ({name!r} may be left out with where=)",
            described(f"{name!r}, which is called on {shown}"),
        )
    return sizes.pop()
