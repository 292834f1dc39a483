"""Clusters of weights on a line: Lloyd steps, k-means, uniform cells and entropy-constrained quantisation.

Everything that "Towards the Limit of Network Quantization" (Choi, El-Khamy, Lee, ICLR 2017) does to a set of numbers,
as plain functions of tensors on any device. ``weights`` may have any shape; ``importance`` has the same and is the
diagonal of the Hessian in the paper (equation 8), 1 everywhere when absent. Results are ``(assignments, centres)``:
int32 indices of the weights' shape, and ascending centres ``(K,)`` of the weights' type. Sums are taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lutq_hw.errors import InputError

from .intervals import Locator, SortedWeights, envelope

Clustered = tuple[Tensor, Tensor]

STARTS = ("quantile", "uniform", "density")

TINY = 1e-60
"""Keeps a division by nothing from being one."""

_BLOCK = 1 << 16  # weights handled at a time on a CPU, so that intermediates stay in its cache
_SEARCHED = 1 << 15  # enough weights to know the entropy to a hundredth of a bit
_CELLS = 1 << 22  # more cells than this are a mistake, not a quantiser


def assign(weights: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest of the ascending ``centres``, int32; a weight half-way between two goes down."""
    out = torch.empty(weights.shape, dtype=torch.int32, device=weights.device)
    _locate(weights.reshape(-1), middles(centres), out.view(-1))
    return out


def middles(centres: Tensor) -> Tensor:
    """The ``K - 1`` boundaries between neighbouring centres."""
    return (centres[1:] + centres[:-1]) * 0.5


@torch.no_grad()
def lloyd(weights: Tensor, centres: Tensor, importance: Tensor | None = None, *, reseed: bool = False) -> Clustered:
    """One step of k-means, O(N log K): the nearest of ``centres`` for every weight, then the means of these clusters.

    Parameters
    ----------
    weights
        Any shape, finite.
    centres
        ``(K,)``, ascending. Clusters on a line are intervals, found by bisection between midpoints.
    importance
        Of every weight, not negative; ``c_j = sum h w / sum h`` (equation 8).
    reseed
        Let every empty cluster split the one of the largest error. The new centres are sorted then, and
        ``assignments`` refers to the given ones.

    Returns
    -------
    tuple
        Assignments to ``centres`` and the new centres; a cluster of no importance keeps its centre.
    """
    flat = weights.reshape(-1)
    h = _importance(weights, importance)
    locate, entries = Locator(middles(centres)), len(centres)
    assignments = torch.empty(flat.shape, dtype=torch.int32, device=flat.device)
    sums = torch.zeros(3, entries, dtype=torch.float64, device=flat.device)
    for chosen in _blocks(flat):
        index = locate(flat[chosen], assignments[chosen])
        wide = flat[chosen].double()
        mass = None if h is None else h[chosen].double()
        product = wide if mass is None else wide * mass
        sums[0] += torch.bincount(index, mass, entries)
        sums[1] += torch.bincount(index, product, entries)
        if reseed:
            sums[2] += torch.bincount(index, product * wide, entries)
    return assignments.view(weights.shape), _means(sums, centres, reseed)


@torch.no_grad()
def kmeans(weights: Tensor, entries: int, importance: Tensor | None = None, start: str = "quantile", *,
           steps: int = 300, reseed: bool = False) -> Clustered:
    """k-means with ``entries`` centres until nothing moves, at most ``steps`` steps.

    The weights are sorted once; each step then takes O(K log N).

    Parameters
    ----------
    start
        First centres: ``quantile``, with equal shares of the importance; ``uniform`` between the smallest and the
        largest weight; ``density``, as dense as the cube root of the density of importance, which is right for many
        centres (Panter and Dite); or ``best``: all three, and the result of the least error is kept.
    reseed
        See `lloyd`; without it, a cluster that has lost its weights stays where it is.
    """
    ordered = SortedWeights(weights, _importance(weights, importance))
    found = [_converged(ordered, _start(ordered, entries, kind), steps, reseed)
             for kind in (STARTS if start == "best" else (start,))]
    centres = min(found, key=lambda centres: float(_errors(ordered.cells(middles(centres)), centres).sum()))
    return assign(weights, centres), centres


