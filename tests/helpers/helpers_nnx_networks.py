"""A ResNet-18 and a U-Net in Flax NNX, small enough to be untied in tests."""

from functools import partial

import jax.numpy as jnp
from flax import nnx


class Block(nnx.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, channels, filters, stride, rngs):
        norm = dict(rngs=rngs, use_running_average=True)
        self.conv1 = nnx.Conv(channels, filters, (3, 3), stride, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(filters, **norm)
        self.conv2 = nnx.Conv(filters, filters, (3, 3), use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(filters, **norm)
        same = stride == 1 and channels == filters
        around = partial(nnx.Conv, channels, filters, (1, 1), stride, use_bias=False, rngs=rngs)
        self.around = None if same else around()

    def __call__(self, x):
        around = x if self.around is None else self.around(x)
        y = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(self.bn2(self.conv2(y)) + around)


class ResNet18(nnx.Module):
    """Four stages of two blocks, with *width* filters at first instead of 64."""

    def __init__(self, width, rngs):
        self.conv1 = nnx.Conv(3, width, (7, 7), 2, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(width, rngs=rngs, use_running_average=True)
        sizes = [width * 2**i for i in range(4)]
        self.layers = nnx.List([
            nnx.Sequential(
                Block(channels, filters, 1 if i == 0 else 2, rngs), Block(filters, filters, 1, rngs)
            )
            for i, (channels, filters) in enumerate(zip([width, *sizes], sizes, strict=False))
        ])  # fmt: skip
        self.head = nnx.Linear(sizes[-1], 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.max_pool(x, (3, 3), (2, 2), "SAME")
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((1, 2)))


class UNet(nnx.Module):
    """Two levels down, two up again by transposed convolutions, with skips."""

    def __init__(self, width, rngs):
        def twice(channels, filters):
            return nnx.Sequential(
                nnx.Conv(channels, filters, (3, 3), rngs=rngs), nnx.relu,
                nnx.Conv(filters, filters, (3, 3), padding="CIRCULAR", rngs=rngs), nnx.relu,
            )  # fmt: skip

        self.down = nnx.List([twice(1, width), twice(width, 2 * width)])
        self.bottom = twice(2 * width, 4 * width)
        self.up = nnx.List([
            nnx.ConvTranspose(4 * width, 2 * width, (2, 2), (2, 2), rngs=rngs),
            nnx.ConvTranspose(2 * width, width, (3, 3), (2, 2), transpose_kernel=True, rngs=rngs),
        ])  # fmt: skip
        self.merge = nnx.List([twice(4 * width, 2 * width), twice(2 * width, width)])
        self.out = nnx.Conv(width, 1, (1, 1), rngs=rngs)

    def __call__(self, x):
        skips = []
        for each in self.down:
            x = each(x)
            skips.append(x)
            x = nnx.max_pool(x, (2, 2), (2, 2))
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(jnp.concatenate([up(x), skips.pop()], -1))
        return self.out(x)
