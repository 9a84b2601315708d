"""The full text of every error of the core, because users act on it."""

import numpy as np
import pytest

import lcmulti
from lcmulti.choosing import settings
from lcmulti.choosing.dispatch import problem_of
from lcmulti.choosing.settings import parse
from lcmulti.errors import LcmultiError
from lcmulti.geometry.of_call import spec_of_call, spec_of_transposed_call
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.plugins.contract import Facts
from lcmulti.weights import layouts

LAST = {"data_format": "channels_last"}
SPEC = LocalConvSpec((9, 8, 4), 6, (3, 2), **LAST)
F32 = Facts((2, 9, 4), "float32", "cpu")
KERNEL = Facts((7, 3, 4, 6), "float32", "cpu")
GEOMETRY = (1, "valid", "zeros", 1, 1, "channels_last")


def of_call(x, kernel, bias=None, **more):
    return lambda: spec_of_call(x, kernel, bias, **LAST, **more)


def of_transposed(x, kernel, groups=1):
    geometry = {"strides": 1, "padding": "valid", "dilation": 1, "output_padding": None}
    return lambda: spec_of_transposed_call(x, kernel, None, groups=groups, **LAST, **geometry)


def spec(*arguments, **more):
    return lambda: LocalConvSpec(*arguments, **LAST | more)


def problem(*facts):
    return lambda: problem_of("numpy", facts, GEOMETRY, settings.DEFAULTS)


