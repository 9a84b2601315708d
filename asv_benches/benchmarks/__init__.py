"""asv benchmarks of lcmulti: import, overhead of a call, computation, and comparison with peers.

What is not installed is skipped: its ``setup`` raises `NotImplementedError`. Importing these
modules has no effect.
"""
