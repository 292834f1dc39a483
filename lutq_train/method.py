"""What a training method is: how it quantises weights, activations, or both. One file of ``methods/`` each.

A method gives *options* (frozen dataclasses that recipes and `quantize` fill in) and *quantisers* (modules that the
network contains once it is quantised). Nothing else of the package knows a method by name.

    WeightOptions.attach(layers, ...)     ->  a `WeightQuantizer` on the weight of every layer, as a parametrization
    ActivationOptions.quantizer(signed)   ->  an `ActivationQuantizer`, placed in front of a layer

The state of a quantiser has shapes that depend on the options and on the layer's shape only, so that a checkpoint
loads into a network that was quantised from other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, nextafter
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Losses = Callable[[], Iterable[Tensor]]
"""Gives the loss of each of some batches of training data, with its graph: what second derivatives are taken of."""


@dataclass(frozen=True)
class CodedWeights:
    """A weight tensor as hardware holds it: ``weight[o, ...] = integers[g, assignment] * scale[o]``.

    Parameters
    ----------
    assignments
        Index of every weight, the weight's shape.
    integers
        ``(G, K)`` int64 dictionaries, one for each subgroup.
    scale
        What 1 stands for: one number, or one for each output channel.
    subgroups
        Subgroup of every term, shape ``weight.shape[1:]``; absent with a single dictionary.
    table
        Whether the layer is to be exported as a product table, activation level x dictionary index.
    """

    assignments: Tensor
    integers: Tensor
    scale: Fraction | tuple[Fraction, ...]
    subgroups: Tensor | None = None
    table: bool = False

    @property
    def values(self) -> Tensor:
        """The integer of every weight, int64."""
        if self.subgroups is None:
            return self.integers[0][self.assignments.long()]
        return self.integers[self.subgroups.long().expand_as(self.assignments), self.assignments.long()]


class WeightQuantizer(nn.Module):
    """Parametrization of one weight tensor: ``forward(weight)`` is exactly what `coded` describes.

    In float64, that is: a network that is evaluated in float64 must see ``integers * scale`` to its last bit or two.
    """

    @property
    def has_zero(self) -> bool:
        """Whether a weight of 0 is and stays exactly 0: what pruning needs."""
        return False

    def forward(self, weight: Tensor) -> Tensor:
        """The quantised weights; gradients reach the full-precision ``weight``."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def coded(self, weight: Tensor) -> CodedWeights:
        """The weights that `forward` gives for the full-precision ``weight``, as integers."""
        raise TypeError(f"{type(self).__name__} must define coded")

    def unit(self) -> Tensor:
        """What the integer 1 stands for, a scalar or one for each output channel; `coded` gives the same number."""
        raise TypeError(f"{type(self).__name__} must define unit")

    @classmethod
    def update(cls, group: Sequence[tuple[Self, Tensor]]) -> None:
        """Called after every optimiser step with all quantisers of this type and their full-precision weights."""

    def progress(self, done: float) -> None:
        """Called now and then with the part of the training that is done, 0 to 1: for schedules."""


