"""Every kernel is compiled for every target, without a GPU, and compared with the kept table."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="needs Triton: pip install 'lcmulti[triton]'")

import triton
from lcmulti_triton import catalogue, choice, kept
from lcmulti_triton.estimate import H200, resident
from lcmulti_triton.figures import figures
from lcmulti_triton.layer import Tile
from lcmulti_triton.starting import compile_for
from lcmulti_triton.variant import arguments, constants, names

SAME = triton.__version__ == kept.table()["triton"]
needs_same = pytest.mark.skipif(
    not SAME, reason=f"figures are kept for Triton {kept.table()['triton']}"
)
SMALL = {
    "forward": "forward float32 tiles 32x16x16, 1 warp, 3 stages",
    "input_grad": "input_grad float32 tiles 32x16x16, 1 warp, 3 stages",
    "kernel_grad": "kernel_grad float32 tiles 16x32x16, 1 warp, 3 stages",
}


def kept_names(target):
    return [*kept.table()["targets"].get(target, {})]


@pytest.mark.parametrize("target", catalogue.TARGETS)
def test_every_kernel_has_figures_for_every_target(target):
    assert set(kept_names(target)) == set(catalogue.names_for(target))


def test_nothing_that_is_kept_spills():
    for target in catalogue.TARGETS:
        for name in kept_names(target):
            assert catalogue.kept_figures(target, name).spills == 0, (target, name)


# Registers of 32 lanes, KiB of shared memory and warps of one multiprocessor, and how many must be
# resident: two for each of NVIDIA's four schedulers, one (of 64 lanes) for each of AMD's four.
OCCUPANCY = {
    "sm_80": (65536, 163, 64, 8), "sm_90": (65536, 227, 64, 8), "sm_100": (65536, 227, 64, 8),
    "sm_120": (65536, 99, 48, 8), "gfx90a": (65536, 64, 32, 4), "gfx942": (65536, 64, 32, 4),
}  # fmt: skip


@pytest.mark.parametrize("target", catalogue.TARGETS)
def test_registers_and_shared_memory_leave_room_for_enough_warps(target):
    registers, shared, warps, least = OCCUPANCY[target]
    machine = H200._replace(registers=registers, shared=shared * 1024, warps=warps)
    for name in kept_names(target):
        tile = catalogue.variants()[name].tile
        found = tile.warps * resident(tile, catalogue.kept_figures(target, name), machine)
        slow = target == "sm_120" and " float64 " in name  # a 64th of float32's rate
        assert found >= least - slow, name


def test_loads_are_wide_where_alignment_allows():
    """In the main loop, runs of 16 bytes of x, weights and dy are read by loads of 16 bytes."""
    for name, variant in catalogue.variants().items():
        if variant.tile.family not in ("tiles", "windows") or name.endswith(
            ("channels first", "few filters", "groups", "dilation", "long offsets", "float16")
        ):
            continue
        if name.startswith("kernel_grad float64"):
            continue  # its matrix instruction needs x transposed: Triton loads single numbers
        found = catalogue.kept_figures("sm_90", name)
        tile, size = variant.tile, variant.layer.itemsize
        # A narrow tile has less than 16 bytes for each thread.
        narrow = tile.samples * tile.filters * size < 16 * 32 * tile.warps
        assert found.wide_loads + narrow >= found.loads > 0, name


@pytest.mark.parametrize(
    ("target", "instruction"),
    [("sm_80", "HMMA"), ("sm_90", "HGMMA"), ("sm_100", "UTCHMMA"), ("sm_120", "HMMA"),
     ("gfx90a", "v_mfma"), ("gfx942", "v_mfma")],
)  # fmt: skip
def test_half_types_are_multiplied_by_matrix_units(target, instruction):
    large = next(name for name in catalogue.variants() if "forward bfloat16 tiles 128x" in name)
    assert catalogue.kept_figures(target, large).multiply == instruction


def test_float32_is_not_multiplied_by_them_unless_asked():
    for target in ("sm_80", "sm_90", "sm_100", "sm_120"):
        for name in kept_names(target):
            variant = catalogue.variants()[name]
            if variant.layer.dtype == "float32" and variant.tile.family == "tiles":
                found = catalogue.kept_figures(target, name).multiply
                assert ("FFMA" in found) == (variant.precision == "ieee"), (target, name)


def test_what_choice_needs_is_kept():
    for name in SMALL.values():
        variant = catalogue.variants()[name]
        assert choice.estimated(variant.layer) in choice.candidates(variant.layer)
        assert kept.figures_of(variant.layer.map, "float32", variant.tile) is not None


SAMPLE = [
    *SMALL.values(),
    *(name for name in catalogue.variants()
      if " thin 1x" in name or " lanes " in name or " windows 32x16" in name
      or "bfloat16 tiles 32x32x32" in name or name.endswith(("tf32x3", "shared"))),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_a_sample_compiles_with_every_version(target):
    """One kernel of each family compiles. `nox -s triton` runs this with each Triton."""
    for name in SAMPLE:
        if target == "sm_90" or not name.endswith("tf32x3"):
            assert not catalogue.compiled_to(target, name).spills, name


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_numbers_that_are_one_may_be_constants(name):
    """PyTorch's compiler makes arguments equal to 1 constants, as our launcher does not.

    Constants have no methods, so the kernels must not call any on these arguments.
    """
    variant = catalogue.variants()[name]
    layer = variant.layer._replace(batch=1)
    passed = dict(zip(names(layer.map)[3:], arguments(layer, variant.tile), strict=True))
    known = constants(layer, variant.tile) | {key: 1 for key, n in passed.items() if n == 1}
    assert {"batch", "k3"} <= set(known)
    assert compile_for(catalogue.TARGETS["sm_90"], layer, known, variant.tile.warps, 1)


@needs_same
@pytest.mark.parametrize("map_", SMALL)
def test_as_kept_where_it_matters_most(map_):
    got = catalogue.compiled_to("sm_90", SMALL[map_])
    assert not catalogue.problems(
        "sm_90", SMALL[map_], got, catalogue.kept_figures("sm_90", SMALL[map_])
    )


@needs_same
@pytest.mark.slow
@pytest.mark.parametrize("target", catalogue.TARGETS)
def test_all_as_kept(target):
    worse = [
        problem
        for name in kept_names(target)
        for problem in catalogue.problems(
            target, name, catalogue.compiled_to(target, name), catalogue.kept_figures(target, name)
        )
    ]
    assert not worse, "\n".join(worse)


@needs_same
def test_lost_vector_loads_are_noticed():
    """For arrays that are not aligned, the compiler loads single numbers, and the check fails."""
    name = SMALL["forward"]
    variant = catalogue.variants()[name]
    kernel = compile_for(
        catalogue.TARGETS["sm_90"], variant.layer, constants(variant.layer, variant.tile), 1, 3,
        is_aligned=False,
    )  # fmt: skip
    found = catalogue.problems(
        "sm_90", name, figures(kernel), catalogue.kept_figures("sm_90", name)
    )
    assert any("loads of 16 bytes" in problem for problem in found)


@needs_same
@pytest.mark.slow
def test_spills_are_noticed():
    """A tile with more sums than a warp has registers fails the check."""
    name = SMALL["kernel_grad"]
    variant = catalogue.variants()[name]
    tile = Tile("tiles", 16, 128, 64, 1, 3)
    kernel = compile_for(
        catalogue.TARGETS["sm_90"], variant.layer, constants(variant.layer, tile), 1, 3
    )
    found = catalogue.problems(
        "sm_90", name, figures(kernel), catalogue.kept_figures("sm_90", name)
    )
    assert any("spills" in problem for problem in found)
