"""The full text of every error of the core, because users act on it."""

import numpy as np
import pytest
from strangers import implementation_entry, plugin_of

import lcmulti
from lcmulti.choosing import dispatch, setting_files, settings
from lcmulti.choosing.dispatch import choose, problem_of
from lcmulti.choosing.settings import parse
from lcmulti.choosing.user_settings import write_user_setting
from lcmulti.errors import LcmultiError
from lcmulti.geometry.of_call import spec_of_call, spec_of_transposed_call
from lcmulti.geometry.spec import LocalConvSpec
from lcmulti.numpy import backend as numpy_backend
from lcmulti.numpy.backend import NumpyBlocked, NumpyOps
from lcmulti.plugins.contract import Facts, Problem, Resources
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


def planned(dtype="float32", device="cpu", transformed=False, limit=10**9, batch=2):
    return Problem(SPEC, batch, dtype, device, transformed, Resources(limit))


@pytest.fixture
def some(install):
    """Implementations that each serve one kind of call, and one that cannot be loaded."""
    record = {"backend": "numpy", "priority": 99}
    install(
        paint=plugin_of(
            (),
            [
                implementation_entry("doubles", dtypes=("float64",), **record),
                implementation_entry("device", devices=("gpu",), **record),
                implementation_entry("absent", load="nowhere:nothing", **record),
            ],
        )
    )


def test_verdicts_to_the_letter(some):
    _, verdicts = choose("numpy", planned(limit=10), "reference", settings.DEFAULTS)
    held = numpy_backend.reference_implementation.workspace(planned())
    assert [tuple(each) for each in verdicts[:2]] == [
        ("absent", verdicts[0].reason, None),
        ("device", "does not run on cpu", None),
    ]
    assert "nowhere" in verdicts[0].reason
    assert tuple(verdicts[2]) == ("doubles", "does not compute in float32", None)
    assert verdicts[3].reason.endswith("bytes of workspace, over max_workspace=10")
    assert tuple(verdicts[4]) == ("reference", None, held)


def test_a_stranger_who_fails_when_asked(install, monkeypatch):
    """The other implementations still serve."""

    class Failing(NumpyBlocked):
        def decline(self, problem):
            raise KeyError("groups")

    monkeypatch.setattr(numpy_backend, "failing", Failing(NumpyOps()), raising=False)
    record = implementation_entry("failing", load="lcmulti.numpy.backend:failing", priority=99)
    install(paint=plugin_of((), [record]))
    entry, verdicts = choose("numpy", planned(), "auto", settings.DEFAULTS)
    assert entry.name == "blocked"
    why = "could not tell whether it serves (KeyError: 'groups')"
    assert tuple(verdicts[0]) == ("failing", why, None)


def test_refusals_to_the_letter(some):
    with pytest.raises(LcmultiError) as caught:
        choose("numpy", planned(), "doubles", settings.DEFAULTS)
    assert str(caught.value) == (
        "implementation 'doubles' of backend 'numpy' cannot serve this call (does not compute in "
        "float32); implementation='auto' takes one that can"
    )
    with pytest.raises(LcmultiError) as caught:
        choose("numpy", planned(transformed=True), "auto", settings.DEFAULTS)
    reason = "cannot be transformed or traced by the framework"
    assert str(caught.value) == (
        "no implementation of backend 'numpy' can serve this call (absent: "
        f"{reason}; device: does not run on cpu; doubles: does not compute in float32; "
        f"blocked: {reason}; reference: {reason})"
    )


def test_what_arguments_become():
    frozen = dispatch.frozen
    assert frozen([1, (2, None), "same"]) == (1, (2, None), "same")
    for value in (True, 1.0, {2}, b"same", np.int64(1)):
        with pytest.raises(dispatch.UnhashableError):
            frozen(value)
    config = settings.DEFAULTS._replace(data_format="channels_first", threads=3)
    facts = F32._replace(shape=(2, 4, 9)), KERNEL, None
    found, problem = problem_of("numpy", facts, (1, "valid", "zeros", 1, 1, None), config)
    assert found.data_format == "channels_first"
    assert problem.resources == Resources(config.max_workspace, 3)
    assert problem[1:5] == (2, "float32", "cpu", False)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_indices_of_padding(mode):
    padded = LocalConvSpec((3, 4, 1), 1, 1, padding=((0, 0), (2, 1)), padding_mode=mode, **LAST)
    ((axis, indices),) = padded.padding_indices()
    numpys = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    assert axis == 2
    assert indices.tolist() == np.pad(np.arange(4), (2, 1), mode=numpys).tolist()
    low = LocalConvSpec((3, 4, 1), 1, 1, padding=((2, 0), (0, 1)), padding_mode=mode, **LAST)
    assert [axis for axis, _ in low.padding_indices()] == [1, 2]
    assert SPEC.padding_indices() == ()