def _converged(ordered: SortedWeights, centres: Tensor, steps: int, reseed: bool) -> Tensor:
    for _ in range(steps):
        moved = _means(ordered.cells(middles(centres))[1:], centres, reseed)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


@torch.no_grad()
def uniform(weights: Tensor, entries: int | None = None, importance: Tensor | None = None, *,
            step: float | None = None, phase: float = 0.5) -> Clustered:
    """Equal cells, each with the mean of its weights as centre; empty cells are dropped (section 5.3).

    Parameters
    ----------
    entries
        Number of cells between the smallest and the largest weight, or
    step
        width of the cells. Boundaries then lie at ``(i + phase) * step``: with 0.5 there is a cell around zero, with 0
        a boundary at zero, as pruned weights like it.
    """
    if (entries is None) == (step is None):
        raise InputError("uniform cells need either a number of entries or a step, not both or neither")
    ordered = SortedWeights(weights, _importance(weights, importance))
    bounds = _even(ordered, entries or 0) if step is None else _multiples(ordered, step, phase)
    cells = ordered.cells(bounds)
    used = cells[0] > 0
    edges = torch.cat([ordered.values[:1], bounds, ordered.values[-1:]])
    centres = _means(cells[1:], (edges[1:] + edges[:-1]) * 0.5, False)[used]
    rename = (used.cumsum(0) - 1).to(torch.int32)
    return rename[torch.bucketize(weights, bounds)], centres


@torch.no_grad()
def ecsq(weights: Tensor, entries: int, lam: float, importance: Tensor | None = None, *,
         steps: int = 300) -> Clustered:
    """Entropy-constrained scalar quantisation (section 5.4): minimise ``mean(h (w - c)^2) + lam * entropy``.

    Starts from ``entries`` evenly spaced centres of equal probability; a weight goes to the centre of least
    ``h (w - c_j)^2 - lam log2 p_j``; empty clusters are dropped. Ends when the sum falls by less than a millionth.

    Without importance clusters are intervals and a step takes O(K log N); with it, O(N K).
    """
    if lam < 0:
        raise InputError(f"lam must not be negative, but it is {lam}")
    flat, h = weights.reshape(-1), _importance(weights, importance)
    ordered = SortedWeights(weights, h)
    centres = _start(ordered, entries, "uniform")
    costs = torch.full_like(centres, lam * math.log2(entries), dtype=torch.float64)
    least = math.inf
    for _ in range(steps):
        if h is None:
            kept, bounds = envelope(centres, costs)
            centres, cells = centres[kept], ordered.cells(bounds)
        else:
            cells = _sums(flat, h, _cheapest(flat, h, centres, costs), len(centres))
        used = cells[0] > 0
        cells, centres = cells[:, used], _means(cells[1:], centres, False)[used]
        shares = cells[0] / flat.numel()
        costs = -lam * shares.log2()
        total = float(_errors(cells, centres).sum() / flat.numel() + (shares * costs).sum())
        if total >= least * (1 - 1e-6):
            break
        least = total
    index = _cheapest(flat, h, centres, costs)
    cells = _sums(flat, h, index, len(centres))
    used = cells[0] > 0
    rename = (used.cumsum(0) - 1).to(torch.int32)
    return rename[index].view(weights.shape), _means(cells[1:], centres, False)[used]


def entropy(assignments: Tensor) -> float:
    """Entropy of the assignments in bits for each weight: what a variable-length code comes close to."""
    counts = torch.bincount(assignments.reshape(-1))
    p = counts[counts > 0].double() / assignments.numel()
    return float(-(p * p.log2()).sum()) + 0.0


