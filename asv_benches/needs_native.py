"""Import this first in a script that measures the native kernels: it says how to install them."""

import importlib.util
import sys

if importlib.util.find_spec("lcmulti_native") is None:
    sys.exit("this measures the native kernels; install them: pip install ./backends/native")
