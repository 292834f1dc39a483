"""Weights of table-based neural units (arXiv 1906.04798): clustered now and then, for product tables.

Dictionary entries are integers times ``2^-F``. With the activations `tanhd`, `relud` and `learned_levels`, which lie on
such grids too, the tables hold exactly what was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lutq_hw.errors import InputError

from ..clusters import assign, lloyd, middles
from ..distributed import agree
from ..grid import TINY, power_unit, spread_sample
from ..method import CodedWeights, WeightOptions, WeightQuantizer
from ..ranges import check_choices, check_ranges

CLUSTERINGS = ("kmeans", "laplacian", "fixed")
HOLDS = ("tied", "drift")

START_STEPS = 30
"""Lloyd steps on the trained float weights."""

CLUSTER_STEPS = 10
"""Most Lloyd steps of a later clustering; never more than one for each optimiser step."""

LARGEST_SAMPLE = 1_000_000
START_SAMPLE = 1 << 16
"""Weights that k-means, and the choice of a first scale, look at; of a larger tensor, evenly spaced ones."""

SCALES = 24
"""Scales tried for a fixed dictionary, up to the one that reaches the largest weight."""


def laplacian_centres(mean: Tensor, entries: int) -> Tensor:
    """``(K,)`` ascending centres for weights of density ``exp(-|w|/b) / 2b`` with ``b = mean``, the mean magnitude.

    Cells as dense as the cube root of the density, ``t = -3 b ln(1 - u)`` with u evenly spaced, each with its
    conditional mean ``b + (t e^(-t/b) - t' e^(-t'/b)) / (e^(-t/b) - e^(-t'/b))`` as centre. Zero is one of an odd number.
    """
    b, odd = mean.double(), entries % 2
    cells = torch.arange(entries // 2, dtype=torch.float64, device=mean.device)
    tail = 1 - (2 * cells + odd) / entries  # 1 - u at the inner end of a cell; u is 1 at the end of the last
    outer = torch.cat([tail[1:], tail.new_zeros(1)])
    inner_mass, outer_mass = tail**3, outer**3
    inner, beyond = -3 * tail.log() * inner_mass, -3 * torch.xlogy(outer, outer) * outer**2
    side = b * (1 + (inner - beyond) / (inner_mass - outer_mass))
    return torch.cat([-side.flip(0), side.new_zeros(odd), side]).to(mean.dtype)


@dataclass(frozen=True)
class TbnuOptions(WeightOptions):
    """Weights in few clusters, of which each is a column of the layer's product table.

    Parameters
    ----------
    entries
        ``N_w``, 2 to 256.
    clustering
        ``kmeans`` follows the weights themselves; ``laplacian`` takes the centres that suit a Laplacian distribution of
        their mean magnitude; ``fixed`` has equally spaced values of which only the scale follows. The last two are
        symmetric, with a zero where ``entries`` is odd.
    every
        Optimiser steps from one clustering to the next.
    hold
        Between clusterings, ``tied`` computes with the nearest centres and moves the full-precision weights behind them
        (straight-through), so that what is trained is what is exported. ``drift`` does as the paper: each clustering
        replaces the weights by their centres, then they train on unconstrained; evaluation mode clusters them anew.
    zero
        Hold one k-means centre at zero, for pruned weights.
    bits
        Width of the integers, 2 to 16: largest magnitude ``2^(bits-1) - 1``, highest bit used.

    Raises
    ------
    InputError
        If they do not fit together.
    """

    method: ClassVar[str] = "tbnu"
    activations: ClassVar[str] = "relud"

    entries: int = 16
    clustering: str = "kmeans"
    every: int = 1000
    hold: str = "tied"
    zero: bool = False
    bits: int = 8

    def __post_init__(self) -> None:
        check_choices(self, "weights", clustering=CLUSTERINGS, hold=HOLDS)
        check_ranges(self, "weights", entries=(2, 256), bits=(2, 16), every=(1, 1_000_000))
        if self.zero and self.clustering != "kmeans" and self.entries % 2 == 0:
            raise InputError(f"weights.entries must be odd for a {self.clustering} dictionary with a zero, not "
                             f"{self.entries}")
        enough = needed_bits(self.entries)
        if self.bits < enough:
            raise InputError(f"weights.bits must be at least {enough} for {self.entries} entries, not {self.bits}")

    @classmethod
    def for_levels(cls, levels: int, **options: Any) -> Self:
        bits = max(8, min(16, needed_bits(levels)))
        return cls(**{"entries": levels, "bits": bits, **options})

    def quantizer(self, weight: Tensor) -> TbnuQuantizer:
        return TbnuQuantizer(self, weight)

    @property
    def top(self) -> int:
        """Largest integer of the dictionary."""
        return (1 << (self.bits - 1)) - 1

    def pattern(self, like: Tensor) -> Tensor:
        """Integers of the ``fixed`` dictionary before scaling: all from -n to n, or the odd ones."""
        last = self.entries // 2 if self.entries % 2 else self.entries - 1
        return torch.linspace(-last, last, self.entries, dtype=torch.float64, device=like.device).round()

    def centres(self, weight: Tensor, start: Tensor | None, steps: int) -> Tensor:
        """``(K,)`` ascending real centres for ``weight``; k-means begins at ``start``, or where a Laplacian has them."""
        sizes = weight.abs()
        if self.clustering == "laplacian":
            return laplacian_centres(sizes.mean(), self.entries)
        sample = spread_sample(weight, LARGEST_SAMPLE)
        if self.clustering == "fixed":
            return self._spaced(sample, start, steps)
        # Pruned weights, many and all zero, say nothing about the width of the others.
        mean = sizes.sum() / sizes.count_nonzero().clamp(min=1)
        centres = laplacian_centres(mean, self.entries) if start is None else start
        for _ in range(steps):
            centres = lloyd(sample, centres)[1]
            if self.zero:
                centres[centres.abs().argmin()] = 0
        return centres

    def _spaced(self, sample: Tensor, start: Tensor | None, steps: int) -> Tensor:
        """The equally spaced values of least squared error near ``start``, or of the least among several starts."""
        pattern = self.pattern(sample).to(sample.dtype)

        def taken(scale: Tensor, of: Tensor) -> Tensor:
            return pattern[assign(of, pattern * scale).long()]

        if start is None:
            few = spread_sample(sample, START_SAMPLE)
            scales = few.abs().amax().clamp(min=TINY) / pattern[-1] * (torch.arange(SCALES).to(few) + 1) / SCALES
            errors = [(taken(scale, few) * scale - few).square().sum() for scale in scales]
            scale = scales[int(torch.stack(errors).argmin())]
        else:
            scale = start[-1] / pattern[-1]
        for _ in range(steps):
            codes = taken(scale, sample)
            below = codes.square().sum()
            fitted = torch.dot(codes, sample) / below.clamp(min=1)
            scale = torch.where(fitted > 0, fitted, scale)
        return pattern * scale

    def integers(self, centres: Tensor, scale: Tensor) -> Tensor:
        """``centres`` in units of ``scale`` as integers that fit ``bits``; equally spaced ones stay so."""
        if self.clustering != "fixed":
            return (centres / scale).round().clamp(-self.top, self.top).to(torch.int32)
        pattern = self.pattern(centres)
        last = float(pattern[-1])
        factor = (centres[-1] / last / scale).round().clamp(1, self.top // last)
        return (pattern * factor).to(torch.int32)


def needed_bits(entries: int) -> int:
    """Least width of integers of which a symmetric, equally spaced dictionary can be made."""
    return 1 + (entries // 2 if entries % 2 else entries - 1).bit_length()


class _Nearest(torch.autograd.Function):
    """``values[k]`` of the nearest value forward, identity backward: the straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, values: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # the same, in one operation
            index = torch.bucketize(weight, middles(values), out_int32=True)
        else:
            index = assign(weight.contiguous(), values)
        return values.index_select(0, index.view(-1)).view(weight.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class TbnuQuantizer(WeightQuantizer):
    """Buffers ``integers`` (K,), ``scale`` (), a power of two, and ``steps`` (), optimiser steps so far."""

    integers: Tensor
    scale: Tensor
    steps: Tensor

    def __init__(self, options: TbnuOptions, weight: Tensor) -> None:
        super().__init__()
        self.options = options
        centres = options.centres(weight, None, START_STEPS)
        scale = power_unit(centres.abs().amax(), options.bits - 1)
        self.register_buffer("scale", scale)
        self.register_buffer("integers", options.integers(centres, scale))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=weight.device))

    @property
    def dictionary(self) -> Tensor:
        """The values of the last clustering, ascending, (K,)."""
        return self.integers * self.scale

    @property
    def has_zero(self) -> bool:
        return self.options.zero or (self.options.clustering != "kmeans" and self.options.entries % 2 == 1)

    def unit(self) -> Tensor:
        return self.scale

    def forward(self, weight: Tensor) -> Tensor:
        if self.options.hold == "drift":
            if self.training:
                return weight
            return _Nearest.apply(weight, self._latest(weight) * self.scale)  # type: ignore[return-value]
        return _Nearest.apply(weight, self.dictionary)  # type: ignore[return-value]

    def coded(self, weight: Tensor) -> CodedWeights:
        integers = self._latest(weight)
        assignments = assign(weight.contiguous(), integers * self.scale)
        return CodedWeights(assignments, integers.long()[None], Fraction(float(self.scale)), table=True)

    @torch.no_grad()
    def _latest(self, weight: Tensor) -> Tensor:
        """Integers of the clusters of ``weight``: those of the last clustering, unless it has drifted since."""
        if self.options.hold == "tied" or int(self.steps) % self.options.every == 0:
            return self.integers
        # Always in the type of the weights, so that float64 evaluation sees the same clusters.
        centres = self.options.centres(weight.float(), self.dictionary.float(), CLUSTER_STEPS)
        return self.options.integers(centres, self.scale)

    def _cluster(self, weight: Tensor) -> None:
        steps = min(CLUSTER_STEPS, self.options.every)
        centres = self.options.centres(weight, self.dictionary, steps)
        self.scale.copy_(power_unit(centres.abs().amax(), self.options.bits - 1))
        self.integers.copy_(self.options.integers(centres, self.scale))
        agree(self.integers, self.scale)
        if self.options.hold == "drift":
            if not isinstance(weight, nn.Parameter):
                raise InputError('weights.hold must be "tied" where weights are pruned, because "drift" replaces weights')
            weight.copy_(self.dictionary[assign(weight.contiguous(), self.dictionary).long()])

    @classmethod
    @torch.no_grad()
    def update(cls, group: Sequence[tuple[Any, Tensor]]) -> None:
        # One transfer from a GPU for all layers.
        steps = torch.stack([quantizer.steps.add_(1) for quantizer, _ in group]).tolist()
        for (quantizer, weight), step in zip(group, steps, strict=True):
            if step % quantizer.options.every == 0:
                quantizer._cluster(weight)