def test_counts():
    assert (SPEC.flops(0), SPEC.flops(2)) == (0, 2 * 2 * 49 * 6 * 24)
    assert SPEC.bytes(0) == SPEC.num_parameters * 4
    assert SPEC.bytes(1, "float64") == 8 * (SPEC.num_parameters + 9 * 8 * 4 + 49 * 6)
    assert SPEC.sharing((1,)).shared_axes == (1,)


@pytest.mark.parametrize(
    "shape, device, padding, name, expected",
    [
        ((2, 9, 4), "cpu", 1, "forward", [("padding", (2, 11, 4)), ("padding", (2, 9, 6))]),
        ((2, 9, 4), "cpu", 0, "forward", [("x", (2, 9, 4)), ("x", (2, 7, 6))]),
        ((0, 9, 4), "cpu", 0, "forward", [("x", (1, 9, 4)), ("x", (1, 7, 6))]),
        ((None, 9, 4), "cpu", 0, "forward", [("x", (1, 9, 4)), ("x", (1, 7, 6))]),
        ((2, 9, 4), "gpu", 0, "forward", [("x", (1, 9, 4)), ("x", (1, 7, 6))]),
    ],
)
def test_arrays_that_memory_is_asked_for(monkeypatch, shape, device, padding, name, expected):
    asked = []
    monkeypatch.setattr(dispatch, "require_memory", lambda *row: asked.append(row[:2]))
    kernel = Facts((7 + 2 * padding, 3, 4, 6), "float32", device)
    facts = Facts(shape, "float32", device), kernel, None
    problem_of("numpy", facts, (1, padding, "zeros", 1, 1, "channels_last"), settings.DEFAULTS)
    assert asked == expected


def test_memory_is_not_asked_for_arrays_that_are_not_in_it(monkeypatch):
    asked = []
    monkeypatch.setattr(dispatch, "require_memory", lambda *row: asked.append(row))
    problem(F32._replace(transformed=True), KERNEL, None)()
    monkeypatch.setattr(dispatch, "memory_for", lambda shape, dtype: (2, 1))
    problem(F32, KERNEL, None)()
    assert not asked
    monkeypatch.setattr(dispatch, "memory_for", lambda shape, dtype: (1, 1))
    problem(F32, KERNEL, None)()
    assert len(asked) == 2


def test_the_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "lcmulti.toml"
    path.write_text("threads = ")
    with pytest.raises(LcmultiError) as caught:
        setting_files.read_toml(path)
    assert str(caught.value) == (
        f"{path}: expected a readable TOML file, got Invalid value (at end of document)"
    )


def test_no_limit_is_written_as_a_word(monkeypatch, tmp_path):
    path = tmp_path / "a" / "b" / "lcmulti.toml"
    monkeypatch.setattr(settings, "user_file", lambda: path)
    write_user_setting("threads", None)
    assert path.read_text() == 'threads = "auto"\n'
    with pytest.raises(AttributeError) as caught:
        lcmulti.config.thread
    assert str(caught.value).startswith("no setting 'thread'; there are backend, implementation, ")


def test_strides_and_dilation_of_what_is_computed():
    wide = LocalConvSpec((3, 4, 1), 1, 1, strides=(50, 2), dilation=(70, 1), **LAST).computed()
    assert (wide.strides, wide.dilation) == ((3, 2), (3, 1))


def test_weights_of_one_position_are_no_shared_ones():
    found = spec_of_call((2, 3, 8, 4), (2, 7, 2, 2, 4, 6), None, **LAST)
    assert found.shared_axes == ()
    assert spec_of_call((2, 3, 8, 4), (1, 7, 2, 2, 4, 6), None, **LAST).shared_axes == (0,)
