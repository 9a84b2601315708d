"""The steps around a map: move the channels, pad with other than zeros, add the bias."""

from __future__ import annotations

from lcmulti.plugins.contract import Backend, Call, Operation, Problem, Steps, WholeOperation
from lcmulti.types import Array

__all__ = ["with_steps"]


def with_steps(owner: Backend, operation: Operation, problem: Problem, steps: Steps) -> Call:
    """The call of a `WholeOperation`, or of another operation with the steps around it."""
    if isinstance(operation, WholeOperation):
        return operation.whole(problem, steps)
    spec, resources = problem.spec, problem.resources

    def call(x: Array, kernel: Array, bias: Array) -> Array:
        if steps.channels_first:
            x = owner.move_axis(x, 1, -1)
        for axis, indices in steps.padding_indices:
            x = owner.take(x, indices, axis)
        y = operation(x, kernel, spec, resources)
        if steps.channels_first:  # before the bias, whose gradient then sums what the caller has
            y = owner.move_axis(y, -1, 1)
            bias = None if bias is None else owner.move_axis(bias, -1, 0)
        return y if bias is None else owner.add(y, bias)

    return call
