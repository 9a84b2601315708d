"""Decide which of Keras' backends runs; this must happen before Keras is imported."""

from __future__ import annotations

import os
import re
import sys
import warnings
from importlib import metadata

from lcmulti import plugins
from lcmulti.choosing import settings
from lcmulti.errors import MissingBackendError, MissingExtraError

__all__ = ["OLDEST_KERAS", "choose_backend"]

OLDEST_KERAS = (3, 15, 1)
"""Older versions read files unsafely; see the advisories in ``docs/keras.md``."""

INSTALL = "pip install 'lcmulti[keras]'"
KERAS_BACKENDS = ("tensorflow", "torch", "jax", "numpy", "openvino")


def choose_backend() -> None:
    """Let Keras run on lcmulti's configured backend, unless something else takes precedence.

    ``KERAS_BACKEND``, and a Keras that is imported already, take precedence. If they differ from
    lcmulti's configuration, a warning says so. Without a configured backend, Keras decides as
    usual.

    Raises
    ------
    MissingExtraError
        If Keras is missing or too old. The message has the command that installs it.
    MissingBackendError
        If lcmulti has no backend for that of Keras, or if that is not installed.
    """
    _require_keras()
    configured = settings.sources()["backend"]
    chosen = configured.value if configured.place != "default" else None
    if (
        chosen in KERAS_BACKENDS
        and "keras" not in sys.modules
        and not os.environ.get("KERAS_BACKEND")
    ):
        os.environ["KERAS_BACKEND"] = chosen
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name not in plugins.registry().backends:
            raise
        raise MissingBackendError(_not_installed(error.name)) from None

    running = keras.config.backend()
    if running not in plugins.registry().backends:
        known = ", ".join(name for name in KERAS_BACKENDS if name in plugins.registry().backends)
        raise MissingBackendError(
            f"Keras runs on {running!r}, for which lcmulti has no backend; "
            f"set KERAS_BACKEND to one of {known}"
        )
    if chosen is not None and chosen != running:
        warnings.warn(
            f"Keras runs on {running!r}, lcmulti is configured for {chosen!r} "
            f"({configured.place}); lcmulti_keras computes on {running!r}. Set KERAS_BACKEND, "
            "or import lcmulti_keras before keras, to have them agree",
            stacklevel=3,
        )


def _not_installed(wanted: str) -> str:
    """The advice for a missing backend of Keras, by default TensorFlow."""
    entries = plugins.registry().backends
    there = [n for n in KERAS_BACKENDS if n in entries and plugins.is_installed(entries[n])]
    return (
        f"Keras is to run on {wanted!r}, which is not installed; install it with: "
        f"pip install 'lcmulti[keras,{wanted}]', or set KERAS_BACKEND to one that is: "
        f"{', '.join(there)}"
    )


def _require_keras() -> None:
    try:
        version = metadata.version("keras")
    except metadata.PackageNotFoundError:
        message = f"lcmulti_keras needs Keras 3, which is not installed; install it with: {INSTALL}"
        raise MissingExtraError(message) from None
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < OLDEST_KERAS:
        oldest = ".".join(map(str, OLDEST_KERAS))
        raise MissingExtraError(
            f"lcmulti_keras needs Keras {oldest} or later, not {version}; "
            f"install it with: {INSTALL}"
        )
