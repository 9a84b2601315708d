"""Which implementation computes a call, and why.

`plan` reads shapes, dtypes, arguments and settings, and returns what to run. It is cached: a
warm call costs a few look-ups. `lcmulti.choosing.framework` has chosen the backend before.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

from lcmulti import plugins
from lcmulti.choosing.framework import ARGUMENTS
from lcmulti.choosing.settings import Settings
from lcmulti.choosing.steps import with_steps
from lcmulti.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConfigError,
    DtypeError,
    PluginError,
    UnsupportedError,
)
from lcmulti.geometry.arguments import choice
from lcmulti.geometry.of_call import spec_of_call, spec_of_transposed_call
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.memory import memory_for, require_memory
from lcmulti.plugins.contract import (
    Call,
    Facts,
    ImplementationEntry,
    Map,
    Operation,
    Problem,
    Steps,
)

__all__ = ["Plan", "Verdict", "check_alike", "choose", "plan"]

ArgumentFacts = tuple[Facts, Facts, Facts | None]


class Verdict(NamedTuple):
    """Whether one implementation can serve a call.

    Parameters
    ----------
    name : str
    reason : str or None
        Why it cannot serve, or None if it can.
    workspace : int or None
        Bytes it would hold beyond inputs and outputs; None if it cannot serve.
    """

    name: str
    reason: str | None
    workspace: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned call: what `lcmulti.operations.calling` needs to run it.

    Parameters
    ----------
    backend : str
    spec : LocalConvSpec
        The geometry as the caller wrote it.
    problem : Problem
        The call as the implementation sees it.
    call : Call
        The function that computes it: ``(x, kernel, bias) -> y`` on arrays of the backend.
    """

    backend: str
    spec: LocalConvSpec
    problem: Problem
    call: Call

    @property
    def channels_first(self) -> bool:
        """Whether arrays come and go with the channels after the batch."""
        return self.spec.data_format == "channels_first"


class UnhashableError(Exception):
    """An argument cannot be part of a cache key. So it is invalid, and validation will say why."""


def frozen(value: object) -> Hashable:
    """*value* as a cache key in which ``1``, ``1.0`` and ``True`` cannot be mistaken."""
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if isinstance(value, (tuple, list)) and kind in (tuple, list):
        return tuple(map(frozen, value))
    raise UnhashableError


