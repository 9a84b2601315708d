"""A machine that need not be measured, and a workload that takes almost no time."""

import pytest

import lcmulti
from lcmulti.bench import Machine, machine, workload

MACHINE = Machine(1e9, 1e10, 2, "a processor", "Linux", "3.11", {"numpy": "2"})
TINY = workload(
    lcmulti.LocalConvSpec((6, 5, 2), 3, (3, 2), padding=1, data_format="channels_last"), 4
)
QUICK = {"backends": ["numpy"], "repeat": 3, "variants": False}


@pytest.fixture(autouse=True)
def quick_machine(monkeypatch):
    """Replace the measurement of the machine, which takes seconds and has tests of its own."""
    monkeypatch.setattr(machine, "measure", lambda dtype, backends, device: MACHINE)
