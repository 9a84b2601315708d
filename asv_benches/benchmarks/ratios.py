"""Two ratios, each measured within one process. Quote these, not times.

A peer that cannot run a workload, for lack of memory or because it takes over a minute, is
recorded as -1, and the reason is printed.
"""

import sys

from .common import BACKENDS, PEERS, WORKLOADS, need

CANNOT_RUN = -1.0


class OverRoofline:
    """Time of ``auto`` over the least time that this machine needs."""

    params = (BACKENDS, ("forward", "training"), WORKLOADS)
    param_names = ("backend", "mode", "workload")
    unit = "times the roofline"
    timeout = 600

    def setup(self, backend, mode, workload):
        need(backend)

    def track_over_roofline(self, backend, mode, workload):
        from lcmulti.bench import bench

        report = bench(
            [workload], backends=[backend], implementations=["auto"], peers=False,
            variants=False, mode=mode,
        )  # fmt: skip
        (row,) = report.rows
        return CANNOT_RUN if row.problem else row.seconds / row.roofline


class OverPeer:
    """Time of a peer over the time of ``auto``, in training."""

    params = (PEERS, WORKLOADS)
    param_names = ("peer", "workload")
    unit = "times as fast"
    timeout = 600

    def setup(self, peer, workload):
        from lcmulti.bench.peers import PEERS as KNOWN
        from lcmulti.bench.workloads import named

        (found,) = named([workload])
        (self.peer,) = (each for each in KNOWN if each.name == peer)
        need(self.peer.backend)
        if not self.peer.is_installed():
            raise NotImplementedError(f"{self.peer.needs} is not installed")
        if (why := self.peer.declines(found.spec)) is not None:
            raise NotImplementedError(f"{peer} {why}")

    def track_speed(self, peer, workload):
        from lcmulti.bench import bench

        report = bench(
            [workload], backends=[self.peer.backend], implementations=["auto"], peers=[peer],
            variants=False, mode="training",
        )  # fmt: skip
        row = report.rows[-1]
        assert not (row.problem or "").startswith(("wrong", "failed")), row.problem
        if row.problem:
            print(f"{peer}, {workload}: {row.problem}", file=sys.stderr)
            return CANNOT_RUN
        return report.relative(row)
