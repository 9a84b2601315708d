"""Locally connected layers over several processes, divided by output positions.

`shard` divides one layer, `PositionwiseParallel` is the same for `parallelize_module`. The
operation itself takes DTensors: `lcmulti.local_conv` on a kernel divided along its positions
computes each rank's positions there. `lcmulti.save_weights` takes them too, and `load_weights`
fills a layer from a file, each rank with its own part.
"""

from lcmulti_torch.parallel.files import load_weights
from lcmulti_torch.parallel.style import PositionwiseParallel, shard

__all__ = ["PositionwiseParallel", "load_weights", "shard"]
