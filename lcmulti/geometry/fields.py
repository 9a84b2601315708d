"""The fields of a `LocalConvSpec`, and the properties that follow from them."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field, fields
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.arguments import choice, integer
from lcmulti.geometry.padding import padding_indices

__all__ = ["SpecFields", "replace_fields"]

Spec = TypeVar("Spec", bound="SpecFields")


@dataclass(frozen=True, init=False)
class SpecFields:
    """Normalised fields, compared and hashed as one value."""

    if not TYPE_CHECKING:  # only for `dataclasses.replace`, which hands it to ``__init__``
        input_shape: InitVar[Any]
    input_size: tuple[int, ...] = field(init=False)
    in_channels: int = field(init=False)
    filters: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    padding_mode: str
    dilation: tuple[int, ...]
    groups: int
    data_format: str
    shared_axes: tuple[int, ...]
    output_size: tuple[int, ...] = field(init=False)

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    # Cached, because every call of a jitted or planned operation hashes its spec.
    @cached_property
    def _hash(self) -> int:
        return hash(tuple(_values(self).values()))

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        # The hash of a string differs between processes, so a pickle must not contain one.
        return _values(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(**state)

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.input_size)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input sample in `data_format`."""
        return self._with_channels(self.input_size, self.in_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one output sample in `data_format`."""
        return self._with_channels(self.output_size, self.filters)

    def _with_channels(self, size: tuple[int, ...], channels: int) -> tuple[int, ...]:
        if self.data_format == "channels_last":
            return (*size, channels)
        return (channels, *size)

    @property
    def padded_size(self) -> tuple[int, ...]:
        """Spatial sizes of the padded input."""
        return tuple(
            n + low + high for n, (low, high) in zip(self.input_size, self.padding, strict=True)
        )

    @property
    def inner(self) -> tuple[slice, ...]:
        """Where in the padded input the input lies, one slice per spatial axis."""
        return tuple(
            slice(low, low + n) for n, (low, _) in zip(self.input_size, self.padding, strict=True)
        )

    @property
    def positions_shape(self) -> tuple[int, ...]:
        """`output_size` with 1 along `shared_axes`: where weights differ."""
        return tuple(
            1 if axis in self.shared_axes else n for axis, n in enumerate(self.output_size)
        )

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """``(*positions_shape, *kernel_size, in_channels // groups, filters)``."""
        channels = self.in_channels // self.groups
        return (*self.positions_shape, *self.kernel_size, channels, self.filters)

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """``(*positions_shape, filters)``."""
        return (*self.positions_shape, self.filters)

    @property
    def num_parameters(self) -> int:
        """Elements of the kernel and the bias together."""
        return prod(self.kernel_shape) + prod(self.bias_shape)

    @property
    def terms(self) -> int:
        """Products summed into one output: ``prod(kernel_size) * in_channels // groups``."""
        return prod(self.kernel_size) * (self.in_channels // self.groups)

    @property
    def is_convolution(self) -> bool:
        """Whether one kernel is shared by every output position."""
        return prod(self.positions_shape) == 1

    @property
    def is_disjoint(self) -> bool:
        """Whether windows tile the input: stride == kernel size, no dilation, no padding."""
        return (
            self.strides == self.kernel_size
            and all(d == 1 or k == 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
            and not any(map(any, self.padding))
        )

    def arguments(self) -> dict[str, Any]:
        """The geometry as keyword arguments of `lcmulti.local_conv`."""
        return {
            "strides": self.strides,
            "padding": self.padding,
            "padding_mode": self.padding_mode,
            "dilation": self.dilation,
            "groups": self.groups,
            "data_format": self.data_format,
        }

    def flops(self, batch: int) -> int:
        """Multiplications and additions of one forward pass, a multiply-add counted as 2."""
        batch = integer("batch", batch, 0)
        return 2 * batch * prod(self.output_size) * self.filters * self.terms

    def bytes(self, batch: int, dtype: str = "float32") -> int:
        """Bytes of input, kernel, bias and output: the least a forward pass reads and writes."""
        batch, dtype = integer("batch", batch, 0), choice("dtype", dtype, DTYPES)
        elements = batch * (prod(self.input_shape) + prod(self.output_shape))
        return (elements + self.num_parameters) * DTYPES[dtype].itemsize

    def padding_indices(self) -> tuple[tuple[int, np.ndarray], ...]:
        """``(axis, indices)`` that pad a channels-last batch; empty where the padding is zeros."""
        if self.padding_mode == "zeros":
            return ()
        return tuple(
            (axis, padding_indices(size, *pair, self.padding_mode))
            for axis, (size, pair) in enumerate(zip(self.input_size, self.padding, strict=True), 1)
            if any(pair)
        )


def replace_fields(spec: Spec, **changes: Any) -> Spec:
    """A copy of *spec* with other fields, which must be normalised already."""
    copy = object.__new__(type(spec))
    copy._set(**_values(spec) | changes)
    return copy


def _values(spec: SpecFields) -> dict[str, Any]:
    return {each.name: getattr(spec, each.name) for each in fields(spec)}
