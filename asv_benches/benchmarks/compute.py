"""Forward, and forward with both gradients, for each backend, implementation and workload."""

from .common import WAYS, WORKLOADS, contender_of, step_of


class Forward:
    """Time the output alone."""

    params = (WAYS, WORKLOADS)
    param_names = ("way", "workload")
    training = False
    warmup_time = 0

    def setup(self, way, workload):
        self.step = step_of(way, workload, self.training)

    def time_step(self, way, workload):
        self.step()


class Training(Forward):
    """Time the output and the gradients of input and weights."""

    training = True


class Memory:
    """Peak memory of the process, including its framework and both copies of the arrays."""

    params = (WAYS, WORKLOADS)
    param_names = ("way", "workload")

    def setup(self, way, workload):
        # Not compared: a reference in float64 would be the peak. `Training` compares the same
        # results.
        self.step = step_of(way, workload, True, check=False)

    def peakmem_training(self, way, workload):
        self.step()


class Build:
    """Time building, tracing, compiling and the first call."""

    params = (WAYS, WORKLOADS)
    param_names = ("way", "workload")
    unit = "s"

    def setup(self, way, workload):
        step_of(way, "keras_docstring_1d", True)  # leaves out what a process does only once
        _, self.runner, self.contender = contender_of(way, workload)

    def track_first_call(self, way, workload):
        import time

        start = time.perf_counter()
        self.runner.step(self.contender, True)()
        return time.perf_counter() - start
