"""The cost of untying a network's convolutions: reported, and checked, before it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from textwrap import wrap

from lcmulti.errors import ArgumentTypeError, TooLargeError, described
from lcmulti.geometry.arguments import byte_size
from lcmulti.memory import memory_for

__all__ = ["Row", "Untying", "human"]

SHOWN = 5
"""How many layers a message names where there are more."""


@dataclass(frozen=True)
class Row:
    """One convolution and the layer that replaces it.

    Parameters
    ----------
    name : str
    kind : str
        Class of the convolution.
    window, positions : tuple of int
        Kernel size, and the size of the grid of positions that have weights of their own: output
        positions, or input positions of a transposed convolution.
    before, after : int
        Number of parameters.
    itemsize : int
        Bytes of one parameter.
    """

    name: str
    kind: str
    window: tuple[int, ...]
    positions: tuple[int, ...]
    before: int
    after: int
    itemsize: int


@dataclass(frozen=True)
class Untying:
    """What `untie` does to a network, layer by layer; ``str`` and ``print`` give a table.

    Parameters
    ----------
    rows : tuple of Row
    left : tuple of (str, str)
        Convolutions that stay as they are, and why.
    """

    rows: tuple[Row, ...]
    left: tuple[tuple[str, str], ...] = field(default=())

    @property
    def parameters(self) -> tuple[int, int]:
        """Number of parameters of all layers that change, before and after."""
        return sum(row.before for row in self.rows), sum(row.after for row in self.rows)

    @property
    def bytes(self) -> tuple[int, int]:
        """The same in bytes."""
        before = sum(row.before * row.itemsize for row in self.rows)
        return before, sum(row.after * row.itemsize for row in self.rows)

    def __str__(self) -> str:
        (before, after), (_, size) = self.parameters, self.bytes
        table = [("layer", "window", "positions", "before", "after", "memory")]
        table += [
            (_short(row.name, 28), _by(row.window), _by(row.positions), _count(row.before),
             _count(row.after), human(row.after * row.itemsize))
            for row in self.rows
        ]  # fmt: skip
        table.append(("total", "", "", _count(before), _count(after), human(size)))
        wide = max(len(line[0]) for line in table)
        lines = [
            f"{name:{wide}} {window:>8} {positions:>11} {one:>9} {other:>9} {memory:>10}".rstrip()
            for name, window, positions, one, other, memory in table
        ]
        lines.append(f"Weights take {human(size)}; with gradients and Adam's two moments")
        lines[-1] += f" {human(4 * size)}."
        for name, why in self.left:
            left = f"left as it is: {_short(name, 28)} ({why})"
            lines += wrap(left, 80, subsequent_indent="  ", break_on_hyphens=False)
        return "\n".join(lines)

    def announce(self, tell: Callable[[str], object] | None, memory: object) -> None:
        """Tell the table before anything is made; raise if that takes too much."""
        if tell is not None and not callable(tell):
            raise ArgumentTypeError("tell", "a function that takes the table, or None", tell)
        if tell is not None:
            tell(str(self))
        self.require(memory)

    def require(self, memory: object) -> None:
        """Raise if the weights take more than *memory* bytes (None: the memory of this machine).

        Raises
        ------
        TooLargeError
            Names the layers that cost most. Nothing has been made yet.
        """
        size = self.bytes[1]
        limit = memory_for((), "float32")[1] if memory is None else byte_size("memory", memory)
        if size <= limit:
            return
        most = sorted(self.rows, key=lambda row: row.after * row.itemsize, reverse=True)[:SHOWN]
        shown = ", ".join(f"{row.name} ({human(row.after * row.itemsize)})" for row in most)
        what = "the limit" if memory is not None else "the memory this machine has"
        raise TooLargeError(
            "memory",
            f"weights of no more than {human(limit)}, {what}",
            described(
                f"{human(size)}, most of it in {shown}; leave layers out with where=, share an "
                "axis with shared_axes=, or take low-rank weights with rank="
            ),
        )


def human(size: float) -> str:
    """A number of bytes for people to read, ``"12.3 MiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**7 else f"{number / 1e6:,.1f} M"


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else "..." + name[3 - most :]
