"""Every error lcmulti raises on purpose.

Each class also derives from the built-in a caller would expect, so code that catches
``ValueError`` or ``ImportError`` keeps working without knowing lcmulti.
"""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "ConfigError",
    "DtypeError",
    "FileError",
    "FreedMemoryError",
    "Interrupted",
    "LcmultiError",
    "MissingBackendError",
    "MissingExtraError",
    "MixedFrameworksError",
    "PluginError",
    "ShapeError",
    "TooLargeError",
    "UnsupportedError",
]

MOST_SHOWN = 500
"""Characters of a name or a reason that a message shows."""
MOST_RECEIVED = 1000


def printable(text: object, most: int = MOST_SHOWN) -> str:
    """*text* as a message shows it: on one line, cut, and nothing in it that drives a terminal."""
    cut = str(text)
    cut = cut if len(cut) <= most else f"{cut[: most - 3]}..."
    cut = " ".join(cut.split()) if {"\n", "\t", "\r"} & set(cut) else cut
    if cut.isprintable():
        return cut
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return "".join(escaped)


class LcmultiError(Exception):
    """Base of all errors raised by lcmulti."""

    # TensorFlow's autograph and Keras raise errors with these marks as they are, and not as
    # another class with their own text around the message.
    ag_pass_through = True
    _keras_call_info_injected = True


class ArgumentError(LcmultiError, ValueError):
    """An argument has a value that is not allowed.

    Parameters
    ----------
    argument : str
        The argument's name as the caller wrote it.
    expected : str
        What is allowed, in a few words.
    received : object
        What came.
    """

    def __init__(self, argument: str, expected: str, received: object) -> None:
        self.argument = argument
        self.expected = expected
        self.received = received
        shown = received if isinstance(received, _Description) else _shown(received)
        super().__init__(
            f"{printable(argument)}: expected {expected}, got {printable(shown, MOST_RECEIVED)}"
        )

    def about(self, argument: str) -> ArgumentError:
        """The same error, with the argument's name as the caller knows it."""
        return type(self)(argument, self.expected, self.received)

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[Any, ...]]:
        return type(self), (self.argument, self.expected, self.received)


class _Shown(reprlib.Repr):
    """A short `repr`: long values are cut, and an array is shown by its type, shape and dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 16
        self.maxstring = self.maxother = 200

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print integers of several thousand digits.
        return repr(x) if x.bit_length() < 256 else f"an integer of {x.bit_length()} bits"

    def repr_instance(self, x: object, level: int) -> str:
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        if dtype is None or not isinstance(shape, tuple) or not shape:
            return super().repr_instance(x, level)
        kind = type(x)
        return f"{kind.__module__}.{kind.__qualname__} of shape {tuple(shape)} and dtype {dtype}"


_shown = _Shown().repr


def shown(value: object) -> str:
    """*value* as an error message shows it; see `_Shown`."""
    return _shown(value)


class _Description(str):
    """Text that a message shows without quotation marks."""

    __slots__ = ()


def described(text: str) -> str:
    """Mark *text* as a description of the received value, rather than the value itself."""
    return _Description(text)


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument has a type that is not allowed."""


class ShapeError(ArgumentError):
    """The shape of an array is wrong, or a geometry is impossible."""


class DtypeError(ArgumentTypeError):
    """The dtype of an array is not supported."""


class FreedMemoryError(ArgumentError, RuntimeError):
    """The memory of an array was freed or shortened while the array is still in use."""


class MixedFrameworksError(ArgumentTypeError):
    """Arrays of two frameworks met in one call."""


class ConfigError(ArgumentError):
    """A setting or its value is unknown."""


class FileError(LcmultiError, ValueError):
    """A file cannot be read or written, or its content is not safe to use.

    Parameters
    ----------
    path : path-like
    reason : str
        What is wrong with it: the rest of a sentence that begins with the path.
    """

    def __init__(self, path: object, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{printable(path)} {printable(reason)}")

    def __reduce__(self) -> tuple[type[FileError], tuple[Any, ...]]:
        return type(self), (self.path, self.reason)


class UnsupportedError(LcmultiError, NotImplementedError):
    """No registered implementation can serve this call."""


class MissingBackendError(LcmultiError, ImportError):
    """The framework behind a backend is not installed, or its plugin is broken."""


class MissingExtraError(LcmultiError, ImportError):
    """A package that an optional part of lcmulti needs is not installed."""


class PluginError(LcmultiError):
    """A plugin broke the contract, or two plugins claim one name."""


class TooLargeError(ArgumentError, MemoryError):
    """An array would not fit in memory; raised before anything is allocated."""


class Interrupted(KeyboardInterrupt):
    """The user interrupted a long piece of work.

    Parameters
    ----------
    report : object
        The unfinished report of `lcmulti.conformance.parity`, `lcmulti.conformance.certify` or
        `lcmulti.bench.bench`: everything done before the interrupt.
    """

    def __init__(self, report: Any) -> None:
        super().__init__("interrupted")
        self.report = report