def plan(
    backend: str,
    facts: ArgumentFacts,
    arguments: tuple[object, ...],
    settings: Settings,
    name: Map = "forward",
) -> Plan:
    """Plan a call.

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
    except (UnhashableError, ArgumentError, RecursionError):
        pass  # so that the error is about the arguments as the caller wrote them
    return _plan.__wrapped__(backend, facts, arguments, settings, name)


@lru_cache(maxsize=4096)
def _plan(
    backend: str,
    facts: ArgumentFacts,
    arguments: tuple[object, ...],
    settings: Settings,
    name: Map,
) -> Plan:
    spec, problem = problem_of(backend, facts, arguments[:-1], settings, name)
    exported = any(each is not None and each.exported for each in facts)
    entry, _ = choose(backend, problem, arguments[-1], settings, exported)
    closed = operation(backend, entry.name, name)
    steps = Steps(spec.data_format == "channels_first", spec.padding_indices(), spec)
    call = with_steps(plugins.load_backend(backend), closed, problem, steps)
    return Plan(backend, spec, problem, call)


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
    check_alike(backend, ARGUMENTS, facts)
    _check_memory(spec, x, name)
    transformed = any(each is not None and each.transformed for each in facts)
    resources = settings.resources
    return spec, Problem(spec.computed(), x.shape[0], x.dtype, x.device, transformed, resources)


@cache
def operation(backend: str, implementation: str, name: Map = "forward") -> Operation:
    """One differentiable map of an implementation."""
    entry = plugins.registry().implementations[backend, implementation]
    return plugins.load_backend(backend).close(
        plugins.load_implementation(backend, implementation), entry, name
    )


def check_alike(backend: str, names: Sequence[str], facts: Sequence[Facts | None]) -> None:
    """Check that all arrays have a dtype of the backend, and the dtype and device of the first.

    Parameters
    ----------
    names : sequence of str
        The names of the arguments, for messages.
    facts : sequence of Facts or None
        Of the arguments; None where there is none.
    """
    entry, first = plugins.registry().backends[backend], facts[0]
    assert first is not None
    for argument, fact in zip(names, facts, strict=True):
        if fact is None:
            continue
        if fact.dtype not in entry.dtypes:
            raise DtypeError(argument, f"dtype {', '.join(entry.dtypes)}", fact.dtype)
        if fact.dtype != first.dtype:
            raise DtypeError(argument, f"dtype {first.dtype}, as {names[0]} has", fact.dtype)
        if fact.device != first.device:
            where = f"an array on {first.device}, as {names[0]} is"
            raise ArgumentTypeError(argument, where, fact.device)


def _check_memory(spec: LocalConvSpec, x: Facts, name: Map) -> None:
    """Raise if a padded input, or an output, is larger than the memory of this machine.

    Abstract arrays, and arrays spread over machines, are not in this memory and are not checked.
    """
    size, memory = memory_for(tuple(length or 1 for length in x.shape), x.dtype)
    if x.transformed or size > memory:
        return
    if name == "forward":
        argument = "padding" if any(map(any, spec.padding)) else "x"
    else:  # the output is the input of *spec*
        argument = "dilation" if max(spec.dilation) > max(spec.strides) else "strides"
    # A batch may be spread over devices and machines, so one sample is checked.
    batch = max(x.shape[0] or 1, 1) if x.device == "cpu" else 1
    require_memory(argument, (batch, *spec.padded_size, spec.in_channels), x.dtype)
    require_memory(argument, (batch, *spec.output_size, spec.filters), x.dtype)


def choose(
    backend: str,
    problem: Problem,
    implementation: Any,
    settings: Settings,
    exported: bool = False,
) -> tuple[ImplementationEntry, list[Verdict]]:
    """Choose an implementation, and give a verdict on each.

    Where the call is *exported*, only portable implementations serve, and a named implementation is
    only preferred: a model may name one that the process that loads it does not have.

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
    portable = {entry.name for entry in entries if entry.portable}
    forced = name != "auto" and (not exported or name in portable)
    if not forced and settings.implementation in known:
        # A configured name is only preferred: backends without an implementation of it still work.
        name = settings.implementation
    verdicts = [
        _verdict(entry, problem, forced and entry.name == name, exported) for entry in entries
    ]
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


def _verdict(entry: ImplementationEntry, problem: Problem, forced: bool, exported: bool) -> Verdict:
    reason, workspace = None, None
    if problem.dtype not in entry.dtypes:
        reason = f"does not compute in {problem.dtype}"
    elif entry.devices and problem.device not in entry.devices:
        reason = f"does not run on {problem.device}"
    elif problem.transformed and not entry.transformable:
        reason = "cannot be transformed or traced by the framework"
    elif exported and not entry.portable:
        reason = "cannot be exported: what it computes with stays in this process"
    else:
        try:
            implementation = plugins.load_implementation(entry.backend, entry.name)
            reason = implementation.decline(problem)
            workspace = None if reason is not None else implementation.workspace(problem)
        except ConfigError:
            raise
        except PluginError as error:
            return Verdict(entry.name, str(error), None)
        except Exception as error:  # third-party code: the other implementations can still serve
            why = f"could not tell whether it serves ({type(error).__name__}: {error})"
            return Verdict(entry.name, why, None)
        limit = problem.resources.max_workspace
        # Under a transform or an export, often a single implementation can serve: no limit for it.
        unbounded = forced or problem.transformed or exported
        if workspace is not None and workspace > limit and not unbounded:
            reason = f"needs {workspace:,} bytes of workspace, over max_workspace={limit:,}"
    return Verdict(entry.name, reason, workspace)
