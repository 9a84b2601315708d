"""Names that benchmarks share, and steps whose results were compared with the reference."""

BACKENDS = ("numpy", "torch", "jax", "tensorflow")
WAYS = (
    "numpy auto", "numpy native", "numpy reference",
    "torch auto", "torch native", "torch elementwise", "torch disjoint", "torch blocked",
    "torch composed", "torch triton",
    "jax auto", "jax native", "jax disjoint", "jax blocked", "jax composed",
    "tensorflow auto", "tensorflow native", "tensorflow disjoint", "tensorflow blocked",
    "tensorflow composed",
)  # fmt: skip
PEERS = (
    "unfold+einsum", "forum recipe", "lax local", "Flax ConvLocal", "tf_keras 1", "tf_keras 2",
    "tf_keras 3",
)  # fmt: skip
WORKLOADS = (
    "keras_docstring_1", "keras_docstring_2", "keras_docstring_1d", "deepface_l4", "deepface_l5",
    "deepface_l6", "alltnn_sheet0", "alltnn_sheet1", "cuda_convnet_local3", "lowrank_cifar_2",
    "keras_10084_1d", "eir_snp_1", "grid_256", "neurite_3d",
)  # fmt: skip
MEMORY = 4_000_000_000
"""Largest number of bytes of a workload's arrays, counted four times, up to which it is run."""


def need(backend):
    """Skip where a backend or its framework is absent."""
    from lcmulti import plugins

    entry = plugins.registry().backends.get(backend)
    if entry is None or not plugins.is_installed(entry):
        raise NotImplementedError(f"{backend} is not installed")


def contender_of(way, workload):
    """Return a workload's arrays, harness and contender; skip a *way* that cannot serve."""
    import lcmulti
    from lcmulti.bench.contenders import ours
    from lcmulti.bench.harness import harness
    from lcmulti.bench.workloads import Arrays, named

    backend, implementation = way.split()
    need(backend)
    (found,) = named([workload])
    try:
        lcmulti.explain(
            found.spec, batch=found.batch, backend=backend, implementation=implementation
        )
    except lcmulti.LcmultiError as error:
        raise NotImplementedError(str(error)) from error
    arrays = Arrays(found, "float32")
    if 4 * arrays.nbytes > MEMORY:
        raise NotImplementedError("too large for a routine run")
    runner = harness(backend)
    contender = ours(arrays, backend, implementation, "channels_last")
    runner.arrays(contender)  # the framework has its own copies now
    return arrays, runner, contender


def step_of(way, workload, training, check=True):
    """Return a step whose result agreed with the reference; skip a *way* that cannot serve."""
    from lcmulti.bench.contenders import disagreement

    arrays, runner, contender = contender_of(way, workload)
    step = runner.step(contender, training)
    result = step()
    if check:
        wrong = disagreement(runner.value(result), arrays, "channels_last")
        assert wrong is None, wrong
    return step
