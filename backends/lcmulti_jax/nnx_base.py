"""What the two layers for Flax NNX have in common: parameters and batch dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import sqrt
from types import MappingProxyType
from typing import Any

import lcmulti
from lcmulti.errors import ArgumentError, MissingExtraError
from lcmulti.geometry.arguments import integer
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti_jax import base

try:
    from flax import nnx
except ImportError as error:
    raise MissingExtraError(
        "lcmulti_jax.nnx needs Flax; install it with: pip install 'lcmulti[flax]'"
    ) from error

NONE: Mapping[str, Any] = MappingProxyType({})
WORDS = {"groups": "feature_group_count", "dilation": "kernel_dilation"}
default_kernel_init = nnx.initializers.lecun_normal()
default_bias_init = nnx.initializers.zeros_init()


@contextmanager
def in_flax_words() -> Iterator[None]:
    """Errors about the geometry name arguments as these layers do."""
    try:
        yield
    except ArgumentError as error:
        raise error.about(WORDS.get(error.argument, error.argument)) from None


class Layer(nnx.Module):
    """Parameters, a spec and one call."""

    spec: LocalConvSpec

    def _keep(
        self, dtype: Any, param_dtype: Any, precision: Any, rank: Any, implementation: str
    ) -> None:
        self.dtype, self.param_dtype, self.precision = dtype, param_dtype, precision
        self.rank = None if rank is None else integer("rank", rank, 1)
        self.implementation = implementation

    def _make_parameters(
        self,
        bias_shape: tuple[int, ...] | None,
        kernel_init: Any,
        bias_init: Any,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any],
        bias_metadata: Mapping[str, Any],
    ) -> None:
        ndim, positions = self.spec.ndim, self.spec.positions_shape
        taps = self.spec.kernel_shape[ndim:]
        draw = _plain(kernel_init, self.param_dtype)
        if self.rank is None:
            kernel = base.at_every_position(draw, rngs.params(), positions, taps)
            kernel_metadata = {**draw.metadata, **kernel_metadata}
            self.kernel = nnx.Param(kernel, **kernel_metadata)
        else:
            basis = base.at_every_position(draw, rngs.params(), (self.rank,), taps)
            basis = basis.reshape(self.rank, *(1,) * ndim, *taps)
            self.basis = nnx.Param(basis)
            normal = nnx.initializers.normal(1 / sqrt(self.rank))
            mixed = normal(rngs.params(), (*positions, self.rank), self.param_dtype)
            self.coefficients = nnx.Param(mixed, **kernel_metadata)
        self.bias: nnx.Param[Any] | None
        if bias_shape is None:
            self.bias = nnx.data(None)
        else:
            bias = bias_init(rngs.params(), bias_shape, self.param_dtype)
            self.bias = nnx.Param(bias, **bias_metadata)

    def full_kernel(self) -> Any:
        """The weights of every position, ``spec.kernel_shape``, whether of full rank or not."""
        if self.rank is None:
            return self.kernel[...]
        return lcmulti.low_rank_kernel(self.basis[...], self.coefficients[...])

    def share_(self, axes: Any = None) -> None:
        """Average the weights (with a rank, the coefficients) over positions, in place.

        Parameters
        ----------
        axes : tuple of int, optional
            Spatial axes to average along; None takes all.
        """
        over = base.share(axes, self.spec)
        for each in (self.kernel if self.rank is None else self.coefficients, self.bias):
            if each is not None:
                each[...] = base.shared_mean(each[...], over)

    def _promoted(self, inputs: Any, *weights: Any) -> tuple[Any, ...]:
        return nnx.nn.dtypes.promote_dtype((inputs, *weights), dtype=self.dtype)

    def _on_batches(self, run: Callable[[Any], Any], inputs: Any, sample: tuple[int, ...]) -> Any:
        """Run with all batch dimensions as one, or with a batch of one where there is none."""
        ndim = self.spec.ndim + 1
        shape, advice = inputs.shape[-ndim:], "it takes (*batch, *input_size, in_features)"
        if len(shape) == ndim:
            rebuild = f"in_features={shape[-1]}, input_size={shape[:-1]}"
            advice = f"for these build a layer with {rebuild}"
        base.checked(shape, sample, advice)
        batch = inputs.shape[:-ndim]
        if len(batch) == 1:
            return run(inputs)
        y = run(inputs.reshape(-1, *sample))
        return y.reshape(*batch, *y.shape[1:])


class _plain:  # noqa: N801 - a function that remembers what it was told
    """An initialiser without the metadata that `nnx.with_partitioning` wraps its result in."""

    def __init__(self, init: Any, dtype: Any) -> None:
        self.init, self.dtype, self.metadata = init, dtype, {}

    def __call__(self, key: Any, shape: tuple[int, ...]) -> Any:
        drawn = self.init(key, shape, self.dtype)
        if isinstance(drawn, nnx.VariableMetadata):
            self.metadata = dict(drawn.metadata)
            return drawn.raw_value
        return drawn
