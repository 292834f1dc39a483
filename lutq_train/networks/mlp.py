"""Dense layers only: for tables."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from .network import NetworkOptions, Shape, check_all


@dataclass(frozen=True)
class MlpOptions(NetworkOptions):
    """Dense layers of ``hidden`` sizes with ReLU, and one of as many outputs as classes, with a bias.

    Parameters
    ----------
    hidden
        Outputs of the hidden layers; may be empty.
    norm
        Batch norm in front of every ReLU, in place of the hidden layers' biases.
    """

    name: ClassVar[str] = "mlp"

    hidden: tuple[int, ...] = (64, 32)
    norm: bool = True

    def __post_init__(self) -> None:
        check_all("hidden", self.hidden, 1, 65536)

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Layers flatten, fc1, norm1, relu1, ..., scores; norms with ``norm``."""
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        terms = shape[0] * shape[1] * shape[2]
        for i, count in enumerate(self.hidden, 1):
            layers[f"fc{i}"] = nn.Linear(terms, count, bias=not self.norm)
            if self.norm:
                layers[f"norm{i}"] = nn.BatchNorm1d(count)
            layers[f"relu{i}"] = nn.ReLU()
            terms = count
        layers["scores"] = nn.Linear(terms, classes)
        return nn.Sequential(layers)
