"""asv benchmarks of lcmulti: import, overhead of a call, computation, and comparison with peers.

The ``setup`` of a benchmark whose framework is not installed raises `NotImplementedError`, so asv
skips it. Importing these modules has no effect.
"""
