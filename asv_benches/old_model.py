"""Measure how long an old model of DeepFace's size takes to load, and how much memory.

    python asv_benches/old_model.py [numpy torch jax tensorflow] [--profile]

The model is that of the public `deepface` package: 137.8 million weights, of which three locally
connected layers hold 73 million. The script writes its file, so nothing is fetched. Each of Keras'
backends loads it in a process of its own. The seconds are those of `load_legacy_model` alone. The
peak is that of the whole process; beside it is the part that the imports took.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path
from time import perf_counter

import numpy as np

MIB = 2**20
LAYERS = {
    "C1": ("Conv2D", {"filters": 32, "kernel_size": [11, 11], "activation": "relu"}),
    "M2": ("MaxPooling2D", {"pool_size": [3, 3], "strides": [2, 2], "padding": "same"}),
    "C3": ("Conv2D", {"filters": 16, "kernel_size": [9, 9], "activation": "relu"}),
    "L4": ("LocallyConnected2D", {"filters": 16, "kernel_size": [9, 9], "activation": "relu"}),
    "L5": ("LocallyConnected2D",
           {"filters": 16, "kernel_size": [7, 7], "strides": [2, 2], "activation": "relu"}),
    "L6": ("LocallyConnected2D", {"filters": 16, "kernel_size": [5, 5], "activation": "relu"}),
    "F0": ("Flatten", {}),
    "F7": ("Dense", {"units": 4096, "activation": "relu"}),
    "D0": ("Dropout", {"rate": 0.5}),
    "F8": ("Dense", {"units": 8631, "activation": "softmax"}),
}  # fmt: skip
SHAPES = {
    "C1": ((11, 11, 3, 32), (32,)),
    "C3": ((9, 9, 32, 16), (16,)),
    "L4": ((55 * 55, 9 * 9 * 16, 16), (55, 55, 16)),
    "L5": ((25 * 25, 7 * 7 * 16, 16), (25, 25, 16)),
    "L6": ((21 * 21, 5 * 5 * 16, 16), (21, 21, 16)),
    "F7": ((21 * 21 * 16, 4096), (4096,)),
    "F8": ((4096, 8631), (8631,)),
}  # fmt: skip


def write(path: Path) -> int:
    """Write the model as Keras 2 did, and return how many weights it has."""
    import h5py

    layers = [{"class_name": kind, "config": {"name": name} | config}
              for name, (kind, config) in LAYERS.items()]  # fmt: skip
    layers[0]["config"]["batch_input_shape"] = [None, 152, 152, 3]
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        model = {"class_name": "Sequential", "config": {"name": "deepface", "layers": layers}}
        file.attrs["model_config"] = json.dumps(model)
        group = file.create_group("model_weights")
        group.attrs["keras_version"] = "2.2.4"
        group.attrs["backend"] = "tensorflow"
        group.attrs["layer_names"] = [name.encode() for name in LAYERS]
        for name in LAYERS:
            inner = group.create_group(name)
            inner.attrs["weight_names"] = np.array(
                [f"{name}/{each}:0".encode() for each in ("kernel", "bias")][: 2 * (name in SHAPES)]
            )
            for each, shape in zip(("kernel", "bias"), SHAPES.get(name, ()), strict=False):
                array = rng.random(shape, dtype="float32")
                inner[f"{name}/{each}:0"] = array
    return sum(prod(shape) for pair in SHAPES.values() for shape in pair)


def peak() -> int:
    """Return the most memory that this process has held, in MiB."""
    unit = MIB if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def load(path: Path, profile: bool) -> None:
    """Load the file on the backend of this process and print what it took as JSON."""
    import lcmulti_keras

    before = peak()
    if profile:
        import cProfile

        cProfile.runctx("lcmulti_keras.load_legacy_model(path)", {}, locals(), sort="cumtime")
        return
    start = perf_counter()
    model = lcmulti_keras.load_legacy_model(path)
    seconds = perf_counter() - start
    print(json.dumps([seconds, before, peak(), model.count_params()]))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    backends = ("numpy", "torch", "jax", "tensorflow")
    parser.add_argument("backend", nargs="*", metavar="backend", default=backends)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        load(arguments.load, arguments.profile)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "deepface.h5")
        print(f"{write(path):,} weights, a file of {path.stat().st_size // MIB} MiB")
        print("backend      seconds   peak MiB   of imports")
        for backend in arguments.backend:
            environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
            command = [sys.executable, __file__, "--load", str(path)]
            command += ["--profile"] * arguments.profile
            done = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            if arguments.profile:
                print(done.stdout[:6000])
                continue
            seconds, before, most, count = json.loads(done.stdout.splitlines()[-1])
            assert count == sum(prod(shape) for pair in SHAPES.values() for shape in pair)
            print(f"{backend:<12} {seconds:7.2f}   {most:8,}   {before:10,}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
