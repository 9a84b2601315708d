"""What tests ask of JAX, spelt alike for each of its releases."""

from __future__ import annotations

import os

import jax

if hasattr(jax, "enable_x64"):
    enable_x64 = jax.enable_x64
else:
    from jax.experimental import enable_x64

__all__ = ["automatic_mesh", "cpu_devices", "enable_x64"]


def cpu_devices(count):
    """Have so many devices, before the first is asked for."""
    if hasattr(jax.config, "jax_num_cpu_devices"):
        jax.config.update("jax_num_cpu_devices", count)
    else:
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count={count}"


def automatic_mesh(sizes, names):
    """A mesh whose shardings are not part of types."""
    types = getattr(jax.sharding, "AxisType", None)
    given = {"axis_types": (types.Auto,) * len(names)} if types else {}
    return jax.make_mesh(sizes, names, **given)
