"""What this distribution adds to lcmulti. The entries are data and import no framework."""

import pluggy

from lcmulti.plugins.contract import BackendEntry, ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")
DTYPES = ("float32", "float64", "complex64", "complex128")


@hookimpl
def lcmulti_backends():
    """Register a backend for arrays of array-api-strict."""
    yield BackendEntry(
        name="strict",
        load="lcmulti_example.backend:backend",
        package="array_api_strict",
        array_types=("array_api_strict._array_object:Array",),
        install="pip install array-api-strict",
        dtypes=DTYPES,
        capabilities=("fork",),
    )


@hookimpl
def lcmulti_implementations():
    """Register one implementation for these arrays, and one for NumPy's."""
    yield ImplementationEntry(
        name="composed",
        backend="strict",
        load="lcmulti_example.backend:composed",
        summary="slices, stack and matrix products of the array API standard",
        dtypes=DTYPES,
    )
    yield ImplementationEntry(
        name="einsum",
        backend="numpy",
        load="lcmulti_example.einsum:implementation",
        summary="one einsum over a strided view of all windows",
        priority=-10,  # `auto` takes it only where nothing else serves
        dtypes=DTYPES,
    )
