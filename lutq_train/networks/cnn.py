"""A chain of convolutions, then of dense layers: whatever a recipe lists."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lutq_hw.errors import InputError

from .network import NetworkOptions, Shape, check_all


@dataclass(frozen=True)
class CnnOptions(NetworkOptions):
    """Convolutions (channels, kernels, strides, paddings of equal length), then dense layers of ``hidden`` sizes.

    All with batch norm and ReLU. The last layer, ``scores``, has neither, and no bias: its integer sums are the scores.
    """

    name: ClassVar[str] = "cnn"

    channels: tuple[int, ...] = ()
    kernels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    paddings: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for key in ("kernels", "strides", "paddings"):
            found = getattr(self, key)
            if len(found) != len(self.channels):
                raise InputError(f"model.{key} must have one value for each of the {len(self.channels)} "
                                 f"convolutions in model.channels, not {len(found)}")
        for key in ("channels", "kernels", "strides", "paddings", "hidden"):
            check_all(key, getattr(self, key), 0 if key == "paddings" else 1, 4096)

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Layers conv1, norm1, relu1, ..., flatten, fc1, fcnorm1, fcrelu1, ..., scores."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        height, width, channels = shape
        stages = zip(self.channels, self.kernels, self.strides, self.paddings, strict=True)
        for i, (count, kernel, stride, padding) in enumerate(stages, 1):
            layers[f"conv{i}"] = nn.Conv2d(channels, count, kernel, stride, padding, bias=False)
            layers[f"norm{i}"] = nn.BatchNorm2d(count)
            layers[f"relu{i}"] = nn.ReLU()
            height, width = ((n + 2 * padding - kernel) // stride + 1 for n in (height, width))
            if min(height, width) < 1:
                raise InputError(f"model.kernels[{i - 1}] must fit its input, not leave a map of {height} x {width}")
            channels = count
        layers["flatten"] = nn.Flatten()
        terms = channels * height * width
        for i, count in enumerate(self.hidden, 1):
            layers[f"fc{i}"] = nn.Linear(terms, count, bias=False)
            layers[f"fcnorm{i}"] = nn.BatchNorm1d(count)
            layers[f"fcrelu{i}"] = nn.ReLU()
            terms = count
        layers["scores"] = nn.Linear(terms, classes, bias=False)
        return nn.Sequential(layers)
