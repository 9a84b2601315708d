"""The conformance suite: what a certificate needs, what it prints and writes, and the command.

test_saboteurs.py tests that wrong implementations fail it, and test_coverage.py what it covers.
"""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from installed import INSTALLED

from lcmulti import plugins
from lcmulti.cli import main
from lcmulti.conformance import certify
from lcmulti.conformance.certify.random_geometries import any_call
from lcmulti.conformance.certify.subject import Subject
from lcmulti.errors import ArgumentError, Interrupted, MissingExtraError


@pytest.mark.parametrize(
    "backend, implementation",
    [("tape", None), pytest.param("numpy", "honest", marks=pytest.mark.slow)],
)
def test_what_is_honest(saboteurs, backend, implementation):
    """A quick run certifies an implementation without differentiation and a backend with it."""
    result = certify(backend, implementation=implementation, quick=True)
    assert not result.failures, result.failures[:3]
    assert result.core_passed > 5
    assert not result.ok
    assert "which is no certificate" in result.verdict
    modes = {mode for mode in ("reverse", "forward") for why in result.skipped if mode in why}
    assert modes == (set() if backend == "tape" else {"reverse", "forward"})


@pytest.mark.slow
@pytest.mark.parametrize("backend, implementation", [("numpy", "honest"), ("tape", None)])
def test_a_certificate(saboteurs, backend, implementation):
    """The whole suite passes, which is a certificate."""
    result = certify(backend, implementation=implementation)
    assert result.ok, result.failures[:3]
    assert (result.failed, result.not_run) == (0, 0)
    assert result.core_passed > 500


TOGETHER = "(test_gradients and 2d) or test_many_threads or larger_arrays or numpy_out or 2d-long"


@pytest.mark.slow
def test_own_backends_together(backend):
    """A backend passes in a process that has imported all frameworks, PyTorch first.

    Each framework has threads of its own, so the checks include large arrays and many callers.
    """
    for name in INSTALLED:
        plugins.load_backend(name)
    assert {"numpy", *INSTALLED} <= sys.modules.keys()
    result = certify(backend, arguments=["-k", f"auto and ({TOGETHER})"])
    assert not result.failures, result.failures[:3]
    assert result.core_passed > 100


@pytest.mark.slow
def test_part_of_the_suite_certifies_nothing():
    result = certify("numpy", checks=["test_devices"])
    assert (result.passed, result.failed) == (1, 0)
    assert not result.ok
    assert "not certified" in result.verdict
    assert not certify("numpy", arguments=["--collect-only"]).ok


LESS = "python_functions=test_devices test_claim_is_not_empty"


def test_checks_that_pytest_is_told_not_to_see_were_not_run():
    result = certify("numpy", implementation="blocked", arguments=["-o", LESS])
    assert (result.passed, result.failed) == (2, 0)
    assert result.not_run > 40
    assert not result.ok


def test_environment_takes_no_part(monkeypatch, saboteurs):
    monkeypatch.setenv("PYTEST_ADDOPTS", f"-o '{LESS}'")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    result = certify("numpy", implementation="window_order", arguments=["-x", "-k", "test_maps"])
    assert {each.check.split("::")[-1].split("[")[0] for each in result.failures} == {"test_maps"}
    assert os.environ["PYTEST_PLUGINS"] == "no_such_plugin"


@pytest.mark.parametrize("place", ["variable", "file"])
def test_settings_take_no_part(monkeypatch, saboteurs, isolated, place):
    """Settings are ignored, so an implementation that is wrong with three threads passes."""
    if place == "variable":
        monkeypatch.setenv("LCMULTI_THREADS", "3")
    else:
        (isolated / "lcmulti.toml").write_text("threads = 3\n")
    arguments = ["-k", "(test_value and 1d) or (test_many_threads and long_tiled)"]
    result = certify("numpy", implementation="wrong_with_threads", arguments=arguments)
    assert not result.failures, result.failures[:3]
    assert result.passed > 60


