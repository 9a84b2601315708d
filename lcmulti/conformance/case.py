"""`Case`: one call of `lcmulti.local_conv` as data, without the values of its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

from lcmulti.dtypes import DTYPES
from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["Case", "Documented"]


class Documented(NamedTuple):
    """The results that a library's documentation states.

    Parameters
    ----------
    output_shape : tuple
        With None for the batch.
    parameters : int
        Elements of kernel and bias.
    """

    output_shape: tuple[int | None, ...]
    parameters: int


@dataclass(frozen=True)
class Case:
    """One call, without the values of its arrays.

    Parameters
    ----------
    name, group : str
    input_shape : tuple of int
        Shape of one sample, in the data format of *options* (channels last if it has none).
    filters : int
    kernel_size : int or tuple of int
    batch : int, default 2
    shared_axes : tuple of int, default ()
        Output axes along which the kernel is shared.
    bias_shared_axes : tuple of int or None, default ()
        Output axes along which the bias is shared; None for no bias.
    options : mapping
        Further arguments of `lcmulti.local_conv`, as a caller writes them.
    documented : Documented, optional
    """

    name: str
    group: str
    input_shape: tuple[int, ...]
    filters: int
    kernel_size: int | tuple[int, ...]
    batch: int = 2
    shared_axes: tuple[int, ...] = ()
    bias_shared_axes: tuple[int, ...] | None = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    documented: Documented | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `lcmulti.local_conv`, independent of any configuration."""
        return {"data_format": "channels_last", **self.options}

    @cached_property
    def spec(self) -> LocalConvSpec:
        """The geometry."""
        return LocalConvSpec(
            self.input_shape, self.filters, self.kernel_size,
            shared_axes=self.shared_axes, **self.arguments,
        )  # fmt: skip

    @property
    def bias_shape(self) -> tuple[int, ...] | None:
        """``(*output_size, filters)``, with 1 where it is shared; None without a bias."""
        if self.bias_shared_axes is None:
            return None
        return self.spec.sharing(self.bias_shared_axes).bias_shape

    @property
    def products(self) -> int:
        """Number of products in one forward pass."""
        return self.spec.flops(self.batch) // 2

    def memory(self, dtype: str) -> int:
        """Estimate the bytes that checking the case takes.

        Inputs and results twice in *dtype* (for the framework and for NumPy); and in double
        precision the inputs, the reference's results, their bounds and a difference.
        """
        spec = self.spec
        per_sample = prod(spec.input_shape) + prod(spec.output_shape)
        elements = self.batch * per_sample + prod(spec.kernel_shape)
        return elements * (4 * 8 + 4 * DTYPES[dtype].itemsize)
