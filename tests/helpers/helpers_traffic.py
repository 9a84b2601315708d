"""Count what a rank sends."""

from __future__ import annotations

import torch
import torch.distributed as dist

POINT_TO_POINT = {"c10d::send", "c10d::recv_"}
SPACES = ("c10d::", "_c10d_functional::", "_dtensor::", "lcmulti::travel")


class Traffic:
    """Counts the bytes and messages that this rank sends, and names all operations between ranks.

    The names come from PyTorch's profiler, which sees operations whoever calls them.
    """

    def __enter__(self):
        self.bytes, self.messages, self.calls = 0, 0, set()
        self._kept, original = dist.ProcessGroup.__dict__["send"], dist.ProcessGroup.send

        def send(group, tensors, *arguments):
            self.bytes += sum(each.nbytes for each in tensors)
            self.messages += 1
            return original(group, tensors, *arguments)

        dist.ProcessGroup.send = send
        self._profile = torch.autograd.profiler.profile()
        self._profile.__enter__()
        return self

    def __exit__(self, *error):
        dist.ProcessGroup.send = self._kept
        self._profile.__exit__(*error)
        names = (event.name for event in self._profile.function_events)
        self.calls = {name for name in names if name.startswith(SPACES)}