class ActivationQuantizer(nn.Module):
    """``x`` to the value of its code. Codes are ``lowest`` to ``lowest + levels - 1``, monotone in ``x``."""

    signed: bool
    levels: int
    absorbs: ClassVar[str] = "relu"
    """The activation function that is part of an unsigned quantiser (for tanh: of any), so that it need not be computed."""

    @property
    def lowest(self) -> int:
        """Smallest code."""
        return -(self.levels // 2) if self.signed else 0

    def forward(self, x: Tensor) -> Tensor:
        """Value of the code of every element; with the method's gradient."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def calibrate(self, x: Tensor) -> None:
        """Choose the first parameters from the activations of a batch."""

    def progress(self, done: float) -> None:
        """As that of `WeightQuantizer`."""

    def unit(self) -> Tensor:
        """The number that every value is an integer multiple of, a scalar."""
        raise TypeError(f"{type(self).__name__} must define unit")

    def boundaries(self) -> list[Fraction]:
        """``levels - 1`` exact numbers, ascending: the code is at least ``lowest + t`` where ``x >= boundaries[t-1]``."""
        raise TypeError(f"{type(self).__name__} must define boundaries")

    def edges(self, x: Tensor) -> Tensor | None:
        """For ``x`` of float64, an evaluation that is to agree with hardware: the least numbers of each code but the
        lowest, `boundaries` rounded upwards to float64. Else None."""
        if x.dtype != torch.float64:
            return None
        return torch.tensor([_upwards(bound) for bound in self.boundaries()], dtype=x.dtype, device=x.device)

    def values(self) -> list[Fraction]:
        """What each code stands for, ascending, ``levels`` exact numbers."""
        raise TypeError(f"{type(self).__name__} must define values")


def _upwards(bound: Fraction) -> float:
    """The smallest float64 number that is not below ``bound``."""
    value = float(bound)
    return value if Fraction(value) >= bound else nextafter(value, inf)


@dataclass(frozen=True)
class WeightOptions:
    """Base of a method's options for weights; a subclass sets ``method`` and its own fields, each with a default."""

    method: ClassVar[str]
    activations: ClassVar[str] = "lsq"
    """The activation method that goes with it when the user names none."""
    once: ClassVar[bool] = False
    """Whether assignments are made when the quantiser is attached and never again: pruning must be finished before."""

    @classmethod
    def for_levels(cls, levels: int, **options: Any) -> Self:
        """Options for dictionaries of ``levels`` values; every method says which numbers it can have.

        Raises
        ------
        InputError
            If the method cannot have that many, or an option is wrong.
        """
        return cls(**{"entries": levels, **options})

    def quantizer(self, weight: Tensor) -> WeightQuantizer:
        """The quantiser of one weight tensor, begun from its present values."""
        raise TypeError(f"{type(self).__name__} must define quantizer or attach")

    @property
    def wants_adam(self) -> bool:
        """Whether `attach` looks at the second moments of the Adam that trained the weights."""
        return False

    def blank(self) -> Self:
        """Options of the same structure that look at nothing which training left behind: for loading a checkpoint."""
        return self

    def attach(self, layers: Mapping[str, nn.Module], losses: Losses | None,
               optimizer: torch.optim.Optimizer | None = None) -> None:
        """Quantise the weights of ``layers`` (name to module), those that these options are for, all at once.

        Parameters
        ----------
        losses
            For methods that look at derivatives; None while a checkpoint is being loaded.
        optimizer
            What trained the weights, for methods that look at its state.
        """
        for layer in layers.values():
            weight = layer.get_parameter("weight") if not parametrize.is_parametrized(layer, "weight") else layer.weight
            assert isinstance(weight, Tensor)
            parametrize.register_parametrization(layer, "weight", self.quantizer(weight.detach()), unsafe=True)


@dataclass(frozen=True)
class ActivationOptions:
    """Base of a method's options for activations; a subclass sets ``method`` and its own fields, with defaults."""

    method: ClassVar[str]

    levels: int = 16

    @classmethod
    def for_bits(cls, bits: int) -> Self:
        """Options for codes of ``bits`` bits."""
        return cls(levels=1 << bits)

    def quantizer(self, signed: bool) -> ActivationQuantizer:
        """A quantiser for activations that may be negative or not."""
        raise TypeError(f"{type(self).__name__} must define quantizer")


def quantizer_of(layer: nn.Module) -> WeightQuantizer | None:
    """The quantiser of a layer's weight; None for a float layer."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    last = layer.parametrizations["weight"][-1]  # type: ignore[index]
    return last if isinstance(last, WeightQuantizer) else None


def source_of(layer: nn.Module) -> Tensor:
    """The full-precision weight that the quantiser of ``layer`` follows: pruned, where the layer is pruned."""
    chain: Any = layer.parametrizations["weight"]  # type: ignore[index]
    weight = chain.original
    for stage in list(chain)[:-1]:
        weight = stage(weight)
    return weight


@torch.no_grad()
def update(model: nn.Module) -> None:
    """The methods' own step: call it after every ``optimizer.step()``."""
    groups: dict[type[WeightQuantizer], list[tuple[WeightQuantizer, Tensor]]] = {}
    for layer in model.modules():
        quantizer = quantizer_of(layer)
        if quantizer is not None:
            groups.setdefault(type(quantizer), []).append((quantizer, source_of(layer)))
    for kind, group in groups.items():
        kind.update(group)


def progress(model: nn.Module, done: float) -> None:
    """Tell every quantiser which part of the training is done, 0 to 1: pruning and bit schedules follow it."""
    for module in model.modules():
        if isinstance(module, WeightQuantizer | ActivationQuantizer):
            module.progress(done)
