"""PyTorch's door to the native kernels: derivatives, compilers, threads and memory order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lcmulti_native")

from helpers_native import (
    CALL,
    CHILD,
    KERNEL,
    RESOURCES,
    RNG,
    SPEC,
    X,
    Y,
    all_close,
    close,
    composed,
    native,
)
from lcmulti_native import library

import lcmulti
from lcmulti import plugins
from lcmulti.algorithms import reference
from lcmulti.plugins.contract import Resources

pytestmark = pytest.mark.sampled


@pytest.fixture
def torch_arrays():
    torch = pytest.importorskip("torch")
    return tuple(torch.tensor(each, requires_grad=True) for each in (X, KERNEL))


def torch_gradients(function, arrays, order):
    import torch

    total = function(*arrays).square().sum()
    grads = ()
    for left in range(order, 0, -1):
        grads = torch.autograd.grad(total, arrays, create_graph=left > 1)
        total = sum(each.square().sum() for each in grads)
    return [each.detach() for each in grads]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_torch_gradients(torch_arrays, order):
    ours = torch_gradients(native, torch_arrays, order)
    all_close(ours, torch_gradients(composed, torch_arrays, order))


def test_torch_compile_takes_it_whole(torch_arrays):
    import torch
    from torch._dynamo.backends.common import aot_autograd

    graphs = []

    def keep(graph, inputs):
        graphs.append(str(graph.graph))
        return graph

    compiled = torch.compile(
        native, fullgraph=True, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep)
    )
    all_close(
        torch_gradients(compiled, torch_arrays, 1), torch_gradients(composed, torch_arrays, 1)
    )
    forward, backward = graphs
    assert "lcmulti_native.forward" in forward
    assert "lcmulti_native.input_grad" in backward
    assert "lcmulti_native.kernel_grad" in backward


def test_torch_compile_of_any_batch(torch_arrays):
    import torch

    x, kernel = torch_arrays
    compiled = torch.compile(native, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (5, 2, 3):
        close(compiled(x[:batch], kernel).detach(), Y[:batch])


def test_torch_operation_is_well_formed(torch_arrays):
    import torch

    plugins.load_implementation("torch", "native")
    call = library.packed("forward", SPEC.computed(), 0, "float32", None)
    torch.library.opcheck(torch.ops.lcmulti_native.forward, (*torch_arrays, call))


def test_torch_transforms_are_handed_over(torch_arrays):
    import torch

    x, kernel = (each.detach() for each in torch_arrays)

    def auto(x):
        return lcmulti.local_conv(x, kernel, **CALL)

    auto(x)
    torch.compile(auto, backend="eager")(x)  # plans the same call for a compiler
    value, tangent = torch.func.jvp(auto, (x,), (x,))
    close(value, Y)
    close(tangent, Y)
    close(torch.func.vmap(auto)(x[None])[0], Y)
    assert torch.func.grad(lambda x: auto(x).sum())(x).abs().sum() > 0


def test_torch_export_is_composed(torch_arrays):
    import torch

    class Layer(torch.nn.Module):
        def __init__(self, kernel):
            super().__init__()
            self.kernel = torch.nn.Parameter(kernel.detach())

        def forward(self, x):
            return lcmulti.local_conv(x, self.kernel, **CALL)

    x, kernel = torch_arrays
    exported = torch.export.export(Layer(kernel), (x.detach(),))
    assert "lcmulti_native" not in str(exported.graph)
    close(exported.module()(x.detach()).detach(), Y)


def test_torch_autocast(torch_arrays):
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        y = native(*torch_arrays)
    assert y.dtype == torch.bfloat16
    close(y.detach().float(), Y, 2e-2)


def test_torch_channels_first_and_negated_views(torch_arrays):
    import torch

    x, kernel = (each.detach() for each in torch_arrays)
    y = native(x.movedim(-1, 1).contiguous(), kernel, data_format="channels_first")
    close(y.movedim(1, -1), Y)
    negated = torch.complex(x, -x).conj().imag  # equal to x: a view whose negative bit is set
    assert negated.is_neg()
    close(native(negated, kernel), Y)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted by Linux")
@pytest.mark.parametrize("threads", [None, 3])
def test_torch_lends_its_threads(threads):
    """The kernels use PyTorch's own threads, and start others only where the number differs.

    Threads of their own would run beside PyTorch's, which stay awake for a while.
    """
    code = (
        "import torch\n"
        f"{CHILD}"
        "torch.set_num_threads(4)\n"
        "door = plugins.load_implementation('torch', 'native')\n"
        "spec = lcmulti.LocalConvSpec((40, 40, 8), 16, 3, data_format='channels_last').computed()\n"
        "x, kernel = torch.rand(5, *spec.input_shape), torch.rand(*spec.kernel_shape)\n"
        "torch.rand(1 << 20) + 1\n"
        "before = len(list(Path('/proc/self/task').iterdir()))\n"
        f"door.forward(x, kernel, spec, Resources(2**28, {threads}))\n"
        "print(len(list(Path('/proc/self/task').iterdir())) - before)\n"
    )
    pytest.importorskip("torch")
    from lcmulti_native.torch_door import _openmp

    if _openmp() is None:
        pytest.skip("an OpenMP that is not GNU's")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == (0 if threads is None else threads - 1)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("size", [(6, 7), (1, 23), (3, 47)])
@pytest.mark.parametrize(("channels", "filters", "groups"), [(4, 2, 1), (3, 5, 1), (6, 4, 2)])
def test_torch_pixels_whose_channels_come_first(channels, filters, groups, size, apart):
    """A vector holds positions here, and the last vector of a row overlaps the one before it."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    wider = torch.randn(9, channels, size[0], size[1] + apart)  # rows with a gap after each
    x = wider[..., : size[1]].requires_grad_()
    kernel = torch.randn(*size, 1, 1, channels // groups, filters, requires_grad=True)
    dy = torch.randn(9, filters, *size)
    call = dict(groups=groups, data_format="channels_first", implementation="native")
    y = lcmulti.local_conv(x, kernel, **call)
    inputs = x.unflatten(1, (groups, -1)).double()
    weights = kernel[..., 0, 0, :, :].unflatten(-1, (groups, -1)).double()
    expected = torch.einsum("ngchw,hwcgf->ngfhw", inputs, weights).flatten(1, 2)
    ours, theirs = (
        torch.autograd.grad(result, (x, kernel), dy.to(result.dtype)) for result in (y, expected)
    )
    all_close([y.detach(), *ours], [expected.detach(), *theirs], 1e-6)
    with lcmulti.config(threads=7):
        again = lcmulti.local_conv(x, kernel, **call)
        many = torch.autograd.grad(again, (x, kernel), dy)
    for one, other in zip((y, *ours), (again, *many), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize(
    ("shape", "filters", "window", "changes"),
    [
        ((1, 50), 1, 3, {}),
        ((1, 3, 33), 1, (3, 5), dict(padding="same")),
        ((2, 9, 20), 3, (2, 1), dict(strides=(2, 1), padding=((1, 0), (0, 0)))),
        ((2, 5, 4, 19), 2, (1, 2, 3), dict(padding="same", groups=2, dilation=(1, 2, 3))),
        ((1, 6, 5), 1, 3, dict(padding=2)),
        ((1, 2, 2000), 1, (2, 8), dict(dilation=(1, 100))),
        ((1, 150, 161), 1, 3, {}),  # large enough for threads
    ],
)
def test_torch_small_windows_whose_lanes_are_positions(shape, filters, window, changes, batch):
    """A vector holds positions here. What lies beyond a row, or is not finite, must not spread."""
    torch = pytest.importorskip("torch")
    spec = lcmulti.LocalConvSpec(
        shape, filters, window, data_format="channels_first", **changes
    ).computed()
    x, dy = (
        torch.tensor(RNG.standard_normal((batch, channels, *size)), dtype=torch.float32)
        for channels, size in ((shape[0], shape[1:]), (filters, spec.output_size))
    )
    kernel = torch.tensor(RNG.standard_normal(spec.kernel_shape), dtype=torch.float32)
    # As in the reference, an infinity multiplied by a zero of padding is NaN.
    x.view(-1)[-1], dy.view(-1)[0] = torch.inf, -torch.inf
    x, dy = x.movedim(1, -1), dy.movedim(1, -1)
    door = plugins.load_implementation("torch", "native")
    for map_, arrays in (
        ("forward", (x, kernel)), ("input_grad", (dy, kernel)), ("kernel_grad", (x, dy)),
    ):  # fmt: skip
        with np.errstate(invalid="ignore"):
            expected = getattr(reference, map_)(*(each.numpy() for each in arrays), spec)
        for threads in (1, 2, 5):
            ours = getattr(door, map_)(*arrays, spec, Resources(2**28, threads))
            np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [False, True])
def test_torch_results_are_written_in_their_order(torch_arrays, first):
    """The kernels write results in the input's memory order."""
    import torch
    from lcmulti_torch.memory import is_channels_first

    door = plugins.load_implementation("torch", "native")
    shapes = (5, *SPEC.input_shape), (5, *SPEC.output_shape)
    x, dy = (torch.randn(shape) for shape in shapes)
    if first:
        x, dy = (a.movedim(-1, 1).contiguous().movedim(1, -1) for a in (x, dy))
    kernel = torch.from_numpy(KERNEL)
    y, dx = door.forward(x, kernel, SPEC, RESOURCES), door.input_grad(dy, kernel, SPEC, RESOURCES)
    assert is_channels_first(y) == is_channels_first(dx) == first
    close(y, reference.forward(x.numpy(), KERNEL, SPEC))


def test_torch_operation_refuses_a_call_that_lies(torch_arrays):
    import torch

    plugins.load_implementation("torch", "native")
    x, kernel = (each.detach() for each in torch_arrays)
    call = library.packed("forward", SPEC.computed(), 0, "float32", None)
    run = torch.ops.lcmulti_native.forward
    close(run(x, kernel, call), Y)
    for arrays in ((x[:, :-1], kernel), (x, kernel[:-1]), (x.double(), kernel.double())):
        with pytest.raises(ValueError, match="arrays other than"):
            run(*arrays, call)
