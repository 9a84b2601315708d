"""How each framework is run: once compiled where it compiles, and waited for.

A harness turns a `Contender` into a `Step` of forward alone, or of forward and the gradients of
``sum(y * dy)`` in input and weights, as in the middle of a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lcmulti import plugins
from lcmulti.bench.contenders import Contender
from lcmulti.bench.timing import Step
from lcmulti.bench.workloads import Array

__all__ = ["Harness", "harness"]


class Harness(ABC):
    """Runs contenders in one framework, which share what is made of the same NumPy arrays.

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
        self._placed: dict[int, tuple[Array, Any]] = {}

    def arrays(self, contender: Contender) -> tuple[Any, Any, Any]:
        """``x``, ``weights`` and ``dy``."""
        return self._place(contender.x), self._place(contender.weights), self._place(contender.dy)

    def _place(self, array: Any) -> Any:
        if not hasattr(array, "__array_interface__"):
            return array
        if id(array) not in self._placed:  # the array is kept, so that its id stays its own
            with self.placement():
                self._placed[id(array)] = array, self.owner.from_numpy(array)
        return self._placed[id(array)][1]

    def value(self, result: Any) -> Array:
        """The output in what a step returned."""
        return self.owner.to_numpy(result[0])

    def product(self, a: Any, b: Any) -> Any:
        """A matrix product, nothing rounded but its sums."""
        return a @ b

    @abstractmethod
    def step(self, contender: Contender, training: bool) -> Step:
        """What is timed; its first call builds and compiles."""


class Eager(Harness):
    """NumPy, and the backends of strangers: called as they are."""

    def step(self, contender: Contender, training: bool) -> Step:
        """See `Harness.step`; reading a result is how a stranger's is waited for."""
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
    """Eager, as most people run it."""

    def step(self, contender: Contender, training: bool) -> Step:
        """See `Harness.step`."""
        import torch

        x, weights, dy = (each.detach() for each in self.arrays(contender))
        if training:
            x.requires_grad_()
            weights.requires_grad_()

        def forward() -> Any:
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
    """Jitted."""

    def product(self, a: Any, b: Any) -> Any:
        """See `Harness.product`; on a GPU the default precision rounds to TF32."""
        import jax.numpy as jnp

        return jnp.matmul(a, b, precision="highest")

    def step(self, contender: Contender, training: bool) -> Step:
        """See `Harness.step`."""
        import jax

        # Put there explicitly: what `jit` may move it takes to the default device.
        x, weights, dy = jax.device_put(self.arrays(contender), jax.devices(self.device)[0])

        def forward(x: Any, weights: Any, dy: Any) -> Any:
            return (contender.function(x, weights),)

        def both(x: Any, weights: Any, dy: Any) -> Any:
            y, pull = jax.vjp(contender.function, x, weights)
            return y, *pull(dy)

        chosen = jax.jit(both if training else forward)

        def run() -> Any:
            with self.placement():  # what is traced asks for the default device
                return jax.block_until_ready(chosen(x, weights, dy))

        return run


class TensorFlow(Harness):
    """In a ``tf.function``; on a GPU, from then on, without TF32, which its default is."""

    def __init__(self, backend: str, device: str) -> None:
        super().__init__(backend, device)
        if device == "gpu":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(False)

    def step(self, contender: Contender, training: bool) -> Step:
        """See `Harness.step`; on a CPU a function returns when it is done."""
        import tensorflow as tf

        x, weights, dy = self.arrays(contender)

        def forward() -> Any:
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
    """That of a backend, or for one we do not know a plain one; errors are those of `Harness`."""
    known: dict[str, type[Harness]] = {"torch": Torch, "jax": Jax, "tensorflow": TensorFlow}
    return known.get(backend, Eager)(backend, device)
