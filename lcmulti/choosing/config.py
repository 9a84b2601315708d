"""`lcmulti.config`: read the settings, or change them within a ``with`` block."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ContextDecorator
from contextvars import Token
from typing import Any, Unpack

from lcmulti.choosing.settings import DEFAULTS, SettingChanges, Settings, current, overrides, parse

__all__ = ["Changes", "Config", "config"]


class Changes(ContextDecorator):
    """Settings to be changed within a ``with`` block, or within a function it decorates."""

    _used = True  # of one that a compiler makes without a call

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._used = False
        self._tokens: list[Token[tuple[tuple[str, Any], ...]]] = []

    def __enter__(self) -> Settings:
        self._used = True
        changed = dict(overrides.get()) | dict(self._settings)
        self._tokens.append(overrides.set(tuple(changed.items())))
        return current()

    def __exit__(self, *error: object) -> None:
        overrides.reset(self._tokens.pop())

    def _recreate_cm(self) -> Changes:
        self._used = True
        return Changes(self._settings)  # one for each call, which may be in any thread

    def __del__(self) -> None:
        if not self._used:
            shown = ", ".join(f"{name}={value!r}" for name, value in self._settings.items())
            warnings.warn(
                f"lcmulti.config({shown}) changed nothing; "
                f"write: with lcmulti.config({shown}): ...",
                RuntimeWarning,
                stacklevel=2,
            )


class Config:
    """The settings in force, as attributes; a call is a context manager that changes settings.

    Examples
    --------
    >>> import lcmulti
    >>> with lcmulti.config(data_format="channels_first", max_workspace="64MiB"):
    ...     lcmulti.config.max_workspace
    67108864
    """

    def __call__(self, **settings: Unpack[SettingChanges]) -> Changes:
        """Change settings within a ``with`` block, for this thread or task only.

        Parameters
        ----------
        **settings
            Fields of `Settings`; None resets one to its default.

        Raises
        ------
        ConfigError
            At the call, if a setting or its value is unknown.

        Warns
        -----
        RuntimeWarning
            If what is returned is dropped without a ``with`` block: then nothing was changed.
        """
        return Changes(
            {
                name: getattr(DEFAULTS, name)
                if value is None and name in Settings._fields
                else parse(name, value, "lcmulti.config(...)")
                for name, value in settings.items()
            }
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are changed by: with lcmulti.config({name}={value!r}): ...")

    def __getattr__(self, name: str) -> Any:
        if name not in Settings._fields:
            raise AttributeError(f"no setting {name!r}; there are {', '.join(Settings._fields)}")
        return getattr(current(), name)

    def __repr__(self) -> str:
        return f"lcmulti.config({', '.join(f'{k}={v!r}' for k, v in current()._asdict().items())})"


config = Config()
