"""`bench`: prepare every way to compute, check its outputs, time all of them in turns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import lcmulti
from lcmulti import plugins
from lcmulti.bench import machine
from lcmulti.bench.advice import advice
from lcmulti.bench.contenders import Contender, disagreement, ours
from lcmulti.bench.harness import Harness, harness
from lcmulti.bench.peers import PEERS, Peer
from lcmulti.bench.report import Report, Row
from lcmulti.bench.timing import Step, calls_for, timed
from lcmulti.bench.trial import failure, trial
from lcmulti.bench.workloads import DEFAULT, Arrays, Workload, in_format, named
from lcmulti.errors import ArgumentError, Interrupted, LcmultiError, MissingBackendError
from lcmulti.geometry.arguments import byte_size, choice, integer

__all__ = ["DTYPES", "MODES", "bench"]

DTYPES = ("float32", "float64", "bfloat16", "float16")
DEVICES = ("cpu", "gpu")
MODES = ("forward", "training")
ENOUGH = 20.0
"""Seconds after which a way to compute is not repeated any more."""

OTHER = {"channels_last": "channels_first", "channels_first": "channels_last"}
Watcher = Callable[[Report, str], None]


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
    a workload is called once, which builds and compiles, its outputs are held against the
    reference, and all are called in turns.

    Parameters
    ----------
    workloads : iterable of str or Workload, optional
        Names of published layers, or workloads of one's own (`lcmulti.bench.workload`).
    backends : iterable of str, optional
        None for all that are installed.
    implementations : iterable of str, optional
        ``"auto"`` is always among them. None for all that serve.
    peers : bool or iterable of str, default True
        Also what people use instead, where it is installed; or those of these names.
    variants : bool, default True
        Also what ``auto`` takes in the other data format, with half and with twice the batch.
    mode : {"forward", "training"}
        Training is forward and the gradients in input and weights.
    dtype : {"float32", "float64", "bfloat16", "float16"}
    device : {"cpu", "gpu"}
        Of several GPUs the frameworks' first.
    batch : int, optional
        In place of the workloads' own.
    repeat : int, default 5
        Calls after the first. What has taken 20 s is not called again.
    limit : float, default 60
        Seconds of one call after which it is not repeated, and a peer is given up.
    memory : int or str, optional
        Bytes a workload may take; None for half of what is free in main memory.
    watch : callable, optional
        Called with the report and what happens next, after every step.

    Returns
    -------
    Report

    Raises
    ------
    ArgumentError
        For an argument that cannot be; for ``"gpu"`` where no backend has one.
    Interrupted
        With the report, if the user interrupts.
    """
    names = DEFAULT if workloads is None else workloads
    chosen = [named([each])[0] if isinstance(each, str) else each for each in names]
    if batch is not None:
        batch = integer("batch", batch, 1)
        chosen = [each._replace(batch=batch) for each in chosen]
    if len({each.name for each in chosen}) < len(chosen):
        raise ArgumentError("workloads", "each of another name", [each.name for each in chosen])
    mode, dtype = choice("mode", mode, MODES), choice("dtype", dtype, DTYPES)
    report = Report(None, mode, dtype, chosen, device=choice("device", device, DEVICES))
    if not 0 < limit < inf:
        raise ArgumentError("limit", "a positive number of seconds", limit)
    ways, others = _implementations(implementations), _peers(peers)
    repeat = integer("repeat", repeat, 1)
    memory = machine.available_memory() // 2 if memory is None else byte_size("memory", memory)
    if report.device == "gpu":  # the first framework would take all of its memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # Imports frameworks: after all that is checked.
    working, report.absent = _backends(backends, report.device)
    run = _Run(
        report, working, ways, others, variants, repeat, limit, memory,
        watch or (lambda report, text: None),
    )  # fmt: skip
    try:
        run.all()
    except KeyboardInterrupt:
        run.report.interrupted = True
        run.report.advice = advice(run.report)
        raise Interrupted(run.report) from None
    return run.report


