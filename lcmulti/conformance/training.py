r"""Train the same network on every backend, and compute how far the loss curves may differ.

Two locally connected layers with a tanh between them, whose outputs are summed over positions
to ten classes, learn handwritten digits with plain SGD and softmax cross-entropy. Weights,
batches and their order are the same for all. The backend computes the layers' values and
gradients. Everything else is computed by NumPy in float64, and rounded to float32 once where it
enters a layer or a weight. A ReLU is not suitable: its slope jumps, so a single rounding at the
jump can change a curve by more than all other roundings together.

**When curves coincide.** A step of training amplifies the rounding errors of the step before. So a
bound on the whole run that holds for any network would be too large to be useful. Instead, the
effect of rounding on this network is measured. The run is made in float64, and repeated `TWINS`
times. In each repetition, every element of every layer's value and gradients is moved by its full
forward error bound in float32 (`lcmulti.conformance.bounds`), and everything else that float32
rounds by the unit roundoff, up or down at random: Monte Carlo arithmetic (Parker, *Monte Carlo
Arithmetic: exploiting randomness in floating-point arithmetic*, UCLA CSD-970002, 1997) with the
bound in place of one rounding. A backend within the bound has a smaller error in each element. At
every step, its curve must be no farther from the float64 curve than the twins have been so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from lcmulti.conformance import digits
from lcmulti.conformance.bounds import bounds, expect
from lcmulti.conformance.calls import Inputs, ReferenceRunner, Results, Runner
from lcmulti.conformance.case import Case
from lcmulti.conformance.report import Curve
from lcmulti.dtypes import DTYPES
from lcmulti.weights.initial import initial_weights

__all__ = ["ACCURACY", "TWINS", "Exact", "Single", "Twin", "Yardstick", "judged", "train"]

ACCURACY = 0.9
"""The least accuracy on the test images."""

BATCH = 64
EPOCHS = 5
RATE = 0.2
TWINS = 3
DTYPE = "float32"
UNIT = DTYPES[DTYPE].roundoff

LAYERS = (
    Case("digits_layer_1", "training", (8, 8, 1), 16, 3, batch=BATCH),
    Case("digits_layer_2", "training", (6, 6, 16), 10, 3, batch=BATCH),
)


class Arithmetic(Protocol):
    """How a run computes and rounds."""

    dtype: str
    """Dtype of weights and images."""

    def forward(self, case: Case, inputs: Inputs) -> np.ndarray:
        """Compute the value of a layer."""
        ...

    def results(self, case: Case, inputs: Inputs) -> Results:
        """Compute the value of a layer and its gradients."""
        ...

    def rounded(self, array: np.ndarray) -> np.ndarray:
        """Round *array*, which enters a layer or a weight."""
        ...


class Single:
    """A backend in float32."""

    dtype = DTYPE

    def __init__(self, runner: Runner) -> None:
        self.forward, self.results = runner.forward, runner.results

    def rounded(self, array: np.ndarray) -> np.ndarray:
        """Round to float32."""
        return array.astype(DTYPE)


class Exact(ReferenceRunner):
    """The reference in float64, whose rounding is negligible here."""

    dtype = "float64"

    def rounded(self, array: np.ndarray) -> np.ndarray:
        """Return *array*."""
        return array.astype(self.dtype)


class Twin(Exact):
    """The reference, with the full error of float32 and a random sign at every rounding."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def forward(self, case: Case, inputs: Inputs) -> np.ndarray:
        """The value, moved by its bound."""
        return self.results(case, inputs).forward  # type: ignore[no-any-return]

    def results(self, case: Case, inputs: Inputs) -> Results:
        """Value and gradients, moved by their bounds."""
        expected = expect(case, inputs)
        limits = bounds(case, expected, inputs.bias, DTYPE)
        return Results(*map(self._moved, expected.values, limits))

    def rounded(self, array: np.ndarray) -> np.ndarray:
        """Moved by the unit roundoff."""
        return self._moved(array, UNIT * np.abs(array))

    def _moved(self, value: np.ndarray, limit: np.ndarray) -> np.ndarray:
        moved: np.ndarray = value + self.generator.choice((-1.0, 1.0), value.shape) * limit
        return moved


class Run(NamedTuple):
    """Losses of every step and accuracy on the test images."""

    losses: list[float]
    accuracy: float


