"""The conformance suite: one command certifies a backend or an implementation.

`certify` runs the modules ``check_*.py`` of this package with pytest.
"""

from lcmulti.conformance.certify.result import Failure, Result
from lcmulti.conformance.certify.run import certify

__all__ = ["Failure", "Result", "certify"]
