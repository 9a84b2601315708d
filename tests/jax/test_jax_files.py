"""Weights on several devices and processes, in files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import lcmulti  # noqa: E402

pytestmark = pytest.mark.jax
PROGRAM = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
import lcmulti
port, process, folder = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
assert len(jax.devices()) == 4 and len(jax.local_devices()) == 2
spec = lcmulti.LocalConvSpec((9, 7, 3), 4, 2, data_format="channels_last")
kernel = np.arange(np.prod(spec.kernel_shape), dtype="float32").reshape(spec.kernel_shape)
bias = np.arange(np.prod(spec.bias_shape), dtype="float32").reshape(spec.bias_shape)
mesh = jax.make_mesh((4,), ("rows",))
def placed(array, *axes):
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
for name, per_process in (("one", False), ("each", True)):
    lcmulti.save_weights(
        f"{folder}/{name}", placed(kernel, "rows"), placed(bias), spec=spec, per_process=per_process
    )
try:
    lcmulti.save_weights(f"{folder}/nowhere/x", placed(kernel, "rows"), spec=spec)
except lcmulti.errors.FileError as error:
    assert "on process 0" in str(error)
else:
    raise AssertionError
print("saved")
"""


@pytest.mark.slow
def test_two_processes_write_and_one_reads(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, port, str(number), str(tmp_path)], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    for each in processes:
        out, error = each.communicate(timeout=180)
        assert out.split()[-1:] == ["saved"], error[-3000:]
    for name in ("one", "each"):
        kernel, bias, spec, _ = lcmulti.load_weights(tmp_path / name)
        np.testing.assert_array_equal(kernel.ravel(), np.arange(kernel.size, dtype="float32"))
        np.testing.assert_array_equal(bias.ravel(), np.arange(bias.size, dtype="float32"))
        assert spec.output_size == (8, 6)
    assert len(list(tmp_path.iterdir())) == 4


def test_an_array_of_one_process_is_written_as_it_lies(tmp_path):
    spec = lcmulti.LocalConvSpec((9, 3), 4, 2, data_format="channels_last")
    kernel = jax.random.normal(jax.random.key(0), spec.kernel_shape, "bfloat16")
    lcmulti.save_weights(tmp_path / "w", kernel, spec=spec)
    np.testing.assert_array_equal(lcmulti.load_weights(tmp_path / "w").kernel, kernel)
