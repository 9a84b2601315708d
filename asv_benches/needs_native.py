"""Imported first by what measures the native kernels: says how to get them where they are not."""

import importlib.util
import sys

if importlib.util.find_spec("lcmulti_native") is None:
    sys.exit("this measures the native kernels; install them: pip install ./backends/native")
