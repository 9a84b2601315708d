"""Messages from rank to rank, point to point: begin to send and receive, and wait.

There is one message from one rank to another, sent as bytes. An exchange has a beginning and an
end, so that a rank can compute in between. Under a compiler it is one opaque operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _resolve_process_group

__all__ = ["Travel", "by_rank", "is_traced", "start"]

Ints = Sequence[int]


class Travel:
    """An exchange that has begun; `arrived` waits for its messages."""

    def __init__(self, buffer: Tensor, works: Sequence[Any] = ()) -> None:
        self._buffer, self._works = buffer, works

    def arrived(self) -> Tensor:
        """Everything that was received, flat, in the order of senders and then of their pieces."""
        for work in self._works:
            work.wait()
        return self._buffer


def _send(flat: Tensor, to: Ints, sizes: Ints, from_: Ints, expected: Ints, group: str) -> Travel:
    buffer = flat.new_empty(sum(expected))
    members = _resolve_process_group(group)
    pieces = zip(from_, _bytes(buffer, expected), strict=True)
    ops = [dist.P2POp(dist.irecv, each, group=members, group_peer=peer) for peer, each in pieces]
    pieces = zip(to, _bytes(flat, sizes), strict=True)
    ops += [dist.P2POp(dist.isend, each, group=members, group_peer=peer) for peer, each in pieces]
    works = dist.batch_isend_irecv(ops)
    return Travel(buffer, [*works, _Kept(flat)])


class _Kept(NamedTuple):
    """Keeps an array alive among the works that are waited for."""

    tensor: Tensor

    def wait(self) -> None:
        """Nothing to wait for."""


def _bytes(flat: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    ends = list(accumulate(sizes))
    return [flat[end - size : end].view(torch.uint8) for size, end in zip(sizes, ends, strict=True)]


@torch.library.custom_op("lcmulti::travel", mutates_args=())
def _travel(
    flat: Tensor,
    to: Sequence[int],
    sizes: Sequence[int],
    from_: Sequence[int],
    expected: Sequence[int],
    group: str,
) -> Tensor:
    received = _send(flat, to, sizes, from_, expected, group).arrived()
    return received if expected else flat.new_zeros(1)  # for `exchange._linked`


@_travel.register_fake
def _(flat: Tensor, to: Ints, sizes: Ints, from_: Ints, expected: Ints, group: str) -> Tensor:
    return flat.new_empty(sum(expected) if expected else 1)


def start(
    pieces: Sequence[tuple[int, Tensor]], expected: Sequence[tuple[int, int]], like: Tensor,
    group: str,
) -> Travel:  # fmt: skip
    """Begin to send tensors to ranks, and to receive from other ranks.

    Parameters
    ----------
    pieces : sequence of (int, Tensor)
        Ranks, and what each is sent.
    expected : sequence of (int, int)
        Ranks, and how many elements each sends.
    like : Tensor
        Has the dtype and the device of what is received.
    group : str
        Name of the group that the ranks are numbered in.
    """
    pieces = sorted((each for each in pieces if each[1].numel()), key=by_rank)
    expected = sorted((each for each in expected if each[1]), key=by_rank)
    if not pieces and not expected:
        return Travel(like.new_empty(0))
    flat = torch.cat([each.reshape(-1) for _, each in pieces]) if pieces else like.new_empty(0)
    sizes = _sizes_by_rank([(to, each.numel()) for to, each in pieces])
    sources = _sizes_by_rank(expected)
    arguments = (flat, [*sizes], [*sizes.values()], [*sources], [*sources.values()], group)
    if is_traced():
        return Travel(_travel(*arguments))
    return _send(*arguments)


def is_traced() -> bool:
    """Whether a compiler or a mode of PyTorch sees the operations."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def by_rank(item: tuple[int, object]) -> int:
    """The key that sorts pieces of messages: the rank they go to or come from."""
    return item[0]


def _sizes_by_rank(sizes: Sequence[tuple[int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for rank, size in sizes:
        found[rank] = found.get(rank, 0) + size
    return found
