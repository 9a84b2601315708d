"""Which backend, which implementation, and why.

Two steps, each cached: `backend_of` reads the types of the arrays, `plan` reads everything
else (shapes, dtypes, arguments, settings) and returns what to run. A warm call costs a
few look-ups.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from lcmulti import plugins, shapes
from lcmulti.arguments import choice
from lcmulti.backend import (
    BackendEntry,
    Call,
    Facts,
    ImplementationEntry,
    Map,
    Operation,
    Problem,
    Resources,
    Steps,
)
from lcmulti.call_spec import spec_of_call, spec_of_transposed_call
from lcmulti.errors import (
    ArgumentError,
    ArgumentTypeError,
    DtypeError,
    MixedFrameworksError,
    PluginError,
    UnsupportedError,
    described,
)
from lcmulti.settings import Settings, current
from lcmulti.spec import LocalConvSpec
from lcmulti.steps import with_steps
from lcmulti.weights import memory_for, require_memory

__all__ = ["Plan", "Verdict", "backend_of", "choose", "plan"]

NUMPY = "numpy"
ARGUMENTS = ("x", "kernel", "bias")
ArgumentFacts = tuple[Facts, Facts, Facts | None]


class Verdict(NamedTuple):
    """What came of one implementation when a call was planned.

    Parameters
    ----------
    name : str
    reason : str or None
        Why it cannot serve, or None if it can.
    workspace : int or None
        Bytes it would hold beyond inputs and outputs, if it can serve.
    """

    name: str
    reason: str | None
    workspace: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A call, decided: what `lcmulti.functional` needs to run it.

    Parameters
    ----------
    backend : str
    spec : LocalConvSpec
        The geometry as the caller wrote it.
    problem : Problem
        The call as the implementation sees it.
    call : Call
        What computes it: ``(x, kernel, bias) -> y`` on arrays of the backend.
    """

    backend: str
    spec: LocalConvSpec
    problem: Problem
    call: Call

    @property
    def channels_first(self) -> bool:
        """Whether arrays come and go with the channels after the batch."""
        return self.spec.data_format == "channels_first"


def backend_of(
    kinds: tuple[type, ...],
    backend: str | None,
    default: str | None = None,
    names: tuple[str, ...] = ARGUMENTS,
) -> tuple[str, bool]:
    """Name of the backend that computes on arrays of these types, and whether all are NumPy's.

    The call's own *backend*; else the framework the arrays belong to; else *default*. NumPy arrays
    are neutral, every other array stays with its framework.

    Parameters
    ----------
    kinds : tuple of type
        Types of the arrays; ``NoneType`` for no bias.
    default : str, optional
        None for the configured backend.
    names : tuple of str
        What the caller knows them by.

    Raises
    ------
    MixedFrameworksError
        If arrays of two frameworks meet, or *backend* names another framework than theirs.
    ArgumentTypeError
        If an argument is no array of any registered backend.
    """
    name, neutral = _named(kinds, backend, names)
    # Settings, which may change, are read for NumPy's arrays alone: it takes as long as the rest.
    return name or default or current().backend, neutral


@lru_cache(maxsize=1024)
def _named(
    kinds: tuple[type, ...], backend: str | None, names: tuple[str, ...]
) -> tuple[str | None, bool]:
    """The same, None where the types and *backend* leave it open."""
    owner: tuple[str, str] | None = None
    for argument, kind in zip(names, kinds, strict=True):
        if argument == "bias" and kind is type(None):
            continue
        framework = _framework_of(kind)
        if framework is None:
            known = ", ".join(plugins.registry().backends)
            shown = described(f"{kind.__module__}.{kind.__qualname__}")
            raise ArgumentTypeError(argument, f"an array of one of {known}", shown)
        if framework == NUMPY:
            continue
        if owner is not None and owner[1] != framework:
            raise MixedFrameworksError(
                argument,
                f"an array of {owner[1]}, as {owner[0]} is",
                described(f"one of {framework}; convert one of them"),
            )
        owner = owner or (argument, framework)
    if backend is None:
        return (None, True) if owner is None else (owner[1], False)
    chosen = choice("backend", backend, plugins.registry().backends)
    if owner is not None and owner[1] != chosen:
        raise MixedFrameworksError(
            "backend",
            f"{owner[1]!r}, the framework of {owner[0]}",
            described(f"{backend!r}; tensors are never moved to another framework silently"),
        )
    return chosen, owner is None


