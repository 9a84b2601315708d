"""Time a training step of an untied network beside the same network of unfold + einsum layers.

    python asv_benches/untied_step.py [--batch 16] [--rounds 15]

`lcmulti_torch.untie` unties two small networks: one of inverted residuals like MobileNetV2's
(depthwise and 1 x 1 convolutions), and one of 3 x 3 convolutions like ResNet-18's. In the other
network each locally connected layer is `F.unfold` and one ``einsum`` with the same weights. Their
outputs are compared first. A step is forward, loss, backward and SGD. Times are the least of steps
taken in turns in one process, so quote their ratio.

``floor`` is what the layers would take at the roofline: each of their three maps moves its arrays
once, at the rate of a copy, or multiplies at the rate of a large matrix product. For a step, it has
the rest of our step beside: batch norm, activations, SGD. ``at best`` is the ratio at this floor.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from math import prod
from time import perf_counter

import torch
from lcmulti_torch import LocallyConnected2d, untie
from torch import nn
from torch.nn import functional

from lcmulti.bench.machine import rate

SIZE = 48


class Einsum(nn.Module):
    """The layer that people write: it copies every window and takes one product for all."""

    def __init__(self, layer: LocallyConnected2d) -> None:
        super().__init__()
        self.spec, spec = layer.spec, layer.spec
        positions, filters = prod(spec.output_size), spec.filters // spec.groups
        weight = layer.weight.detach().movedim(-2, 2)  # channels first in a window, like unfold
        weight = weight.reshape(positions, -1, spec.groups, filters).movedim(2, 1)
        self.weight = nn.Parameter(weight.contiguous())
        self.bias = None
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach().flatten(0, 1).mT.contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spec = self.spec
        x = functional.pad(x, [n for pair in reversed(spec.padding) for n in pair])
        patches = functional.unfold(x, spec.kernel_size, spec.dilation, stride=spec.strides)
        patches = patches.unflatten(1, (spec.groups, -1))
        y = torch.einsum("ngkp,pgkf->ngfp", patches, self.weight).flatten(1, 2)
        if self.bias is not None:
            y = y + self.bias
        return y.unflatten(-1, spec.output_size)


class Residual(nn.Module):
    """Layers, to whose result their input is added if it has the same shape."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return x + y if x.shape == y.shape else y


def convolution(channels: int, filters: int, size: int, stride: int = 1, groups: int = 1):
    conv = nn.Conv2d(channels, filters, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(filters)]


def inverted(channels: int, filters: int, stride: int) -> nn.Module:
    """Return an inverted residual block of MobileNetV2 with expansion 6."""
    wide = 6 * channels
    return Residual(
        *convolution(channels, wide, 1), nn.ReLU6(),
        *convolution(wide, wide, 3, stride, wide), nn.ReLU6(), *convolution(wide, filters, 1),
    )  # fmt: skip


def basic(channels: int, filters: int, stride: int) -> nn.Module:
    """Return a block of two 3 x 3 convolutions of ResNet-18."""
    return Residual(
        *convolution(channels, filters, 3, stride), nn.ReLU(),
        *convolution(filters, filters, 3), nn.ReLU(),
    )  # fmt: skip


def network(block) -> nn.Module:
    return nn.Sequential(
        *convolution(3, 16, 3, 2), nn.ReLU(), block(16, 24, 2), block(24, 24, 1),
        block(24, 32, 2), block(32, 32, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 10),
    )  # fmt: skip


def of_einsums(untied: nn.Module) -> nn.Module:
    """Return a copy with `Einsum` in place of each locally connected layer."""
    copy = deepcopy(untied)
    for module in list(copy.modules()):
        for name, child in module.named_children():
            if isinstance(child, LocallyConnected2d):
                setattr(module, name, Einsum(child))
    return copy


def stepper(model: nn.Module, x: torch.Tensor, labels: torch.Tensor):
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def layers_alone(model: nn.Module, kind: type[nn.Module], x: torch.Tensor):
    """Forward and backward of the layers of a kind, each on what it sees in the network."""
    seen = []

    def note(layer, given, y):
        seen.append((layer, given[0].detach().requires_grad_(), torch.randn_like(y)))

    layers = [each for each in model.modules() if isinstance(each, kind)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()

    def step() -> None:
        for layer, given, grad in seen:
            torch.autograd.grad(layer(given), [given, *layer.parameters()], grad)

    return step


def floor(model: nn.Module, batch: int) -> float:
    """Milliseconds of the layers' forward and backward at the roofline of this machine."""
    room = torch.zeros(2, 1 << 24)

    def copy() -> None:
        room[1].copy_(room[0])

    (milliseconds,) = least([copy], 20)
    moved, flops = 1e3 * room.nbytes / milliseconds, rate("float32", ["torch"])
    specs = [each.spec for each in model.modules() if isinstance(each, LocallyConnected2d)]
    each = (max(s.bytes(batch, "float32") / moved, s.flops(batch) / flops) for s in specs)
    return 3e3 * sum(each)


def least(steps, rounds: int) -> list[float]:
    """Milliseconds of each step; they are taken in turns, and the first turn does not count."""
    taken: list[list[float]] = [[] for _ in steps]
    for turn in range(rounds + 1):
        for step, times in zip(steps, taken, strict=True):
            start = perf_counter()
            step()
            if turn:
                times.append(perf_counter() - start)
    return [1e3 * min(times) for times in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(options.batch, 3, SIZE, SIZE)
    labels = torch.randint(10, (options.batch,))
    print(f"batch {options.batch}, {torch.get_num_threads()} threads")
    print(f"{'':30} untied ms  unfold + einsum ms  times as fast  floor ms  at best")
    for name, block in (("MobileNetV2", inverted), ("ResNet-18", basic)):
        untied = untie(network(block), x, tell=None)
        other = of_einsums(untied)
        with torch.no_grad():
            torch.testing.assert_close(other(x), untied(x), rtol=1e-3, atol=1e-4)
        size = sum(each.numel() for each in untied.parameters())
        both = (untied, LocallyConnected2d), (other, Einsum)
        layers = least([layers_alone(model, kind, x) for model, kind in both], options.rounds)
        steps = least([stepper(model, x, labels) for model, _ in both], options.rounds)
        lowest = floor(untied, options.batch)
        rest = steps[0] - layers[0]
        for what, (ours, theirs), least_ms in (
            ("step", steps, lowest + rest),
            ("layers", layers, lowest),
        ):
            print(
                f"{name:11} {size:9,} {what:8} {ours:10.1f} {theirs:19.1f} {theirs / ours:14.1f} "
                f"{least_ms:9.1f} {theirs / least_ms:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
