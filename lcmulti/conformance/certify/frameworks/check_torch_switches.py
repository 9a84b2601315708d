"""Switches of PyTorch that a user may set, and tensors that PyTorch computes lazily.

With any of them, a result is right, or the call raises `UnsupportedError`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from lcmulti.conformance.case import Case
from lcmulti.conformance.certify.check_contract import results, verify_results
from lcmulti.conformance.certify.expectation import expectation_of, without_bias
from lcmulti.conformance.certify.frameworks.check_torch_transforms import require_transforms
from lcmulti.conformance.certify.geometries import GEOMETRIES, LARGE, TRANSFORMED
from lcmulti.conformance.certify.large import expectation_of_any_size
from lcmulti.conformance.certify.subject import CORE_DTYPE, Subject
from lcmulti.errors import UnsupportedError
from lcmulti.types import Array


@contextmanager
def _set(read: Callable[[], Any], write: Callable[[Any], Any], value: Any) -> Iterator[None]:
    before = read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(value)
        try:
            yield
        finally:
            write(before)


def precision(name: str) -> AbstractContextManager[None]:
    """Set the precision to which products of float32 matrices may be rounded."""
    read, write = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    return _set(read, write, name)


def threads(number: int) -> AbstractContextManager[None]:
    """Set the number of threads: one, as in workers of a `DataLoader`, or more than cores."""
    return _set(torch.get_num_threads, torch.set_num_threads, number)


def deterministic() -> AbstractContextManager[None]:
    """Allow only deterministic operations."""
    read, write = torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    return _set(read, write, True)


SWITCHES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "float32 matmul precision high": lambda: precision("high"),
    "float32 matmul precision medium": lambda: precision("medium"),
    "one thread": lambda: threads(1),
    "five threads": lambda: threads(5),
    "deterministic algorithms": deterministic,
    "no oneDNN": lambda: torch.backends.mkldnn.flags(enabled=False),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
}


def rows(few: bool) -> Iterator[tuple[Case, str]]:
    """Small and large geometries of each kind."""
    for case in (*(GEOMETRIES[name] for name in TRANSFORMED), *LARGE.values()):
        yield case, CORE_DTYPE


@pytest.mark.rows(of=rows)
def test_switches(subject: Subject, case: Case, dtype: str) -> None:
    """The value and all gradients under each switch."""
    subject.require(case, dtype)
    known = expectation_of_any_size(case, dtype)
    there = known.inputs.each(subject.array)
    for name, switch in SWITCHES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with switch():
                try:
                    found = results(subject, case, there)
                except UnsupportedError:
                    continue
        try:
            verify_results(subject, found, known, there.x)
        except AssertionError as error:
            raise AssertionError(f"with {name}: {error}") from error


LAZY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "conjugated": lambda tensor: tensor.conj().resolve_conj().conj(),
    "negated": lambda tensor: torch._neg_view(-tensor),
}
"""Lazy forms of a tensor: PyTorch conjugates or negates the numbers only when they are read."""


@pytest.mark.geometries(TRANSFORMED, others=TRANSFORMED)
def test_tensors_lazily_conjugated_or_negated(subject: Subject, case: Case, dtype: str) -> None:
    """Values and gradients, with all arguments lazy and with each one alone."""
    subject.require(case, dtype)
    known = expectation_of(case, dtype)
    plain = known.inputs.each(subject.array)
    for name, lazy in LAZY.items():
        there = plain.each(lazy)
        if name == "conjugated" and not dtype.startswith("complex"):
            continue  # the conjugate of a real tensor is the tensor itself
        alone = [plain._replace(**{each: getattr(there, each)}) for each in ("x", "kernel", "dy")]
        for given in (there, *alone):
            verify_results(subject, results(subject, case, given), known, plain.x)


@pytest.mark.geometries(TRANSFORMED)
def test_nested_vmap(subject: Subject, case: Case, dtype: str) -> None:
    """Nested `vmap` over one argument each, and over both arguments, with gradients."""
    require_transforms(subject, case)
    case = without_bias(case)
    known = [expectation_of(replace(case, name=f"{case.name} {i}"), dtype) for i in range(4)]
    there = [each.inputs.each(subject.array) for each in known]
    x, kernel, dy = (
        torch.stack([each[i] for each in there]).unflatten(0, (2, 2)) for i in (0, 1, 3)
    )

    def both(x: Array, kernel: Array, dy: Array) -> Any:
        value, pull_back = torch.func.vjp(subject.call(case), x, kernel)
        return value, *pull_back(dy)

    found = torch.func.vmap(torch.func.vmap(both))(x, kernel, dy)
    for name, parts in zip(("forward", "input_grad", "kernel_grad"), found, strict=True):
        for place, part in enumerate(parts.flatten(0, 1)):
            value, limit = (getattr(each, name) for each in known[place][1::2])
            subject.verify_host(f"{name} of {place}", subject.owner.to_numpy(part), value, limit)
    # Every input with every kernel.
    crossed = torch.func.vmap(torch.func.vmap(subject.call(case), (None, 0)), (0, None))
    for i, row in enumerate(crossed(x[0], kernel[0])):
        for j, y in enumerate(row):
            pair = known[i].inputs._replace(kernel=known[j].inputs.kernel)
            expected = expectation_of(case, dtype, pair)
            value, limit = expected.values.forward, expected.limits.forward
            subject.verify_host(f"x {i}, kernel {j}", subject.owner.to_numpy(y), value, limit)
