"""Figures of a compiled kernel, without a GPU: registers, spills, shared memory, main loop.

The compiler and the disassemblers come with Triton. A loop is the code between a backward branch
and its target. The main loop is the one with the most multiplications.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import triton

__all__ = ["Figures", "figures"]

BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
MULTIPLY = (
    "HGMMA", "UTCHMMA", "UTCOMMA", "HMMA", "DMMA", "FFMA2", "FFMA", "DFMA",
    "v_mfma", "v_dot2", "v_pk_fma", "v_fma", "v_fmac", "v_pk_mul",
)  # fmt: skip
WIDE = re.compile(
    r"LDG\.E(\.\w+)*\.128|LDGSTS\.E(\.\w+)*\.128|global_load_dwordx4|buffer_load_dwordx4"
)
LOAD = re.compile(r"\bLDG\.|\bLDGSTS\.|global_load|buffer_load")


class Figures(NamedTuple):
    """The figures of one compiled kernel.

    Parameters
    ----------
    registers : int
        Registers of a thread.
    spills : int
        Registers or bytes that are kept in memory because there are too few registers; 0 is
        expected.
    shared : int
        Bytes of shared memory that a program uses.
    code, loop : int
        Instructions of the kernel, and of one step of its main loop; 0 if the loop is fully
        unrolled.
    loads, wide_loads : int
        Loads from global memory in the main loop (in the kernel, if there is no loop), and how many
        of them are 16 bytes wide.
    multiply : str
        The multiplication instruction that is most frequent in the main loop.
    multiplications : int
        Their number in one step.
    """

    registers: int
    spills: int
    shared: int
    code: int
    loop: int
    loads: int
    wide_loads: int
    multiply: str
    multiplications: int


def figures(kernel: Any) -> Figures:
    """The figures of a kernel that `lcmulti_triton.starting.compile_for` compiled."""
    if "cubin" in kernel.asm:
        return _nvidia(kernel)
    return _amd(kernel)


def _nvidia(kernel: Any) -> Figures:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = _said("cuobjdump", "-res-usage", file.name)
        code = _said("nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    lines: list[str] = []
    labels: dict[str, int] = {}
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(lines)
        elif instruction := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);", line):
            lines.append(instruction[1])
    spills = int(found[2])
    return _figures(lines, labels, r"\bBRA\b.*`\((\.L_x_\d+)\)", int(found[1]), spills, kernel)


def _said(program: str, *arguments: str) -> str:
    done = subprocess.run([BINARIES / program, *arguments], capture_output=True, check=True)
    return done.stdout.decode()


def _amd(kernel: Any) -> Figures:
    text = kernel.asm["amdgcn"]

    def of(name: str) -> int:
        found = re.search(rf"\.{name}:\s*(\d+)", text)
        return int(found[1]) if found else 0

    lines: list[str] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if label := re.match(r"(\.LBB\d+_\d+):", line):
            labels[label[1]] = len(lines)
        elif instruction := re.match(r"\t([a-z]\w+.*)", line):
            lines.append(instruction[1])
    spills = of("vgpr_spill_count") + of("sgpr_spill_count")
    return _figures(
        lines, labels, r"s_c?branch\w*\s+(\.LBB\d+_\d+)", of("vgpr_count"), spills, kernel
    )


def _figures(
    lines: list[str], labels: dict[str, int], branch: str, registers: int, spills: int, kernel: Any
) -> Figures:
    loops = []
    for end, line in enumerate(lines):
        found = re.search(branch, line)
        if found and labels.get(found[1], end) < end:
            loops.append(lines[labels[found[1]] : end + 1])
    # Among those with equally many multiplications, the innermost: the shortest.
    main = max(loops, key=lambda loop: (_multiplications(loop)[1], -len(loop)), default=[])
    name, count = _multiplications(main or lines)
    return Figures(
        registers, spills, kernel.metadata.shared, len(lines), len(main),
        sum(bool(LOAD.search(line)) for line in main or lines),
        sum(bool(WIDE.search(line)) for line in main or lines),
        name, count if main else 0,
    )  # fmt: skip


def _multiplications(lines: list[str]) -> tuple[str, int]:
    counts = {name: sum(name in line for line in lines) for name in MULTIPLY}
    if counts["FFMA2"]:
        counts["FFMA"] -= counts["FFMA2"]
    name = max(counts, key=counts.__getitem__)
    return (name, counts[name]) if counts[name] else ("", 0)
