"""Decide whether an array of an old file fits a variable, and how to convert it.

Arrays are not read here: shapes decide. The implementation that stored a locally connected kernel
follows from its rank, which is different for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from lcmulti.errors import FileError, LcmultiError, UnsupportedError
from lcmulti.memory import require_memory
from lcmulti.weights import layouts
from lcmulti_keras.layers import LocallyConnected
from lcmulti_keras.legacy import recurrent
from lcmulti_keras.legacy.matches import Match, Stored
from lcmulti_keras.legacy.origins import Layer
from lcmulti_keras.legacy.structure import Slot

__all__ = ["Fitting"]

MOST_GROWTH = 16
"""How many times as large as the entries that implementation 3 stores a kernel may be: 4 for each
axis in 2D. (A window of twice the size of the input gives 2.)"""

FLIPPED = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose")


class Fitting:
    """Decides what fits, for one file.

    Parameters
    ----------
    refuse : callable
        Makes the error that says why the file is refused.
    flipped : bool
        Whether the file was written with Theano, whose convolutions flip the window.
    """

    def __init__(self, refuse: Callable[[str], FileError], *, flipped: bool = False) -> None:
        self.refuse = refuse
        self.flipped = flipped
        self.known: dict[tuple[int, tuple[int, ...]], bool] = {}

    def fits(self, stored: Stored, slot: Slot) -> bool:
        """Whether an array can belong to a variable."""
        key = id(slot.variable), tuple(stored.shape)
        if key not in self.known:
            try:
                self.match(stored, slot, check_rule=False)
                self.known[key] = True
            except LcmultiError:
                self.known[key] = False
        return self.known[key]

    def match(self, stored: Any, slot: Slot, *, check_rule: bool = True) -> Match:
        """Pair an array with a variable; raise if it does not fit."""
        variable, layer = slot.variable, slot.owner
        if getattr(getattr(stored, "dtype", None), "kind", "") not in tuple("fiub"):
            raise self.refuse(f"has no array of numbers for {variable.path}")
        shape = tuple(stored.shape)
        if isinstance(layer, LocallyConnected) and layer.rank is None:
            return self._local(stored, variable, layer, check_rule)
        convert = recurrent.conversion(slot, shape)
        if convert is None:
            self._require(variable, shape, tuple(variable.shape))
            convert = _flip if self.flipped and _is_flipped(slot) else _same
        return Match(variable, stored, convert, "as it is")

    def all_of(self, pairs: Iterable[tuple[Stored, Slot]]) -> list[Match]:
        """Check pairs; the arrays of one layer tell how to convert each other."""
        found: dict[int, tuple[Layer, list[Match]]] = {}
        for stored, slot in pairs:
            _, matches = found.setdefault(id(slot.owner), (slot.owner, []))
            matches.append(self.match(stored, slot))
        return [
            each for owner, matches in found.values() for each in recurrent.together(matches, owner)
        ]

    def _local(self, stored: Stored, variable: Any, layer: Any, check_rule: bool) -> Match:
        shape, spec = tuple(stored.shape), layer.spec
        if variable is layer.bias:  # all implementations store it in the same way
            self._require(variable, shape, layouts.bias_shape("keras2-1", spec))
            return Match(
                variable, stored, lambda a: layouts.import_bias(a, "keras2-1", spec), "keras2"
            )
        ranks = {3: 1, 2 * layer.ndim + 2: 2, 1: 3}
        if len(shape) not in ranks:
            raise self.refuse(f"has a kernel of shape {shape} for {layer.name}")
        layout = f"keras2-{ranks[len(shape)]}"
        if check_rule:
            self._require_rule(layout, layer)
        try:
            self._require(variable, shape, layouts.kernel_shape(layout, spec))
        except UnsupportedError as error:
            raise self.refuse(f"does not fit {layer.name}: {error}") from None
        if prod(spec.kernel_shape) > MOST_GROWTH * max(1, prod(shape)):
            whole = spec.kernel_shape
            raise self.refuse(f"stores {prod(shape):,} weights for a kernel of shape {whole}")
        require_memory(variable.path, spec.kernel_shape, "float64")
        return Match(variable, stored, lambda a: layouts.import_kernel(a, layout, spec), layout)

    def _require_rule(self, layout: str, layer: Any) -> None:
        """Raise if Keras 2 padded by another rule than the layer.

        Implementation 1 does not pad. The others pad by Keras 2's own rule, if at all.
        """
        spec = layer.spec
        if not any(map(any, spec.padding)):
            return
        if layout == "keras2-1":
            raise self.refuse(
                f"stores {layer.name} as implementation=1 does, which pads nothing; its layer has "
                f"padding={layer.padding!r}"
            )
        if spec.padding != replace(spec, padding="keras_same").padding:
            raise self.refuse(
                f"stores {layer.name} as Keras 2 padded it; its layer has padding="
                f"{layer.padding!r}, which is another rule. Make it with padding='keras_same'"
            )

    def _require(self, variable: Any, shape: Any, expected: Any) -> None:
        if shape != expected:
            raise self.refuse(f"has shape {shape} for {variable.path}, not {expected}")


def _is_flipped(slot: Slot) -> bool:
    """Whether Keras 2 flips this variable in a file from Theano."""
    name, owner = slot.variable.name, slot.owner
    if type(owner).__name__ == "ConvLSTMCell":
        return owner.rank == 2 and name in ("kernel", "recurrent_kernel")
    return type(owner).__name__ in FLIPPED and name == "kernel"


def _flip(kernel: np.ndarray) -> np.ndarray:
    return np.flip(kernel, tuple(range(kernel.ndim - 2)))


def _same(array: np.ndarray) -> np.ndarray:
    return array
