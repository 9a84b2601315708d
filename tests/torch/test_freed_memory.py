"""A tensor whose storage was freed, as sharded training does, gives an error and no crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.torch

# This runs in a process of its own, because a read of freed memory ends the process.
CODE = """
import itertools

import torch

import lcmulti
from lcmulti import plugins
from lcmulti.errors import FreedMemoryError, UnsupportedError

names = ["auto", *(e.name for e in plugins.registry().implementations_of("torch"))]
GEOMETRIES = {
    "plain": ((4, 3, 6, 5), (4, 3, 3, 3, 3, 8), (4, 3, 8)),
    "one kernel": ((4, 3, 6, 5), (1, 1, 3, 3, 3, 8), (1, 1, 8)),
    "few weights": ((4, 1, 6, 5), (4, 3, 3, 3, 1, 1), (4, 3, 1)),
    "pixels": ((4, 1, 6, 5), (6, 5, 1, 1, 1, 1), (6, 5, 1)),
}


def free(t):
    t.untyped_storage().resize_(0)


def cut(t):
    t.untyped_storage().resize_(t.untyped_storage().nbytes() - t.element_size())


def made(shape, how):
    if how == "offset":
        return torch.randn((shape[0] + 1, *shape[1:]))[1:]
    if how == "turned":
        return torch.randn(shape[::-1]).permute(*range(len(shape))[::-1])
    return torch.randn(shape)


checked = 0
for (name, shapes), implementation, transposed, dtype in itertools.product(
    GEOMETRIES.items(), names, (False, True), (torch.float32, torch.bfloat16)
):
    def call(x, kernel, bias=None):
        of = lcmulti.local_conv_transpose if transposed else lcmulti.local_conv
        return of(x, kernel, bias, data_format="channels_first", implementation=implementation)

    x, kernel, bias = shapes
    if transposed:
        x, bias = (4, kernel[-1], *(6 - 2, 5 - 2)), (6, 5, kernel[-2])
        if name == "pixels":
            x = (4, 1, 6, 5)
        if name == "one kernel":
            bias = (1, 1, kernel[-2])
    shapes = {"x": x, "kernel": kernel, "bias": bias}
    try:
        y = call(*(torch.randn(shape, dtype=dtype) for shape in shapes.values()))
    except UnsupportedError:
        continue
    for argument, how, lose in itertools.product(
        shapes, ("contiguous", "offset", "turned"), (free, cut)
    ):
        arrays = {n: made(s, how).to(dtype) if n != argument else made(s, how).to(dtype)
                  for n, s in shapes.items()}
        lose(arrays[argument])
        try:
            call(**arrays)
        except RuntimeError as error:
            assert isinstance(error, FreedMemoryError) and error.argument == argument, error
            checked += 1
        else:
            raise AssertionError(f"{name}, {implementation}, {argument}, {how}: no error")
    for lost in ("x", "kernel", "gradient"):
        arrays = {n: torch.randn(s, dtype=dtype, requires_grad=True) for n, s in shapes.items()}
        y = call(**{n: a * 1 for n, a in arrays.items()} if lost == "gradient" else arrays)
        gradient = torch.randn_like(y)
        free(gradient if lost == "gradient" else arrays[lost].data)
        wanted = [a for n, a in arrays.items() if n not in (lost, "bias")]
        try:
            torch.autograd.grad(y, wanted, gradient)
        except RuntimeError:
            checked += 1
        else:
            raise AssertionError(f"{name}, {implementation}, {lost} freed before backward")
print(checked)
"""
OTHERS = """
import torch
from helpers_variables import OPERATIONS, drawn
from lcmulti.errors import FreedMemoryError

checked = 0
for autocast in (False, True):
    for name, (names, run) in OPERATIONS.items():
        for i, argument in enumerate(names):
            arrays = [torch.tensor(each) for each in drawn(names)]
            arrays[i].untyped_storage().resize_(0)
            try:
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    run(*arrays)
            except FreedMemoryError as error:
                wanted = "x" if argument == "y" else argument
                assert error.argument == wanted, (name, argument, str(error))
                checked += 1
            else:
                raise AssertionError(f"{name}, {argument}: no error")
print(checked)
"""
DOOR = """
import torch
from helpers_native import KERNEL, RESOURCES, SPEC, X
from lcmulti import plugins
from lcmulti_native import library

door = plugins.load_implementation("torch", "native")
shapes = {"x": X.shape, "kernel": KERNEL.shape, "dy": (len(X), *SPEC.output_shape)}
maps = {"forward": ("x", "kernel"), "input_grad": ("dy", "kernel"), "kernel_grad": ("x", "dy")}
for name, pair in maps.items():
    for lost in (0, 1):
        arrays = [torch.randn(shapes[each]) for each in pair]
        arrays[lost].untyped_storage().resize_(0)
        call = library.packed(name, SPEC, 0, "float32", None)
        for run in (
            lambda: getattr(door, name)(*arrays, SPEC, RESOURCES),
            lambda: getattr(torch.ops.lcmulti_native, name)(*arrays, call),
        ):
            try:
                run()
            except RuntimeError:
                continue
            raise AssertionError(f"{name}: no error")
print(1)
"""


def checks(code):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout)


def test_an_error_names_what_was_freed():
    assert checks(CODE) > 400


def test_every_operation_checks_its_arrays():
    assert checks(OTHERS) == 28


def test_the_native_door_checks_what_it_is_handed():
    pytest.importorskip("lcmulti_native")
    assert checks(DOOR) == 1
