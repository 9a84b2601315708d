"""The maps as PyTorch's compiler traces them. No GPU is needed, because no kernel is launched."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="needs Triton: pip install 'lcmulti[triton]'")

import torch
import triton
from lcmulti_triton import state
from torch._subclasses import FakeTensorMode

import lcmulti
from lcmulti.plugins.contract import Resources

SPEC = lcmulti.LocalConvSpec(
    (9, 8, 4), 6, (3, 2), groups=2, padding=1, data_format="channels_last"
).computed()


class Driver:
    """A GPU driver that answers only what the compiler's analysis of mutations asks."""

    def get_current_target(self):
        return triton.backends.compiler.GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def traced(monkeypatch, fresh):
    """Collect the graphs that are compiled. Each returns zeros when it is run."""
    from torch._dynamo.backends.common import aot_autograd

    monkeypatch.setattr(state, "unavailable", lambda device: None)
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver())
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph.graph)
        values = [n.meta["val"] for n in graph.graph.output_node().args[0]]

        def run(*arguments):
            return [torch.zeros(v.shape) if isinstance(v, torch.Tensor) else v for v in values]

        return run

    torch._dynamo.reset()
    yield graphs, aot_autograd(fw_compiler=keep, bw_compiler=keep)
    torch._dynamo.reset()


def call(x, w):
    return lcmulti.local_conv(x, w, implementation="triton", groups=2, padding=1)


def kernels(graph):
    return [node for node in graph.nodes if "triton_kernel_wrapper" in str(node.target)]


@pytest.mark.slow
def test_compiled_whole_with_its_gradients(traced):
    graphs, backend = traced
    x = torch.randn(32, *SPEC.input_shape, requires_grad=True)
    w = torch.randn(SPEC.kernel_shape, requires_grad=True)
    y = torch.compile(call, fullgraph=True, backend=backend)(x, w)
    assert (y.shape, y.stride()) == ((32, 9, 9, 6), (486, 54, 6, 1))
    y.sum().backward()
    forward, backward = graphs
    assert [node.kwargs["tensors_to_clone"] for node in kernels(forward)] == [["y"]]
    assert [node.kwargs["tensors_to_clone"] for node in kernels(backward)] == [["x"], ["w"]]
    assert x.grad.shape == x.shape
    assert w.grad.shape == w.shape


def test_result_of_abstract_tensors_on_a_gpu(traced):
    from lcmulti_triton.operations import call_of, operations

    asked = call_of(SPEC, Resources(1))
    with FakeTensorMode():
        x = torch.empty(32, *SPEC.input_shape, device="cuda")
        w = torch.empty(SPEC.kernel_shape, device="cuda")
        y = operations["forward"](x, w, asked)
        first = torch.empty(32, 4, 9, 8, device="cuda").movedim(1, -1)
        apart = operations["forward"](first, w, asked)
        dw = operations["kernel_grad"](x, y, asked)
    assert (y.shape, y.stride(), y.device.type) == ((32, 9, 9, 6), (486, 54, 6, 1), "cuda")
    assert apart.movedim(-1, 1).is_contiguous()
    assert dw.shape == SPEC.kernel_shape


def test_a_call_for_other_arrays_is_refused(traced):
    from lcmulti_triton.operations import call_of, operations

    with FakeTensorMode(), pytest.raises(ValueError, match="other than the operation was made"):
        x, w = torch.empty(2, 9, 8, 4), torch.empty(9, 9, 3, 2, 2, 7)
        operations["forward"](x, w, call_of(SPEC, Resources(1)))


def test_a_call_as_integers_is_the_same_call():
    from lcmulti_triton.operations import _read, call_of

    shared = lcmulti.LocalConvSpec(
        (9, 8, 4), 6, 3, strides=2, shared_axes=(1,), padding=((1, 0), (0, 2))
    )
    spec = shared.computed()
    assert _read(call_of(spec, Resources(1, None, "tf32x3", "pinned"))) == (
        spec,
        ("tf32x3", "pinned"),
    )
