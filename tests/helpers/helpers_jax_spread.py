"""Calls that are computed on four devices, and how their arrays are spread."""

from __future__ import annotations

from typing import Any, NamedTuple

from lcmulti.conformance.case import Case


class Spread(NamedTuple):
    """A call and the axes of the mesh that its positions and its batch are spread over.

    The mesh is ``rows`` of four devices, or ``rows`` and ``columns`` of two each.
    """

    case: Case
    positions: tuple[str | None, ...] = ("rows",)
    batch: str | None = None
    mesh: tuple[int, ...] = (4,)
    dtype: str = "float32"
    implementation: str = "auto"

    @property
    def devices(self) -> dict[str, int]:
        return dict(zip(("rows", "columns"), self.mesh, strict=False))


SPREADS: dict[str, Spread] = {}


def _add(
    name: str,
    input_shape: tuple[int, ...],
    kernel_size: int | tuple[int, ...],
    *,
    filters: int = 4,
    samples: int = 2,
    shared: tuple[int, ...] = (),
    positions: tuple[str | None, ...] = ("rows",),
    batch: str | None = None,
    mesh: tuple[int, ...] = (4,),
    dtype: str = "float32",
    implementation: str = "auto",
    **options: Any,
) -> None:
    case = Case(
        name, "sharded", input_shape, filters, kernel_size, samples, shared, shared, options
    )
    SPREADS[name] = Spread(case, positions, batch, mesh, dtype, implementation)


FORWARD = ("same", "groups", "channels first", "shared rows", "two axes", "batch too", "circular",
           "bfloat16", "spanning two devices", "uneven", "uneven along two axes",
           "circular, uneven", "uneven, spanning", "replicate")  # fmt: skip
"""Cases whose forward pass is also compiled and checked as a program of its own."""

BOTH = dict(positions=("rows", "columns"), mesh=(2, 2))

# The number of devices divides these sizes, so JAX can spread the arrays by itself.
_add("same", (16, 5, 3), 3, padding="same")
_add("same, stride 2", (16, 6, 3), 3, padding="same", strides=2)
_add("even kernel", (16, 5, 3), (4, 2), padding="same")
_add("unequal strides", (24, 9, 3), (3, 2), strides=(3, 2), padding=((0, 0), (1, 0)))
_add("dilated", (16, 5, 3), 3, padding=((2, 2), (1, 1)), dilation=(2, 1))
_add(
    "dilated with stride", (16, 5, 3), 3, padding=((1, 2), (1, 1)), dilation=(2, 1), strides=(2, 1)
)
_add("stride without overlap", (16, 6, 3), 2, strides=2)
_add("gaps", (16, 6, 3), 2, strides=(4, 3))
_add("pixels", (16, 5, 3), 1)
_add("groups", (16, 5, 4), 3, filters=6, groups=2, padding="same")
_add("depthwise", (16, 5, 4), 3, filters=4, groups=4, padding="same")
_add("channels first", (3, 16, 5), 3, padding="same", data_format="channels_first")
_add("shared rows", (16, 5, 3), 3, padding="same", shared=(0,))
_add("shared columns", (16, 5, 3), 3, padding="same", shared=(1,))
_add("convolution", (16, 5, 3), 3, padding="same", shared=(0, 1))
_add("one dimension", (32, 3), 5, padding="same")
_add("causal", (32, 3), 4, padding="causal")
_add("three dimensions", (8, 4, 3, 2), (3, 2, 2), padding="same")
_add("second axis", (5, 16, 3), 3, padding="same", positions=(None, "rows"))
_add("two axes", (8, 6, 3), 3, padding="same", **BOTH)
_add("two axes, unequal", (16, 12, 3), (5, 3), strides=(2, 3), padding=((2, 1), (0, 0)), **BOTH)
_add("batch too", (8, 5, 3), 3, padding="same", batch="columns", mesh=(2, 2), samples=4)
_add("spanning two devices", (8, 5, 3), (7, 3), padding="same")
_add("spanning all devices", (4, 5, 3), (7, 3), padding="same")
_add("float64", (16, 5, 3), 3, padding="same", dtype="float64")
_add("bfloat16", (16, 5, 3), 3, padding="same", dtype="bfloat16")
_add("float16, shared", (16, 5, 3), 3, padding="same", dtype="float16", shared=(0, 1))
_add("complex64", (16, 5, 3), 3, padding="same", dtype="complex64")
for _implementation in ("composed", "blocked"):
    _add(f"{_implementation}", (16, 5, 3), 3, padding="same", implementation=_implementation)
_add("disjoint", (16, 6, 3), 2, strides=2, implementation="disjoint")
_add("conv", (16, 5, 3), 3, padding="same", shared=(0, 1), implementation="conv")
_add("circular", (16, 5, 3), 3, padding=1, padding_mode="circular")
_add("circular, stride 2", (16, 6, 3), (4, 3), padding=1, padding_mode="circular", strides=2)
_add("circular along two axes", (8, 6, 3), 3, padding=1, padding_mode="circular", **BOTH)
_add("circular, batch too", (8, 5, 3), 3, padding=1, padding_mode="circular", batch="columns",
     mesh=(2, 2), samples=4)  # fmt: skip
_add("circular, second axis", (5, 16, 3), 3, padding=1, padding_mode="circular",
     positions=(None, "rows"))  # fmt: skip
_add("circular, shared rows", (16, 5, 3), 3, padding=1, padding_mode="circular", shared=(0,))
_add("reflect, channels first", (3, 16, 5), (5, 3), padding=((2, 2), (1, 1)),
     padding_mode="reflect", data_format="channels_first")  # fmt: skip
_add("reflect bfloat16", (16, 5, 3), 3, padding=1, padding_mode="reflect", dtype="bfloat16")
_add("replicate, a device each", (4, 5, 3), 3, padding=1, padding_mode="replicate")
EVEN = tuple(SPREADS)

# The number of devices does not divide these sizes, or the padding copies rows.
_add("valid", (18, 5, 3), 3)
_add("uneven", (17, 5, 3), 3, padding="same")
_add("uneven input alone", (17, 5, 3), 2)
_add("one device without positions", (9, 5, 3), 3, padding="same")
_add("three devices without positions", (3, 5, 3), 3)
_add("rows beyond the last window", (23, 5, 3), 3, strides=5)
_add("window in the padding", (5, 5, 3), 2, padding=((4, 4), (0, 0)))
_add("uneven, spanning", (9, 5, 3), (9, 3), padding="same")
_add("uneven, groups, channels first", (4, 10, 5), 3, filters=6, groups=2, padding=1,
     data_format="channels_first")  # fmt: skip
_add("uneven along two axes", (9, 7, 3), 3, padding="same", **BOTH)
_add("uneven in three dimensions", (7, 4, 3, 2), (3, 2, 2), padding="same")
_add("uneven, shared rows", (11, 5, 3), 3, padding=2, shared=(0,))
_add("uneven bfloat16", (11, 5, 3), 3, padding=2, dtype="bfloat16")
_add("circular, uneven", (9, 5, 3), (5, 3), padding=((2, 2), (1, 1)), padding_mode="circular")
_add("circular bfloat16", (9, 5, 3), 3, padding=1, padding_mode="circular", dtype="bfloat16")
_add("reflect", (9, 5, 3), (5, 3), padding=((2, 1), (1, 0)), padding_mode="reflect")
_add("replicate", (10, 5, 3), 3, padding=((3, 3), (1, 1)), padding_mode="replicate", strides=2)
_add("replicate, one dimension", (13, 3), 3, padding=1, padding_mode="replicate")
