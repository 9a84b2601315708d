"""Forward, and forward with both gradients, for each backend, implementation and workload."""

from .common import WAYS, WORKLOADS, step_of


class Forward:
    """The output alone."""

    params = (WAYS, WORKLOADS)
    param_names = ("way", "workload")
    training = False
    warmup_time = 0

    def setup(self, way, workload):
        self.step = step_of(way, workload, self.training)

    def time(self, way, workload):
        self.step()

    def peakmem(self, way, workload):
        """Of the whole process, its framework included."""
        self.step()


class Training(Forward):
    """With the gradients in input and weights."""

    training = True


class Build:
    """Building, tracing and compiling, with the first call."""

    params = (WAYS, WORKLOADS)
    param_names = ("way", "workload")
    unit = "s"

    def setup(self, way, workload):
        step_of(way, "keras_docstring_1d", True)  # what a process does once is no part of it

    def track_first_call(self, way, workload):
        import time

        start = time.perf_counter()
        step_of(way, workload, True)
        return time.perf_counter() - start
