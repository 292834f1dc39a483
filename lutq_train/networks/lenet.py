"""The two networks for MNIST that papers on compression count: LeNet-300-100 and the LeNet-5 of Caffe."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from .network import NetworkOptions, Shape, check_size


@dataclass(frozen=True)
class LeNet300Options(NetworkOptions):
    """Dense layers of 300, 100 and as many outputs as classes, with biases and ReLU: 266,610 parameters for MNIST."""

    name: ClassVar[str] = "lenet_300_100"

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Layers flatten, fc1, relu1, fc2, relu2, scores."""
        return nn.Sequential(OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(shape[0] * shape[1] * shape[2], 300), relu1=nn.ReLU(),
            fc2=nn.Linear(300, 100), relu2=nn.ReLU(),
            scores=nn.Linear(100, classes)))


@dataclass(frozen=True)
class LeNet5Options(NetworkOptions):
    """Caffe's LeNet: 5 x 5 convolutions of 20 and 50 channels without padding, each max-pooled, dense layers of 500 and
    the classes, with biases: 431,080 parameters for MNIST.

    Parameters
    ----------
    rectify
        ReLU behind the convolutions too, so that all activations have unsigned codes. False is Caffe's own, with its one
        ReLU behind fc1.
    """

    name: ClassVar[str] = "lenet5"

    rectify: bool = True

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Layers conv1, relu1, pool1, conv2, relu2, pool2, flatten, fc1, fcrelu1, scores; relu1 and relu2 with rectify."""
        check_size(self.name, shape, 16)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        height, width, channels = shape
        for i, count in enumerate((20, 50), 1):
            layers[f"conv{i}"] = nn.Conv2d(channels, count, 5)
            if self.rectify:
                layers[f"relu{i}"] = nn.ReLU()
            layers[f"pool{i}"] = nn.MaxPool2d(2)
            height, width, channels = (height - 4) // 2, (width - 4) // 2, count
        layers["flatten"] = nn.Flatten()
        layers["fc1"] = nn.Linear(channels * height * width, 500)
        layers["fcrelu1"] = nn.ReLU()
        layers["scores"] = nn.Linear(500, classes)
        return nn.Sequential(layers)
