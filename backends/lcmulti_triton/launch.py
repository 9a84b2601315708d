"""From tensors to a launch: what is prepared once, and what every call does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton

from lcmulti_triton.kernels.forward import forward
from lcmulti_triton.kernels.input_grad import input_grad
from lcmulti_triton.kernels.kernel_grad import kernel_grad
from lcmulti_triton.layer import Layer, Tile
from lcmulti_triton.variant import OPERANDS, arguments, constants, programs, signature

KERNELS = {"forward": forward, "input_grad": input_grad, "kernel_grad": kernel_grad}
INTERPRETED = triton.knobs.runtime.interpret
