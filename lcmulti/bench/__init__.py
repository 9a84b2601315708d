"""Time locally connected layers on this machine, beside its roofline and beside peers.

`bench` measures and returns a `Report`; ``lcmulti bench`` is the same on the command line.
"""

from lcmulti.bench.report import Machine, Report, Row
from lcmulti.bench.run import bench
from lcmulti.bench.workloads import Workload, workload
from lcmulti.errors import Interrupted

__all__ = ["Interrupted", "Machine", "Report", "Row", "Workload", "bench", "workload"]
