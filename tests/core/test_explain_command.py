"""`lcmulti explain` as a command: its arguments, text and JSON, and layers over ranks."""

import json

import pytest

import lcmulti

EXPLAIN = [
    "explain", "--input", "63x63x16", "--kernel", "9", "--filters", "16", "--backend", "numpy",
]  # fmt: skip


@pytest.mark.parametrize("argument", ["--input", "--kernel", "--strides", "--padding"])
def test_wrong_sizes_say_how_they_are_written(lcm, argument):
    text = "1:b" if argument == "--padding" else "3x3x"
    result = lcm(*EXPLAIN, argument, text)
    assert result.code == 2
    assert f"argument {argument}: expected whole numbers, as in 63x63x16, got" in result.err


def test_explain(lcm, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = lcm(*EXPLAIN, "--batch", 32)
    assert result.code == 0
    lines = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    spec = lcmulti.LocalConvSpec((63, 63, 16), 16, 9)
    assert lines["kernel"] == str(spec.kernel_shape)
    assert lines["parameters"] == f"{spec.num_parameters:,}"
    assert lines["weights"] == f"{4 * spec.num_parameters:,} bytes"
    assert lines["flops"].startswith(f"{spec.flops(32):,} ")
    assert result.out.startswith(str(lcmulti.explain(spec, batch=32, backend="numpy")))


def test_long_lines_are_folded_to_the_terminal(lcm, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with lcmulti.config(max_workspace="10MiB"):
        lines = lcm(*EXPLAIN, "--batch", 32).out.splitlines()
    assert max(map(len, lines)) <= 60
    start = lines.index("not reference   needs 1,016,012,800 bytes of workspace, over")
    assert lines[start + 1] == " " * 16 + "max_workspace=10,485,760"


def test_explain_json(lcm, install):
    install()
    found = json.loads(lcm(*EXPLAIN, "--dtype", "FLOAT64", "--json").out)
    assert found["backend"] == "numpy"
    assert found["implementation"] == "blocked"
    assert found["output_shape"] == [55, 55, 16]
    assert found["weight_bytes"] == 8 * found["parameters"]
    assert [each["name"] for each in found["verdicts"]] == ["blocked", "reference"]


LARGE = [
    "explain", "--input", "4096x4096x8", "--kernel", "5", "--filters", "8", "--padding", "same",
    "--data-format", "channels_last", "--backend", "numpy", "--batch", "4",
]  # fmt: skip


def test_explain_over_ranks(lcm):
    result = lcm(*LARGE, "--ranks", "1024", "--bandwidth", "25", "--memory-bandwidth", "400")
    assert result.code == 0
    told = result.out[result.out.index("\nranks") + 1 :].splitlines()
    assert max(map(len, told)) <= 80
    lines = dict(line.split(maxsplit=1) for line in told if not line.startswith("or "))
    assert lines["ranks"] == "1,024 as 32x32, of which 0 empty"
    spec = lcmulti.LocalConvSpec((4096, 4096, 8), 8, 5, padding="same", data_format="channels_last")
    costs = spec.shard((32, 32)).costs(4)
    assert lines["weights"] == f"{costs.weights:,} bytes" == "105,381,888 bytes"
    assert lines["halo"].startswith(f"{costs.halo:,} bytes in 4 message(s)")
    assert "about 45.3 us for halos, less than 274 us to compute" in lines["time"]
    assert told[-1].startswith("or 8x128")


def test_explain_over_ranks_as_json(lcm):
    found = json.loads(lcm(*LARGE, "--ranks", "1x16", "--dtype", "float64", "--json").out)
    over = found["over_ranks"]
    assert (over["ranks"], over["parts"], over["others"]) == (16, [1, 16], [])
    assert over["weights"] * 16 == found["weight_bytes"]
    assert over["speeds"]["network"] == 12.5e9
    assert "over_ranks" not in json.loads(lcm(*LARGE, "--json").out)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--ranks", "0"], "ranks: expected a positive integer, got 0"),
        (["--ranks", "2x2x2"], "parts: expected 2 numbers of parts"),
        (["--ranks", "2", "--bandwidth", "-1"], "expected a number above zero, got '-1'"),
    ],
)
def test_wrong_ranks(lcm, arguments, words):
    result = lcm(*LARGE, *arguments)
    assert result.code == 2
    assert words in result.err


def test_explain_takes_every_argument(lcm):
    call = """explain --input 4,9,8 --kernel 3x2 --filters 6 --batch 0 --strides 2x1
        --padding 1:2,0:3 --padding-mode replicate --dilation 1x2 --groups 2 --shared-axes 1
        --data-format channels_first --dtype float64 --device cpu --backend NUMPY
        --implementation reference --json"""
    found = json.loads(lcm(*call.split()).out)
    spec = lcmulti.LocalConvSpec(
        (4, 9, 8), 6, (3, 2), strides=(2, 1), padding=((1, 2), (0, 3)), padding_mode="replicate",
        dilation=(1, 2), groups=2, shared_axes=(1,), data_format="channels_first",
    )  # fmt: skip
    assert found["kernel_shape"] == list(spec.kernel_shape)
    assert found["output_shape"] == list(spec.output_shape)
    assert found["implementation"] == "reference"
    assert found["flops"] == 0
    assert found["weight_bytes"] == 8 * spec.num_parameters


@pytest.mark.parametrize(
    "padding, pairs",
    [("same", ((4, 4), (4, 4))), ("2", ((2, 2), (2, 2))), ("1x3", ((1, 1), (3, 3)))],
)
def test_explain_padding(lcm, padding, pairs):
    found = json.loads(lcm(*EXPLAIN, "--padding", padding, "--json").out)
    spec = lcmulti.LocalConvSpec((63, 63, 16), 16, 9, padding=pairs)
    assert found["output_shape"] == list(spec.output_shape)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--padding", "sane"], "padding: expected one of"),
        (["--dtype", "float31"], "dtype: expected one of"),
        (["--device", "abacus"], "device: expected one of"),
        (["--backend", "theano"], "backend: expected one of"),
        (["--implementation", "fastest"], "implementation: expected one of"),
        (["--batch", "-1"], "batch: expected"),
        (["--filters", "0"], "filters: expected"),
        (["--strides", "1x1x1"], "strides: expected"),
        (["--shared-axes", "5"], "shared_axes: expected"),
    ],
)
def test_wrong_explain(lcm, arguments, words):
    result = lcm(*EXPLAIN, *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"lcmulti: {words}")
    assert result.err.count("\n") == 1
