"""``python -m lcmulti.conformance NAME``: the same as ``lcmulti certify NAME``."""

from __future__ import annotations

import sys

from lcmulti.cli import main

if __name__ == "__main__":
    sys.exit(main(["certify", *sys.argv[1:]]))
