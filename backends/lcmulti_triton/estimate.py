"""Estimate the time of a map on a GPU from its compiled kernel, without a measurement.

The estimate is the longest of four times, each limited by one resource:

* **memory**: every array is read or written once, at the rate of a copy;
* **L2**: the reads and writes of all programs, at the rate of the second-level cache;
* **issue**: one instruction per clock and scheduler. Programs are distributed evenly, and the
  scheduler with the most instructions counts;
* **latency**: the steps of a program one after the other, each as long as a load divided by the
  loads in flight, times the number of rounds that running all programs takes.
"""

from __future__ import annotations

from math import ceil, prod
from typing import NamedTuple

from lcmulti_triton.figures import Figures
from lcmulti_triton.layer import Layer, Tile
from lcmulti_triton.variant import programs

__all__ = ["H200", "Estimate", "Machine", "estimate", "resident", "roofline", "steps"]


class Machine(NamedTuple):
    """The properties of a GPU that an estimate needs.

    Parameters
    ----------
    name : str
    processors, schedulers : int
        Number of streaming multiprocessors, and of warp schedulers in each.
    clock, memory, cache : float
        Hertz; bytes per second of a copy, and of the second-level cache.
    float32, half : float
        Operations per second in float32, and in half types with tensor cores.
    registers, shared, warps, programs : int
        Limits of one multiprocessor: registers, bytes of shared memory, warps and programs.
    latency : float
        Seconds of a load from memory.
    """

    name: str
    processors: int
    schedulers: int
    clock: float
    memory: float
    cache: float
    float32: float
    half: float
    registers: int = 65536
    shared: int = 227 * 1024
    warps: int = 64
    programs: int = 32
    latency: float = 0.5e-6


H200 = Machine("H200", 132, 4, 1.98e9, 4.3e12, 5.5e12, 66.9e12, 790e12)
"""The rates of a copy and of half types were measured; that of the cache is an assumption."""


class Estimate(NamedTuple):
    """Seconds for each resource; the estimate is the longest of them."""

    memory: float
    cache: float
    issue: float
    latency: float

    @property
    def seconds(self) -> float:
        """The estimate in seconds."""
        return max(self)

    @property
    def bound(self) -> str:
        """The resource that limits it."""
        return self._fields[self.index(self.seconds)]


def roofline(layer: Layer, machine: Machine = H200) -> float:
    """A lower bound in seconds for any implementation: move all arrays once, or multiply."""
    rate = machine.float32 if layer.itemsize == 4 else machine.half
    if layer.itemsize == 8:
        rate = machine.float32 / 2
    return max(_moved(layer) / machine.memory, 2 * products(layer) / rate)


def products(layer: Layer) -> int:
    """Number of multiplications, including those with padding."""
    return layer.batch * layer.outputs * layer.groups * layer.filters * layer.terms


def estimate(layer: Layer, tile: Tile, found: Figures, machine: Machine = H200) -> Estimate:
    """Estimate a map with *tile*, whose kernel has the figures *found*."""
    count = programs(layer, tile)
    total = steps(layer, tile)
    loop = found.loop or found.code
    own = max(found.code - 2 * found.loop, 0) if found.loop else 0
    held = max(resident(tile, found, machine), 1)
    at_once = machine.processors * held
    instructions = (total * loop + count * own) * tile.warps
    lanes = machine.processors * machine.schedulers
    # The scheduler with the most work has a whole number of warps, each with an equal share.
    rounds = ceil(count * tile.warps / lanes) * lanes / (count * tile.warps)
    if count * tile.warps > 8 * lanes:
        rounds = 1.0
    step = max(machine.latency / max(tile.stages - 1, 1), loop / machine.clock)
    return Estimate(
        _moved(layer) / machine.memory,
        _through_cache(layer, tile) / machine.cache,
        instructions * rounds / lanes / machine.clock,
        ceil(count / at_once) * (total / max(count, 1) * step + machine.latency),
    )


