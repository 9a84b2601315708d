"""What a command does as a process: the noise of C++ code, and interrupts."""

import os
import subprocess
import sys

import pytest

LINES = {
    "I0000 00:00:1796082899.003342    5659 port.cc:153] oneDNN is on": "I",
    "WARNING: All log messages before absl::InitializeLog() is called are written": "I",
    "2026-01-01 00:00:00.000000: I tensorflow/core/util/port.cc:153] oneDNN": "I",
    "To enable the following instructions: AVX2, rebuild TensorFlow": "I",
    "W0000 00:00:1796082899.003342    5659 cuda.cc:1] no driver": "W",
    "2026-01-01 00:00:00.000000: W tensorflow/core/x.cc:1] retracing": "W",
    "E0000 00:00:1796082899.003342    5659 cuda.cc:1] an error": "E",
    "2026-01-01 00:00:00.000000: E tensorflow/core/x.cc:1] an error": "E",
    "what a user's library says": "E",
}
NOISY = """
import os, sys
from lcmulti.cli import config, main

def run(args):
    for line in {lines!r}:
        os.write(2, line.encode() + b"\\n")
    print("from Python", file=sys.stderr)
    return 0

config.run = run
sys.exit(main(["config"]))
"""


def said(code, level=None):
    """Return the exit status and the lines on standard error of a new process."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, stderr=subprocess.PIPE, text=True,
        env=environment, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("level", "shown"), [(None, "E"), ("0", "IWE"), ("1", "WE"), ("2", "E"), ("3", "E")]
)
def test_start_up_noise_is_hidden_unless_the_user_asks_for_it(level, shown):
    status, lines = said(NOISY.format(lines=list(LINES)), level)
    wanted = {line for line, kind in LINES.items() if kind in shown} | {"from Python"}
    assert (status, set(lines)) == (0, wanted)


IGNORED = """
import gc, signal, sys, time
from lcmulti.cli import config, main

def interrupted(phase, info):  # Python ignores what is raised here
    if phase == "start":
        gc.callbacks.remove(interrupted)
        signal.raise_signal(signal.SIGINT)

def run(args):
    gc.callbacks.append(interrupted)
    gc.collect()
    time.sleep(30)

config.run = run
sys.exit(main(["config"]))
"""


def test_an_interrupt_that_python_ignores_arrives():
    assert said(IGNORED) == (130, ["lcmulti: interrupted"])


def test_a_user_s_own_switch_of_jax_is_left_alone(monkeypatch):
    from lcmulti.cli.arguments import DOUBLES, with_doubles

    for own in (None, "0"):
        for dtype, wanted in (
            ("float64", own or "1"),
            ("complex128", own or "1"),
            ("bfloat16", own),
        ):
            monkeypatch.delenv(DOUBLES, raising=False)
            if own is not None:
                monkeypatch.setenv(DOUBLES, own)
            with with_doubles(dtype):
                assert os.environ.get(DOUBLES) == wanted
            assert os.environ.get(DOUBLES) == own


@pytest.mark.slow
def test_jax_has_float64_where_a_command_asks_for_it():
    pytest.importorskip("jax")
    command = [
        "parity", "--backends", "jax", "--cases", "batch_1", "--dtype", "float64", "--no-training",
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    done = subprocess.run(
        [sys.executable, "-m", "lcmulti", *command],
        check=False, capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: 2 checks" in done.stdout
