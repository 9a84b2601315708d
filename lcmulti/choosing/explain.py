"""`explain`: what would run for a call, why, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lcmulti import plugins
from lcmulti.choosing import dispatch
from lcmulti.choosing.framework import ARGUMENTS, backend_of, read, readers_of
from lcmulti.choosing.preparing import converted, prepare
from lcmulti.choosing.settings import Settings, current, sources
from lcmulti.errors import ArgumentError, ArgumentTypeError
from lcmulti.geometry.arguments import choice, integer
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Problem
from lcmulti.types import Array, Padding, Sizes

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` found; ``print`` shows it as a few lines of text.

    Parameters
    ----------
    backend, implementation : str
        What would run.
    backend_reason, implementation_reason : str
        Why.
    workspace : int
        Bytes it holds beyond inputs, outputs, weights and their gradients.
    spec : LocalConvSpec
        The geometry.
    verdicts : tuple of Verdict
        One for each implementation of the backend, with its ``name``, the ``reason`` why it cannot
        serve (or None) and its ``workspace``.
    details : tuple of str
        How the implementation would compute the call, in its own words; one entry a line.
    """

    backend: str
    backend_reason: str
    implementation: str
    implementation_reason: str
    workspace: int
    spec: LocalConvSpec
    verdicts: tuple[dispatch.Verdict, ...]
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"backend         {self.backend} ({self.backend_reason})",
            f"implementation  {self.implementation} ({self.implementation_reason})",
            *(f"                {line}" for line in self.details),
            f"workspace       {self.workspace:,} bytes",
            f"output          {self.spec.output_shape}",
            f"kernel          {self.spec.kernel_shape}",
        ]
        lines += [
            f"{'not ' + each.name:<15} {each.reason or 'could serve; lower priority'}"
            for each in self.verdicts
            if each.name != self.implementation
        ]
        return "\n".join(lines)


def explain(
    x: Array,
    kernel: Array | None = None,
    bias: Array | None = None,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    padding_mode: str = "zeros",
    dilation: Sizes = 1,
    groups: int = 1,
    data_format: str | None = None,
    backend: str | None = None,
    implementation: str = "auto",
    batch: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> Explanation:
    """Tell which backend and implementation would compute a call. Nothing is computed.

    Parameters
    ----------
    x : array or LocalConvSpec
        Either the arguments of `local_conv`, or a spec together with *batch*, *dtype* and
        *device*.
    kernel, bias : array, optional
        As for `local_conv`; not given with a spec.
    strides, padding, padding_mode, dilation, groups, data_format
        As for `local_conv`; not given with a spec, which has them.
    backend, implementation : str, optional
        As for `local_conv`.
    batch : int, optional
        Number of samples, with a spec. None: unknown.
    dtype : str, optional
        With a spec. None means float32.
    device : {"cpu", "gpu"}, optional
        Kind of device, with a spec. None means the CPU.

    Returns
    -------
    Explanation

    Raises
    ------
    LcmultiError
        As `local_conv` for the same call; `ArgumentError` for an argument that the spec, or the
        arrays, already determine.

    Examples
    --------
    >>> import lcmulti
    >>> spec = lcmulti.LocalConvSpec((32, 32, 3), filters=64, kernel_size=3)
    >>> lcmulti.explain(spec, batch=32, backend="numpy").implementation
    'blocked'
    """
    settings = current()
    if isinstance(x, LocalConvSpec):
        nothing = "nothing beside a LocalConvSpec, which has it"
        _refuse(nothing, None, kernel=kernel, bias=bias, data_format=data_format)
        _refuse(nothing, 1, strides=strides, dilation=dilation, groups=groups)
        _refuse(nothing, "valid", padding=padding)
        _refuse(nothing, "zeros", padding_mode=padding_mode)
        name = settings.backend
        if backend is not None:
            name = choice("backend", backend, plugins.registry().backends)
        if batch is not None:
            batch = integer("batch", batch, 0)
        dtype = choice(
            "dtype", "float32" if dtype is None else dtype, plugins.registry().backends[name].dtypes
        )
        device = choice("device", "cpu" if device is None else device, ("cpu", "gpu"))
        plugins.load_backend(name)
        resources = settings.resources
        spec, problem = x, Problem(x.computed(), batch, dtype, device, False, resources)
        arrays_decide = False
    else:
        _refuse(
            "nothing beside arrays, which have it", None, batch=batch, dtype=dtype, device=device
        )
        if kernel is None:
            raise ArgumentError("kernel", "an array beside x, or a LocalConvSpec as x", kernel)
        arguments = (
            strides, padding, padding_mode, dilation, groups, data_format, implementation,
        )  # fmt: skip
        if backend is not None and not isinstance(backend, str):
            raise ArgumentTypeError("backend", "a name or None", backend)
        kinds = (type(x), type(kernel), type(bias))
        name, neutral = backend_of(kinds, backend, settings.backend)
        arrays = read((x, kernel, bias), readers_of(kinds))
        x, kernel, bias = converted(name, arrays, ARGUMENTS)
        plan, _ = prepare(name, x, kernel, bias, arguments)
        spec, problem, arrays_decide = plan.spec, plan.problem, not neutral
    entry, verdicts = dispatch.choose(name, problem, implementation, settings)
    verdict = next(each for each in verdicts if each.name == entry.name)
    return Explanation(
        name,
        _backend_reason(backend, arrays_decide),
        entry.name,
        _implementation_reason(implementation, entry.name, settings, verdicts),
        verdict.workspace or 0,
        spec,
        tuple(verdicts),
        _details(name, entry.name, problem),
    )


def _details(backend: str, implementation: str, problem: Problem) -> tuple[str, ...]:
    """The details that an implementation gives of a call, if it gives any."""
    told = getattr(plugins.load_implementation(backend, implementation), "details", None)
    return () if told is None else tuple(told(problem))


def _refuse(expected: str, default: Any, **given: Any) -> None:
    """Raise for an argument that was given although another one determines it."""
    for argument, value in given.items():
        if type(value) is not type(default) or value != default:
            raise ArgumentError(argument, expected, value)


def _backend_reason(backend: str | None, arrays_decide: bool) -> str:
    if backend is not None:
        return "named in the call"
    if arrays_decide:
        return "the framework of the arrays"
    return f"configured: {sources()['backend'].place}"


def _implementation_reason(
    implementation: str, chosen: str, settings: Settings, verdicts: list[dispatch.Verdict]
) -> str:
    if implementation.lower() != "auto":
        return "named in the call"
    if settings.implementation == chosen:
        return f"configured: {sources()['implementation'].place}"
    refused = sum(each.reason is not None for each in verdicts)
    return f"highest priority of the {len(verdicts) - refused} that can serve"
