"""QIL: learned intervals for weights and activations (CVPR 2019, "Learning to Quantize Deep Networks by Optimizing
Quantization Intervals with Task Loss").

With centre c and half-width d of the interval, and top = the largest code:

    u     = clip((|x| - (c - d)) / 2d, 0, 1) ^ gamma          equations 3 and 5
    code  = sign(x) * round(u * top)                          equation 2
    value = code / top * (c + d)                              scaled; the paper has code / top: batch norm hides it

so for gamma = 1 code k begins at ``c - d + (k - 1/2) * 2d / top`` (the paper's equation 4, misprinted there). Gradients
are those of the equations, rounding counts as the identity, and what lies outside of the interval gets none. The scaled
form with c = d is a uniform quantiser: it begins where the float network ended.

The interval is kept at ``d > 0`` and ``c >= d``; where a step would leave that, the gradient is projected onto its edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lutq_hw.errors import InputError

from ..method import ActivationOptions, ActivationQuantizer, CodedWeights, WeightOptions, WeightQuantizer
from ..ranges import check_range
from ..sums import inner, inside, total

CANDIDATES = 60
"""Intervals tried when one is first fitted to numbers."""

SAMPLE = 1 << 16
"""Numbers that an interval is fitted to, at most."""

SMALLEST = 2.0**-20
"""No half-width that is used falls below this."""

SMALLEST_POSITION = 1e-6
"""Positions in the interval below this count as this where gamma is learned: a logarithm is taken."""


class _Project(torch.autograd.Function):
    """``(c, d)`` to the nearest interval that may be; at its edge c = d the two move together, never apart."""

    @staticmethod
    def forward(ctx: Any, centre: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        width = width.clamp(min=SMALLEST)
        ctx.save_for_backward(centre <= width)
        return torch.maximum(centre, width), width.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (edge,) = ctx.saved_tensors
        excess = (grads[0] - grads[1]).clamp(min=0) * (edge * 0.5)
        return grads[0] - excess, grads[1] + excess


class _Interval(torch.autograd.Function):
    """The quantiser for gamma = 1, in as few passes over memory as it takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, centre: Tensor, width: Tensor, form: _Form, edges: Tensor | None) -> Tensor:
        if edges is not None:
            y = torch.bucketize(x, edges, right=True).add_(-form.top if form.signed else 0).to(x.dtype)
        else:
            y = _codes(x, centre, width, form)
        y = y.mul_(form.unit(centre, width)).to(x.dtype)
        ctx.save_for_backward(x, y, centre, width)
        ctx.form = form
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, (x, y, centre, width) = grads[0], ctx.saved_tensors
        form: _Form = ctx.form
        low, high = centre - width, centre + width
        slope = 0.5 / width
        # plain: the sum of grad * sign(x) inside
        if form.signed:
            sizes = x.abs()
            grad_x = inside(grad, sizes, torch.where(low > 0, low, -1.0), high)  # an |x| of zero may be inside, too
            plain = inner(grad_x, torch.sign(x, out=sizes))
        else:
            grad_x = inside(grad, x, low, high)
            plain = total(grad_x)
        grad_centre = -slope * plain
        grad_width = -slope * (inner(grad_x, x) - centre * plain) / width
        if form.scaled:
            slope = slope * high
            moved = inner(grad, y) / high  # the end of the interval moves every value
            grad_centre, grad_width = grad_centre * high + moved, grad_width * high + moved
        return grad_x.mul_(slope), grad_centre, grad_width, None, None


@dataclass(frozen=True)
class _Form:
    """What a quantiser's arithmetic depends on beside its parameters."""

    top: int
    signed: bool
    scaled: bool

    def unit(self, centre: Tensor, width: Tensor) -> Tensor:
        """What code 1 stands for; made in float32, so that all arithmetic agrees on it."""
        reach = (centre + width).float() if self.scaled else torch.ones_like(centre, dtype=torch.float32)
        return (reach / self.top).to(centre.dtype)


def _codes(x: Tensor, centre: Tensor, width: Tensor, form: _Form) -> Tensor:
    # In place: on a CPU, a fresh buffer for every step would cost more than the arithmetic. Half precision is widened.
    rate = 0.5 * form.top / width
    half = x.element_size() == 2
    if not form.signed:
        y = x.float().mul_(rate) if half else x.mul(rate)
        return y.add_(0.5 - (centre - width) * rate).floor_().clamp_(0, form.top)
    x = x.float() if half else x
    return x.abs().sub_(centre - width).mul_(rate).clamp_(0, form.top).copysign_(x).add_(0.5).floor_()


