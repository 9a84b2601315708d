"""What a warm call costs beyond the launch, which is replaced, and how often kernels compile."""

from __future__ import annotations

import time
from contextlib import nullcontext

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="needs Triton: pip install 'lcmulti[triton]'")

import torch
from lcmulti_triton import failing, implementation, launch, starting, state, tuned
from lcmulti_triton.layer import layer_of

import lcmulti
from lcmulti.plugins.contract import Resources

CALL, BOTH = 40e-6, 150e-6


class Kernel:
    """A compiled kernel whose launches do nothing but count."""

    def __init__(self):
        self.launches, self.loaded_on, self.launched_on = [], [], []

    def __getitem__(self, grid):  # Triton loads the kernel here, onto the current GPU
        self.loaded_on.append(torch.cuda.current_device())

        def run(*arguments, stream):
            self.launches.append((grid, len(arguments), stream))
            self.launched_on.append(torch.cuda.current_device())

        return run


@pytest.fixture
def kernel(monkeypatch, fresh):
    """Let CPU tensors take the path of GPU tensors up to the launch, which is counted."""
    found = Kernel()
    launch.prepared.cache_clear()
    starting._kernels.clear()
    compiled = []

    def compile_for(target, layer, known, *rest):
        compiled.append((layer.map, tuple(known.items())))
        return found

    found.compiled = compiled
    monkeypatch.setattr(starting, "compile_for", compile_for)
    monkeypatch.setattr(starting, "_target", lambda: starting.GPUTarget("cuda", 90, 32))
    monkeypatch.setattr(starting, "_stream", lambda: lambda device: 7)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(implementation, "_index", lambda array: 0)
    monkeypatch.setattr(implementation, "_device", lambda kind: 0)
    monkeypatch.setattr(state, "unavailable", lambda device: None)
    monkeypatch.setattr(state, "is_old", lambda index: None)
    monkeypatch.setattr("lcmulti_triton.tuned.look_up", lambda *arguments: (None, ""))
    monkeypatch.setattr(failing, "failures", {})
    yield found
    launch.prepared.cache_clear()
    starting._kernels.clear()


def arrays(batch=32, size=(9, 8), filters=16, dtype=torch.float32):
    spec = lcmulti.LocalConvSpec((*size, 16), filters, 3, data_format="channels_last")
    shapes = (batch, *spec.input_shape), spec.kernel_shape
    return *(torch.ones(shape, dtype=dtype) for shape in shapes), spec


def seconds(call, limit):
    """Return the least processor time of a call, over many short runs.

    Runs are repeated while the least is over *limit*, for at most 20 seconds. The time is that of
    all threads, because `torch.autograd` may have a thread of its own.
    """
    least, end = limit + 1, time.monotonic() + 20
    while least > limit and time.monotonic() < end:
        for _ in range(50):
            start = time.process_time()
            for _ in range(20):
                call()
            least = min(least, (time.process_time() - start) / 20)
    return least


def test_a_warm_call_costs_little(kernel):
    x, w, spec = arrays()
    served, resources = implementation.implementation, Resources(2**28)
    least = seconds(lambda: served.forward(x, w, spec, resources), CALL)
    assert kernel.launches[0][0] == (42, 1, 1)
    assert least <= CALL, f"{least * 1e6:.0f} microseconds"


def test_forward_and_backward_cost_little(kernel):
    """The cost includes dispatch and autograd."""
    x, w, _ = arrays()
    x.requires_grad_(), w.requires_grad_()
    dy = torch.ones(32, 7, 6, 16)

    def both():
        y = lcmulti.local_conv(x, w)
        torch.autograd.grad(y, (x, w), dy)

    least = seconds(both, BOTH)
    assert {len(kernel.compiled)} == {3}
    assert least <= BOTH, f"{least * 1e6:.0f} microseconds"


def test_one_compilation_whatever_batch_and_sizes(kernel):
    for batch, size in ((16, (9, 8)), (33, (9, 8)), (64, (20, 31)), (48, (5, 100))):
        x, w, _ = arrays(batch, size)
        lcmulti.local_conv(x, w)
    assert len(kernel.compiled) == 1
    assert len(kernel.launches) == 4
    x, w, _ = arrays(3)  # few samples are another kernel
    lcmulti.local_conv(x, w)
    assert len(kernel.compiled) == 2


