"""``python -m lcmulti``."""

import sys

from lcmulti.cli import main

if __name__ == "__main__":
    sys.exit(main())