def test_what_is_written(tmp_path, capfd):
    files = {kind: tmp_path / kind for kind in ("json", "junit", "certificate")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    code = main(
        ["certify", "numpy", "--implementation", "blocked", *options, "--check", "test_devices"]
    )
    assert code == 1
    assert "checks were not run" in capfd.readouterr().out
    facts = json.loads(files["json"].read_text())
    assert (facts["ok"], facts["passed"], facts["implementation"]) == (False, 1, "blocked")
    (suite,) = ET.parse(files["junit"]).getroot()
    assert suite.get("tests") == "1"
    page = files["certificate"].read_text()
    for word in ("blocked", "not certified", "| python |", "| numpy |", "lcmulti 0."):
        assert word in page
    assert "Every value" not in page  # only one check was run


def test_a_failure_says_how_it_is_made_again(saboteurs, capfd):
    """A failure shows seed, batch and geometry, and a command that fails in the same way."""
    options = ["--implementation", "wrong_for_16_filters", "--check", "test_any_call", "-x"]
    assert main(["certify", "numpy", "--seed", "7", *options]) == 1
    said = capfd.readouterr().out
    (told,) = {line for line in said.splitlines() if line.startswith("seed 7, batch ")}
    assert "LocalConvSpec(" in told
    (command,) = {line for line in said.splitlines() if line.startswith("lcmulti certify numpy ")}
    assert main(shlex.split(command)[1:]) == 1
    assert told in capfd.readouterr().out


def test_interrupted(monkeypatch, capfd):
    """Ctrl-C ends the command with a message and exit code 130, as in every command."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Subject, "verify_kind", interrupt)
    with pytest.raises(Interrupted) as caught:
        certify("numpy", checks=["test_the_right_call"])
    assert not caught.value.report.ok
    assert main(["certify", "numpy", "--check", "test_the_right_call"]) == 130
    assert "lcmulti: interrupted" in capfd.readouterr().err


@pytest.mark.slow
def test_every_night_is_another():
    """Each run draws new examples, and the seed that it prints draws the same again."""
    one = {"checks": ["test_devices"]}
    nights = [certify("numpy", nightly=True, **one).seed for _ in range(2)]
    assert nights[0] != nights[1]
    assert f"seed {nights[0]}" in certify("numpy", seed=nights[0], **one).summary()
    assert certify("numpy", **one).seed == 0
    drawn = [[any_call(seed + i) for i in range(5)] for seed in (0, 0, *nights)]
    assert drawn[0] == drawn[1] != drawn[2] != drawn[3]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["theano"], "backend: expected one of"),
        (["numpy", "--implementation", "fastest"], "implementation: expected one of"),
        (["numpy", "--device", "abacus"], "device: expected one of 'cpu', 'gpu'"),
        (["numpy", "--device", "gpu"], "device: expected a kind of device that 'numpy' has (cpu)"),
        (["numpy", "--json", "no/such/folder/file"], "json: expected a file in a folder"),
        (["numpy", "--check", "test_nothing"], "checks: expected one of"),
        (["numpy", "--seed", "-1"], "seed: expected an integer of at least 0"),
        (["numpy", "--no-such-option"], "arguments: expected arguments of pytest"),
        (["numpy", "-n", "2"], "arguments: expected arguments of pytest"),
    ],
)
def test_wrong_calls(capfd, arguments, words):
    assert main(["certify", *arguments]) == 2
    assert words in capfd.readouterr().err


def test_other_commands_still_refuse_what_they_do_not_know(capsys):
    with pytest.raises(SystemExit):
        main(["backends", "--surely-not"])
    assert "unrecognized arguments: --surely-not" in capsys.readouterr().err


def test_without_the_extra(monkeypatch):
    find = importlib.util.find_spec
    absent = lambda name, *rest: None if name == "hypothesis" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'lcmulti\[conformance\]'"):
        certify("numpy")


def test_without_assertions():
    command = [sys.executable, "-O", "-m", "lcmulti.conformance", "numpy", "-k", "test_devices"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "certify is made of assertions, which python -O leaves out" in done.stderr


def test_unknown_names_from_python():
    with pytest.raises(ArgumentError, match="^backend: expected one of .*'numpy'.*, got 'theano'"):
        certify("theano")


def test_as_a_module_and_in_nobody_elses_tests(tmp_path):
    """The module runs as a command, and an installed lcmulti changes no other run of pytest."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --surely-not-an-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not to be read')\n")
    command = [sys.executable, "-m", "lcmulti.conformance", "numpy", "-k", "test_devices"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "1 passed" in done.stdout

    (tmp_path / "pytest.ini").unlink()
    (tmp_path / "conftest.py").unlink()
    (tmp_path / "test_one.py").write_text(
        "import sys\ndef test_one(): assert 'lcmulti' not in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_serves_nothing_on_this_machine_is_left_out_and_named(monkeypatch):
    """An implementation such as Triton without a GPU is skipped, unless it is asked for by name."""
    maps = plugins.load_implementation("numpy", "blocked")
    monkeypatch.setattr(maps, "unavailable", lambda: "needs an abacus", raising=False)
    one = {"checks": ["test_implementation_record"]}
    whole, named = certify("numpy", **one), certify("numpy", implementation="blocked", **one)
    assert (whole.passed, whole.skipped["numpy-blocked: needs an abacus"]) == (1, 1)
    assert named.passed == 1


def test_what_does_not_run_on_a_device_is_named():
    pytest.importorskip("torch")
    assert Subject("torch", "elementwise", "gpu").lacks_device() == "does not run on gpu"
    assert Subject("torch", "elementwise", "cpu").lacks_device() is None
    assert Subject("torch", "blocked", "gpu").lacks_device() is None