def _power(x: Tensor, centre: Tensor, width: Tensor, gamma: Tensor, form: _Form) -> Tensor:
    """The quantiser for any gamma, for weights: autograd does the gradients, but for the rounding's."""
    position = ((x.abs() - (centre - width)) * (0.5 / width)).clamp(0, 1)
    inner = (position > 0) & (position < 1)
    # Outside, all gradients are 0 (also of gamma); x ^ gamma is 0 and 1 there.
    curved = torch.where(inner, position.clamp(min=SMALLEST_POSITION).pow(gamma), position.detach())
    rounded = (curved.detach() * form.top + 0.5).floor() / form.top
    value = (curved + (rounded - curved.detach())) * x.detach().sign()
    return value * (centre + width) if form.scaled else value


def _fitted(x: Tensor, top: int) -> Tensor:
    """The ``c = d`` whose uniform quantiser has the least squared error on ``|x|``."""
    sizes = x.detach().abs().flatten().float()
    sizes = sizes[::max(1, sizes.numel() // SAMPLE)]
    peak = x.detach().abs().amax().float().clamp(min=2 * SMALLEST)
    units = peak / top * torch.arange(1, CANDIDATES + 1, device=x.device) / CANDIDATES
    errors = [((sizes / unit + 0.5).floor().clamp(max=top) * unit - sizes).square().mean() for unit in units]
    return units[torch.stack(errors).argmin()] * (top / 2)


class _Learned(nn.Module):
    """Parameters ``centre`` and ``width``; buffer ``size``, the number of levels, which training may reduce."""

    rates: ClassVar[dict[str, float]] = {"centre": 0.01, "width": 0.01, "gamma": 0.01}
    """Learning rates of the parameters that there are, relative to the weights' (section 4.1 of the paper)."""

    size: Tensor
    levels: int
    stages: tuple[int, ...]

    def _begin(self, stages: tuple[int, ...], start: Tensor, signed: bool, scaled: bool) -> None:
        self.stages, levels = stages, stages[0]
        self.centre = nn.Parameter(start.detach().clone().float())
        self.width = nn.Parameter(start.detach().clone().float())
        self.register_buffer("size", torch.tensor(levels))
        self.form = _Form(1, signed, scaled)
        self._resize(levels)

    def _resize(self, levels: int) -> None:
        # The buffer is for checkpoints; reading a number back from a GPU in every step would stall it.
        top = (levels - 1) // 2 if self.form.signed else levels - 1
        self.form = _Form(top, self.form.signed, self.form.scaled)
        self.levels = 2 * top + 1 if self.form.signed else levels
        self.size.fill_(self.levels)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._resize(int(self.size))

    def progress(self, done: float) -> None:
        """The stages share the training equally; the last one is what the options say."""
        stage = self.stages[min(int(done * len(self.stages)), len(self.stages) - 1)]
        if len(self.stages) > 1:
            self.set_levels(stage)

    def set_levels(self, levels: int) -> None:
        """Go on with another number of levels and the same interval: 5, 4, 3, then 2 bits, as the paper trains.

        Raises
        ------
        InputError
            If QIL cannot have that many.
        """
        raise TypeError(f"{type(self).__name__} must define set_levels")

    def interval(self) -> tuple[Tensor, Tensor]:
        """Centre and half-width as they are used: ``width > 0`` and ``centre >= width``; with gradients."""
        return _Project.apply(self.centre, self.width)  # type: ignore[return-value]

    @torch.no_grad()
    def unit(self) -> Tensor:
        """What code 1 stands for, a scalar that is a float32 number."""
        return self.form.unit(*(part.float() for part in self.interval()))


class QilQuantizer(_Learned, WeightQuantizer):
    """Weights as codes from ``-top`` to ``top`` times `unit`; with an option a learned ``gamma``."""

    def __init__(self, options: QilOptions, weight: Tensor) -> None:
        super().__init__()
        stages = (*options.progressive, options.entries)
        self._begin(stages, _fitted(weight, stages[0] // 2), True, options.scaled)
        self.gamma = nn.Parameter(torch.ones_like(self.centre)) if options.gamma else None

    @property
    def has_zero(self) -> bool:
        return True

    def set_levels(self, levels: int) -> None:
        self._resize(_odd(levels))

    def forward(self, weight: Tensor) -> Tensor:
        # Codes are those of float32 weights, also where a network is evaluated in float64.
        x, (centre, width) = weight.float(), (part.float() for part in self.interval())
        if self.gamma is None:
            y: Tensor = _Interval.apply(x, centre, width, self.form, None)  # type: ignore[assignment]
        else:
            y = _power(x, centre, width, self.gamma.float(), self.form)
            y = y + ((y / self.unit()).round() * self.unit() - y).detach()
        if weight.dtype != torch.float64:
            return y.to(weight.dtype)
        exact = (y / self.unit()).round().double() * self.unit().double()
        return y.double() + (exact - y.double()).detach()

    @torch.no_grad()
    def coded(self, weight: Tensor) -> CodedWeights:
        codes = (self.forward(weight.float()) / self.unit()).round().to(torch.int32)
        top = self.form.top
        integers = torch.arange(-top, top + 1, device=weight.device)[None]
        return CodedWeights(codes + top, integers, Fraction(float(self.unit())))


class QilActivationQuantizer(_Learned, ActivationQuantizer):
    """Activations as codes times `unit`: 0 to ``top``, or where they are signed ``-top`` to ``top``, an odd number."""

    def __init__(self, options: QilActivationOptions, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        stages = tuple(_symmetric(levels, signed) for levels in (*options.progressive, options.levels))
        self._begin(stages, torch.tensor(0.5), signed, options.scaled)

    def set_levels(self, levels: int) -> None:
        self._resize(_symmetric(levels, self.signed))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        start = _fitted(x if self.signed else x.relu(), self.form.top)
        self.centre.copy_(start)
        self.width.copy_(start)

    def forward(self, x: Tensor) -> Tensor:
        centre, width = self.interval()
        return _Interval.apply(x, centre, width, self.form, self.edges(x))  # type: ignore[return-value]

    def boundaries(self) -> list[Fraction]:
        centre, width = (Fraction(float(part.detach())) for part in self.interval())
        top = self.form.top
        upper = [centre - width + Fraction(2 * code - 1, top) * width for code in range(1, top + 1)]
        return [-bound for bound in reversed(upper)] + upper if self.signed else upper

    def values(self) -> list[Fraction]:
        unit = Fraction(float(self.unit()))
        return [code * unit for code in range(self.lowest, self.form.top + 1)]


def _odd(levels: int) -> int:
    if not 3 <= levels <= 255 or levels % 2 == 0:
        raise InputError("weights.entries must be odd and from 3 to 255 with the method qil (2^bits - 1), "
                         f"not {levels}")
    return levels


def _symmetric(levels: int, signed: bool) -> int:
    check_range("activations.levels", levels, 2, 256)
    if signed and levels == 2:
        raise InputError("activations.levels must be at least 3 where activations are signed, not 2: qil is symmetric")
    return levels


@dataclass(frozen=True)
class QilOptions(WeightOptions):
    """Weights quantised in a learned interval; uniform integers.

    Parameters
    ----------
    entries
        Odd, 3 to 255; the paper's b bits are ``2^b - 1``.
    gamma
        Learn the exponent as well (the paper does for AlexNet with 2 bits).
    scaled
        Values reach to the end of the interval, not to 1 as in the paper.
    progressive
        Numbers of entries to train with before, in this order: the paper goes from 5 bits to 2 by 4 and 3. The stages
        share the quantised training equally; the network learns of it by ``lutq_train.progress(model, done)``.

    Raises
    ------
    InputError
        If there are too many or too few entries, or an even number.
    """

    method: ClassVar[str] = "qil"
    activations: ClassVar[str] = "qil"

    entries: int = 7
    gamma: bool = False
    scaled: bool = True
    progressive: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for entries in (*self.progressive, self.entries):
            _odd(entries)

    def quantizer(self, weight: Tensor) -> QilQuantizer:
        return QilQuantizer(self, weight)


@dataclass(frozen=True)
class QilActivationOptions(ActivationOptions):
    """Activations quantised in a learned interval; uniform levels.

    Parameters
    ----------
    levels
        2 to 256; signed activations are symmetric and have one less where it is even.
    scaled
        Values reach to the end of the interval, not to 1 as in the paper.
    progressive
        Numbers of levels to train with before, in this order: the paper goes from 5 bits to 2 by 4 and 3. The stages
        share the quantised training equally; the network learns of it by ``lutq_train.progress(model, done)``.

    Raises
    ------
    InputError
        If there are too many or too few levels.
    """

    method: ClassVar[str] = "qil"

    scaled: bool = True
    progressive: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for levels in (*self.progressive, self.levels):
            _symmetric(levels, False)

    def quantizer(self, signed: bool) -> QilActivationQuantizer:
        return QilActivationQuantizer(self, signed)