def resident(tile: Tile, found: Figures, machine: Machine) -> int:
    """Number of programs that one multiprocessor runs at the same time; 0 if none fits."""
    registers = -(-found.registers // 8) * 8 * 32 * tile.warps
    by_shared = machine.shared // (found.shared + 1024)
    by_registers = machine.registers // registers
    return min(machine.programs, machine.warps // tile.warps, by_registers, by_shared)


def _moved(layer: Layer) -> int:
    return layer.itemsize * (_x(layer) + _y(layer) + _w(layer))


def _x(layer: Layer) -> int:
    return layer.batch * layer.inputs * layer.channels * layer.groups


def _y(layer: Layer) -> int:
    return layer.batch * layer.outputs * layer.filters * layer.groups


def _w(layer: Layer) -> int:
    return layer.own * layer.terms * layer.filters * layer.groups


def _seen(layer: Layer) -> int:
    """Number of inputs that windows read, counted for each window."""
    return layer.batch * layer.outputs * layer.terms * layer.groups


def _through_cache(layer: Layer, tile: Tile) -> int:
    """Bytes that programs read from and write to the second-level cache."""
    samples = -(-layer.batch // tile.samples)
    if tile.family == "lanes":  # neighbours share lines, which stay in the first-level cache
        moved = _x(layer) + _y(layer) + _w(layer)
        return layer.itemsize * moved * (1 if layer.map == "kernel_grad" else samples)
    filters, terms = -(-layer.filters // tile.filters), -(-layer.terms // tile.terms)
    if layer.map == "forward":
        return layer.itemsize * (filters * _seen(layer) + samples * _w(layer) + _y(layer))
    if layer.map == "kernel_grad":
        return layer.itemsize * (filters * _seen(layer) + terms * _y(layer) + _w(layer))
    if tile.family.endswith("windows"):
        return layer.itemsize * (terms * _y(layer) + samples * _w(layer) + _x(layer))
    channels = -(-layer.channels // tile.terms)
    again = layer.batch * _pairs(layer) * layer.filters * layer.groups
    return layer.itemsize * (channels * again + samples * _w(layer) + _x(layer))


def _pairs(layer: Layer) -> int:
    """Number of pairs of a window and an input that it reads, without padding."""
    total = 1
    for axis in layer.axes:
        seen = 0
        for tap in range(axis.kernel):
            at = tap * axis.dilation - axis.low
            first = ceil(-at / axis.stride) if at < 0 else 0
            last = min(axis.out - 1, (axis.size - 1 - at) // axis.stride)
            seen += max(0, last - first + 1)
        total *= seen
    return total


def steps(layer: Layer, tile: Tile) -> float:
    """Number of steps of the main loop in all programs together."""
    samples = -(-layer.batch // tile.samples)
    filters = -(-layer.filters // tile.filters)
    if layer.map == "kernel_grad":
        shared = layer.outputs // max(layer.own, 1)
        if tile.family == "lanes":
            samples *= layer.terms
        turns = layer.batch if tile.family == "thin" else samples
        return programs(layer, tile) * turns * shared
    if tile.family == "lanes":
        each = layer.terms if layer.map == "forward" else layer.taps
        return programs(layer, tile) * each
    if layer.map == "forward":
        along = layer.axes[-1].kernel * layer.channels
        pieces = layer.terms // along * -(-along // tile.terms)
        each = pieces if layer.runs else -(-layer.terms // tile.terms)
        return programs(layer, tile) * each
    if tile.family.endswith("windows"):
        return programs(layer, tile) * filters
    channels = -(-layer.channels // tile.terms)
    if layer.filters >= tile.filters:
        return samples * channels * layer.groups * _pairs(layer) * filters
    # The taps of one input share steps, of which the last one is half empty on average.
    inputs = prod(axis.size for axis in layer.axes)
    steps = _pairs(layer) * layer.filters / tile.filters + inputs / 2
    return samples * channels * layer.groups * steps
