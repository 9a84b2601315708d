"""Run the cells about sharding on two CPU devices; print ``{row: {column: error or None}}``."""

from __future__ import annotations

import functools
import json
import sys
import traceback
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 2)
sys.path.append(str(Path(__file__).parents[1] / "helpers"))

import jax.numpy as jnp  # noqa: E402
from helpers_collectives import collectives  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes  # noqa: E402
from matrix_jax import MAKERS, close, make  # noqa: E402

import lcmulti  # noqa: E402

MESH = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))


def rows(example):
    """Divide weights over devices by output rows: their first axis, where it is even.

    Values are as on one device, and gradients are divided as the weights are. Nothing is gathered:
    fewer bytes than those of the input are sent, and only replicated weights have their gradients
    summed.
    """
    value, gradient = jax.value_and_grad(example.loss)(example.parameters, example.x)

    def placed(leaf):
        # A basis is replicated.
        rows = leaf.ndim > 1 and leaf.shape[0] % 2 == 0 and leaf.ndim != 6 + 1
        spec = PartitionSpec("rows") if rows else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(MESH, spec))

    parameters = jax.tree.map(placed, example.parameters)
    split = [leaf for leaf in jax.tree.leaves(parameters) if not leaf.is_fully_replicated]
    assert split
    x = jax.device_put(example.x, NamedSharding(MESH, PartitionSpec()))
    program = jax.jit(jax.value_and_grad(example.loss)).lower(parameters, x).compile()
    found = program(parameters, x)
    close(found, (value, gradient), 1e-3, 1e-2)
    jax.tree.map(
        lambda p, g: check(g.sharding.is_equivalent_to(p.sharding, p.ndim), g.sharding),
        parameters, found[1],
    )  # fmt: skip
    bytes_of = dict.fromkeys(("collective-permute", "all-reduce"), 0)
    for each in collectives(program):
        bytes_of[each.kind] += each.bytes  # any other kind of collective is a KeyError
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(parameters) if leaf.is_fully_replicated)
    assert bytes_of["collective-permute"] < example.x.nbytes, bytes_of
    assert bytes_of["all-reduce"] <= whole + 2 * value.nbytes, bytes_of
    return program


def check(holds, what):
    assert holds, what


def native(example):
    """Do the same with the native kernels, which must be in the compiled program."""
    with lcmulti.config(implementation="native"):
        text = rows(example).as_text()
    assert "lcmulti_native" in text


def least_workspace(example):
    """Find the least limit that serves the example and a device's part: it gives many blocks."""
    for limit in range(20_000, 50_000, 500):
        try:
            with lcmulti.config(max_workspace=limit):
                for x in (example.x, example.x[:2]):
                    jax.eval_shape(example.apply, example.parameters, x)
        except lcmulti.errors.UnsupportedError:
            continue
        return limit
    raise AssertionError("no limit serves")


def shard_map(example):
    """Divide the batch in `jax.shard_map`, which sums the gradients; also with many blocks."""

    def loss(parameters, x):
        return jnp.square(example.apply(parameters, x)).sum()

    def total(parameters, x):
        return jax.lax.psum(loss(parameters, x), "rows")

    for limit in (2**28, least_workspace(example)):
        with lcmulti.config(max_workspace=limit):
            step = jax.shard_map(
                jax.value_and_grad(total),
                mesh=MESH,
                in_specs=(PartitionSpec(), PartitionSpec("rows")),
                out_specs=PartitionSpec(),
                check_vma=True,
            )
            ours = jax.jit(step)(example.parameters, example.x)
            wanted = jax.value_and_grad(loss)(example.parameters, example.x)
        close(ours, wanted, 1e-3, 1e-2)


def explicit(example):
    """Divide the batch on a mesh of explicit axes, where types have shardings, by `auto_axes`."""

    def loss(apply, parameters, x):
        return jnp.square(apply(parameters, x)).sum()

    wanted = jax.value_and_grad(loss, 1)(example.apply, example.parameters, example.x)
    mesh, rows = jax.make_mesh((2,), ("rows",), (AxisType.Explicit,)), PartitionSpec("rows")
    with jax.set_mesh(mesh):
        apply = auto_axes(example.apply, out_sharding=rows)
        step = jax.jit(jax.value_and_grad(functools.partial(loss, apply)))
        ours = step(example.parameters, jax.device_put(example.x, rows))
    close(ours, wanted, 1e-3, 1e-2)


COLUMNS = {
    "sharded by output rows": rows,
    "sharded, native kernels": native,
    "`shard_map`": shard_map,
    "`auto_axes` in an explicit mesh": explicit,
}


def main():
    found = {}
    for row in MAKERS:
        for column, do in COLUMNS.items():
            try:
                do(make(row))
                error = None
            except Exception:
                error = traceback.format_exc()[-1500:]
            found.setdefault(row, {})[column] = error
    print(json.dumps(found))


if __name__ == "__main__":
    main()
