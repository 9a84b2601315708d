"""Find locally connected layers in a file of Keras 2 or 3, for `lcmulti.plot`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from lcmulti.errors import FileError
from lcmulti_keras.base import LocallyConnectedBase
from lcmulti_keras.legacy import load_legacy_model

__all__ = ["layers_of"]


def layers_of(path: Path) -> list[tuple[str, Any, Any, bool]]:
    """Name, kernel, spec and whether it is transposed, for each layer. No code in the file runs.

    Raises
    ------
    FileError
        If the file is refused.
    """
    if path.suffix.lower() == ".keras" and _written_by_keras3(path):
        try:
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises errors of many kinds
            raise FileError(path, f"is no model that loads in safe mode ({error})") from error
    else:
        model = load_legacy_model(path)
    return [
        (
            each.name, keras.ops.convert_to_numpy(each.full_kernel()), each.spec,
            "Transpose" in type(each).__name__,
        )
        for each in model._flatten_layers()
        if isinstance(each, LocallyConnectedBase)
    ]  # fmt: skip


def _written_by_keras3(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise FileError(path, f"is not a .keras file ({error})") from error
    return str(version).startswith("3")