def uniform_at(weights: Tensor, bits: float, importance: Tensor | None = None, *, entries: int | None = None,
               phase: float = 0.5) -> tuple[float, Tensor, Tensor]:
    """The finest uniform quantiser whose entropy is at most ``bits`` and that uses at most ``entries`` cells.

    Returns
    -------
    tuple
        The step found, assignments and centres as `uniform` gives them.
    """
    ordered = SortedWeights(weights, None)

    def fits(step: float) -> bool:
        counts = ordered.cells(_multiples(ordered, step, phase))[0]
        p = counts[counts > 0] / counts.sum()
        return float(-(p * p.log2()).sum()) <= bits and (entries is None or len(p) <= entries)

    widest = max(2.5 * float(ordered.values.abs().max()), TINY)
    step = _least(fits, widest * 2.0**-16, widest, widest)
    return step, *uniform(weights, None, importance, step=step, phase=phase)


def ecsq_at(weights: Tensor, entries: int, bits: float, importance: Tensor | None = None,
            ) -> tuple[float, Tensor, Tensor]:
    """`ecsq` with the smallest ``lam`` (to a hundredth of a bit or so) whose entropy is at most ``bits``.

    With importance a step is dear; then lam is searched for on 2^15 of the weights and raised on all where necessary.

    Returns
    -------
    tuple
        lam, assignments and centres.
    """
    some, h = weights.reshape(-1), _importance(weights, importance)
    if h is not None and some.numel() > _SEARCHED:
        chosen = torch.randperm(some.numel(), generator=torch.Generator().manual_seed(0))[:_SEARCHED].to(some.device)
        some, h = some[chosen], h[chosen]
    power = max(float(((1.0 if h is None else h.double()) * some.double().square()).mean()), TINY)

    def fits(lam: float) -> bool:
        return entropy(ecsq(some, entries, lam, h)[0]) <= bits

    highest = power * 2.0**6
    lam = 0.0 if fits(0.0) else _least(fits, power * 2.0**-24, highest, highest, steps=14)
    while True:
        found = ecsq(weights, entries, lam, importance)
        if entropy(found[0]) <= bits or lam >= 2 * highest:
            return lam, *found
        lam = max(lam * 1.01, power * 2.0**-24)


def _blocks(flat: Tensor) -> Iterator[slice]:
    size = _BLOCK if flat.device.type == "cpu" else max(flat.numel(), 1)
    for begin in range(0, flat.numel(), size):
        yield slice(begin, begin + size)


def _locate(flat: Tensor, bounds: Tensor, out: Tensor) -> Tensor:
    """`Locator`, block by block."""
    locate = Locator(bounds)
    for chosen in _blocks(flat):
        locate(flat[chosen], out[chosen])
    return out


def _importance(weights: Tensor, importance: Tensor | None) -> Tensor | None:
    if importance is None:
        return None
    if importance.shape != weights.shape:
        raise InputError(f"importance must have the weights' shape {tuple(weights.shape)}, not "
                         f"{tuple(importance.shape)}")
    if importance.numel() and not (float(importance.min()) >= 0 and bool(torch.isfinite(importance).all())):
        raise InputError("importance must be finite and not negative; clip second derivatives at zero")
    return importance.detach().reshape(-1)


def _errors(cells: Tensor, centres: Tensor) -> Tensor:
    """``sum h (w - c)^2`` of every cluster from the sums of `SortedWeights.cells`."""
    wide = centres.double()
    return cells[3] - 2 * wide * cells[2] + wide.square() * cells[1]


def _means(sums: Tensor, centres: Tensor, reseed: bool) -> Tensor:
    """Centres from ``(sum h, sum h w, sum h w^2)``; the last is read where empty clusters are to be reseeded."""
    mass, first = sums[0], sums[1]
    means = torch.where(mass > 0, first / mass.clamp(min=TINY), centres.double())
    if reseed and bool((mass <= 0).any()):
        means = _reseed(means, mass, sums[2])
    return means.to(centres.dtype)


def _reseed(means: Tensor, mass: Tensor, second: Tensor) -> Tensor:
    """Every empty cluster and one of those with the largest error go a standard deviation to either side of it."""
    error = torch.where(mass > 0, second - mass * means.square(), 0)
    error = torch.where(error > 1e-9 * second, error, 0)  # what is left of equal weights is rounding
    empty = (mass <= 0).nonzero().flatten()
    worst = error.topk(min(len(empty), len(mass))).indices
    worst = worst[error[worst] > 0]
    spread = (error[worst] / mass[worst]).sqrt()
    means = means.clone()
    means[empty[:len(worst)]] = means[worst] + spread
    means[worst] -= spread
    return means.sort().values


