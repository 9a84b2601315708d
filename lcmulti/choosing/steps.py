"""The steps around a map: channels to the end, padding that is not zeros, the bias, and back."""

from __future__ import annotations

from typing import Any

from lcmulti.plugins.contract import Backend, Call, Operation, Problem, Steps, WholeOperation

__all__ = ["with_steps"]


def with_steps(owner: Backend, operation: Operation, problem: Problem, steps: Steps) -> Call:
    """Make the call of an operation: its own where it has one, else step by step."""
    if isinstance(operation, WholeOperation):
        return operation.whole(problem, steps)
    spec, resources = problem.spec, problem.resources

    def call(x: Any, kernel: Any, bias: Any) -> Any:
        if steps.channels_first:
            x = owner.move_axis(x, 1, -1)
        for axis, indices in steps.padding_indices:
            x = owner.take(x, indices, axis)
        y = operation(x, kernel, spec, resources)
        if bias is not None:
            y = owner.add(y, bias)
        return owner.move_axis(y, -1, 1) if steps.channels_first else y

    return call