def _framework_of(kind: type) -> str | None:
    """Find the backend of a type among the modules that are imported already."""
    for name, entry in plugins.registry().backends.items():
        for reference in entry.array_types:
            module, _, path = reference.partition(":")
            known: Any = sys.modules.get(module)
            for attribute in path.split("."):
                known = getattr(known, attribute, None)
            if isinstance(known, type) and issubclass(kind, known):
                return name
    return None


class _UnhashableError(Exception):
    """An argument is nothing a cache may be keyed by; it is wrong, and validation will say so."""


def frozen(value: Any) -> Any:
    """*value* as a cache key in which ``1``, ``1.0`` and ``True`` cannot be mistaken."""
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if kind is tuple or kind is list:
        return tuple(map(frozen, value))
    raise _UnhashableError


def plan(
    backend: str,
    facts: ArgumentFacts,
    arguments: tuple[Any, ...],
    settings: Settings,
    name: Map = "forward",
) -> Plan:
    """Decide a call.

    Parameters
    ----------
    facts : tuple of Facts
        Of ``x``, ``kernel`` and ``bias`` (or None).
    arguments : tuple
        ``strides, padding, padding_mode, dilation, groups, data_format, implementation`` as
        the caller wrote them; for the transposed operation ``output_padding`` in the third place.
    name : {"forward", "input_grad"}
        The map that is the operation; ``"input_grad"`` is the transposed one.
    """
    try:
        return _plan(backend, facts, frozen(arguments), settings, name)
    except (_UnhashableError, ArgumentError, RecursionError):
        pass  # to be said of the arguments as they came
    return _plan.__wrapped__(backend, facts, arguments, settings, name)


@lru_cache(maxsize=4096)
def _plan(
    backend: str,
    facts: ArgumentFacts,
    arguments: tuple[Any, ...],
    settings: Settings,
    name: Map,
) -> Plan:
    spec, problem = problem_of(backend, facts, arguments[:-1], settings, name)
    entry, _ = choose(backend, problem, arguments[-1], settings)
    closed = operation(backend, entry.name, name)
    steps = Steps(spec.data_format == "channels_first", padding_indices(spec))
    call = with_steps(plugins.load_backend(backend), closed, problem, steps)
    return Plan(backend, spec, problem, call)


def padding_indices(spec: LocalConvSpec) -> tuple[tuple[int, np.ndarray], ...]:
    """``(axis, indices)`` that pad a channels-last input in a non-zero mode; else nothing."""
    return tuple(
        (axis + 1, shapes.padding_indices(size, low, high, spec.padding_mode))
        for axis, (size, (low, high)) in enumerate(zip(spec.input_size, spec.padding, strict=True))
        if spec.padding_mode != "zeros" and (low or high)
    )


def problem_of(
    backend: str,
    facts: ArgumentFacts,
    geometry: tuple[Any, ...],
    settings: Settings,
    name: Map = "forward",
) -> tuple[LocalConvSpec, Problem]:
    """The caller's geometry, and the problem an implementation is asked to serve."""
    strides, padding, third, dilation, groups, data_format = geometry
    x, kernel, bias = facts
    shapes_given = (x.shape, kernel.shape, bias.shape if bias is not None else None)
    arguments = {
        "strides": strides,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "data_format": settings.data_format if data_format is None else data_format,
    }
    if name == "forward":
        spec = spec_of_call(*shapes_given, padding_mode=third, **arguments)
    else:
        spec = spec_of_transposed_call(*shapes_given, output_padding=third, **arguments)
    _check_dtypes(plugins.registry().backends[backend], facts)
    _check_memory(spec, x, name)
    transformed = any(each is not None and each.transformed for each in facts)
    resources = Resources(settings.max_workspace, settings.threads)
    return spec, Problem(spec.computed(), x.shape[0], x.dtype, x.device, transformed, resources)


@cache
def operation(backend: str, implementation: str, name: Map = "forward") -> Operation:
    """One map of an implementation, differentiable."""
    entry = plugins.registry().implementations[backend, implementation]
    return plugins.load_backend(backend).close(
        plugins.load_implementation(backend, implementation), entry, name
    )


