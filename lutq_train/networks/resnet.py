"""Residual networks for small images (He et al., arXiv 1512.03385, section 4.2), named as the public weights are.

The names of parameters are those of akamaster/pytorch_resnet_cifar10, so that its float weights can be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from lutq_hw.errors import InputError

from ..ranges import check_ranges
from .network import NetworkOptions, Shape, check_size


@dataclass(frozen=True)
class ResNetOptions(NetworkOptions):
    """``6 n + 2`` layers: a convolution, three stages of n blocks with ``width``, 2 and 4 ``width`` channels, one dense.

    Parameters
    ----------
    depth
        20, 32, 44, ...
    width
        Channels of the first stage.
    shortcut
        Where the map halves: "A" takes every second pixel and adds channels of zeros, "B" has a 1 x 1 convolution with
        batch norm.
    """

    name: ClassVar[str] = "resnet"

    depth: int = 20
    width: int = 16
    shortcut: str = "A"

    def __post_init__(self) -> None:
        if not 8 <= self.depth <= 1202 or self.depth % 6 != 2:
            raise InputError(f"model.depth must be 6 n + 2 from 8 to 1202, like 20 or 32, not {self.depth}")
        check_ranges(self, "model", width=(1, 1024))
        if self.shortcut not in ("A", "B"):
            raise InputError(f"model.shortcut must be A or B, not {self.shortcut!r}")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """The network; global average pooling in front of the dense layer ``linear``."""
        check_size(self.name, shape, 4)
        return ResNet(self, shape, classes)


class ResNet(nn.Module):
    """See `ResNetOptions`."""

    def __init__(self, options: ResNetOptions, shape: Shape, classes: int) -> None:
        super().__init__()
        blocks, width = (options.depth - 2) // 6, options.width
        self.conv1 = nn.Conv2d(shape[2], width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(blocks, width, width, 1, options.shortcut)
        self.layer2 = _stage(blocks, width, 2 * width, 2, options.shortcut)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, 2, options.shortcut)
        height, across = ((n + 3) // 4 for n in shape[:2])  # two strides of 2, each rounding up
        self.pool = nn.AvgPool2d((height, across) if height != across else height)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(4 * width, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, classes)`` of ``(B, C, H, W)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.pool(x)))


class Block(nn.Module):
    """Two convolutions and what goes past them: ``relu(convolutions(x) + shortcut(x))``."""

    def __init__(self, before: int, channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != channels:
            self.shortcut = Subsample(channels - before) if shortcut == "A" else nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, channels, H / stride, W / stride)``, sizes rounded up."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class Subsample(nn.Module):
    """Every second pixel, and ``extra`` channels of zeros, half of them in front."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.before, self.after = extra // 2, extra - extra // 2

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C + extra, H / 2, W / 2)``, sizes rounded up."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _stage(blocks: int, before: int, channels: int, stride: int, shortcut: str) -> nn.Sequential:
    first = Block(before, channels, stride, shortcut)
    return nn.Sequential(first, *(Block(channels, channels, 1, shortcut) for _ in range(blocks - 1)))