def test_nothing_is_launched_without_samples(kernel):
    x, w, _ = arrays(0)
    assert lcmulti.local_conv(x, w).shape == (0, 7, 6, 16)
    assert not kernel.launches


def test_a_gpu_that_is_not_current(kernel, monkeypatch):
    """The kernel is loaded and launched on the GPU of its arrays, and no other stays current."""
    current = [1]

    class Device:
        def __init__(self, index):
            self.index = index

        def __enter__(self):
            current.append(self.index)

        def __exit__(self, *error):
            current.pop()

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", Device)
    x, w, _ = arrays()
    lcmulti.local_conv(x, w)
    assert kernel.loaded_on == kernel.launched_on == [0]
    assert kernel.launches[0][2] == 7
    assert current == [1]


def test_a_measurement_on_a_gpu_that_is_not_current(kernel, monkeypatch):
    """Events are recorded on the current GPU, so that must be the one that computes."""
    entered = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", lambda index: entered.append(index) or nullcontext())
    monkeypatch.setattr(tuned, "_arrays", lambda layer, device: (*arrays()[:2], None))
    monkeypatch.setattr(tuned, "_seconds", lambda call, device: float(len(entered)))
    _, _, spec = arrays()
    layer = layer_of("forward", spec, "float32", 32)
    found = tuned.measure(layer, 0)
    assert [one.error for one in found] == [None] * len(found)
    assert set(entered) == {0}
    assert [one.seconds for one in found] == [2.0 * n for n in range(1, len(found) + 1)]


@pytest.fixture
def flawed(kernel, monkeypatch):
    """Let Triton fail where a layer has 8 filters in float32; return what it tried."""
    compile_for, tried = starting.compile_for, []

    def failing_for(target, layer, *rest):
        tried.append((layer.map, layer.filters))
        if layer.filters == 8 and layer.dtype == "float32":
            raise RuntimeError("PassManager::run failed\nand much more")
        return compile_for(target, layer, *rest)

    monkeypatch.setattr(starting, "compile_for", failing_for)
    return tried


def reason(*arguments):
    return next(v.reason for v in lcmulti.explain(*arguments).verdicts if v.name == "triton")


def test_a_failure_is_of_one_kind_of_layer(kernel, flawed):
    """Other layers and dtypes stay with Triton; the same kernel is not compiled once more."""
    x, w, _ = arrays(filters=8)
    said = "forward in float32 on GPU 0 for windows of 3x3, 16 channels and 8 filters a group"
    with pytest.warns(UserWarning, match=said) as warned:
        torch.testing.assert_close(lcmulti.local_conv(x, w), torch.full((32, 7, 6, 8), 144.0))
        for size in ((9, 8), (20, 31)):
            lcmulti.local_conv(*arrays(size=size, filters=8)[:2])
    assert len(warned) == 1
    assert flawed == [("forward", 8)]
    assert not kernel.launches
    assert "RuntimeError: PassManager::run failed" in reason(x, w)
    for other in (arrays(), arrays(filters=8, dtype=torch.float16)):
        lcmulti.local_conv(*other[:2])
        assert reason(*other[:2]) is None
    assert len(kernel.launches) == 2


def test_a_failed_gradient_leaves_the_others(kernel, monkeypatch):
    """Each map of a layer that was planned before is asked on its own."""
    compile_for = starting.compile_for

    def failing_for(target, layer, *rest):
        if layer.map == "input_grad":
            raise RuntimeError("no registers left")
        return compile_for(target, layer, *rest)

    monkeypatch.setattr(starting, "compile_for", failing_for)
    x, w, _ = arrays()
    y = lcmulti.local_conv(x.requires_grad_(), w.requires_grad_())
    with pytest.warns(UserWarning, match="failed to compile input_grad"):
        dx, _ = torch.autograd.grad(y, (x, w), torch.ones(y.shape))
    assert dx[0, 4, 4, 0] == 9 * 16
    assert len(kernel.launches) == 2


def test_triton_that_does_not_start(kernel, monkeypatch):
    """Without a C compiler nothing can be compiled: one warning for all layers."""

    def target():
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(starting, "_target", target)
    with pytest.warns(UserWarning, match="Triton does not start on GPU 0") as warned:
        for filters in (16, 8, 24):
            lcmulti.local_conv(*arrays(filters=filters)[:2])
    assert len(warned) == 1
    assert "Failed to find C compiler" in reason(*arrays(filters=4)[:2])
