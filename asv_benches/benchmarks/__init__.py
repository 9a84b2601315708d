"""asv benchmarks of lcmulti: importing it, calling it, computing with it, and beside others.

What is absent here is skipped: a ``setup`` raises `NotImplementedError`. Nothing happens when
these modules are imported.
"""
