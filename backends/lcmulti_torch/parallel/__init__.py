"""Locally connected layers over several processes, divided by output positions.

`shard` divides one layer; `PositionwiseParallel` does the same in a plan of `parallelize_module`.
`lcmulti.local_conv` also takes DTensors: with a kernel that is divided along its positions, each
rank computes its own positions. `lcmulti.save_weights` takes DTensors as well, and `load_weights`
fills a layer from a file, where each rank reads only its own part.
"""

from lcmulti_torch.missing import missing

try:
    from lcmulti_torch.parallel.files import load_weights
    from lcmulti_torch.parallel.style import PositionwiseParallel, shard
except ModuleNotFoundError as error:
    raise missing("lcmulti_torch.parallel", error) from error

__all__ = ["PositionwiseParallel", "load_weights", "shard"]
