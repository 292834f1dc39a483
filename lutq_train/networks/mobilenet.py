"""Depthwise separable convolutions (MobileNet, Howard et al., arXiv 1704.04861, section 3.1) for small images."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lutq_hw.errors import InputError

from ..ranges import check_ranges
from .network import NetworkOptions, Shape, check_all, check_size


@dataclass(frozen=True)
class MobileNetOptions(NetworkOptions):
    """A 3 x 3 convolution of ``width`` channels, then blocks of a depthwise 3 x 3 and a pointwise 1 x 1 convolution.

    All with batch norm and ReLU; global average pooling and one dense layer behind them.

    Parameters
    ----------
    width
        Channels of the first convolution.
    factors
        Channels of each block, in units of ``width``.
    strides
        Stride of each block's depthwise convolution.
    """

    name: ClassVar[str] = "mobilenet"

    width: int = 32
    factors: tuple[int, ...] = (2, 4, 4, 8, 8, 16, 16)
    strides: tuple[int, ...] = (1, 2, 1, 2, 1, 2, 1)

    def __post_init__(self) -> None:
        check_ranges(self, "model", width=(1, 1024))
        check_all("factors", self.factors, 1, 64)
        check_all("strides", self.strides, 1, 4)
        if len(self.factors) != len(self.strides):
            raise InputError(f"model.strides must have one value for each of the {len(self.factors)} blocks in "
                             f"model.factors, not {len(self.strides)}")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Layers conv1, norm1, relu1, dw1, dwnorm1, dwrelu1, pw1, pwnorm1, pwrelu1, ..., pool, flatten, scores."""
        check_size(self.name, shape, 4)
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def convolution(name: str, i: int, before: int, after: int, kernel: int, stride: int, groups: int) -> None:
            layers[f"{name or 'conv'}{i}"] = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups,
                                                       bias=False)
            layers[f"{name}norm{i}"] = nn.BatchNorm2d(after)
            layers[f"{name}relu{i}"] = nn.ReLU()

        convolution("", 1, shape[2], self.width, 3, 1, 1)
        channels, (height, across) = self.width, shape[:2]
        for i, (factor, stride) in enumerate(zip(self.factors, self.strides, strict=True), 1):
            convolution("dw", i, channels, channels, 3, stride, channels)
            convolution("pw", i, channels, factor * self.width, 1, 1, 1)
            channels = factor * self.width
            height, across = ((n - 1) // stride + 1 for n in (height, across))
        layers["pool"] = nn.AvgPool2d((height, across) if height != across else height)
        layers["flatten"] = nn.Flatten()
        layers["scores"] = nn.Linear(channels, classes)
        return nn.Sequential(layers)
