"""Support matrix of PyTorch."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import torch
import torch._dynamo.testing
from matrix_cells import Matrix
from matrix_torch_examples import MODULES, gradients, make
from torch import nn

MATRIX = Matrix("torch", "PyTorch")
for _name in MODULES:
    MATRIX.row(_name)(lambda name=_name: make(name))

close = torch.testing.assert_close


def same_training(function, example):
    close(gradients(function, example), gradients(example.module, example))


@MATRIX.column("compile(fullgraph=True)", slow=True)
def compiled(example):
    torch._dynamo.reset()
    same_training(torch.compile(example.module, fullgraph=True), example)


@MATRIX.column("compile(dynamic=True)", slow=True)
def compiled_dynamic(example):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    function = torch.compile(example.module, fullgraph=True, dynamic=True, backend=counter)
    same_training(function, example)
    for batch in (2, 9):
        x = torch.randn(batch, 3, 7, 6)
        close(function(x), example.module(x))
    assert counter.frame_count == 1  # one graph for every batch


@MATRIX.column("export")
def exported(example):
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(example.module, (example.x,), dynamic_shapes=({0: batch},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for each in (example.x, torch.randn(2, 3, 7, 6)):
        close(loaded(each), example.module(each))


@MATRIX.column("ONNX, run in onnxruntime", slow=True, needs="onnxruntime")
def onnx(example):
    import onnxruntime

    # The exporter warns of modules in training mode, and of its own use of PyTorch.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        program = torch.onnx.export(
            example.module.eval(), (example.x,), dynamo=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        )  # fmt: skip
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue())
    (given,) = session.get_inputs()
    for each in (example.x, torch.randn(2, 3, 7, 6)):
        (y,) = session.run(None, {given.name: each.numpy()})
        close(torch.from_numpy(y), example.module(each).detach(), rtol=1e-4, atol=1e-5)


@MATRIX.column("ONNX with dynamo=False, run in onnxruntime", slow=True, needs="onnxruntime")
def onnx_without_dynamo(example):
    import onnxruntime

    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        # This exporter warns of every `torch.nn.functional.pad` once.
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1")
        torch.onnx.export(
            example.module.eval(), (example.x,), buffer, dynamo=False, input_names=["x"],
            output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )  # fmt: skip
    session = onnxruntime.InferenceSession(buffer.getvalue())
    for each in (example.x, torch.randn(2, 3, 7, 6)):
        (y,) = session.run(None, {"x": each.numpy()})
        close(torch.from_numpy(y), example.module(each).detach(), rtol=1e-4, atol=1e-5)


@MATRIX.column("jit.trace")
def traced(example):
    function = torch.jit.trace(example.module, example.x)
    close(function(example.x), example.module(example.x))


@MATRIX.column("autocast")
def autocast(example):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = example.module(example.x)
        loss = y.float().square().sum()
    assert y.dtype == torch.bfloat16
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in example.module.parameters())
    close(y.float(), example.module(example.x), rtol=0.05, atol=0.1)


@MATRIX.column("vmap")
def vmap(example):
    x = torch.randn(4, 5, 3, 7, 6)
    close(torch.vmap(example.module)(x), torch.stack([example.module(each) for each in x]))


def functional_loss(example):
    def loss(parameters, x):
        return torch.func.functional_call(example.module, parameters, (x,)).square().sum()

    return loss, {k: v.detach() for k, v in example.module.named_parameters()}


@MATRIX.column("grad of vmap")
def grad_of_vmap(example):
    loss, parameters = functional_loss(example)
    x = torch.randn(4, 5, 3, 7, 6)

    def total(parameters):
        return torch.vmap(lambda each: loss(parameters, each))(x).sum()

    ours = torch.func.grad(total)(parameters)
    theirs = torch.func.grad(lambda p: sum(loss(p, each) for each in x))(parameters)
    close(ours, theirs, rtol=1e-4, atol=1e-4)


@MATRIX.column("per-sample gradients")
def per_sample(example):
    loss, parameters = functional_loss(example)
    gradient = torch.func.grad(loss)
    x = example.x[:, None]
    ours = torch.vmap(gradient, in_dims=(None, 0))(parameters, x)
    for i in range(len(x)):
        close({k: v[i] for k, v in ours.items()}, gradient(parameters, x[i]))


@MATRIX.column("functional_call")
def functional_call(example):
    _, parameters = functional_loss(example)
    doubled = {k: 2 * v for k, v in parameters.items()}
    other = copy.deepcopy(example.module)
    other.load_state_dict(doubled)
    close(torch.func.functional_call(example.module, doubled, (example.x,)), other(example.x))


@MATRIX.column("forward AD")
def forward_ad(example):
    """The tangent is a difference of two values, because the operation is affine in ``x``."""
    direction = torch.randn_like(example.x)
    double, x, direction = example.module.double(), example.x.double(), direction.double()
    _, tangent = torch.func.jvp(double, (x,), (direction,))
    close(tangent, double(x + direction) - double(x))
    assert tangent.abs().max() > 0


@MATRIX.column("double backward")
def double_backward(example):
    module, x = example.module.double(), example.x.double()[:2].requires_grad_()
    names, parameters = zip(*module.named_parameters(), strict=True)

    def function(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    leaves = (x, *(p.detach().requires_grad_() for p in parameters))
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@MATRIX.column("checkpoint")
def checkpoint(example):
    def function(x):
        return torch.utils.checkpoint.checkpoint(example.module, x, use_reentrant=False)

    same_training(function, example)


@MATRIX.column("meta device")
def meta(example):
    module = copy.deepcopy(example.module).to("meta")
    y = module(example.x.to("meta"))
    assert (y.shape, y.device.type) == (example.module(example.x).shape, "meta")
    y.sum().backward()
    assert all(p.grad.is_meta for p in module.parameters())


@MATRIX.column("channels_last memory")
def channels_last(example):
    x = example.x.to(memory_format=torch.channels_last)
    y = example.module(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    close(y, example.module(example.x))


class Flat(nn.Module):
    def forward(self, y):
        return y.view(y.shape[0], -1)


@MATRIX.column("`view` of the result", slow=True)
def view(example):
    """`view` accepts the result, as it accepts a convolution's, also under tracers."""
    module, x = nn.Sequential(example.module, Flat()), example.x
    y = module(x)
    torch._dynamo.reset()
    close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), y)
    close(torch.vmap(module)(x[None])[0], y)
    close(torch.jit.trace(module, x)(x), y)
    shapes = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    close(torch.export.export(module, (x,), dynamic_shapes=shapes).module()(x), y)


