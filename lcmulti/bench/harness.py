"""How each framework runs: compiled where it has a compiler, and until the result is ready.

A harness turns a `Contender` into a `Step`. A step is a forward pass, or a forward pass and the
gradients of ``sum(y * dy)`` in input and weights, as in the middle of a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from lcmulti import plugins
from lcmulti.bench.contenders import Contender
from lcmulti.bench.timing import Step
from lcmulti.types import Array

__all__ = ["Harness", "harness"]


class Harness(ABC):
    """Runs contenders in one framework. They share the arrays made from one NumPy array.

    Parameters
    ----------
    backend : str
    device : {"cpu", "gpu"}

    Raises
    ------
    ArgumentError
        If the backend has no such device.
    """

    def __init__(self, backend: str, device: str) -> None:
        self.owner, self.device = plugins.load_backend(backend), device
        self.placement = plugins.placement(backend, device)
        self._placed: dict[int, tuple[np.ndarray, Any]] = {}

    def arrays(self, contender: Contender) -> tuple[Array, Array, Array]:
        """``x``, ``weights`` and ``dy``."""
        return self._place(contender.x), self._place(contender.weights), self._place(contender.dy)

    def _place(self, array: Array) -> Array:
        if not hasattr(array, "__array_interface__"):
            return array
        # The NumPy array is kept, so that its id is not used again.
        if id(array) not in self._placed:
            with self.placement():
                self._placed[id(array)] = array, self.owner.from_numpy(array)
        return self._placed[id(array)][1]

    def value(self, result: Any) -> np.ndarray:
        """The output ``y`` in the result of a step."""
        return self.owner.to_numpy(result[0])

    def product(self, a: Array, b: Array) -> Array:
        """A matrix product in the full precision of its dtype."""
        return a @ b

    @abstractmethod
    def step(self, contender: Contender, training: bool) -> Step:
        """The step to time; its first call builds and compiles."""


class Eager(Harness):
    """NumPy and third-party backends, which are called directly."""

    def step(self, contender: Contender, training: bool) -> Step:
        """See `Harness.step`. The step reads a result, because a backend may compute later."""
        x, weights, dy = self.arrays(contender)

        def run() -> Any:
            if not training:
                result = (contender.function(x, weights),)
            elif contender.maps is not None:
                result = contender.maps(x, weights, dy)
            else:
                y, gradients = self.owner.vjp(contender.function, (x, weights), dy)
                result = (y, *gradients)
            self.owner.to_numpy(result[-1])
            return result

        return run


class Torch(Harness):
    """Eager mode, as most people run it."""

    def step(self, contender: Contender, training: bool) -> Step:
        """See `Harness.step`."""
        import torch

        x, weights, dy = (each.detach() for each in self.arrays(contender))
        if training:
            x.requires_grad_()
            weights.requires_grad_()

        def forward() -> Array:
            with torch.no_grad():
                return (contender.function(x, weights),)

        def both() -> Any:
            y = contender.function(x, weights)
            return y, *torch.autograd.grad(y, (x, weights), dy)

        chosen = both if training else forward
        if self.device == "cpu":
            return chosen

        def run() -> Any:
            result = chosen()
            torch.accelerator.synchronize()
            return result

        return run


class Jax(Harness):
    """Compiled by ``jax.jit``."""

    def product(self, a: Array, b: Array) -> Array:
        """See `Harness.product`; on a GPU the default precision rounds to TF32."""
        import jax.numpy as jnp

        return jnp.matmul(a, b, precision="highest")

    def step(self, contender: Contender, training: bool) -> Step:
        """See `Harness.step`."""
        import jax

        # Placed explicitly: `jit` moves arrays without a device to the default one.
        x, weights, dy = jax.device_put(self.arrays(contender), jax.devices(self.device)[0])

        def forward(x: Array, weights: Any, dy: Array) -> Array:
            return (contender.function(x, weights),)

        def both(x: Array, weights: Any, dy: Array) -> Any:
            y, pull = jax.vjp(contender.function, x, weights)
            return y, *pull(dy)

        chosen = jax.jit(both if training else forward)

        def run() -> Any:
            with self.placement():  # tracing asks for the default device
                return jax.block_until_ready(chosen(x, weights, dy))

        return run


class TensorFlow(Harness):
    """In a ``tf.function``. On a GPU it turns TF32, TensorFlow's default, off for the process."""

    def __init__(self, backend: str, device: str) -> None:
        super().__init__(backend, device)
        if device == "gpu":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(False)

    def step(self, contender: Contender, training: bool) -> Step:
        """See `Harness.step`; on a CPU a function returns when it is done."""
        import tensorflow as tf

        x, weights, dy = self.arrays(contender)

        def forward() -> Array:
            return (contender.function(x, weights),)

        def both() -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([x, weights])
                y = contender.function(x, weights)
            return y, *tape.gradient(y, [x, weights], dy)

        chosen = tf.function(both if training else forward)

        def run() -> Any:
            with self.placement():
                result = chosen()
            if self.device != "cpu":
                tf.test.experimental.sync_devices()
            return result

        return run


def harness(backend: str, device: str = "cpu") -> Harness:
    """The harness of a backend; `Eager` for a third-party one. Raises as `Harness` does."""
    known: dict[str, type[Harness]] = {"torch": Torch, "jax": Jax, "tensorflow": TensorFlow}
    return known.get(backend, Eager)(backend, device)
