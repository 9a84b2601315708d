"""The fast lane and the full one, and where their time went.

`pytest` runs the fast lane, which touches every topic. `pytest --full` runs everything, and
`pytest --rest` what the fast lane leaves out. `--part 2/3` takes the second of three parts of it.

* ``slow`` marks a test that takes more than a second or two. The fast lane leaves it out.
* ``sampled`` marks a test of which the fast lane runs the first parameters only, for each backend.

A test that is named by its node, ``FILE::TEST``, always runs.

On several workers (``--dist loadgroup``) one worker runs all tests of a file, so that fixtures are
made once. Tests may name a group of their own instead.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import PurePath

import pytest

MOST_SHOWN = 12


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the slow tests as well")
    parser.addoption("--rest", action="store_true", help="run what is not in the fast lane alone")
    parser.addoption("--part", metavar="K/N", type=part, help="run the K-th of N parts alone")


def part(text):
    """Read ``K/N``, with K from 1 to N."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, got {text!r}")
    return int(number), int(count)


def group_of(item):
    """Name the tests that one worker runs together."""
    return item.get_closest_marker("xdist_group").args[0]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
    named = any("::" in argument for argument in config.args)
    if named or config.getoption("--full"):
        return
    kept, left, seen = [], [], set()
    for item in items:
        fast = not item.get_closest_marker("slow")
        if fast and item.get_closest_marker("sampled") and hasattr(item, "callspec"):
            test = (item.location[0], item.function, item.callspec.params.get("backend"))
            fast = test not in seen
            seen.add(test)
        (kept if fast else left).append(item)
    if config.getoption("--rest"):
        kept, left = left, kept
    if config.getoption("--part"):
        number, count = config.getoption("--part")
        chosen = sorted({group_of(item) for item in kept})[number - 1 :: count]
        left += [item for item in kept if group_of(item) not in chosen]
        kept = [item for item in kept if group_of(item) in chosen]
    if left:
        items[:] = kept
        config.hook.pytest_deselected(items=left)


def pytest_terminal_summary(terminalreporter):
    """Print the seconds of tests by folder and file, added up over all workers."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    total = sum(seconds.values())
    if total < 10:
        return
    terminalreporter.section("where the time went")
    folders: Counter[str] = Counter()
    for file, each in seconds.items():
        folders[PurePath(file).parent.name] += each
    shown = "  ".join(f"{name} {each:.0f}" for name, each in folders.most_common())
    terminalreporter.write_line(f"{total:.0f} s of tests: {shown}")
    for file, each in seconds.most_common(MOST_SHOWN):
        terminalreporter.write_line(f"{each:7.1f} s  {file}")
