"""Conformance: what every backend is held to, as a library for use in tests.

`parity` computes cases on every installed backend and returns a `Report`; `certify` holds one
backend to everything lcmulti promises.
"""

from lcmulti.conformance.certify import certify
from lcmulti.conformance.parity import parity
from lcmulti.conformance.report import Report

__all__ = ["Report", "certify", "parity"]
