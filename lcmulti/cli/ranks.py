"""``lcmulti explain --ranks``: estimate the cost of a layer divided over ranks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from lcmulti.geometry.sharding_costs import RankCosts, Sharding, Speeds
    from lcmulti.geometry.spec import LocalConvSpec

__all__ = ["add_arguments", "as_json", "sharding_of", "text"]

SHOWN = 4
"""How many ways to divide the ranks among the axes are shown."""


def add_arguments(
    add: Callable[..., argparse.Action], sizes_or_one: Callable[[str], int | tuple[int, ...]]
) -> None:
    """Add the arguments for the number of ranks and their speeds."""
    add(
        "--ranks",
        type=sizes_or_one,
        metavar="RANKS",
        help="divide output positions over so many ranks: 1024, or 64x16 for each axis",
    )
    add(
        "--bandwidth",
        type=_speed,
        default=12.5,
        metavar="GB",
        help="GB a second from a rank to others; default 12.5, that is 100 Gbit/s",
    )
    add(
        "--memory-bandwidth",
        type=_speed,
        default=200.0,
        metavar="GB",
        help="GB a second of a rank's memory; default 200",
    )
    add("--teraflops", type=_speed, default=1.0, metavar="T", help="Tflop/s of a rank; default 1")


def _speed(text: str) -> float:
    """Parse a number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above zero, got {text!r}")
    return number


def sharding_of(spec: LocalConvSpec, args: argparse.Namespace) -> Sharding | None:
    """The division that ``--ranks`` asks for, or None."""
    return None if args.ranks is None else spec.shard(args.ranks)


def _speeds(args: argparse.Namespace) -> Speeds:
    from lcmulti.geometry.sharding_costs import Speeds

    return Speeds(
        flops=args.teraflops * 1e12,
        memory=args.memory_bandwidth * 1e9,
        network=args.bandwidth * 1e9,
    )


def _rows(
    args: argparse.Namespace, sharding: Sharding, dtype: str, samples: int
) -> list[tuple[Sharding, RankCosts]]:
    """The division that was asked for; for a number of ranks, the best one and the next ones."""
    from lcmulti.geometry.sharding_costs import Sharding, costs, splits

    every = [sharding]
    if isinstance(args.ranks, int):
        every += [
            Sharding(sharding.spec, parts)
            for parts in splits(sharding.spec, args.ranks)
            if parts != sharding.parts
        ]
    found = [(each, costs(each, samples, dtype)) for each in every]
    rest = sorted(found[1:], key=lambda each: (each[1].weights, each[1].halo, each[1].messages))
    return [found[0], *rest[: SHOWN - 1]]


def text(args: argparse.Namespace, sharding: Sharding, dtype: str, samples: int) -> str:
    """The text that ``lcmulti explain`` prints."""
    speeds = _speeds(args)
    rows = _rows(args, sharding, dtype, samples)
    (_, found), *others = rows
    compute, halos = found.compute_time(speeds), found.halo_time(speeds)
    hidden = "less than" if halos <= compute else "MORE than"
    lines = [
        "",
        f"ranks           {sharding.ranks:,} as {_split(sharding)}, of which {found.empty:,} empty",
        f"positions       {found.positions:,} on the largest rank, and there at most:",
        f"weights         {found.weights:,} bytes",
        f"training        {found.gradients:,} bytes of gradients, "
        f"{found.optimizer:,} of Adam's state",
        f"activations     {found.inputs:,} bytes in, {found.outputs:,} out, "
        f"for {samples:,} sample(s)",
        f"halo            {found.halo:,} bytes in {found.messages:,} message(s) sent forward, "
        "as much backward",
        f"time            about {_time(halos)} for halos, {hidden} {_time(compute)} to compute",
        f"estimated with  {speeds.flops / 1e12:g} Tflop/s, {speeds.memory / 1e9:g} GB/s of memory, "
        f"{speeds.network / 1e9:g} GB/s between ranks",
    ]
    lines += [
        f"or {_split(each):<13}weights {own.weights:,} bytes, halo {own.halo:,} in {own.messages:,}"
        for each, own in others
    ]
    return "\n".join(lines)


def as_json(
    args: argparse.Namespace, sharding: Sharding, dtype: str, samples: int
) -> dict[str, Any]:
    """The same as data, for ``--json``."""
    speeds = _speeds(args)

    def told(each: Sharding, own: RankCosts) -> dict[str, Any]:
        times = {"compute_s": own.compute_time(speeds), "halo_s": own.halo_time(speeds)}
        return {"parts": each.parts} | own._asdict() | {"memory": own.memory} | times

    rows = [told(*row) for row in _rows(args, sharding, dtype, samples)]
    return {"ranks": sharding.ranks} | rows[0] | {"speeds": speeds._asdict(), "others": rows[1:]}


def _split(sharding: Sharding) -> str:
    return "x".join(map(str, sharding.parts))


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
