"""The report of a benchmark, as data: the machine, a row for each way to compute, advice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any, NamedTuple

from lcmulti.bench.workloads import Workload

__all__ = ["Machine", "Report", "Row"]


class Machine(NamedTuple):
    """The machine of the measurements.

    Parameters
    ----------
    bandwidth : float
        Bytes per second, of copying or reading.
    rate : float
        Flops per second of a large matrix product.
    cores : int
    processor : str
        Name of the processor, or of the GPU if that was measured.
    system, python : str
    versions : dict
        Version of each framework, by backend.
    device : {"cpu", "gpu"}
    """

    bandwidth: float
    rate: float
    cores: int
    processor: str
    system: str
    python: str
    versions: dict[str, str]
    device: str = "cpu"

    @property
    def name(self) -> str:
        """The machine in one line."""
        return self.processor if self.device == "gpu" else f"{self.cores} cores of {self.processor}"


@dataclass
class Row:
    """One way to compute one workload.

    Parameters
    ----------
    workload, backend, name : str
        *name* is an implementation or a peer.
    kind : {"ours", "peer", "variant"}
        A variant is ``auto`` with another data format or batch.
    data_format : str
    batch : int
    auto : bool
        Whether ``implementation="auto"`` takes it.
    roofline : float
        The least time, in seconds, that this machine can take.
    first : float or None
        Seconds of building, tracing and the first call.
    times : list of float
        Seconds of each later call.
    problem : str or None
        Why there are no times, or only one.
    kept : dict
        Of what ``auto`` takes on a CPU: seconds of a call in a process of its own whose allocator
        keeps what is freed, by the allocator, and ``"as it is"``.
    """

    workload: str
    backend: str
    name: str
    kind: str
    data_format: str
    batch: int
    auto: bool = False
    roofline: float = 0.0
    first: float | None = None
    times: list[float] = field(default_factory=list)
    problem: str | None = None
    kept: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """Median time in seconds, or None without times."""
        return median(self.times) if self.times else None

    @property
    def spread(self) -> float | None:
        """Half the distance between quartiles, relative to the median; None below three times."""
        if len(self.times) < 3:
            return None
        low, middle, high = quantiles(self.times, n=4, method="inclusive")
        return (high - low) / 2 / middle

    @property
    def label(self) -> str:
        """The name, with what is varied."""
        return f"{self.name}, {self.data_format}, batch {self.batch}"


@dataclass
class Report:
    """Everything `bench` measured.

    Parameters
    ----------
    machine : Machine or None
    mode : {"forward", "training"}
    dtype : str
    workloads : list of Workload
    rows : list of Row
        In the order in which they were prepared.
    absent : dict
        Why a backend was left out, by its name.
    advice : list of str
        How to make the layer faster on this machine.
    interrupted : bool
    device : {"cpu", "gpu"}
    """

    machine: Machine | None
    mode: str
    dtype: str
    workloads: list[Workload]
    rows: list[Row] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)
    interrupted: bool = False
    device: str = "cpu"

    def of(self, workload: str, *kinds: str) -> list[Row]:
        """The rows of a workload; all, or those of some kinds."""
        return [
            row
            for row in self.rows
            if row.workload == workload and (not kinds or row.kind in kinds)
        ]

    def relative(self, row: Row) -> float | None:
        """Time of a row over the time of what ``auto`` takes on the same backend."""
        auto = next(
            (r for r in self.of(row.workload, "ours") if r.backend == row.backend and r.auto), None
        )
        if row.seconds is None or auto is None or not auto.seconds or row.kind == "variant":
            return None
        return row.seconds / auto.seconds

    def to_json(self) -> str:
        """The whole report, with every single time."""
        rows = [
            asdict(row)
            | {"seconds": row.seconds, "spread": row.spread, "relative": self.relative(row)}
            for row in self.rows
        ]
        workloads = [
            {
                "name": each.name,
                "batch": each.batch,
                "flops": each.spec.flops(each.batch),
                "bytes": each.spec.bytes(each.batch, self.dtype),
                "spec": asdict(each.spec),
            }
            for each in self.workloads
        ]
        found: dict[str, Any] = {
            "machine": None if self.machine is None else self.machine._asdict(),
            "mode": self.mode,
            "dtype": self.dtype,
            "device": self.device,
            "interrupted": self.interrupted,
            "workloads": workloads,
            "rows": rows,
            "absent": self.absent,
            "advice": self.advice,
        }
        return json.dumps(found, indent=2, default=str)
