"""The error for a file in which it is unclear which array belongs to which layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lcmulti.errors import FileError

__all__ = ["ORDER", "ambiguous"]

MOST_SHOWN = 4
NAMES = (
    "Give the layers the names they have in the file; automatic names are the same in a new "
    "process, or after keras.utils.clear_session()"
)
ORDER = (
    "On PyTorch, or where an attribute was set twice, it cannot be seen which attributes were set "
    "first: load on another of Keras' backends, save as .weights.h5 and load that with "
    "load_weights; or load a .h5 file, in which layers have names"
)


def ambiguous(
    refuse: Callable[[str], FileError],
    theirs: Sequence[str],
    ours: Sequence[str],
    edges: Sequence[set[int]],
    way_out: str = NAMES,
) -> FileError:
    """Make an error that lists, for each layer of the file that fits several layers, which ones.

    Parameters
    ----------
    refuse : callable
        Makes the error.
    theirs, ours : sequence of str
        Names in the file and in the model.
    edges : sequence of set of int
        For each of *theirs*, which of *ours* it fits.
    way_out : str
        Advice for the user.
    """
    found: dict[str, str] = {}
    for name, each in zip(theirs, edges, strict=True):
        fitting = dict.fromkeys(ours[i] for i in sorted(each))
        if len(fitting) > 1:
            found.setdefault(name, _listed(fitting))
    shown = [f"{name or 'an array without a name'} fits {fits}" for name, fits in found.items()]
    more = f"; and {len(shown) - MOST_SHOWN} more" if len(shown) > MOST_SHOWN else ""
    return refuse(
        "does not tell which weights go to which of several layers of one shape: "
        f"{'; '.join(shown[:MOST_SHOWN])}{more}. {way_out}"
    )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" or {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return f"{', '.join(names[:MOST_SHOWN])}{more}"
