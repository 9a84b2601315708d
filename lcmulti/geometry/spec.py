"""`LocalConvSpec`: one locally connected operation, fully normalised, without its batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field, fields
from functools import cached_property, lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lcmulti.dtypes import DTYPES
from lcmulti.errors import ArgumentError
from lcmulti.geometry.arguments import choice, integer
from lcmulti.geometry.formats import DATA_FORMATS
from lcmulti.geometry.normalising import normalised, normalised_shared_axes
from lcmulti.geometry.padding import padding_indices
from lcmulti.geometry.shapes import window_extent

if TYPE_CHECKING:
    from lcmulti.geometry.sharding import Sharding

__all__ = ["DATA_FORMATS", "LocalConvSpec"]


@dataclass(frozen=True, init=False)
class LocalConvSpec:
    """The geometry of a locally connected operation.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one sample: ``(*input_size, in_channels)``, or ``(in_channels, *input_size)``
        with ``data_format="channels_first"``. Any number of spatial axes.
    filters : int
        Output channels.
    kernel_size : int or tuple of int
        Window size along each spatial axis.
    strides, dilation : int or tuple of int, default 1
        Step between windows, and between the taps of one window.
    padding : str, int, tuple of int or tuple of pairs, default ``"valid"``
        ``"valid"``; ``"same"`` (the rule of TensorFlow and XLA); ``"causal"`` (1D);
        ``"keras_same"`` (the rule of Keras 2's locally connected layers); an int; one int per
        axis; or one ``(low, high)`` pair per axis.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding is filled with.
    groups : int, default 1
        The channels of a filter's group are all it sees.
    data_format : {"channels_last", "channels_first"}, optional
        Where the channels stand in *input_shape*. None takes the configured one.
    shared_axes : tuple of int, default ()
        Spatial axes of the output along which one kernel is shared. All axes: a convolution.

    Attributes
    ----------
    input_size, kernel_size, strides, dilation, output_size : tuple of int
        One entry per spatial axis.
    in_channels, filters, groups : int
    padding : tuple of (int, int)
        Explicit ``(low, high)`` padding per spatial axis.

    Raises
    ------
    ArgumentError
        (`ShapeError`, `ArgumentTypeError`) naming the argument, what was expected and what came.

    Examples
    --------
    >>> spec = LocalConvSpec((32, 32, 3), filters=64, kernel_size=3, data_format="channels_last")
    >>> spec.output_shape
    (30, 30, 64)
    >>> spec.kernel_shape
    (30, 30, 3, 3, 3, 64)
    >>> spec.num_parameters == (30 * 30) * (3 * 3 * 3 * 64) + (30 * 30) * 64
    True
    """

    if not TYPE_CHECKING:  # what `dataclasses.replace` hands to ``__init__``; a property to others
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

    def __init__(
        self,
        input_shape: Any,
        filters: Any,
        kernel_size: Any,
        *,
        strides: Any = 1,
        padding: Any = "valid",
        padding_mode: str = "zeros",
        dilation: Any = 1,
        groups: Any = 1,
        data_format: str | None = None,
        shared_axes: Any = (),
    ) -> None:
        self._set(
            **normalised(
                input_shape,
                filters,
                kernel_size,
                strides,
                padding,
                padding_mode,
                dilation,
                groups,
                data_format,
                shared_axes,
            )
        )

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    # Cached: specs are hashed on every call of a jitted or planned operation.
    @cached_property
    def _hash(self) -> int:
        return hash(tuple(_values(self).values()))

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        # Hashes of strings differ between processes, so a pickle must not carry one.
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
        """What `lcmulti.local_conv` is told of this geometry beside the arrays, by keyword."""
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
        """Bytes of input, kernel, bias and output together: the least a forward pass moves."""
        batch, dtype = integer("batch", batch, 0), choice("dtype", dtype, DTYPES)
        elements = batch * (prod(self.input_shape) + prod(self.output_shape))
        return (elements + self.num_parameters) * DTYPES[dtype].itemsize

    def block(
        self, start: tuple[int, ...], stop: tuple[int, ...]
    ) -> tuple[LocalConvSpec, tuple[slice, ...]]:
        """The same operation restricted to output positions ``start[i] <= o[i] < stop[i]``.

        Returns
        -------
        spec : LocalConvSpec
            Channels-last and without padding; valid for an input that is padded already.
        window : tuple of slice
            Where in the padded input its own input lies, one slice per spatial axis.

        Raises
        ------
        ArgumentError
            If *start* or *stop* has not one entry per spatial axis.
        """
        for name, corner in (("start", start), ("stop", stop)):
            if len(corner) != self.ndim:
                raise ArgumentError(name, f"{self.ndim} positions, one per spatial axis", corner)
        window = tuple(
            slice(a * s, (b - 1) * s + window_extent(k, d))
            for a, b, s, k, d in zip(
                start, stop, self.strides, self.kernel_size, self.dilation, strict=True
            )
        )
        size = tuple(b - a for a, b in zip(start, stop, strict=True))
        return _unpadded(self, size, tuple(w.stop - w.start for w in window)), window

    def padding_indices(self) -> tuple[tuple[int, np.ndarray], ...]:
        """``(axis, indices)`` that pad a channels-last batch in a non-zero mode; else nothing."""
        if self.padding_mode == "zeros":
            return ()
        return tuple(
            (axis, padding_indices(size, *pair, self.padding_mode))
            for axis, (size, pair) in enumerate(zip(self.input_size, self.padding, strict=True), 1)
            if any(pair)
        )

    def shard(self, ranks: int | Sequence[int]) -> Sharding:
        """The layer over ranks, each with a part of the output positions.

        Parameters
        ----------
        ranks : int or sequence of int
            Parts of each spatial axis; or their product, which is then divided among the axes by
            `lcmulti.geometry.sharding_costs.best_parts`.

        Returns
        -------
        Sharding
            What each rank owns, sees, sends and receives; `Sharding.costs` tells what it takes.

        Raises
        ------
        ArgumentError
            For a number of ranks that cannot be.

        Examples
        --------
        >>> spec = LocalConvSpec((64, 64, 8), 16, 5, padding="same", data_format="channels_last")
        >>> spec.shard(8).parts
        (4, 2)
        >>> spec.shard((8, 1)).costs(batch=32).halo
        262144
        """
        from lcmulti.geometry.sharding import Sharding
        from lcmulti.geometry.sharding_costs import best_parts

        if isinstance(ranks, Sequence) and not isinstance(ranks, str):
            return Sharding(self, tuple(ranks))
        return Sharding(self, best_parts(self, ranks))

    def taps(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Each tap's index in the window, and the padded input it shows to all outputs."""
        for tap in product(*map(range, self.kernel_size)):
            yield (
                tap,
                tuple(
                    slice(t * d, t * d + (n - 1) * s + 1, s)
                    for t, d, n, s in zip(
                        tap, self.dilation, self.output_size, self.strides, strict=True
                    )
                ),
            )

    def sharing(self, shared_axes: tuple[int, ...]) -> LocalConvSpec:
        """The same geometry with the kernel shared along other axes."""
        return replace_fields(
            self, shared_axes=normalised_shared_axes(shared_axes, self.output_size)
        )

    def computed(self) -> LocalConvSpec:
        """The spec an implementation receives: channels last, padded with nothing but zeros.

        A non-zero padding mode is applied to the input beforehand, so here it appears as a
        larger input without padding. Steps beyond the padded input are cut to its size, which
        frameworks can count to.
        """
        padded = self.padded_size
        spec = replace_fields(
            self,
            data_format="channels_last",
            strides=tuple(map(min, self.strides, padded)),
            dilation=tuple(map(min, self.dilation, padded)),
        )
        return spec if self.padding_mode == "zeros" else _unpadded(spec, self.output_size, padded)


# Cached: of the blocks that an operation is cut into, most have the same geometry.
@lru_cache(maxsize=4096)
def _unpadded(
    spec: LocalConvSpec, output_size: tuple[int, ...], input_size: tuple[int, ...]
) -> LocalConvSpec:
    """The same windows over another number of positions, channels last and without padding."""
    block = replace_fields(
        spec, output_size=output_size, input_size=input_size, data_format="channels_last"
    )
    return replace_fields(block, padding=((0, 0),) * spec.ndim, padding_mode="zeros")


def replace_fields(spec: LocalConvSpec, **changes: Any) -> LocalConvSpec:
    """A copy of *spec* with fields that are normalised already."""
    copy = object.__new__(LocalConvSpec)
    copy._set(**_values(spec) | changes)
    return copy


def _values(spec: LocalConvSpec) -> dict[str, Any]:
    return {each.name: getattr(spec, each.name) for each in fields(spec)}
