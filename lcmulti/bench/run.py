"""`bench`: check its arguments, and time every backend and peer that they choose."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import inf

from lcmulti import plugins
from lcmulti.bench import machine
from lcmulti.bench.advice import advice
from lcmulti.bench.measuring import Measuring, Watcher
from lcmulti.bench.peers import PEERS, Peer
from lcmulti.bench.report import Report
from lcmulti.bench.workloads import DEFAULT, Workload, named
from lcmulti.errors import ArgumentError, Interrupted, MissingBackendError
from lcmulti.geometry.arguments import byte_size, choice, integer

__all__ = ["DTYPES", "MODES", "bench"]

DTYPES = ("float32", "float64", "bfloat16", "float16")
DEVICES = ("cpu", "gpu")
MODES = ("forward", "training")


def bench(
    workloads: Iterable[str | Workload] | None = None,
    *,
    backends: Iterable[str] | None = None,
    implementations: Iterable[str] | None = None,
    peers: bool | Iterable[str] = True,
    variants: bool = True,
    mode: str = "forward",
    dtype: str = "float32",
    device: str = "cpu",
    batch: int | None = None,
    repeat: int = 5,
    limit: float = 60.0,
    memory: int | str | None = None,
    watch: Watcher | None = None,
) -> Report:
    """Time locally connected layers on this machine.

    Memory bandwidth and the rate of matrix products are measured first. Then every way to compute
    a workload is called once, which builds and compiles it, and its outputs are compared with the
    reference. Then all are called in turns.

    Parameters
    ----------
    workloads : iterable of str or Workload, optional
        Names of published layers (``lcmulti bench --list``), or workloads of one's own
        (`lcmulti.bench.workload`). None for two small published layers.
    backends : iterable of str, optional
        None for all that are installed.
    implementations : iterable of str, optional
        ``"auto"`` is always added. None for all that can serve.
    peers : bool or iterable of str, default True
        Whether to time installed peers, what people use instead; or the names of some.
    variants : bool, default True
        Whether to time ``auto`` also in the other data format, with half and twice the batch, and
        on a CPU where the allocator keeps what is freed.
    mode : {"forward", "training"}
        Training is a forward pass and the gradients in input and weights.
    dtype : {"float32", "float64", "bfloat16", "float16"}
    device : {"cpu", "gpu"}
        With several GPUs, the first one of each framework.
    batch : int, optional
        Replaces the batch of each workload.
    repeat : int, default 5
        Calls after the first one. Once these have taken 20 s in total, there are no more.
    limit : float, default 60
        A call that takes more seconds is not repeated; a peer is stopped.
    memory : int or str, optional
        Bytes that a workload may take; None for half of the free main memory.
    watch : callable, optional
        Called after every step, with the report and a text that says what happens next.

    Returns
    -------
    Report

    Raises
    ------
    ArgumentError
        For an argument that is not allowed; for ``"gpu"`` if no backend has one.
    Interrupted
        If the user interrupts; it holds the report.
    """
    names = DEFAULT if workloads is None else workloads
    chosen = [named([each])[0] if isinstance(each, str) else each for each in names]
    if batch is not None:
        batch = integer("batch", batch, 1)
        chosen = [each._replace(batch=batch) for each in chosen]
    if len({each.name for each in chosen}) < len(chosen):
        names = [each.name for each in chosen]
        raise ArgumentError("workloads", "layers with different names", names)
    mode, dtype = choice("mode", mode, MODES), choice("dtype", dtype, DTYPES)
    report = Report(None, mode, dtype, chosen, device=choice("device", device, DEVICES))
    if not 0 < limit < inf:
        raise ArgumentError("limit", "a positive number of seconds", limit)
    ways, others = _implementations(implementations), _peers(peers)
    repeat = integer("repeat", repeat, 1)
    memory = machine.available_memory() // 2 if memory is None else byte_size("memory", memory)
    if report.device == "gpu":  # otherwise the first framework would take all of the GPU's memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # This imports frameworks, so all arguments are checked before.
    working, report.absent = _backends(backends, report.device)
    measuring = Measuring(
        report, working, ways, others, variants, repeat, limit, memory,
        watch or (lambda report, text: None),
    )  # fmt: skip
    try:
        measuring.all()
    except KeyboardInterrupt:
        report.interrupted, report.advice = True, advice(report)
        raise Interrupted(report) from None
    return report


def _backends(names: Iterable[str] | None, device: str) -> tuple[list[str], dict[str, str]]:
    """The backends to time, and why others are left out.

    PyTorch before TensorFlow: only this order of their OpenMP runtimes is safe.
    """
    known = plugins.registry().backends
    wanted = known if names is None else [choice("backends", name, known) for name in names]
    if not wanted:
        raise ArgumentError("backends", "at least one name", names)
    working: list[str] = []
    absent: dict[str, str] = {}
    for name in sorted(set(wanted), key=lambda name: (name not in ("numpy", "torch"), name)):
        try:
            plugins.placement(name, device)
            working.append(name)
        except (MissingBackendError, ArgumentError) as error:
            if names is not None:
                raise
            absent[name] = str(error)
    if not working:
        raise ArgumentError("device", "one that an installed backend has", device)
    return working, absent


def _implementations(names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    known = {name for _, name in plugins.registry().implementations}
    return tuple(choice("implementations", name, ("auto", *sorted(known))) for name in names)


def _peers(names: bool | Iterable[str]) -> list[Peer]:
    if isinstance(names, bool):
        return list(PEERS) if names else []
    known = dict.fromkeys(peer.name for peer in PEERS)
    for name in (names := list(names)):
        if name not in known:
            raise ArgumentError("peers", f"True, False or names among {', '.join(known)}", name)
    return [peer for peer in PEERS if peer.name in names]
