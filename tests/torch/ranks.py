"""Runs checks on several processes at once and prints ``{check: error or None}`` as JSON.

``python ranks.py RANKS CHECKS...``. One process imports PyTorch and forks the ranks, for imports
take longer than all checks. A check is a function ``(rank) -> None`` of the modules named; the
ranks run the same ones in the same order. After the first that fails no other is run: ranks may
be out of step then.
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

TIMEOUT = datetime.timedelta(seconds=20)


def start(rank, ranks, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=ranks, timeout=TIMEOUT
    )


def work(rank, ranks, folder, checks):
    start(rank, ranks, folder)
    told = dist.FileStore(f"{folder}/told", ranks)  # apart from what may be out of step
    told.set_timeout(2 * TIMEOUT)
    found = {}
    for name, check in checks.items():
        torch.manual_seed(0)
        error = ""
        try:
            check(rank)
        except Exception:
            error = f"on rank {rank}: {traceback.format_exc()[-3000:]}"
        told.set(f"{name} {rank}", error)
        errors = [told.get(f"{name} {each}").decode() for each in range(ranks)]
        found[name] = "\n".join(filter(None, errors)) or None
        if found[name]:
            break
    found |= {name: "not run after that" for name in checks if name not in found}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # without a farewell, for which ranks would have to be in step


def main(ranks, modules):
    checks = {}
    for module in modules:
        checks |= importlib.import_module(module).checks(ranks)
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
            sys.exit(f"ranks ended with {codes}")
        print((Path(folder) / "0.json").read_text())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
