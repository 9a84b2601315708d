"""The fast lane and the full one, and where their time went.

`pytest` runs the fast lane: every topic is touched. `pytest --full` runs everything.

* ``slow``: a test that takes more than a second or two. It runs with --full alone.
* ``sampled``: of a test's parameters the fast lane takes the first, for each backend in turn.

A test that is named by its node, ``FILE::TEST``, runs in either.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

MOST_SHOWN = 12


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the slow tests as well")


def pytest_collection_modifyitems(config, items):
    named = any("::" in argument for argument in config.args)
    if named or config.getoption("--full") or "slow" in config.getoption("-m"):
        return
    kept, left, seen = [], [], set()
    for item in items:
        fast = not item.get_closest_marker("slow")
        if fast and item.get_closest_marker("sampled") and hasattr(item, "callspec"):
            test = (item.location[0], item.function, item.callspec.params.get("backend"))
            fast = test not in seen
            seen.add(test)
        (kept if fast else left).append(item)
    if left:
        items[:] = kept
        config.hook.pytest_deselected(items=left)


def pytest_terminal_summary(terminalreporter):
    """Seconds by file, of one worker each: what a run of two or more shares among them."""
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
