"""Time, capture and peak memory of calls on a GPU, with a substitute on machines without one.

The substitutes let every line of `on_gpu.py` run on a CPU before it takes time of a GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
if not GPU:  # Triton reads it when it is imported
    os.environ["TRITON_INTERPRET"] = "1"

__all__ = ["DEVICE", "GPU", "captured", "name", "peak", "seconds", "together"]

Call = Callable[[], Any]


def name() -> str:
    """Return the machine's name for people."""
    return torch.cuda.get_device_name() if GPU else "Triton's interpreter on a CPU"


def seconds(call: Call, least: float = 0.02) -> float:
    """Return the median seconds of one call, on a GPU between events."""
    if not GPU:
        return together(call, 1)
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    times: list[float] = []
    end = time.perf_counter() + 20 * least
    while len(times) < 5 or (sum(times) < least and time.perf_counter() < end):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return float(np.median(times))


def together(call: Call, count: int = 200) -> float:
    """Return the seconds of one of *count* calls in a row: what Python and launches take.

    Only the last call is waited for.
    """
    count = count if GPU else 1
    start = time.perf_counter()
    for _ in range(count):
        call()
    if GPU:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def captured(call: Call) -> tuple[Call, Any]:
    """Capture *call* in a CUDA graph; return what replays it, and the results it writes to."""
    if not GPU:
        return call, call()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    return graph.replay, results


def peak(call: Call) -> int:
    """Return the most bytes held during *call*, without earlier tensors and without its results."""
    before = torch.cuda.memory_allocated() if GPU else 0
    if GPU:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    results = call()
    kept = sum(each.numel() * each.element_size() for each in results)
    return torch.cuda.max_memory_allocated() - before - kept if GPU else 0
