"""mypy (strict) and pyright know the layers in a user's file and refuse wrong calls."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

jax = pytest.importorskip("jax")

pytestmark = [pytest.mark.jax, pytest.mark.slow]

NNX = """\
import jax
import jax.numpy as jnp
from flax import nnx

import lcmulti
import lcmulti_jax
from lcmulti_jax.nnx import LocallyConnected, LocallyConnectedTranspose, fuse_bn, retie, untie

layer = LocallyConnected(3, 8, (3, 3), (12, 12), strides=2, rngs=nnx.Rngs(0))
reveal_type(layer)  # LocallyConnected
reveal_type(layer.kernel)  # Param[Array]
reveal_type(layer.full_kernel())  # Array
reveal_type(layer(jnp.zeros((1, 12, 12, 3))))  # Array
reveal_type(layer.to_conv())  # Conv
reveal_type(layer.strides)  # tuple[int, ...]
reveal_type(LocallyConnected.from_conv(layer.to_conv(), 12))  # LocallyConnected
up = LocallyConnectedTranspose(3, 8, (3, 3), (12, 12), rngs=nnx.Rngs(0))
reveal_type(up.to_conv())  # ConvTranspose
reveal_type(fuse_bn(up, nnx.BatchNorm(8, rngs=nnx.Rngs(0))))  # LocallyConnectedTranspose
spec = lcmulti.LocalConvSpec((12, 12, 3), 8, 3)
spread = lcmulti_jax.sharded(spec, jax.make_mesh((1,), ("rows",)), "rows")
kernel, bias = spread.init(jax.random.key(0))
reveal_type(spread(jnp.zeros((1, 12, 12, 3)), kernel, bias))  # Array
net, x = nnx.Sequential(layer.to_conv()), jnp.zeros((1, 12, 12, 3))
reveal_type(untie(net, x, where="*", memory="1GiB", tell=None, rngs=nnx.Rngs(0)))  # Sequential
reveal_type(untie(net, (x,), dry_run=True, shared_axes=[0]))  # Untying
reveal_type(untie(layer.to_conv(), x, rank=2))  # LocallyConnected
reveal_type(untie(up.to_conv(), x))  # LocallyConnectedTranspose
reveal_type(retie(net, tolerance=None))  # Sequential
reveal_type(retie(layer))  # Conv
reveal_type(retie(up))  # ConvTranspose
untie(net, x, mermory="1GiB")  # refused
LocallyConnected(3, "8", (3, 3), (12, 12), rngs=nnx.Rngs(0))  # refused
LocallyConnected(3, 8, (3, 3), inptu_size=(12, 12), rngs=nnx.Rngs(0))  # refused
LocallyConnectedTranspose(3, 8, (3, 3), (12, 12), stride=2, rngs=nnx.Rngs(0))  # refused
lcmulti_jax.shraded(spec)  # refused
"""

EQUINOX = """\
import equinox as eqx
import jax
import jax.numpy as jnp

from lcmulti_jax.equinox import LocallyConnected2d, LocallyConnectedTranspose2d, retie, untie

layer = LocallyConnected2d(3, 8, 3, input_size=12, key=jax.random.key(0))
reveal_type(layer)  # LocallyConnected2d
reveal_type(layer.weight)  # Array | None
reveal_type(layer.full_kernel())  # Array
reveal_type(layer(jnp.zeros((3, 12, 12))))  # Array
reveal_type(layer.to_conv())  # Conv
reveal_type(layer.stride)  # tuple[int, ...]
reveal_type(layer.share())  # LocallyConnected2d
up = LocallyConnectedTranspose2d(3, 8, 3, 12, key=jax.random.key(0))
reveal_type(up.to_conv())  # ConvTranspose
net, x = eqx.nn.Sequential([layer.to_conv()]), jnp.zeros((3, 12, 12))
reveal_type(untie(net, x, where=eqx.nn.Conv, tell=None, key=jax.random.key(0)))  # Sequential
reveal_type(untie(net, (x,), dry_run=True))  # Untying
reveal_type(untie(layer.to_conv(), x, rank=2))  # LocallyConnected
reveal_type(untie(up.to_conv(), x))  # LocallyConnectedTranspose
reveal_type(retie(net, tolerance=None))  # Sequential
reveal_type(retie(layer))  # Conv
reveal_type(retie(up))  # ConvTranspose
untie(net, x, where=3)  # refused
LocallyConnected2d(3, "8", 3, input_size=12, key=jax.random.key(0))  # refused
LocallyConnected2d(3, 8, 3, inptu_size=12, key=jax.random.key(0))  # refused
LocallyConnectedTranspose2d(3, 8, 3, 12, strides=2, key=jax.random.key(0))  # refused
"""

CHECKERS = {
    "mypy": (["mypy", "--strict", "--config-file="], r":(\d+): note: Revealed type is \"(.*)\""),
    "pyright": (["pyright"], r":(\d+):\d+ - information: Type of \".*\" is \"(.*)\""),
}


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize(("package", "text"), [("flax", NNX), ("equinox", EQUINOX)])
def test_a_users_file_is_understood(checker, package, text, tmp_path):
    pytest.importorskip(package)
    if not importlib.util.find_spec(checker):
        pytest.skip(f"{checker} is not installed")
    file = tmp_path / "user.py"
    file.write_text(text)
    options, pattern = CHECKERS[checker]
    where = (
        f"--python-executable={sys.executable}"
        if checker == "mypy"
        else f"--pythonpath={sys.executable}"
    )
    command = [sys.executable, "-m", *options, where, str(file)]
    said = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=600
    ).stdout
    # Names without their modules, as people write them.
    known = {
        int(line): re.sub(r"[\w.]+\.(\w+)", r"\1", kind) for line, kind in re.findall(pattern, said)
    }
    wrong = {int(line) for line in re.findall(r":(\d+)(?::\d+)?(?: -|:) error", said)}
    lines = dict(enumerate(text.splitlines(), 1))
    wanted = {n: s.partition("  # ")[2] for n, s in lines.items() if s.startswith("reveal_type")}
    assert known == wanted, said
    assert wrong == {n for n, s in lines.items() if s.endswith("# refused")}, said
