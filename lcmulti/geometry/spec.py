"""`LocalConvSpec`: one locally connected operation, fully normalised, without its batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, SupportsIndex

from lcmulti.errors import ArgumentError
from lcmulti.geometry.arguments import spatial_axes
from lcmulti.geometry.fields import SpecFields, replace_fields
from lcmulti.geometry.formats import DATA_FORMATS
from lcmulti.geometry.normalising import normalised, normalised_shared_axes
from lcmulti.geometry.shapes import window_extent
from lcmulti.types import Axes, Padding, Sizes

if TYPE_CHECKING:
    from lcmulti.geometry.sharding_costs import Sharding

__all__ = ["DATA_FORMATS", "LocalConvSpec"]


class LocalConvSpec(SpecFields):
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
        Channels and filters are divided into so many groups; a filter reads its own group only.
    data_format : {"channels_last", "channels_first"}, optional
        Where the channels are in *input_shape*. None takes the configured format.
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
        (`ShapeError`, `ArgumentTypeError`) Names the argument, what is allowed and what was given.

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

    def __init__(
        self,
        input_shape: Axes,
        filters: SupportsIndex,
        kernel_size: Sizes,
        *,
        strides: Sizes = 1,
        padding: Padding = "valid",
        padding_mode: str = "zeros",
        dilation: Sizes = 1,
        groups: SupportsIndex = 1,
        data_format: str | None = None,
        shared_axes: Axes = (),
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

    def block(
        self, start: tuple[int, ...], stop: tuple[int, ...]
    ) -> tuple[LocalConvSpec, tuple[slice, ...]]:
        """The same operation restricted to output positions ``start[i] <= o[i] < stop[i]``.

        Returns
        -------
        spec : LocalConvSpec
            Channels last and without padding, for an input that is padded already.
        window : tuple of slice
            Its input, as a part of the padded input: one slice per spatial axis.

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

    def shard(self, ranks: int | Sequence[int]) -> Sharding:
        """Divide the layer over ranks, each with a part of the output positions.

        Parameters
        ----------
        ranks : int or sequence of int
            Number of parts of each spatial axis; or one number of ranks, which
            `lcmulti.geometry.sharding_costs.best_parts` divides among the axes.

        Returns
        -------
        Sharding
            What each rank owns, reads, sends and receives. `Sharding.costs` estimates the cost.

        Raises
        ------
        ArgumentError
            For an impossible number of ranks.

        Examples
        --------
        >>> spec = LocalConvSpec((64, 64, 8), 16, 5, padding="same", data_format="channels_last")
        >>> spec.shard(8).parts
        (4, 2)
        >>> spec.shard((8, 1)).costs(batch=32).halo
        262144
        """
        from lcmulti.geometry.sharding_costs import Sharding, best_parts

        if isinstance(ranks, Sequence) and not isinstance(ranks, str):
            return Sharding(self, tuple(ranks))
        return Sharding(self, best_parts(self, ranks))

    def taps(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Each tap's index in the window, and the slices of the padded input that it reads."""
        axes = zip(self.kernel_size, self.dilation, self.output_size, self.strides, strict=True)
        seen = [
            [slice(t * d, t * d + (n - 1) * s + 1, s) for t in range(size)]
            for size, d, n, s in axes
        ]
        yield from zip(product(*map(range, self.kernel_size)), product(*seen), strict=True)

    def sharing(self, shared_axes: tuple[int, ...]) -> LocalConvSpec:
        """The same geometry with the kernel shared along other axes."""
        return replace_fields(
            self, shared_axes=normalised_shared_axes(shared_axes, self.output_size)
        )

    def axes_to_average(self, axes: Axes | None) -> tuple[int, ...]:
        """Spatial axes along which a layer averages its weights; None means all.

        Raises
        ------
        ArgumentError
            If *axes* are not distinct spatial axes.
        """
        return tuple(range(self.ndim)) if axes is None else spatial_axes("axes", axes, self.ndim)

    def repeated(self, times: int) -> LocalConvSpec:
        """Several operations of this geometry, each with weights of its own, as a single one.

        It has one more axis, the first, along which windows have length 1. Channels are last.
        """
        return replace_fields(
            self,
            input_size=(times, *self.input_size),
            output_size=(times, *self.output_size),
            kernel_size=(1, *self.kernel_size),
            strides=(1, *self.strides),
            padding=((0, 0), *self.padding),
            dilation=(1, *self.dilation),
            data_format="channels_last",
            shared_axes=tuple(axis + 1 for axis in self.shared_axes),
        )

    def computed(self) -> LocalConvSpec:
        """The spec an implementation receives: channels last, padded with nothing but zeros.

        Padding with other than zeros is applied to the input beforehand, so here it is a larger
        input without padding. Strides larger than the padded input are reduced to its size, as
        frameworks may not be able to represent them.
        """
        padded = self.padded_size
        spec = replace_fields(
            self,
            data_format="channels_last",
            strides=tuple(map(min, self.strides, padded)),
            dilation=tuple(map(min, self.dilation, padded)),
        )
        return spec if self.padding_mode == "zeros" else _unpadded(spec, self.output_size, padded)


# Cached, because most blocks of an operation have the same geometry.
@lru_cache(maxsize=4096)
def _unpadded(
    spec: LocalConvSpec, output_size: tuple[int, ...], input_size: tuple[int, ...]
) -> LocalConvSpec:
    """The same windows over another number of positions; channels last, no padding."""
    block = replace_fields(
        spec, output_size=output_size, input_size=input_size, data_format="channels_last"
    )
    return replace_fields(block, padding=((0, 0),) * spec.ndim, padding_mode="zeros")
