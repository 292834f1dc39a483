"""The six-convolution VGG that papers on quantisation use for CIFAR-10."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..ranges import check_ranges
from .network import NetworkOptions, Shape, check_size


@dataclass(frozen=True)
class VggSmallOptions(NetworkOptions):
    """3 x 3 convolutions of 1, 1, 2, 2, 4 and 4 times ``width`` channels with batch norm and ReLU, a max-pool behind every
    second one, and one dense layer.

    Parameters
    ----------
    width
        Channels of the first convolution; 128 is the papers'.
    """

    name: ClassVar[str] = "vgg_small"

    width: int = 128

    def __post_init__(self) -> None:
        check_ranges(self, "model", width=(1, 1024))

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Layers conv1, norm1, relu1, conv2, norm2, relu2, pool1, ..., flatten, scores."""
        check_size(self.name, shape, 8)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        height, across, channels = shape
        for i, factor in enumerate((1, 1, 2, 2, 4, 4), 1):
            layers[f"conv{i}"] = nn.Conv2d(channels, factor * self.width, 3, padding=1, bias=False)
            channels = factor * self.width
            layers[f"norm{i}"] = nn.BatchNorm2d(channels)
            layers[f"relu{i}"] = nn.ReLU()
            if i % 2 == 0:
                layers[f"pool{i // 2}"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        layers["scores"] = nn.Linear(channels * (height // 8) * (across // 8), classes)
        return nn.Sequential(layers)
