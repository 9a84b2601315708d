"""The plugin that registers the saboteurs and some honest implementations."""

import pluggy
from saboteurs_table import BACKENDS, FRAMEWORKS, MODULES

from lcmulti.plugins.contract import ALL_DTYPES, BackendEntry, ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")


@hookimpl
def lcmulti_backends():
    for name in ("Tape", *BACKENDS):
        yield BackendEntry(
            name=name.lower(),
            load=f"saboteurs_loaded:{name}",
            package="numpy",
            array_types=(f"saboteurs_loaded:{name}Array",),
            install="pip install saboteurs",
            dtypes=() if name == "ClaimsNoDtype" else ALL_DTYPES,
            capabilities=() if name == "ClaimsNothing" else ("reverse", "forward"),
        )


@hookimpl
def lcmulti_implementations():
    modules = {"honest": "saboteurs_maps"}
    modules |= {name: module for module, names in MODULES.items() for name in names}
    for name, module in modules.items():
        yield ImplementationEntry(
            name=name,
            backend="numpy",
            load=f"{module}:{name}",
            summary=name.replace("_", " "),
            priority=-100,
            dtypes=() if name == "claims_no_dtype" else ALL_DTYPES,
        )
    twins = dict.fromkeys((backend, "honest") for backend, _ in FRAMEWORKS)
    for backend, name in (*twins, *FRAMEWORKS):
        yield ImplementationEntry(
            name=name,
            backend=backend,
            load=f"saboteurs_frameworks:{backend}_{name}",
            summary=name.replace("_", " "),
            priority=-100,
            transformable=True,
            portable=True,  # or `composed` takes its place in an export
        )
    for name in ("Tape", *BACKENDS):
        yield ImplementationEntry(
            name="blocked",
            backend=name.lower(),
            load=f"saboteurs_loaded:{name}Blocked",
            summary="NumPy's",
        )
