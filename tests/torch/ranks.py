"""Run checks on several processes at once and print ``{check: error or None}`` as JSON.

Usage: ``python ranks.py RANKS:MODULE,MODULE... ...``. The standard input has a JSON list of the
wanted checks; if it is empty, all are run. ``MODULE.checks(RANKS)`` returns functions
``(rank) -> None`` by name, which all ranks run in one order.

One process imports PyTorch and forks the ranks, because imports take longer than most checks.
After a check that fails, new ranks run the rest, because the old ones may be out of step. The
seconds that each check took are written to stderr.
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
import torch._dynamo  # what DTensor would import on its first use, in every rank
import torch.distributed as dist

TIMEOUT = datetime.timedelta(minutes=2)  # machines may be busy


def start(rank, ranks, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=ranks, timeout=TIMEOUT
    )


def work(rank, ranks, folder, checks):
    start(rank, ranks, folder)
    # Ranks exchange errors here: after a failure, the process group may be out of step.
    told = dist.FileStore(f"{folder}/told", ranks)
    told.set_timeout(2 * TIMEOUT)
    found = {}
    for name, check in checks.items():
        torch.manual_seed(0)
        error, started = "", time.monotonic()
        try:
            check(rank)
        except Exception:
            error = f"on rank {rank}: {traceback.format_exc()[-3000:]}"
        told.set(f"{name} {rank}", error)
        if not rank:
            print(f"{time.monotonic() - started:6.2f} s  {name}", file=sys.stderr)
        errors = [told.get(f"{name} {each}").decode() for each in range(ranks)]
        found[name] = "\n".join(filter(None, errors)) or None
        if found[name]:
            break
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # skips PyTorch's shutdown, for which all ranks would have to be in step


def run(ranks, checks):
    """Run all checks, with new ranks after each one that fails."""
    found = {}
    while left := {name: check for name, check in checks.items() if name not in found}:
        found |= run_until_one_fails(ranks, left)
    return found


def run_until_one_fails(ranks, checks):
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(ranks):
            child = os.fork()
            if not child:
                try:
                    work(rank, ranks, folder, checks)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(codes):
            return dict.fromkeys(checks, f"ranks ended with {codes}")
        return json.loads((Path(folder) / "0.json").read_text())


def main(groups):
    wanted, found = json.loads(sys.stdin.read() or "null"), {}
    for group in groups:
        ranks, _, modules = group.partition(":")
        checks = {}
        for module in modules.split(","):
            checks |= importlib.import_module(module).checks(int(ranks))
        checks = {n: check for n, check in checks.items() if wanted is None or n in wanted}
        found |= run(int(ranks), checks)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
