"""The bias of the last layer, rounded to the unit of its integer sums: scores are sums, and so is what is added."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lutq_hw.errors import InputError

from .method import ActivationQuantizer, WeightQuantizer


class ScoreBias(nn.Module):
    """Parametrization of a bias: the nearest integer times (unit of the activations x unit of the weights).

    The gradient is the identity's. The quantisers that give the units belong to other parts of the network.
    """

    def __init__(self, weights: WeightQuantizer, activations: ActivationQuantizer | None, scale: float | None) -> None:
        super().__init__()
        self._peers = (weights, activations)  # in a tuple, so that they do not become part of this module
        self.scale = scale

    def entered(self) -> Tensor:
        """What the integer 1 of an activation stands for, in float64."""
        activations = self._peers[1]
        if activations is None:
            assert self.scale is not None
            return torch.tensor(self.scale, dtype=torch.float64)
        return activations.unit().detach().double()

    def unit(self) -> Tensor:
        """What one step of the sums stands for, in float64: that of a model in float32 must be the exported one."""
        unit = self._peers[0].unit().detach().double() * self.entered()
        if unit.numel() != 1:
            raise InputError("the last layer must have one weight scale for all its outputs, not one for each: scores "
                             "of different units cannot be compared; give it another subgroup")
        return unit.reshape(())

    def forward(self, bias: Tensor) -> Tensor:
        unit = self.unit()
        exact = bias.detach().double()
        return bias + ((exact / unit).round() * unit - exact).to(bias.dtype)


def register_score_bias(layer: nn.Module, weights: WeightQuantizer, activations: ActivationQuantizer | None,
                        scale: float | None) -> None:
    """Round the bias of ``layer``; ``scale`` is the input's where no quantiser stands before the layer."""
    if parametrize.is_parametrized(layer):
        # A deep copy made before (a teacher) shares the class that torch adds the property to: give the layer its own.
        kind = type(layer)
        layer.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))  # type: ignore[assignment]
    parametrize.register_parametrization(layer, "bias", ScoreBias(weights, activations, scale), unsafe=True)


def integers_of(layer: nn.Module) -> tuple[Tensor, Fraction]:
    """The bias of a last layer as float64 integers, and what an activation's 1 stands for in them."""
    chain: Any = layer.parametrizations["bias"]  # type: ignore[index]
    rounding = chain[0]
    assert isinstance(rounding, ScoreBias)
    return (chain.original.detach().double() / rounding.unit()).round(), Fraction(float(rounding.entered()))
