"""Prepare every way to compute, check its outputs, and time all of them in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import lcmulti
from lcmulti.bench import fresh, machine
from lcmulti.bench.advice import advice
from lcmulti.bench.contenders import Contender, disagreement, ours
from lcmulti.bench.harness import Harness, harness
from lcmulti.bench.peers import Peer
from lcmulti.bench.report import Report, Row
from lcmulti.bench.timing import Step, calls_for, timed
from lcmulti.bench.trial import failure, trial
from lcmulti.bench.workloads import Arrays, Workload, in_format
from lcmulti.errors import LcmultiError
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.untying import human

__all__ = ["Measuring", "Watcher"]

ENOUGH = 20.0
"""Seconds in total after which a way to compute is not called again."""

OTHER = {"channels_last": "channels_first", "channels_first": "channels_last"}
Watcher = Callable[[Report, str], None]


def over_limit(needed: int, limit: int) -> str:
    """Why a way to compute is not timed that would take more bytes than *limit*."""
    return f"not run: needs {human(needed)}, over memory={human(limit)} (--memory)"


class Measuring:
    """One call of `bench`, whose arguments were checked."""

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
        """Prepare all contenders, then time them in turns."""
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
                row.problem = over_limit(4 * arrays.nbytes, self.memory)
            for peer in self.peers:
                if peer.backend == backend and peer.applies(workload.spec):
                    self._peer(peer, arrays, workload, runner, steps)
        # In turns, so that other load on the machine affects all of them alike.
        for turn in range(self.repeat):
            for row, step, calls in steps:
                if turn == 0:
                    row.times.clear()
                if 2 * sum(row.times) < ENOUGH:
                    self.watch(self.report, f"{workload.name}: run {turn + 1} of {self.repeat}")
                    # Not timed: it replaces what the previous contender left in caches and memory.
                    step()
                    row.times.append(timed(step, calls))
        if self.variants and self.report.device == "cpu":
            self._fresh(workload)

    def _fresh(self, workload: Workload) -> None:
        """Time what ``auto`` takes where the allocator keeps memory."""
        for row in self.report.of(workload.name, "ours"):
            if row.auto and row.seconds is not None:
                self.watch(self.report, f"{workload.name}: {row.backend}, memory kept")
                row.kept = fresh.measured(
                    workload, row.backend, self.report.dtype, self.training, self.limit
                )

    def _row(
        self, workload: Workload, backend: str, name: str, kind: str, *, auto: bool = False,
        data_format: str | None = None, batch: int | None = None,
    ) -> Row:  # fmt: skip
        spec, batch = workload.spec, batch or workload.batch
        row = Row(workload.name, backend, name, kind, data_format or spec.data_format, batch, auto)
        if (found := self.report.machine) is not None:
            # Each map reads or writes its three arrays at least once; training is all three maps.
            moving = spec.bytes(batch, self.report.dtype) / found.bandwidth
            multiplying = spec.flops(batch) / found.rate
            row.roofline = (3 if self.training else 1) * max(moving, multiplying)
        self.report.rows.append(row)
        return row

    def _ours(
        self, arrays: Arrays, workload: Workload, backend: str
    ) -> Iterable[tuple[Row, Contender]]:
        """``auto``, the other implementations, and ``auto`` with another data format or batch."""
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

    def _explain(self, spec: LocalConvSpec, batch: int, backend: str) -> lcmulti.Explanation:
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
            row.problem = over_limit(needed, self.memory)
        elif peer.is_slow(spec, batch):
            self.watch(self.report, f"{workload.name}: trying {peer.name}")
            row.problem = trial(
                peer, workload, self.report.dtype, self.report.device, self.training, self.limit
            )
        if row.problem is None:
            try:
                contender = peer.contender(arrays)
            except Exception as error:  # third-party code may fail; the others continue
                row.problem = failure(f"{type(error).__name__}: {error}")
            else:
                self._prepare(row, contender, arrays, runner, steps)

    def _prepare(
        self, row: Row, contender: Contender, arrays: Arrays, runner: Harness,
        steps: list[tuple[Row, Step, int]],
    ) -> None:  # fmt: skip
        """Call it once, and compare its outputs with the reference."""
        self.watch(self.report, f"{row.workload}: {row.backend} {row.name}")
        result: list[object] = []
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
            row.times = [timed(step)]  # shown until all are timed in turns
            steps.append((row, step, calls_for(row.times[0])))
