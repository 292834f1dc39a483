"""What an output stage finishes: the exact sums of a node, channel by channel, and the step they get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .network import Add, AvgPool2d, Conv2d, Dense, Requantize, TensorType
from .network.steps import Step
from .network.tensor import Ints, signed_bits

SteppedNode = Dense | Conv2d | Add | AvgPool2d | Requantize
"""Nodes whose results are ``step(acc + bias)``."""


@dataclass(frozen=True, eq=False)
class Sums:
    """``code[o] = step_o(acc[o] + bias[o])``: everything about ``acc`` and the step that hardware depends on.

    Parameters
    ----------
    name
        Name of the node, for sentences.
    low, high
        ``(O,)`` smallest and largest ``acc`` of every channel, exact, without bias.
    bias
        ``(O,)`` integers.
    step
        The step; None: the result is ``acc + bias`` itself.
    type
        Type of the result.
    """

    name: str
    low: Ints
    high: Ints
    bias: Ints
    step: Step | None
    type: TensorType

    def moved(self, constants: Ints) -> Sums:
        """The same results from sums that are larger by ``constants``, one for each channel."""
        return replace(self, low=self.low + constants, high=self.high + constants, bias=self.bias - constants)

    @property
    def outputs(self) -> int:
        """Number of channels."""
        return len(self.bias)

    @cached_property
    def range(self) -> tuple[int, int]:
        """Range of ``acc`` over all channels, including 0."""
        return min(int(self.low.min()), 0), max(int(self.high.max()), 0)

    @cached_property
    def bits(self) -> int:
        """Width of the signed ``acc``."""
        return signed_bits(*self.range)


def sums_of(node: SteppedNode, *types: TensorType) -> Sums:
    """The sums of ``node`` for inputs of these types, in order."""
    result = node.output(*types)
    match node:
        case Dense() | Conv2d():
            low, high = node.sum_range(*types)
            return Sums(node.name, low, high, node.bias, node.step, result)
        case Add() | AvgPool2d():
            bounds = node.sum_range(*types)
        case Requantize():
            bounds = types[0].min, types[0].max
    low, high = (np.full(result.channels, bound) for bound in bounds)
    return Sums(node.name, low, high, np.zeros(result.channels, np.int64), node.step, result)