@MATRIX.column("operations in place")
def in_place(example):
    """Changes of the result itself give the gradients that changes of a copy give."""
    changes = (
        nn.ReLU(inplace=True), lambda y: y.add_(1), lambda y: y.mul_(0.5), nn.SiLU(inplace=True),
        lambda y: y.__setitem__((slice(None), 0), 0) or y,
        lambda y: nn.functional.dropout(y, inplace=True),
    )  # fmt: skip
    for change in changes:
        found = []
        for own in (True, False):
            torch.manual_seed(1)
            y = example.module(example.x)
            assert not y._is_view()
            loss = change(y if own else y.clone()).square().sum()
            found.append((loss, *torch.autograd.grad(loss, list(example.module.parameters()))))
        close(*found)


@MATRIX.column("hooks")
def hooks(example):
    """Hooks of the result, of its node and of the module run once, with the right gradient."""
    seen, of_node, of_module = [], [], []
    module = copy.deepcopy(example.module)
    module.register_full_backward_hook(lambda _, dx, dy: of_module.append(dx[0]))
    x = example.x.clone().requires_grad_()
    y = example.module(x)
    positive = (y.detach() > 0).float()
    y.register_hook(seen.append)
    y.grad_fn.register_hook(lambda _, dy: of_node.append(dy[0]))
    nn.functional.relu_(y).sum().backward()
    close((seen, of_node), ([positive], [positive]))
    again = example.x.clone().requires_grad_()
    (module(again) * positive).sum().backward()
    close(of_module, [x.grad])


@MATRIX.column("safetensors, pickle, deepcopy", needs="safetensors")
def files(example):
    import pickle

    from safetensors.torch import load, save

    other = copy.deepcopy(example.module)
    with torch.no_grad():
        for each in other.parameters():
            each.zero_()
    other.load_state_dict(load(save(example.module.state_dict())))
    close(other(example.x), example.module(example.x), rtol=0, atol=0)
    again = pickle.loads(pickle.dumps(example.module))
    close(again(example.x), example.module(example.x), rtol=0, atol=0)


@cache
def distributed():
    """Run two processes, which find ``{row: {column: error or None}}``."""
    script = Path(__file__).with_name("matrix_torch_distributed.py")
    helpers = {"PYTHONPATH": str(script.parents[1] / "helpers")}
    run = subprocess.run(
        [sys.executable, script], check=False, capture_output=True, text=True, timeout=300,
        env=os.environ | helpers,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


def _distributed(column):
    @MATRIX.column(column, slow=True)
    def check(example):
        error = distributed()[example.row][column]
        assert error is None, error


for _column in ("DDP", "FSDP1", "FSDP2", "DTensor"):
    _distributed(_column)
