"""LUT-Q (arXiv 1811.05355): weights are ``dictionary[assignments]``, both follow the full-precision weights by k-means.

Algorithm 1 of the paper with M k-means steps a batch: forward and gradients use the tied weights, the optimiser moves
the full-precision ones, then k-means moves assignments and dictionary after them. What a dictionary may hold is a
constraint (`lutq_train.constraints`) and changes nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from lutq_hw.errors import InputError

from ..constraints import CONSTRAINTS, FIXED_ENTRIES, peak, signed_digits
from ..distributed import agree
from ..grid import TINY
from ..intervals import Locator
from ..method import CodedWeights, WeightOptions, WeightQuantizer
from ..ranges import check_choices, check_ranges

START_STEPS = 30
"""k-means steps on the trained float weights before the first quantised batch."""

MANY = 1 << 13
"""From so many weights on, on a CPU, a table of intervals pays."""


@dataclass(frozen=True)
class LutqOptions(WeightOptions):
    """What the weights of a layer may be.

    Parameters
    ----------
    constraint
        One of ``constraints.CONSTRAINTS``.
    entries
        K, 2 to 256; ``binary`` has 2 and ``ternary`` 3.
    zero
        Pin one entry at zero (weights near it are pruned); ``ternary`` and an odd ``uniform`` have it anyway,
        ``binary`` cannot.
    bits
        Width of the integers, 2 to 16: largest magnitude ``2^(bits-1) - 1``, or ``2^(bits-1)`` for those made of
        powers.
    values
        A fixed dictionary of integers, ascending (BinaryConnect: -1, 1); only its scale is fitted. Replaces
        ``constraint`` and ``entries``.
    steps
        M, k-means steps after each optimiser step.
    reseed
        An entry that no weight takes moves to the middle of the widest used gap beside it; else it stays.
    cost
        Price of a signed digit of an entry, 0 to 1000, in units of ``3 mean(w^2) / K^2``, which is about the mean squared
        error of a free dictionary of K entries (Panter and Dite): the assignment minimises ``(w - c)^2 + cost * unit *
        digits(c)``, and so does the rounding of ``free`` entries to integers (area-constrained: Choi's iteration of
        section 5.4 with adders for bits). 0.1 buys the digits that cost next to nothing, 1 is a fair price, 10 drastic.

    Raises
    ------
    InputError
        If they do not fit together.
    """

    method: ClassVar[str] = "lutq"

    constraint: str = "free"
    entries: int = 16
    zero: bool = False
    bits: int = 8
    values: tuple[int, ...] = ()
    steps: int = 1
    reseed: bool = False
    cost: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self, "weights", constraint=CONSTRAINTS)
        if self.values:
            self._check_values()
        count = FIXED_ENTRIES.get(self.constraint)
        if count and self.entries != count:
            raise InputError(f"weights.entries must be {count} for a {self.constraint} dictionary, not {self.entries}")
        check_ranges(self, "weights", entries=(2, 256), bits=(2, 16), steps=(1, 100), cost=(0, 1000))
        if self.constraint == "binary" and self.zero:
            raise InputError("weights.zero must be false for a binary dictionary; ternary is the one with a zero")
        if self.constraint == "symmetric" and self.zero != bool(self.entries % 2):
            raise InputError("weights.zero must be true exactly where weights.entries is odd for a symmetric "
                             f"dictionary, not {str(self.zero).lower()} with {self.entries}")

    def _check_values(self) -> None:
        if list(self.values) != sorted(set(self.values)):
            raise InputError(f"weights.values must be distinct integers, ascending, not {list(self.values)}")
        if self.constraint != "free" or self.zero:
            raise InputError("weights.values is a dictionary of its own; leave out weights.constraint and weights.zero")
        object.__setattr__(self, "entries", len(self.values))
        if max(map(abs, self.values), default=0) >= 1 << 16:
            raise InputError(f"weights.values must be below 65536 in magnitude, not {list(self.values)}")

    @classmethod
    def for_levels(cls, levels: int, **options: Any) -> Self:
        constraint = {2: "binary", 3: "ternary"}.get(levels, "free")
        return cls(**{"entries": levels, "constraint": constraint, **options})

    @property
    def pinned(self) -> bool:
        """Whether one entry is always zero."""
        return self.zero or self.constraint == "ternary"

    def project(self, centres: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """``(integers, scale)`` for ascending ``centres`` (..., K), those that are pinned already zero."""
        if not self.values:
            return CONSTRAINTS[self.constraint](centres, counts, self.bits)
        integers = centres.new_tensor(self.values).expand_as(centres)
        weight = counts * integers
        below = (weight * integers).sum(-1, keepdim=True)
        scale = (weight * centres).sum(-1, keepdim=True) / below.clamp(min=1)
        fallback = peak(centres) / integers.abs().amax()
        return integers, torch.where((below > 0) & (scale > 0), scale, fallback).clamp(min=TINY)

    def start(self, weight: Tensor) -> tuple[Tensor, int | None]:
        """First centres for a weight tensor, ascending, and the index of the pinned entry.

        Quantiles of the negative and of the positive weights; halving magnitudes where values must be powers of two.
        """
        weight = weight.detach().reshape(-1)
        if self.values:
            fixed = weight.new_tensor(self.values)
            return fixed * (weight.abs().amax().clamp(min=TINY) / fixed.abs().amax()), None
        low, high = float(-weight.amin()), float(weight.amax())
        rest = self.entries - self.pinned
        many, few = rest - rest // 2, rest // 2
        below, above = (many, few) if low > high else (few, many)
        left = self._side(-weight[weight < 0], below).neg().flip(0)
        right = self._side(weight[weight > 0], above)
        middle = [weight.new_zeros(1)] if self.pinned else []
        return torch.cat([left, *middle, right]), below if self.pinned else None

    def _side(self, sizes: Tensor, count: int) -> Tensor:
        sizes = sizes if sizes.numel() else sizes.new_tensor([TINY])
        steps = torch.arange(count, dtype=sizes.dtype, device=sizes.device)
        if self.constraint == "power_of_two":
            return sizes.amax() * torch.exp2(steps - (count - 1)) * 0.75
        return torch.quantile(sizes[: 1 << 24], (steps + 0.5 + self.pinned * 0.5) / (count + self.pinned * 0.5))

    def quantizer(self, weight: Tensor) -> LutQuantizer:
        return LutQuantizer(self, weight)


class _Tied(torch.autograd.Function):
    """``values[assignments]`` forward, identity backward: dQ/dW := 1, the straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, values: Tensor, assignments: Tensor) -> Tensor:
        return values.index_select(0, assignments.view(-1)).view(weight.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


class LutQuantizer(WeightQuantizer):
    """Buffers ``integers`` (K,), ``scale`` (1,), ``pinned`` (K,) and ``assignments`` (the weight's shape).

    The weight is exactly ``(integers * scale)[assignments]``; the exported file holds the same integers.
    """

    integers: Tensor
    scale: Tensor
    pinned: Tensor
    assignments: Tensor

    def __init__(self, options: LutqOptions, weight: Tensor) -> None:
        super().__init__()
        self.options = options
        centres, zero = options.start(weight)
        integers, scale = options.project(centres, torch.ones_like(centres))
        self.register_buffer("integers", integers.clone())
        self.register_buffer("scale", scale.clone())
        pinned = torch.zeros_like(centres, dtype=torch.bool)
        pinned[[] if zero is None else [zero]] = True
        self.register_buffer("pinned", pinned)
        self.register_buffer("assignments", torch.zeros_like(weight, dtype=torch.int32))
        for _ in range(START_STEPS):
            kmeans_step([(self, weight)])

    @property
    def dictionary(self) -> Tensor:
        """The values, ascending, (K,)."""
        return self.integers * self.scale

    @property
    def has_zero(self) -> bool:
        return self.options.pinned or self.options.constraint == "uniform" or 0 in self.options.values

    def unit(self) -> Tensor:
        return self.scale[0]

    def forward(self, weight: Tensor) -> Tensor:
        return _Tied.apply(weight, self.dictionary, self.assignments)  # type: ignore[return-value]

    def coded(self, weight: Tensor) -> CodedWeights:
        return CodedWeights(self.assignments, self.integers.double().round().long()[None],
                            Fraction(float(self.scale)))

    @classmethod
    def update(cls, group: Sequence[tuple[Any, Tensor]]) -> None:
        alike: dict[LutqOptions, list[tuple[LutQuantizer, Tensor]]] = {}
        for quantizer, weight in group:
            alike.setdefault(quantizer.options, []).append((quantizer, weight))
        for options, members in alike.items():
            for _ in range(options.steps):
                kmeans_step(members)


@torch.no_grad()
def kmeans_step(group: Sequence[tuple[LutQuantizer, Tensor]]) -> None:
    """One k-means step of weights with equal options: nearest values, then centres, then the constraint.

    Clusters of sorted values are intervals, so the nearest value is found by bisection between midpoints, O(N log K);
    a weight on a midpoint goes down. A cluster without weights keeps its value, hence centres ascend too. Everything
    of size K is done for all layers at once: small networks would otherwise spend their time starting kernels.
    """
    options = group[0][0].options
    values = torch.stack([quantizer.integers for quantizer, _ in group])
    values *= torch.stack([quantizer.scale for quantizer, _ in group])
    middles = (values[:, 1:] + values[:, :-1]) * 0.5
    if options.cost:
        middles = torch.stack([_priced(quantizer, weight, row) for (quantizer, weight), row
                               in zip(group, values.unbind(), strict=True)])
    flat = torch.cat([weight.reshape(-1) for _, weight in group])
    keys = []
    for n, ((quantizer, weight), middle) in enumerate(zip(group, middles.unbind(), strict=True)):
        _locate(weight, middle, quantizer.assignments)
        keys.append((quantizer.assignments + n * values.shape[1]).view(-1))
    key = torch.cat(keys)
    counts = torch.bincount(key, minlength=values.numel()).view_as(values)
    sums = torch.bincount(key, weights=flat, minlength=values.numel()).view_as(values)
    centres = torch.where(counts > 0, sums / counts.clamp(min=1), values)
    if options.reseed:
        centres = _reseeded(centres, counts)
    centres.masked_fill_(torch.stack([quantizer.pinned for quantizer, _ in group]), 0)
    integers, scales = options.project(centres, counts)
    if options.cost and options.constraint == "free" and not options.values:
        integers = torch.stack([_cheaper(quantizer, weight, *row) for (quantizer, weight), *row
                                in zip(group, centres.unbind(), scales.unbind(), strict=True)])
    integers, scales = integers.contiguous(), scales.contiguous()
    agree(integers, scales)
    # In place: DistributedDataParallel and compiled graphs hold on to the tensors themselves.
    for (quantizer, _), row, scale in zip(group, integers.unbind(), scales.unbind(), strict=True):
        quantizer.integers.copy_(row)
        quantizer.scale.copy_(scale)


def _locate(weight: Tensor, bounds: Tensor, out: Tensor) -> None:
    """Write how many of the ascending ``bounds`` are below each weight; NaN counts as above all."""
    many = weight.device.type == "cpu" and weight.numel() >= MANY and weight.is_contiguous()
    if many and math.isfinite(weight.sum() + bounds.sum()):  # a table can hold no other numbers
        Locator(bounds)(weight.view(-1), out.view(-1))
    else:
        torch.bucketize(weight, bounds, out_int32=True, out=out)


def _priced(quantizer: LutQuantizer, weight: Tensor, values: Tensor) -> Tensor:
    """Bounds (K - 1,) between the intervals in which each entry has the least ``(w - c)^2 + price(c)``, ascending.

    Between entries i < j the bound is ``(c_i + c_j)/2 + (p_j - p_i) / (2 (c_j - c_i))``; entry k is best from the
    largest bound to its left to the smallest to its right, and nowhere where those have crossed.
    """
    price = _price(quantizer, weight) * signed_digits(quantizer.integers)
    gap = (values[None, :] - values[:, None]).clamp(min=TINY)
    bound = (values[None, :] + values[:, None]) / 2 + (price[None, :] - price[:, None]) / (2 * gap)
    upper = torch.ones_like(bound, dtype=torch.bool).triu(1)
    lower_end = bound.masked_fill(~upper, -torch.inf).amax(0)
    upper_end = bound.masked_fill(~upper, torch.inf).amin(1)
    # An entry that is best nowhere gets an empty interval at the end of the one before it.
    ends = torch.where(lower_end < upper_end, upper_end, -torch.inf)
    return ends.cummax(0).values[:-1]


def _price(quantizer: LutQuantizer, weight: Tensor) -> Tensor:
    """What a signed digit costs in squared error of one weight."""
    options = quantizer.options
    return options.cost * 3 / options.entries**2 * weight.square().mean()


def _cheaper(quantizer: LutQuantizer, weight: Tensor, centres: Tensor, scale: Tensor) -> Tensor:
    """The integers of least ``(centre - integer * scale)^2 + price(integer)``; they ascend as the centres do."""
    top = (1 << (quantizer.options.bits - 1)) - 1
    table = torch.arange(-top, top + 1, dtype=centres.dtype, device=centres.device)
    price = _price(quantizer, weight) * signed_digits(table)
    return table[((centres[:, None] - table * scale).square_() + price).argmin(1)]


def _reseeded(centres: Tensor, counts: Tensor) -> Tensor:
    """Unused centres moved half-way to the neighbour that has more weights; the order stays."""
    left = torch.cat([centres[:, :1], centres[:, :-1]], 1)
    right = torch.cat([centres[:, 1:], centres[:, -1:]], 1)
    more_left = torch.cat([torch.zeros_like(counts[:, :1]), counts[:, :-1]], 1)
    more_right = torch.cat([counts[:, 1:], torch.zeros_like(counts[:, :1])], 1)
    target = torch.where(more_left > more_right, left, right)
    moved = centres + (target - centres) / 2
    # Two unused neighbours must not pass each other: only those whose target is used move.
    used = torch.where(more_left > more_right, more_left, more_right) > 0
    return torch.where((counts == 0) & used, moved, centres)
