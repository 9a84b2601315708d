"""Scripts that measure the native kernels import this first: it says how to install them."""

import importlib.util
import sys

if importlib.util.find_spec("lcmulti_native") is None:
    sys.exit("this measures the native kernels; install them: pip install ./backends/native")
