"""Compute geometries on four CPU devices, in one process or two; print the errors as JSON.

python jax_sharded_program.py WAY:NAME...
python jax_sharded_program.py WAY:NAME... --process 0 --port 12345

The seconds that each took are written to stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import traceback
from math import prod

import jax
from jax_releases import automatic_mesh, cpu_devices

PARSER = argparse.ArgumentParser()
PARSER.add_argument("checks", nargs="+")
PARSER.add_argument("--process", type=int)
PARSER.add_argument("--port", type=int)
OPTIONS = PARSER.parse_args()

cpu_devices(4 if OPTIONS.process is None else 2)
if OPTIONS.process is not None:
    jax.distributed.initialize(f"127.0.0.1:{OPTIONS.port}", 2, OPTIONS.process)

import lcmulti_jax  # noqa: E402
import numpy as np  # noqa: E402
from helpers_collectives import collectives  # noqa: E402
from helpers_jax_spread import FORWARD, SPREADS  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti.conformance.bounds import bounds, compare, expect  # noqa: E402
from lcmulti.conformance.calls import Inputs, Results  # noqa: E402
from lcmulti.geometry.sharding import axis_parts  # noqa: E402


def inputs_of(spread):
    case, generator = spread.case, np.random.default_rng(0)
    spec = case.spec

    def draw(*shape):
        array = generator.standard_normal(shape)
        if spread.dtype.startswith("complex"):
            array = array + 1j * generator.standard_normal(shape)
        return array.astype(jax.numpy.dtype(spread.dtype))

    bias = None if case.bias_shape is None else draw(*case.bias_shape)
    return Inputs(
        draw(case.batch, *spec.input_shape), draw(*spec.kernel_shape), bias,
        draw(case.batch, *spec.output_shape),
    )  # fmt: skip


def whole(spread):
    """Return the call on one device."""
    arguments = spread.case.arguments

    def run(x, kernel, bias):
        return lcmulti.local_conv(
            x, kernel, bias, implementation=spread.implementation, **arguments
        )

    return run


def with_gradients(run):
    def both(x, kernel, bias, dy):
        y, pull_back = jax.vjp(run, x, kernel, bias)
        return y, *pull_back(dy)

    return both


def halo_bytes(spread):
    """Return the bytes of inputs that devices need but do not hold, over all devices and axes."""
    spec = spread.case.spec
    counts = [spread.devices[name] if name else 1 for name in spread.positions]
    counts += [1] * (spec.ndim - len(counts))
    held = [-(-n // count) for n, count in zip(spec.input_size, counts, strict=True)]
    sizes, total = [c * h for c, h in zip(counts, held, strict=True)], 0
    for axis, count in enumerate(counts):
        if count == 1:
            continue
        parts = axis_parts(spec, axis, count)
        total += sum(part.halo for part in parts) * prod(sizes[:axis]) * prod(sizes[axis + 1 :])
        sizes[axis] = sum(part.window + sum(part.padding) for part in parts)
    itemsize = jax.numpy.dtype(spread.dtype).itemsize
    return total * spread.case.batch * spec.in_channels * itemsize


def check_traffic(spread, program, maps):
    """Require that inputs and their gradients are sent only at borders, and nothing is gathered.

    With all three *maps*, gradients of a kernel may be summed over samples and shared positions.
    """
    halo, found = halo_bytes(spread), collectives(program)
    moved = sum(each.bytes for each in found if each.kind == "collective-permute")
    assert moved <= 2 * maps * halo, (moved, maps, halo)
    summed = maps == 3 and (spread.case.shared_axes or spread.batch)
    allowed = {"collective-permute", "all-reduce"} if summed else {"collective-permute"}
    assert {each.kind for each in found} <= allowed, found


def check_values(spread, inputs, got):
    """Require that forward is equal to the bit, and everything within the bounds of rounding."""
    alone = jax.device_put(inputs[:3], jax.local_devices()[0])
    wanted = np.asarray(jax.jit(whole(spread))(*alone))
    exactly = got.forward
    assert exactly.dtype == wanted.dtype
    # XLA may sum matrix products of fewer samples in another order.
    if not spread.batch or served(spread) == "native":
        assert exactly.tobytes() == wanted.tobytes(), "forward differs"
    expected = expect(spread.case, inputs)
    limits = bounds(spread.case, expected, inputs.bias, spread.dtype)
    for name in Results._fields:
        ours, theirs = getattr(got, name), getattr(expected.values, name)
        assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
        deviation = compare(ours, theirs, getattr(limits, name))
        assert deviation.ok, (name, deviation)


def served(spread):
    inputs = inputs_of(spread)
    return lcmulti.explain(
        *inputs[:3], backend="jax", implementation=spread.implementation, **spread.case.arguments
    ).implementation


def mesh_of(spread):
    return automatic_mesh(spread.mesh, tuple(spread.devices))


def put(array, sharding):
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def gspmd(name):
    """Do what `partitioned` does with GSPMD, the partitioner before Shardy."""
    jax.config.update("jax_use_shardy_partitioner", False)
    try:
        partitioned(name)
    finally:
        jax.config.update("jax_use_shardy_partitioner", True)


def partitioned(name):
    """Check a plain call of arrays that are spread over devices."""
    spread = SPREADS[name]
    spec, mesh = spread.case.spec, mesh_of(spread)
    positions = (*spread.positions, *(None,) * (spec.ndim - len(spread.positions)))
    own = [None if a in spec.shared_axes else each for a, each in enumerate(positions)]
    first = spec.data_format == "channels_first"
    sample = (None, *positions) if first else positions

    def sharding(*names):
        return NamedSharding(mesh, PartitionSpec(*names))

    places = Inputs(
        sharding(spread.batch, *sample), sharding(*own),
        sharding(*own), sharding(spread.batch, *sample),
    )  # fmt: skip
    inputs = inputs_of(spread)
    arrays = [put(a, p) for a, p in zip(inputs, places, strict=True)]
    both = jax.jit(with_gradients(whole(spread))).lower(*arrays).compile()
    y, dx, dkernel, dbias = both(*arrays)
    for what, array, place in (
        ("y", y, places.dy), ("dx", dx, places.x), ("dkernel", dkernel, places.kernel),
        ("dbias", dbias, places.bias),
    ):  # fmt: skip
        assert array.sharding.is_equivalent_to(place, array.ndim), (what, array.sharding, place)
    check_values(spread, inputs, Results(*map(np.asarray, (y, dx, dkernel, dbias))))
    check_traffic(spread, both, maps=3)
    if name not in FORWARD:
        return
    forward = jax.jit(whole(spread)).lower(*arrays[:3]).compile()
    alone = forward(*arrays[:3])
    assert alone.sharding.is_equivalent_to(places.dy, alone.ndim), alone.sharding
    assert np.asarray(alone).tobytes() == np.asarray(y).tobytes()
    check_traffic(spread, forward, maps=1)
    memory = forward.memory_analysis()
    share = (
        prod(spec.kernel_shape)
        * inputs.kernel.itemsize
        / prod(mesh.shape[each] for each in own if each)
    )
    assert memory.argument_size_in_bytes < share + inputs.x.nbytes + inputs.bias.nbytes, memory


def sharded(name):
    """Check `lcmulti_jax.sharded`, also with sizes that the devices do not divide."""
    spread = SPREADS[name]
    mesh, inputs = mesh_of(spread), inputs_of(spread)
    layer = lcmulti_jax.sharded(
        spread.case.spec, mesh, spread.positions,
        batch=spread.batch, implementation=spread.implementation,
    )  # fmt: skip
    everywhere = NamedSharding(mesh, PartitionSpec())
    arrays = (
        put(inputs.x, everywhere), layer.put(inputs.kernel),
        layer.put(inputs.bias), put(inputs.dy, everywhere),
    )  # fmt: skip
    both = jax.jit(with_gradients(layer)).lower(*arrays).compile()
    y, dx, dkernel, dbias = both(*arrays)
    assert dkernel.sharding.is_equivalent_to(layer.kernel_sharding, dkernel.ndim), dkernel.sharding
    beyond = np.abs(local(dkernel)).sum() - np.abs(local(layer.whole(dkernel))).sum()
    assert np.abs(beyond) < 1e-3 * np.abs(local(dkernel)).sum()
    parts = (y, dx, layer.whole(dkernel), layer.whole(dbias))
    check_values(spread, inputs, Results(*map(local, parts)))
    # Sizes that devices do not divide are gathered where they leave a program, but not within.
    found = collectives(both)
    moved = sum(each.bytes for each in found if each.kind == "collective-permute")
    assert moved <= 6 * halo_bytes(spread), (moved, halo_bytes(spread))
    for each in found:
        assert each.kind != "all-gather" or len(each.shape) < len(layer.kernel_shape), each
    if name not in FORWARD:
        return
    inside = jax.jit(lambda *a: jax.numpy.sum(jax.numpy.abs(layer(*a)) ** 2))
    found = collectives(inside.lower(*arrays[:3]).compile())
    moved = sum(each.bytes for each in found if each.kind == "collective-permute")
    assert moved <= 2 * halo_bytes(spread), (moved, halo_bytes(spread))
    assert {each.kind for each in found} <= {"collective-permute", "all-reduce"}, found
    assert max((prod(e.shape) for e in found if e.kind == "all-reduce"), default=0) <= 1


def transposed(name):
    """Check the transposed layer of `lcmulti_jax.sharded`."""
    spread = SPREADS[name]
    case, mesh, inputs = spread.case, mesh_of(spread), inputs_of(spread)
    spec = case.spec
    layer = lcmulti_jax.sharded(spec, mesh, spread.positions, batch=spread.batch, transposed=True)
    everywhere = NamedSharding(mesh, PartitionSpec())
    x, dy = put(inputs.dy, everywhere), put(inputs.x, everywhere)
    kernel = layer.put(inputs.kernel)

    def both(x, kernel, dy):
        y, pull_back = jax.vjp(layer, x, kernel)
        return y, *pull_back(dy)

    y, dx, dkernel = jax.jit(both)(x, kernel, dy)
    # These are results of the maps of *case*, whose adjoint the layer is.
    inputs = inputs._replace(bias=None)
    found = [local(each) for each in (dx, y, layer.whole(dkernel))]
    case = dataclasses.replace(case, bias_shared_axes=None)
    expected = expect(case, inputs)
    limits = bounds(case, expected, None, spread.dtype)
    for got, right, limit in zip(found, expected.values, limits, strict=False):
        deviation = compare(got, right, limit)
        assert deviation.ok, deviation
    program = jax.jit(lambda *a: jax.numpy.sum(layer(*a) ** 2)).lower(x, kernel).compile()
    moved = [each for each in collectives(program) if each.kind == "collective-permute"]
    assert sum(each.bytes for each in moved) <= 2 * halo_bytes(spread), moved
    assert not [each for each in collectives(program) if each.kind == "all-gather"]


def local(array):
    """Return all of an array, of which this process may hold a part."""
    if array.is_fully_addressable:
        return np.asarray(array)
    everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())
    copy = jax.jit(lambda each: each, out_shardings=everywhere)(array)
    return np.asarray(copy.addressable_shards[0].data)


WAYS = {each.__name__: each for each in (partitioned, gspmd, sharded, transposed)}


def main():
    jax.config.update("jax_enable_x64", True)
    found = {}
    for check in OPTIONS.checks:
        way, _, name = check.partition(":")
        started = time.monotonic()
        try:
            WAYS[way](name)
            found[check] = None
        except Exception:
            found[check] = traceback.format_exc()[-3000:]
        print(f"{time.monotonic() - started:6.2f} s  {check}", file=sys.stderr, flush=True)
    print(json.dumps(found))
    return any(found.values())


if __name__ == "__main__":
    sys.exit(main())