def _start(ordered: SortedWeights, entries: int, start: str) -> Tensor:
    if entries < 1:
        raise InputError(f"entries must be at least 1, not {entries}")
    values = ordered.values
    places = (torch.arange(entries, dtype=torch.float64, device=values.device) + 0.5) / entries
    low, high = float(values[0]), float(values[-1])
    if start == "quantile":
        return values[ordered.place(places)]
    if start == "uniform":
        return (low + places * (high - low)).to(values.dtype)
    if start == "density":
        count = max(1024, 16 * entries)
        edges = torch.linspace(low, high, count + 1, dtype=torch.float64, device=values.device)
        mass = ordered.cells(edges[1:-1].to(values.dtype))[1].clamp(min=0)
        dense = torch.cat([mass.new_zeros(1), mass.pow(1 / 3).cumsum(0)])
        cell = torch.searchsorted(dense, places * dense[-1]).clamp(1, count)
        part = (places * dense[-1] - dense[cell - 1]) / (dense[cell] - dense[cell - 1]).clamp(min=TINY)
        return (edges[cell - 1] + part * (edges[cell] - edges[cell - 1])).to(values.dtype)
    raise InputError(f"start must be one of {', '.join(STARTS)} or best, not {start!r}")


def _even(ordered: SortedWeights, entries: int) -> Tensor:
    """Boundaries of ``entries`` equal cells from the smallest to the largest weight."""
    if entries < 1:
        raise InputError(f"entries must be at least 1, not {entries}")
    values = ordered.values
    low, high = float(values[0]), float(values[-1])
    inner = torch.arange(1, entries, dtype=torch.float64, device=values.device) / entries
    return (low + inner * (high - low)).to(values.dtype)


def _multiples(ordered: SortedWeights, step: float, phase: float) -> Tensor:
    """All ``(i + phase) * step`` between the smallest and the largest weight."""
    low, high = float(ordered.values[0]), float(ordered.values[-1])
    if not step > 0 or (high - low) / step > _CELLS:
        raise InputError(f"step must be positive and leave at most {_CELLS} cells, not {step}")
    numbers = torch.arange(math.ceil(low / step - phase), math.floor(high / step - phase) + 1, dtype=torch.float64,
                           device=ordered.values.device)
    return ((numbers + phase) * step).to(ordered.values.dtype)


def _cheapest(flat: Tensor, h: Tensor | None, centres: Tensor, costs: Tensor) -> Tensor:
    """Index of the least ``h (w - c_j)^2 + cost_j`` of every weight, int32."""
    if h is None:
        kept, bounds = envelope(centres, costs)
        return kept.to(torch.int32)[torch.bucketize(flat, bounds)]
    rows = max(1, (1 << 20) // len(centres))
    costs = costs.to(flat.dtype)
    parts = []
    for part, weight in zip(flat.split(rows), h.to(flat.dtype).split(rows), strict=True):
        price = (part[:, None] - centres).square_().mul_(weight[:, None]).add_(costs)
        parts.append(price.argmin(1).to(torch.int32))
    return torch.cat(parts)


def _sums(flat: Tensor, h: Tensor | None, index: Tensor, entries: int) -> Tensor:
    """Like `SortedWeights.cells`, for clusters that need not be intervals."""
    wide = flat.double()
    mass = torch.ones_like(wide) if h is None else h.double()
    columns = (torch.ones_like(wide), mass, mass * wide, mass * wide.square())
    return torch.stack([torch.bincount(index, column, entries) for column in columns])


def _least(fits: Callable[[float], bool], low: float, high: float, fallback: float, steps: int = 30) -> float:
    """The smallest number found between ``low`` and ``high`` that fits, by bisection of the exponent."""
    best = fallback
    for _ in range(steps):
        middle = math.sqrt(low * high)
        if fits(middle):
            best = high = middle
        else:
            low = middle
    return best
