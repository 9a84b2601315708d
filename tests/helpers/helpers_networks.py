"""A ResNet-18 and a U-Net in PyTorch, small enough to be untied in tests, and how they are."""

import torch
from lcmulti_torch import untie
from torch import nn


class Block(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = None
        if stride != 1 or channels != filters:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x):
        around = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + around)


class ResNet18(nn.Module):
    """The network of torchvision, but with *width* filters at first instead of 64."""

    def __init__(self, width=64, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        for i in range(4):
            filters = width * 2**i
            stride = 1 if i == 0 else 2
            blocks = Block(channels, filters, stride), Block(filters, filters, 1)
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            channels = filters
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for i in range(4):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


class UNet(nn.Module):
    """Two levels down, two up again by transposed convolutions, with skips."""

    def __init__(self, width=8):
        super().__init__()

        def twice(channels, filters):
            return nn.Sequential(
                nn.Conv2d(channels, filters, 3, padding="same"), nn.ReLU(),
                nn.Conv2d(filters, filters, 3, padding="same", padding_mode="reflect"), nn.ReLU(),
            )  # fmt: skip

        self.down = nn.ModuleList([twice(1, width), twice(width, 2 * width)])
        self.bottom = twice(2 * width, 4 * width)
        self.up = nn.ModuleDict({
            "deep": nn.ConvTranspose2d(4 * width, 2 * width, 2, 2),
            "shallow": nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1),
        })  # fmt: skip
        self.merge = nn.ModuleList([twice(4 * width, 2 * width), twice(2 * width, width)])
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x):
        skips = []
        for each in self.down:
            x = each(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge in zip(("deep", "shallow"), self.merge, strict=True):
            x = merge(torch.cat([self.up[up](x), skips.pop()], 1))
        return self.out(x)


# A bound on outputs of many layers is that of one, summed over them: in float64 it is far below.
CLOSE = dict(rtol=1e-9, atol=1e-11)


def quietly(model, x, **options):
    """`untie` without its table."""
    return untie(model, x, tell=None, **options)


def same(model, other, *inputs, **tolerance):
    """Compare the outputs of two networks."""
    for each in (model, other):
        each.eval()
    with torch.no_grad():
        torch.testing.assert_close(other(*inputs), model(*inputs), **(tolerance or CLOSE))