def train(arithmetic: Arithmetic) -> Run:
    """Train from the common initial weights, and test."""
    training, test = digits.load()
    drawn = [initial_weights(case.spec, seed=i, dtype=DTYPE) for i, case in enumerate(LAYERS)]
    weights = [tuple(each.astype(arithmetic.dtype) for each in layer) for layer in drawn]
    losses = []
    for chosen in _batches(len(training.labels)):
        images = training.images[chosen].astype(arithmetic.dtype)
        loss, gradients = _step(arithmetic, weights, images, training.labels[chosen])
        losses.append(loss)
        weights = [
            tuple(
                arithmetic.rounded(w.astype(float) - RATE * d.astype(float))
                for w, d in zip(layer, slopes, strict=True)
            )
            for layer, slopes in zip(weights, gradients, strict=True)
        ]
    logits, _ = _logits(arithmetic, weights, test.images.astype(arithmetic.dtype))
    return Run(losses, float((logits.argmax(axis=1) == test.labels).mean()))


class Yardstick(NamedTuple):
    """The float64 run, and how far from it a run may be.

    Parameters
    ----------
    losses : list of float
        Losses of the run in float64.
    reach : list of float
        The largest distance of any twin from it, up to each step.
    """

    losses: list[float]
    reach: list[float]

    @classmethod
    def of(cls, exact: Run, twins: Sequence[Run]) -> Yardstick:
        """Run and measure the twins."""
        apart = np.abs(np.subtract([twin.losses for twin in twins], exact.losses))
        return cls(exact.losses, np.maximum.accumulate(apart.max(axis=0)).tolist())


def judged(backend: str, run: Run, yardstick: Yardstick) -> Curve:
    """Compare a run with the yardstick and with `ACCURACY`."""
    apart = np.abs(np.subtract(run.losses, yardstick.losses)) / yardstick.reach
    apart[np.isnan(apart)] = np.inf
    step = int(apart.argmax())
    fraction = float(apart[step])
    problems = []
    if fraction > 1:
        problems.append(
            f"loss of step {step} is {run.losses[step]:.9g}, {fraction:.3g} times as far from "
            f"{yardstick.losses[step]:.9g} as rounding explains"
        )
    if run.accuracy < ACCURACY:
        problems.append(f"test accuracy {run.accuracy:.1%} is under {ACCURACY:.0%}")
    return Curve(backend, run.losses, run.accuracy, fraction, "; ".join(problems) or None)


def _batches(count: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(0)
    for _ in range(EPOCHS):
        order = generator.permutation(count)
        yield from order[: count - count % BATCH].reshape(-1, BATCH)


def _logits(
    arithmetic: Arithmetic, weights: Any, images: np.ndarray
) -> tuple[np.ndarray, list[Inputs]]:
    """Logits ``(N, 10)`` in float64, and the input of each layer."""
    entered, signal = [], images
    for case, (kernel, bias) in zip(LAYERS, weights, strict=True):
        inputs = Inputs(signal, kernel, bias, np.zeros((len(signal), *case.spec.output_shape)))
        entered.append(inputs)
        value = arithmetic.forward(case, inputs).astype(float)
        signal = arithmetic.rounded(np.tanh(value))
    return value.sum(axis=(1, 2)), entered


def _step(
    arithmetic: Arithmetic, weights: Any, images: np.ndarray, labels: np.ndarray
) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """Loss of a batch and its gradients, one ``(dkernel, dbias)`` per layer."""
    logits, (first, second) = _logits(arithmetic, weights, images)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    loss = float((log_sum[:, 0] - shifted[rows, labels]).mean())
    slope = np.exp(shifted - log_sum)
    slope[rows, labels] -= 1
    slope = arithmetic.rounded(slope / len(labels))
    spread = np.broadcast_to(slope[:, None, None, :], second.dy.shape)
    upper = arithmetic.results(LAYERS[1], second._replace(dy=np.ascontiguousarray(spread)))
    # The derivative of tanh.
    back = upper.input_grad.astype(float) * (1 - second.x.astype(float) ** 2)
    lower = arithmetic.results(LAYERS[0], first._replace(dy=arithmetic.rounded(back)))
    return loss, [(lower.kernel_grad, lower.bias_grad), (upper.kernel_grad, upper.bias_grad)]