def _check_dtypes(entry: BackendEntry, facts: ArgumentFacts) -> None:
    x = facts[0]
    for argument, fact in zip(ARGUMENTS, facts, strict=True):
        if fact is None:
            continue
        if fact.dtype not in entry.dtypes:
            raise DtypeError(argument, f"dtype {', '.join(entry.dtypes)}", fact.dtype)
        if fact.dtype != x.dtype:
            raise DtypeError(argument, f"dtype {x.dtype}, as x has", fact.dtype)
        if fact.device != x.device:
            raise ArgumentTypeError(argument, f"an array on {x.device}, as x is", fact.device)


def _check_memory(spec: LocalConvSpec, x: Facts, name: Map) -> None:
    """Refuse a padded input, or an output, that is larger than the memory of this machine.

    Not of an array that is not in that memory itself: abstract, or spread over machines.
    """
    size, memory = memory_for(tuple(length or 1 for length in x.shape), x.dtype)
    if x.transformed or size > memory:
        return
    if name == "forward":
        argument = "padding" if any(map(any, spec.padding)) else "x"
    else:  # what comes out is the input of *spec*
        argument = "dilation" if max(spec.dilation) > max(spec.strides) else "strides"
    # Batches may be spread over devices and machines; a sample is not.
    batch = max(x.shape[0] or 1, 1) if x.device == "cpu" else 1
    require_memory(argument, (batch, *spec.padded_size, spec.in_channels), x.dtype)
    require_memory(argument, (batch, *spec.output_size, spec.filters), x.dtype)


def choose(
    backend: str, problem: Problem, implementation: Any, settings: Settings
) -> tuple[ImplementationEntry, list[Verdict]]:
    """Pick an implementation and give the verdict on each.

    Raises
    ------
    ArgumentError
        If *implementation* is not a name this backend knows.
    UnsupportedError
        If none can serve, or the named one cannot.
    """
    entries = plugins.registry().implementations_of(backend)
    known = ("auto", *(entry.name for entry in entries))
    name = choice("implementation", implementation, known)
    forced = name != "auto"
    if not forced and settings.implementation in known:
        # A configured name is a wish: other backends, which lack that name, still work.
        name = settings.implementation
    verdicts = [_verdict(entry, problem, forced and entry.name == name) for entry in entries]
    by_name = {verdict.name: verdict for verdict in verdicts}
    wanted = [e for e in entries if name in ("auto", e.name)]
    if not forced:
        wanted += [e for e in entries if e not in wanted]
    for entry in wanted:
        if by_name[entry.name].reason is None:
            return entry, verdicts
    if forced:
        raise UnsupportedError(
            f"implementation {name!r} of backend {backend!r} cannot serve this call "
            f"({by_name[name].reason}); implementation='auto' takes one that can"
        )
    reasons = "; ".join(f"{entry.name}: {by_name[entry.name].reason}" for entry in wanted)
    raise UnsupportedError(
        f"no implementation of backend {backend!r} can serve this call "
        f"({reasons or 'none is registered'})"
    )


def _verdict(entry: ImplementationEntry, problem: Problem, forced: bool) -> Verdict:
    reason, workspace = None, None
    if problem.dtype not in entry.dtypes:
        reason = f"does not compute in {problem.dtype}"
    elif entry.devices and problem.device not in entry.devices:
        reason = f"does not run on {problem.device}"
    elif problem.transformed and not entry.transformable:
        reason = "cannot be transformed or traced by the framework"
    else:
        try:
            implementation = plugins.load_implementation(entry.backend, entry.name)
            reason = implementation.decline(problem)
            workspace = None if reason is not None else implementation.workspace(problem)
        except PluginError as error:
            return Verdict(entry.name, str(error), None)
        except Exception as error:  # a stranger's code: the others go on serving
            why = f"could not tell whether it serves ({type(error).__name__}: {error})"
            return Verdict(entry.name, why, None)
        limit = problem.resources.max_workspace
        # A transform that only this one can serve outranks the wish for little memory.
        unbounded = forced or problem.transformed
        if workspace is not None and workspace > limit and not unbounded:
            reason = f"needs {workspace:,} bytes of workspace, over max_workspace={limit:,}"
    return Verdict(entry.name, reason, workspace)
