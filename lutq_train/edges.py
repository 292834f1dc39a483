"""What flows along the edges of a network that is being exported: finished codes, or sums that wait for their step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from math import gcd, lcm

import numpy as np

from lutq_hw.network import Node, TensorType
from lutq_hw.network.steps import Step
from lutq_hw.network.tensor import signed_bits

from .fold import Affine

Maker = Callable[[str, Step | None], Node]
"""Makes a node of a name, with a step or without."""


@dataclass(frozen=True)
class InputCodes:
    """The network's input where the caller gives codes already: ``code * scale``.

    ``encode`` maps a uint8 pixel to its code, 256 entries.
    """

    bits: int
    scale: float
    signed: bool = False
    encode: np.ndarray | None = None


@dataclass(frozen=True)
class Levels:
    """What the codes ``lowest`` .. stand for: ``integers * unit``, where a uniform scale makes the integers the codes."""

    lowest: int
    integers: tuple[int, ...]
    unit: Fraction

    @staticmethod
    def of(lowest: int, values: Sequence[Fraction]) -> Levels:
        """The levels with the largest unit that all ``values`` are integer multiples of."""
        steps = {b - a for a, b in pairwise(values)}
        if len(steps) == 1 and values[0] == lowest * (step := steps.pop()) and step > 0:
            return Levels(lowest, tuple(range(lowest, lowest + len(values))), step)
        below = lcm(*(value.denominator for value in values))
        whole = reduce(gcd, (int(value * below) for value in values)) or 1
        return Levels(lowest, tuple(int(value * below) // whole for value in values), Fraction(whole, below))

    @property
    def uniform(self) -> bool:
        """Whether the value of a code is the code times the unit."""
        return self.integers == tuple(range(self.lowest, self.lowest + len(self.integers)))

    @property
    def bits(self) -> int:
        """Bits of a code."""
        top = self.lowest + len(self.integers) - 1
        return signed_bits(self.lowest, top) if self.lowest < 0 else max(1, top.bit_length())

    def type(self, shape: tuple[int, ...]) -> TensorType:
        """Type of a tensor of such codes."""
        return TensorType(shape, self.bits, self.lowest < 0)

    def rows(self, x: TensorType) -> np.ndarray:
        """The integer of every value of type ``x``; values that no code has repeat their neighbour's."""
        place = np.clip(x.levels - self.lowest, 0, len(self.integers) - 1)
        return np.array(self.integers, np.int64)[place]


@dataclass(frozen=True)
class Codes:
    """The finished result of node ``name``."""

    name: str
    type: TensorType
    levels: Levels
    map_shape: tuple[int, int, int] | None = None
    """Shape (H, W, C) of the map that a flatten has made this vector of."""
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    """Rows, columns and zero channels that a shortcut takes and adds; made into a node by the add that reads it."""


@dataclass(frozen=True)
class Sums:
    """Integers that become codes by a step: ``value = affine[o](sum)``, then clamped to ``low`` .. ``high``."""

    name: str
    make: Maker
    type: TensorType
    bounds: tuple[np.ndarray, np.ndarray]
    affines: tuple[Affine, ...]
    low: Fraction | None = None
    high: Fraction | None = None
    shared: bool = False
    table: Callable[[str, Step, np.ndarray], Node] | None = None
    """For table-based units: makes the node with an activation table and a bias for each channel."""
    vector: bool = False
    """Whether the network goes on with a vector where the node gives a 1 x 1 map."""
    map_shape: tuple[int, int, int] | None = None
    """As that of `Codes`."""

    def clamped(self, low: Fraction | None, high: Fraction | None) -> Sums:
        """Clamped once more, to ``low`` .. ``high``; None for no bound."""
        def between(bound: Fraction) -> Fraction:
            bound = bound if low is None else max(low, bound)
            return bound if high is None else min(high, bound)

        return replace(self, low=low if self.low is None else between(self.low),
                       high=high if self.high is None else between(self.high))

    def then(self, affines: Sequence[Affine]) -> Sums:
        """Followed by an affine function of each channel."""
        return replace(self, affines=tuple(a.then(b) for a, b in zip(self.affines, affines, strict=True)))