MESSAGES = [
    (
        of_transposed((2, 4, 7), (4, 3, 5, 6)),
        "kernel: expected 7 in its last axis, the channels of x, got 6 in shape (4, 3, 5, 6)",
    ),
    (
        of_transposed((2, 4, 7), (3, 3, 5, 7)),
        "kernel: expected position axes (4,) (or 1 where shared), the size of x, got (3,) in shape (3, 3, 5, 7)",
    ),
    (
        of_transposed((2, 4, 7), (4, 3, 5, 7), groups=0),
        "groups: expected a positive integer, got 0",
    ),
    (
        spec((9, 8, 4), 6, (3, 2), padding=((-1, 0), (0, 0))),
        "padding: expected an integer of at least 0, got -1",
    ),
    (
        lambda: layouts.import_kernel(np.zeros((2, 3)), "flax", SPEC),
        "array: expected shape (7, 7, 24, 6), got shape (2, 3)",
    ),
    (
        lambda: layouts.export_kernel(np.zeros(3), "flax", SPEC),
        "kernel: expected shape (7, 7, 3, 2, 4, 6), got shape (3,)",
    ),
    (
        lambda: layouts.import_bias(np.zeros(3), "dl4j", SPEC),
        "array: expected shape (1, 6), got shape (3,)",
    ),
    (
        lambda: layouts.export_bias(np.zeros(3), "dl4j", SPEC),
        "bias: expected shape (7, 7, 6), got shape (3,)",
    ),
    (
        lambda: layouts.export_bias(np.arange(294).reshape(7, 7, 6), "dl4j", SPEC),
        "bias: expected one bias for all positions, which is all that Deeplearning4j LocallyConnected has, got biases that differ between positions",
    ),
    (
        lambda: layouts.kernel_shape("flax", (3, 4)),
        "spec: expected a LocalConvSpec, got (3, 4)",
    ),
    (
        lambda: layouts.kernel_shape("dl4j", spec((3, 3, 3, 1), 1, 1)()),
        "Deeplearning4j LocallyConnected is 1D or 2D, the spec is 3D",
    ),
    (
        lambda: SPEC.block((0,), (1, 1)),
        "start: expected 2 positions, one per spatial axis, got (0,)",
    ),
    (
        of_call((2, 9, 8, 4), (7, 7, 3, 2, 4)),
        "kernel: expected shape (*output_size, *kernel_size, in_channels // groups, filters), an even rank of at least 4, got (7, 7, 3, 2, 4)",
    ),
    (
        of_call((2, 9, 8, 4), (4, 6)),
        "kernel: expected shape (*output_size, *kernel_size, in_channels // groups, filters), an even rank of at least 4, got (4, 6)",
    ),
    (
        of_call((9, 8, 4), (7, 7, 3, 2, 4, 6)),
        "x: expected rank 4 (batch, 2 spatial, channels) to go with the kernel, got shape (9, 8, 4)",
    ),
    (
        of_call((2, None, 8, 4), (7, 7, 3, 2, 4, 6)),
        "x: expected known sizes on every axis but the batch, got (2, None, 8, 4)",
    ),
    (
        of_call((2, 9, 8, 4), (7, None, 3, 2, 4, 6)),
        "kernel: expected known sizes on every axis, got (7, None, 3, 2, 4, 6)",
    ),
    (
        of_call((2, 9, 0, 4), (7, 7, 3, 2, 4, 6)),
        "x: expected no axis of length 0 but the batch, got shape (2, 9, 0, 4)",
    ),
    (
        of_call((2, 9, 8, 4), (7, 7, 0, 2, 4, 6)),
        "kernel: expected no axis of length 0, got shape (7, 7, 0, 2, 4, 6)",
    ),
    (
        of_call((2, 9, 8, 4), (7, 6, 3, 2, 4, 6)),
        "kernel: expected output axes (7, 7) (or 1 where shared) for input (9, 8), kernel (3, 2), strides (1, 1), padding ((0, 0), (0, 0)), got (7, 6) in shape (7, 6, 3, 2, 4, 6)",
    ),
    (
        of_call((2, 9, 8, 4), (7, 7, 3, 2, 5, 6)),
        "kernel: expected 4 input channels (x has 4, groups=1), got 5 in shape (7, 7, 3, 2, 5, 6)",
    ),
    (
        of_call((2, 9, 8, 4), (7, 7, 3, 2, 4, 6), (7, 7, 5)),
        "bias: expected shape (7, 7, 6), got (7, 7, 5)",
    ),
    (
        of_call((2, 9, 8, 4), (7, 7, 3, 2, 4, 6), (7, 6)),
        "bias: expected shape (7, 7, 6), got (7, 6)",
    ),
    (
        of_call((2, 9, 8, 4), (7, 7, 3, 2, 4, 6), (7, 3, 6)),
        "bias: expected output axes (7, 7) (or 1 where shared) for input (9, 8), kernel (3, 2), strides (1, 1), padding ((0, 0), (0, 0)), got (7, 3) in shape (7, 3, 6)",
    ),
    (
        problem(F32._replace(dtype="int32"), KERNEL, None),
        "x: expected dtype float16, bfloat16, float32, float64, complex64, complex128, got 'int32'",
    ),
    (
        problem(F32, KERNEL._replace(dtype="float64"), None),
        "kernel: expected dtype float32, as x has, got 'float64'",
    ),
    (
        problem(F32, KERNEL, Facts((7, 6), "float16", "cpu")),
        "bias: expected dtype float32, as x has, got 'float16'",
    ),
    (
        problem(F32, KERNEL._replace(device="gpu"), None),
        "kernel: expected an array on cpu, as x is, got 'gpu'",
    ),
    (
        spec((8,), 1, 1),
        "input_shape: expected (*size, channels) with at least one spatial axis, got (8,)",
    ),
    (
        spec((8,), 1, 1, data_format="channels_first"),
        "input_shape: expected (channels, *size) with at least one spatial axis, got (8,)",
    ),
    (
        spec((9, 4), 6, 3, padding="vallid"),
        "padding: expected one of 'valid', 'same', 'causal', 'keras_same', an int, ints or pairs, got 'vallid'",
    ),
    (
        spec((9, 9, 4), 6, 3, padding="causal"),
        "padding: expected 'causal' in 1D only, not in 2D, got 'causal'",
    ),
    (
        spec((9, 4), 6, 3, padding=0.5),
        "padding: expected one of 'valid', 'same', 'causal', 'keras_same', an int, ints or pairs, got 0.5",
    ),
    (
        spec((9, 9, 4), 6, 3, padding=((1, 1),)),
        "padding: expected 2 pairs (low, high), got ((1, 1),)",
    ),
    (
        spec((9, 4), 6, 3, padding=((1, 1, 1),)),
        "padding: expected 1 pairs (low, high), got ((1, 1, 1),)",
    ),
    (spec((9, 4), 6, 3, padding=((1, -1),)), "padding: expected an integer of at least 0, got -1"),
    (spec((9, 4), 6, 3, padding=(-2,)), "padding: expected an integer of at least 0, got -2"),
    (
        spec((9, 4), 6, 3, padding=9, padding_mode="reflect"),
        "padding: expected at most 8 on an axis of 9 with 'reflect' padding, got (9, 9)",
    ),
    (
        spec((9, 4), 6, 3, padding=10, padding_mode="circular"),
        "padding: expected at most 9 on an axis of 9 with 'circular' padding, got (10, 10)",
    ),
    (
        spec((9, 4), 6, 3, padding_mode="mirror"),
        "padding_mode: expected one of 'zeros', 'reflect', 'replicate', 'circular', got 'mirror'",
    ),
    (spec((9, 4), 6, 3, groups=3), "groups: expected a divisor of in_channels=4, got 3"),
    (spec((9, 6), 4, 3, groups=3), "groups: expected a divisor of filters=4, got 3"),
    (spec((9, 4), 6, 3, groups=0), "groups: expected a positive integer, got 0"),
    (spec((9, 4), 0, 3), "filters: expected a positive integer, got 0"),
    (spec((9, 4), 6, 0), "kernel_size: expected a positive integer, got 0"),
    (spec((9, 4), 6, 3, strides=(1, 2)), "strides: expected an integer or 1 of them, got (1, 2)"),
    (spec((9, 4), 6, 3, dilation=-1), "dilation: expected a positive integer, got -1"),
    (
        spec((9, 8, 4), 6, (3, 2), dilation=9),
        "kernel_size: expected a window no larger than the padded input (9, 8), got (3, 2) with dilation (9, 9), which spans (19, 10)",
    ),
    (
        spec((9, 4), 6, 3, data_format="NHWC"),
        "data_format: expected one of 'channels_last', 'channels_first', got 'NHWC'",
    ),
    (
        spec((9, 8, 4), 6, 3, shared_axes=2),
        "shared_axes: expected distinct spatial axes between 0 and 1, got 2",
    ),
    (
        spec((9, 8, 4), 6, 3, shared_axes=(0, 2)),
        "shared_axes: expected distinct spatial axes between 0 and 1, got (0, 2)",
    ),
    (
        spec((9, 8, 4), 6, 3, shared_axes=(1, 1)),
        "shared_axes: expected distinct spatial axes between 0 and 1, got (1, 1)",
    ),
    (
        spec((9, 8, 4), 6, 3, shared_axes=(-1,)),
        "shared_axes: expected an integer of at least 0, got -1",
    ),
    (spec(9, 6, 3), "input_shape: expected a tuple of integers, got 9"),
    (spec((9, 0), 6, 3), "input_shape: expected a positive integer, got 0"),
    (lambda: SPEC.flops(-1), "batch: expected an integer of at least 0, got -1"),
    (lambda: SPEC.bytes(-1), "batch: expected an integer of at least 0, got -1"),
    (
        lambda: SPEC.bytes(1, "int8"),
        "dtype: expected one of 'float16', 'bfloat16', 'float32', 'float64', 'complex64', 'complex128', got 'int8'",
    ),
    (
        lambda: parse("nothing", 1, "here"),
        "nothing: expected one of the settings 'backend', 'implementation', 'data_format', 'max_workspace', 'threads', 'precision', 'tiles', got 'nothing' (here)",
    ),
    (lambda: parse("backend", " ", "here"), "backend: expected a name, got ' ' (here)"),
    (lambda: parse("backend", 3, "here"), "backend: expected a name, got 3 (here)"),
    (
        lambda: parse("implementation", "", "there"),
        "implementation: expected a name, got '' (there)",
    ),
    (
        lambda: parse("threads", "many", "here"),
        "threads: expected a positive integer or 'auto', got 'many' (here)",
    ),
    (
        lambda: parse("threads", "٣", "here"),
        "threads: expected a positive integer or 'auto', got '٣' (here)",
    ),
    (lambda: parse("threads", 0, "here"), "threads: expected a positive integer, got 0 (here)"),
    (lambda: parse("threads", 1.5, "here"), "threads: expected a positive integer, got 1.5 (here)"),
    (
        lambda: parse("data_format", "NHWC", "here"),
        "data_format: expected one of 'channels_last', 'channels_first', got 'NHWC' (here)",
    ),
    (
        lambda: parse("max_workspace", "2 parsecs", "here"),
        "max_workspace: expected bytes, or a size such as '256MiB', got '2 parsecs' (here)",
    ),
    (
        lambda: parse("max_workspace", -1, "here"),
        "max_workspace: expected an integer of at least 0, got -1 (here)",
    ),
    (
        lambda: lcmulti.local_conv(np.ones((2, 9, 4)), np.ones((7, 3, 4, 6)), backend=3),
        "backend: expected a name or None, got 3",
    ),
]


@pytest.mark.parametrize("call, text", MESSAGES, ids=[text[:40] for _, text in MESSAGES])
def test_message(call, text):
    with pytest.raises(LcmultiError) as caught:
        call()
    assert str(caught.value) == text