def _backends(names: Iterable[str] | None, device: str) -> tuple[list[str], dict[str, str]]:
    """Those that take part, and why others do not.

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


class _Run:
    """One call of `bench`."""

    def __init__(
        self, report: Report, backends: list[str], implementations: tuple[str, ...] | None,
        peers: list[Peer], variants: bool, repeat: int, limit: float, memory: int, watch: Watcher,
    ) -> None:  # fmt: skip
        self.report, self.backends, self.implementations = report, backends, implementations
        self.peers, self.variants, self.repeat = peers, variants, repeat
        self.limit, self.memory, self.watch = limit, memory, watch
        self.training = report.mode == "training"

    def all(self) -> None:
        """Measure the machine, then each workload."""
        self.watch(self.report, "measuring bandwidth and the rate of matrix products")
        self.report.machine = machine.measure(self.report.dtype, self.backends, self.report.device)
        for workload in self.report.workloads:
            self.one(workload)
        self.report.advice = advice(self.report)
        self.watch(self.report, "done")

    def one(self, workload: Workload) -> None:
        """Prepare all, then time all in turns."""
        steps: list[tuple[Row, Step, int]] = []
        arrays = Arrays(workload, self.report.dtype)
        fits = 4 * arrays.nbytes <= self.memory  # arrays, a framework's copies, gradients
        for backend in self.backends:
            runner = harness(backend, self.report.device)
            if fits:
                for row, contender in self._ours(arrays, workload, backend):
                    self._prepare(row, contender, arrays, runner, steps)
            else:
                row = self._row(workload, backend, "auto", "ours", auto=True)
                row.problem = f"arrays of {arrays.nbytes:,} bytes are over the memory limit"
            for peer in self.peers:
                if peer.backend == backend and peer.applies(workload.spec):
                    self._peer(peer, arrays, workload, runner, steps)
        # In turns: what else the machine does meanwhile meets everyone.
        for turn in range(self.repeat):
            for row, step, calls in steps:
                if turn == 0:
                    row.times.clear()
                if 2 * sum(row.times) < ENOUGH:
                    self.watch(self.report, f"{workload.name}: run {turn + 1} of {self.repeat}")
                    step()  # what the one before left, in the caches and the memory, is not ours
                    row.times.append(timed(step, calls))

    def _row(
        self, workload: Workload, backend: str, name: str, kind: str, *, auto: bool = False,
        data_format: str | None = None, batch: int | None = None,
    ) -> Row:  # fmt: skip
        spec, batch = workload.spec, batch or workload.batch
        row = Row(workload.name, backend, name, kind, data_format or spec.data_format, batch, auto)
        if (found := self.report.machine) is not None:
            # Each map moves its three arrays once at least; training is all three maps.
            moving = spec.bytes(batch, self.report.dtype) / found.bandwidth
            multiplying = spec.flops(batch) / found.rate
            row.roofline = (3 if self.training else 1) * max(moving, multiplying)
        self.report.rows.append(row)
        return row

    def _ours(
        self, arrays: Arrays, workload: Workload, backend: str
    ) -> Iterable[tuple[Row, Contender]]:
        """What ``auto`` takes, the other implementations, and ``auto`` in other circumstances."""
        own = workload.spec.data_format
        try:
            found = self._explain(workload.spec, workload.batch, backend)
        except LcmultiError as error:
            row = self._row(workload, backend, "auto", "ours", auto=True)
            row.problem = f"not run: {error}"
            return
        row = self._row(workload, backend, found.implementation, "ours", auto=True)
        yield row, ours(arrays, backend, "auto", own)
        for verdict in found.verdicts:
            wanted = self.implementations is None or verdict.name in self.implementations
            if verdict.name == found.implementation or not wanted:
                continue
            row = self._row(workload, backend, verdict.name, "ours")
            if verdict.reason is not None:
                row.problem = f"not run: {verdict.reason}"
            else:
                yield row, ours(arrays, backend, verdict.name, own)
        if not self.variants:
            return
        other = self._explain(in_format(workload.spec, OTHER[own]), workload.batch, backend)
        row = self._row(workload, backend, other.implementation, "variant", data_format=OTHER[own])
        yield row, ours(arrays, backend, "auto", OTHER[own])
        for size in sorted({max(workload.batch // 2, 1), 2 * workload.batch} - {workload.batch}):
            again = Arrays(workload._replace(batch=size), self.report.dtype)
            if 4 * again.nbytes <= self.memory:
                name = self._explain(workload.spec, size, backend).implementation
                row = self._row(workload, backend, name, "variant", batch=size)
                yield row, ours(again, backend, "auto", own)

    def _explain(self, spec: Any, batch: int, backend: str) -> lcmulti.Explanation:
        dtype, device = self.report.dtype, self.report.device
        return lcmulti.explain(spec, batch=batch, dtype=dtype, backend=backend, device=device)

    def _peer(
        self, peer: Peer, arrays: Arrays, workload: Workload, runner: Harness,
        steps: list[tuple[Row, Step, int]],
    ) -> None:  # fmt: skip
        row = self._row(workload, peer.backend, peer.name, "peer", data_format=peer.data_format)
        spec, batch = arrays.spec, arrays.batch
        needed = 4 * arrays.nbytes + peer.memory(spec, batch, arrays.dtype.itemsize, self.training)
        if not peer.is_installed():
            row.problem = f"not installed; install it with: {peer.install}"
        elif (why := peer.declines(spec)) is not None:
            row.problem = f"not run: {why}"
        elif needed > self.memory:
            row.problem = f"not run: takes {needed / 1e9:,.1f} GB, over the memory limit"
        elif peer.is_slow(spec, batch):
            self.watch(self.report, f"{workload.name}: trying {peer.name}")
            row.problem = trial(
                peer, workload, self.report.dtype, self.report.device, self.training, self.limit
            )
        if row.problem is None:
            try:
                contender = peer.contender(arrays)
            except Exception as error:  # a stranger's code: the others go on
                row.problem = failure(f"{type(error).__name__}: {error}")
            else:
                self._prepare(row, contender, arrays, runner, steps)

    def _prepare(
        self, row: Row, contender: Contender, arrays: Arrays, runner: Harness,
        steps: list[tuple[Row, Step, int]],
    ) -> None:  # fmt: skip
        """Call it once, and hold its outputs against the reference."""
        self.watch(self.report, f"{row.workload}: {row.backend} {row.name}")
        result: list[Any] = []
        try:
            step = runner.step(contender, self.training)
            first = row.first = timed(lambda: result.append(step()))
            if first > self.limit:
                row.times, row.problem = [first], f"over {self.limit:.0f} s, timed once"
            elif row.batch == arrays.batch:
                row.problem = disagreement(runner.value(result[0]), arrays, row.data_format)
        except Exception as error:
            row.problem = failure(f"{type(error).__name__}: {error}")
        if row.problem is None:
            row.times = [timed(step)]  # to be shown until all are timed in turns
            steps.append((row, step, calls_for(row.times[0])))
