"""Published layers at their real sizes, with a batch that takes a fraction of a second.

The locally connected ones are those of ``lcmulti bench`` (``data/workloads.json`` has their
sources). The others are well-known convolutions, with one kernel for all positions and with one
for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lcmulti.conformance.case import Case
from lcmulti.conformance.cases import select

__all__ = ["LAYERS", "rows"]

LOCAL = {
    "keras_docstring_1": 2, "keras_docstring_1d": 32, "deepface_l6": 1, "cuda_convnet_local3": 4,
    "keras_10084_1d": 32, "grid_256": 4,
}  # fmt: skip
"""Names in `lcmulti.conformance.cases`, with a batch."""

PAD: dict[str, Any] = {"padding": 1}
CONVOLUTIONS: dict[str, tuple[Any, ...]] = {
    # He et al. 2016, ResNet-20 on CIFAR-10: the three stages, and a step down between them.
    "resnet20_32x32": ((32, 32, 16), 16, 3, 1, PAD),
    "resnet20_16x16": ((16, 16, 32), 32, 3, 1, PAD),
    "resnet20_8x8": ((8, 8, 64), 64, 3, 1, PAD),
    "resnet20_down": ((32, 32, 16), 32, 3, 1, PAD | {"strides": 2}),
    # LeCun et al. 1998, LeNet-5.
    "lenet5_c1": ((32, 32, 1), 6, 5, 8, {}),
    "lenet5_c3": ((14, 14, 6), 16, 5, 8, {}),
    # Howard et al. 2017, MobileNet: depthwise.
    "mobilenet_depthwise": ((28, 28, 256), 256, 3, 1, PAD | {"groups": 256}),
    "mobilenet_depthwise_down": ((56, 56, 128), 128, 3, 1, PAD | {"groups": 128, "strides": 2}),
    # Touvron et al. 2021, DeiT-Ti/16, on 64 x 64 pixels: disjoint patches.
    "deit_patches": ((64, 64, 3), 192, 16, 1, {"strides": 16}),
    # van den Oord et al. 2016, WaveNet: the deepest dilation.
    "wavenet": ((16, 2048), 32, 2, 1, {"dilation": 512, "data_format": "channels_first"}),
    # Tran et al. 2015, C3D, on a small clip: 3 x 3 x 3.
    "c3d": ((4, 10, 10, 3), 64, 3, 1, PAD),
}  # fmt: skip
"""Input shape, filters, side of the window, batch, options."""

HALVES = ("float16", "bfloat16", "float64")


def _layers() -> Iterator[Case]:
    for case in select(LOCAL):
        yield replace(case, group="layers", batch=LOCAL[case.name])
    for name, (shape, filters, side, batch, options) in CONVOLUTIONS.items():
        ndim = len(shape) - 1
        axes = tuple(range(ndim))
        window = (side,) * ndim
        yield Case(f"{name}_local", "layers", shape, filters, window, batch, (), (), options)
        yield Case(name, "layers", shape, filters, window, 2 * batch, axes, axes, options)


LAYERS: dict[str, Case] = {case.name: case for case in _layers()}


def rows(few: bool) -> Iterator[tuple[Case, str]]:
    """All layers in float32, and every other layer in each of the other types models are stored in.

    With *few*, each layer is in only one of the types, by turns.
    """
    for number, case in enumerate(LAYERS.values()):
        yield case, "float32"
        if number % 2:
            chosen = (HALVES[number // 2 % len(HALVES)],) if few else HALVES
            yield from ((case, dtype) for dtype in chosen)
