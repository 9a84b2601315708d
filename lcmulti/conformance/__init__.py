"""Conformance: checks that every backend must pass, as a library for use in tests.

`parity` computes cases on every installed backend and returns a `Report`. `certify` checks that
one backend keeps everything that lcmulti promises.
"""

from lcmulti.conformance.certify import certify
from lcmulti.conformance.parity import parity
from lcmulti.conformance.report import Report

__all__ = ["Report", "certify", "parity"]
