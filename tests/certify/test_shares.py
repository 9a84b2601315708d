"""A certification by several processes finds what one finds, and misses nothing of what is lost."""

import os
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree as ET

import pytest

from lcmulti.conformance import certify
from lcmulti.conformance.certify import shares
from lcmulti.conformance.certify.session import make
from lcmulti.errors import ArgumentError, Interrupted

FEW = {"checks": ["test_maps", "test_devices"], "implementation": "blocked", "quick": True}
WRONG = FEW | {"implementation": "window_order"}


def counts(result):
    return result.passed, result.core_passed, result.failed, result.not_run, result.skipped


def ends(outcome, share, asked):
    os._exit(3)


def sees_other_checks(outcome, share, asked):
    came = make(asked._replace(quiet=True), share)
    came.collected = "others"
    outcome.send(came)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_check_is_made_once(tmp_path, processes):
    one, several = (
        certify("numpy", **FEW, processes=number, junit=tmp_path / f"{number}.xml")
        for number in (1, processes)
    )
    assert counts(one) == counts(several)
    assert one.passed > 4
    reports = [ET.parse(tmp_path / f"{number}.xml").getroot()[0] for number in (1, processes)]
    named = [sorted(case.get("name") for case in each.iter("testcase")) for each in reports]
    assert named[0] == named[1]
    assert [each.get("tests") for each in reports] == [str(len(named[0]))] * 2


def test_failures_in_any_process_are_counted_and_shown(saboteurs, capsys):
    one = certify("numpy", **WRONG)
    two = certify("numpy", **WRONG, processes=2, quiet=False)
    assert sorted(each.check for each in one.failures) == sorted(
        each.check for each in two.failures
    )
    said = capsys.readouterr().out
    for each in two.failures:
        assert each.check.split("::")[1] in said
    assert "process 2 of 2" in said
    assert said.rstrip().endswith(two.verdict)


def test_checks_of_a_process_that_ends_were_not_run(monkeypatch):
    monkeypatch.setattr(shares, "_send", ends)
    result = certify("numpy", **FEW, processes=2)
    whole = certify("numpy", **FEW)
    assert [each.check for each in result.failures] == ["process 2 of 2"]
    assert "exit code 3" in result.failures[0].message
    assert result.passed + result.not_run == whole.passed + whole.not_run
    assert result.not_run > whole.not_run


def test_processes_that_see_other_checks_certify_nothing(monkeypatch):
    monkeypatch.setattr(shares, "_send", sees_other_checks)
    result = certify("numpy", **FEW, processes=2)
    assert "other checks" in result.failures[0].message


def test_an_interrupt_while_waiting_gives_what_is_done(monkeypatch):
    def interrupted(outcome):
        raise KeyboardInterrupt

    monkeypatch.setattr(shares.Connection, "recv", interrupted)
    with pytest.raises(Interrupted) as error:
        certify("numpy", **FEW, processes=2)
    assert error.value.report.passed > 0
    assert error.value.report.not_run > certify("numpy", **FEW).not_run


@pytest.mark.slow
def test_an_interrupt_ends_every_process():
    command = [sys.executable, "-u", "-m", "lcmulti", "certify", "numpy", "--processes", "3"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.read(50)  # the first checks are done
    os.killpg(process.pid, signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"not certified" in said
    assert error.strip() == b"lcmulti: interrupted"
    for _ in range(100):  # a helper of multiprocessing ends by itself, a moment later
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process is left")


@pytest.mark.parametrize("processes", [0, -1])
def test_a_wrong_number(processes):
    with pytest.raises(ArgumentError, match="processes"):
        certify("numpy", processes=processes)
