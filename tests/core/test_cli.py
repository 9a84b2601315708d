"""The command line: help, errors and exit codes, and the commands `config` and `backends`."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from strangers import backend_entry, implementation_entry, plugin_of

import lcmulti
from lcmulti import cli
from lcmulti.choosing import settings
from lcmulti.cli import main, output

COMMANDS = [
    "",
    "backends",
    "config",
    "config get",
    "config set",
    "config unset",
    "config path",
    "explain",
    "parity",
    "bench",
    "certify",
    "convert",
    "view",
    "tune",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_within_80_columns(lcm, command):
    result = lcm(*command.split(), "--help")
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80
    if " " not in command:
        assert "\nexamples:\n  lcmulti" in result.out


def examples():
    for command in (each for each in COMMANDS if " " not in each):
        parser = cli._parser()
        text = subprocess.run(
            [sys.executable, "-m", "lcmulti", *command.split(), "--help"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        # What follows a backslash is part of the call; what follows two spaces is a remark.
        lines = re.sub(r"\\\n +", "", text.partition("\nexamples:\n")[2]).splitlines()
        for line in lines:
            if line.startswith("  lcmulti "):
                call = line.split("  ")[1].partition("|")[0].split()[1:]
                yield parser, [word.strip("'") for word in call]


@pytest.mark.slow
def test_every_example_in_the_help_is_a_right_call():
    calls = list(examples())
    assert len(calls) > 12
    for parser, call in calls:
        args, unknown = parser.parse_known_args(call)
        assert not unknown or hasattr(args, "unknown")  # certify passes the rest to pytest


def test_version(lcm):
    assert lcm("--version").out == f"lcmulti {lcmulti.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["compute"], ["explain"], ["explain", "--input", "a"]])
def test_usage_errors(lcm, arguments):
    result = lcm(*arguments)
    assert result.code == 2
    assert "usage: lcmulti" in result.err


def test_python_m():
    command = [sys.executable, "-m", "lcmulti", "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"lcmulti {lcmulti.__version__}\n"


def test_errors_are_one_line_and_exit_code_2(lcm):
    result = lcm("explain", "--input", "5x2", "--kernel", "9", "--filters", "4")
    assert result.code == 2
    assert result.out == ""
    assert result.err == (
        "lcmulti: kernel_size: expected a window no larger than the padded input (5,), "
        "got (9,) with dilation (1,), which spans (9,)\n"
    )


def test_a_bug_is_not_swallowed(monkeypatch):
    monkeypatch.setattr(settings, "sources", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["config"])


def test_interrupted(lcm, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(settings, "sources", interrupted)
    result = lcm("config")
    assert (result.code, result.out, result.err) == (130, "", "lcmulti: interrupted\n")


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="pipes of this system do not break")
@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["config", "path"]])
def test_broken_pipe_is_quiet(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "lcmulti", *arguments],
        check=False, stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, "")


def test_config_prints_each_setting_and_its_place(lcm, isolated, monkeypatch):
    (isolated / "lcmulti.toml").write_text('data_format = "channels_first"')
    monkeypatch.setenv("LCMULTI_MAX_WORKSPACE", "64MiB")
    settings.reload()
    found = json.loads(lcm("config", "--json").out)
    assert found == {
        "backend": {"value": "numpy", "place": "default"},
        "implementation": {"value": "auto", "place": "default"},
        "data_format": {"value": "channels_first", "place": str(isolated / "lcmulti.toml")},
        "max_workspace": {"value": 64 * 2**20, "place": "LCMULTI_MAX_WORKSPACE"},
        "threads": {"value": None, "place": "default"},
        "precision": {"value": "ieee", "place": "default"},
        "tiles": {"value": "tuned", "place": "default"},
    }
    text = lcm("config").out
    assert max(map(len, text.splitlines())) <= 80
    for name, source in found.items():
        assert name in text
        assert source["place"][:20] in text
    assert "67108864" in text


def test_config_get_set_and_path(lcm):
    assert lcm("config", "path").out.strip() == str(settings.user_file())
    assert lcm("config", "get", "threads").out == "auto\n"
    result = lcm("config", "set", "threads", "3")
    assert (result.code, result.out) == (0, f"threads = 3 written to {settings.user_file()}\n")
    assert lcm("config", "get", "threads").out == "3\n"
    assert json.loads(lcm("config", "--json", "get", "threads").out) == 3


def test_config_set_tells_when_a_stronger_place_hides_it(lcm, monkeypatch):
    monkeypatch.setenv("LCMULTI_THREADS", "7")
    note = lcm("config", "set", "threads", "3").out.splitlines()[1]
    assert note == "note: LCMULTI_THREADS is stronger and sets it to 7 here"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["get", "bakend"], "bakend: expected one of the settings 'backend', 'implementation'"),
        (["set", "bakend", "numpy"], "bakend: expected one of the settings 'backend'"),
        (["set", "backend", "theano"], "got 'theano' (lcmulti config set)"),
    ],
)
def test_wrong_config(lcm, arguments, words):
    result = lcm("config", *arguments)
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert not settings.user_file().exists()


def test_backends(lcm):
    found = json.loads(lcm("backends", "--json").out)
    by_name = {each["name"]: each for each in found["backends"]}
    numpy = by_name["numpy"]
    assert numpy["installed"]
    assert numpy["version"]
    assert numpy["devices"] == ["cpu"]
    assert "float16" in numpy["dtypes"]
    names = [each["name"] for each in numpy["implementations"]]
    assert names[-2:] == ["blocked", "reference"]  # native comes first, if installed
    assert numpy["plugin"].startswith("lcmulti ")
    result = lcm("backends")
    assert result.code == 0
    for each in found["backends"]:
        assert each["error"] is None
        assert each["name"] in result.out
        if each["installed"]:
            assert each["devices"]
        else:
            assert each["install"] in result.out


def test_backends_tells_what_is_absent_and_what_is_broken(lcm, install):
    install(
        wrong=ImportError("no module named 'cuda_thing'"),
        absent=plugin_of([backend_entry("absent", package="surely_not_installed")]),
        broken=plugin_of([backend_entry("broken", load="lcmulti.numpy.backend:no")]),
        added=plugin_of((), [implementation_entry("better", summary="a [bold]better[/bold] way")]),
    )
    text = lcm("backends").out
    lines = text.splitlines()
    assert "absent not installed; install it with: pip install absent" in lines
    assert (
        "broken plugin wrong 9.8 (wrong_plugin): ImportError: no module named 'cuda_thing'" in lines
    )
    assert any("has no attribute 'no'" in line and "pip install broken" in line for line in lines)
    better = " ".join(text[text.index("better") :].split())
    assert better.startswith("better a [bold]better[/bold] way [added 9.8 (added_plugin)]")
    found = json.loads(lcm("backends", "--json").out)
    assert found["broken_plugins"][0]["plugin"] == "wrong 9.8 (wrong_plugin)"
    assert [each["installed"] for each in found["backends"]] == [False, True, True]


def test_tables_cut_nothing_off(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    table = output.table("A title", "name", "place")
    table.add_row("x", "/a/very/long/path" * 10)
    output.console().print(table)
    text = "".join(capsys.readouterr().out.split())
    assert text.endswith("/a/very/long/path" * 10)


def test_parity_is_wired(lcm):
    assert lcm("parity", "--list-cases").code == 0
    assert lcm("parity", "--cases", "no_such_case").code == 2


@pytest.mark.parametrize("option", ["--backends", "--cases"])
def test_an_unset_shell_variable_does_not_choose_everything(lcm, option):
    done = lcm("parity", option, "", "--no-training", "--memory", "1")
    assert done.code == 2
    assert option[2:] in done.err and "one of" in done.err and "got none" in done.err
