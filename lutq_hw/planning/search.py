"""One candidate for each layer, so that all together fit: the fastest or the smallest plan, with a proven bound.

A plan's frame time is the cycles of its slowest stage times the clock period, and a fuller FPGA is clocked slower. For
given limits of cycles and period, `knapsack.cheapest` finds the plan of least price exactly. Over the limits, branch and
bound: plans between two pairs of limits are no faster than the tighter pair allows and no cheaper than the looser pair's
plan, so most pairs are never looked at, and what is left is a bound that no plan of these candidates can beat.

Gearboxes and whatever else stands between layers depend on several layers at once. Bounds leave them out, plans are
priced with them. Within the limits that remain, plans are therefore looked at in order of their layers' price
(`inorder`) until no further one can be better; in networks of many layers that ends early, and the bound says so.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..clock import FULL_SLOWDOWN
from ..cost import Cost
from . import inorder, knapsack
from .budget import BLOCKS, RESOURCES, shortage
from .candidates import Candidate
from .pareto import efficient

FAST = {"cells": 1.0, "brams": 0.02, "dsps": 0.02, "sprams": 0.02}
"""What a share of each is worth to the fastest plan: saved logic cells make the clock faster, blocks decide between equals.
Seen on iCE40UP5K: of three plans of one network and rate, the one with the fewest cells and all blocks routed fastest."""

SMALL = {"cells": 1.0, "brams": 0.3, "dsps": 0.3, "sprams": 0.3}
"""What a share of each is worth to the smallest plan that is fast enough: blocks are left for other uses."""

MAX_LEVELS = 300
"""Pairs of limits that are looked at before the search ends with what it has."""

MAX_NODES, MAX_PLANS = 200_000, 2_000
"""Steps, and whole plans, of all looks at plans in order, times layers: both take longer for more of them."""

REPAIRS = 4
"""Times that a plan is made again with less room, because what stands between its layers did not fit."""


@dataclass(frozen=True)
class Found:
    """A plan: its candidates, what it was chosen for (``value``, less is better) and what no plan can go below."""

    chosen: tuple[Candidate, ...]
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """How far the plan may be from the best one, as a share of the best."""
        return max(0.0, self.value / self.bound - 1)


@dataclass(frozen=True)
class Level:
    """The cheapest plan within limits, if there is one, and a price that no plan within them can go below."""

    chosen: tuple[Candidate, ...] | None
    price: float


class Search:
    """Plans of ``layers`` within ``available``.

    Parameters
    ----------
    layers
        Candidates of every layer.
    between
        Price of all that stands between the chosen candidates.
    period_ns
        Clock period for candidates that promise none themselves.
    worth
        What a share of each resource is worth: `FAST` or `SMALL`.
    """

    def __init__(self, layers: Sequence[Sequence[Candidate]], available: Cost, *,
                 between: Callable[[Sequence[Candidate]], Cost] = lambda chosen: Cost(), period_ns: float = 1.0,
                 worth: Mapping[str, float] = FAST, states: int = knapsack.MAX_STATES):
        self.layers, self.available, self.between = layers, available, between
        self.period_ns, self.worth, self.states = period_ns, worth, states
        self._figures = [np.array([c.figures for c in layer], float) for layer in layers]
        slowest_best = max(float(f[:, 0].min()) for f in self._figures)
        tightest = max(float(f[:, 1].min()) for f in self._figures)
        self.steps = sorted({c.cycles for layer in layers for c in layer if c.cycles >= slowest_best})
        """Cycles of a frame that a plan can have, ascending."""
        self.periods = sorted({c.period_ns for layer in layers for c in layer if c.period_ns >= tightest})
        """Clock periods that a plan can have, ascending; 0 stands for ``period_ns``."""
        self._levels: dict[tuple[float, float], Level] = {}
        self._nodes_left, self._plans_left = (1 + most // len(layers) for most in (MAX_NODES, MAX_PLANS))

    # --- what a plan is worth ----------------------------------------------------------------------------------------

    def total(self, chosen: Sequence[Candidate]) -> Cost:
        """Price of all candidates and of what stands between them."""
        return sum((c.cost for c in chosen), Cost()) + self.between(chosen)

    def fits(self, chosen: Sequence[Candidate]) -> bool:
        """Whether all of it is available."""
        return not shortage(self.total(chosen), self.available)

    def _share(self, resource: str) -> float:
        return self.worth[resource] / max(1.0, getattr(self.available, resource))

    def price(self, cost: Cost) -> float:
        """Shares of what is available, weighted by ``worth``: 1 is an FPGA with all cells used and no blocks."""
        return sum(self._share(r) * getattr(cost, r) for r in RESOURCES)

    def frame_time(self, cycles: float, period_ns: float, price: float) -> float:
        """Nanoseconds for a frame on an FPGA that is as full as ``price`` says."""
        return cycles * (period_ns or self.period_ns) * (1 + FULL_SLOWDOWN * price)

    def _price_for(self, frame_time: float, cycles: float, period_ns: float) -> float:
        """The price at which a plan of these cycles and period takes ``frame_time``."""
        return (frame_time / (cycles * (period_ns or self.period_ns)) - 1) / FULL_SLOWDOWN

    def pace(self, chosen: Sequence[Candidate]) -> tuple[int, float]:
        """Cycles of a plan's slowest stage for a frame, and its clock period in nanoseconds."""
        return max(c.cycles for c in chosen), max(c.period_ns for c in chosen) or self.period_ns

    def time_of(self, chosen: Sequence[Candidate]) -> float:
        """`frame_time` of a plan."""
        return self.frame_time(*self.pace(chosen), self.price(self.total(chosen)))

    # --- within limits -----------------------------------------------------------------------------------------------

    def level(self, cycles: float, period_ns: float) -> Level:
        """The cheapest plan within ``cycles`` and ``period_ns``."""
        key = (cycles, period_ns)
        if key not in self._levels:
            self._levels[key] = self._level(cycles, period_ns)
        return self._levels[key]

    def options(self, cycles: float, period_ns: float) -> list[list[int]] | None:
        """For every layer the candidates that nothing within the limits beats; None if a layer has none."""
        kept = []
        for figures in self._figures:
            inside = np.flatnonzero((figures[:, 0] <= cycles) & (figures[:, 1] <= period_ns))
            if not len(inside):
                return None
            kept.append(inside[efficient(figures[inside, 2:])].tolist())
        return kept

    def cheapest(self, numbers: Sequence[Sequence[int]], available: Cost, *,
                 cells_only: bool = False) -> tuple[tuple[Candidate, ...] | None, float]:
        """The cheapest of these candidates that fit, without what stands between them; and a bound for its price."""
        options = [knapsack.Options(f[n, 2], f[n, 3:].astype(np.int64))
                   for f, n in zip(self._figures, numbers, strict=True)]
        capacity = [max(0, int(getattr(available, r))) for r in BLOCKS]

        def price(cells: knapsack.Table, blocks: Sequence[knapsack.Table]) -> knapsack.Table:
            if cells_only:
                return cells
            return cells * self._share("cells") + sum(self._share(r) * b for r, b in zip(BLOCKS, blocks, strict=True))

        limit = np.inf if cells_only else available.cells
        found = knapsack.cheapest(options, capacity, price, max_cells=limit, states=self.states)
        if found is None:
            return None, knapsack.bound(options, capacity, price, max_cells=limit, states=self.states)
        picked = tuple(layer[n[pick]] for layer, n, pick in zip(self.layers, numbers, found.picks, strict=True))
        return picked, found.bound

    def _level(self, cycles: float, period_ns: float) -> Level:
        numbers = self.options(cycles, period_ns)
        if numbers is None:
            return Level(None, np.inf)
        chosen, price = self.cheapest(numbers, self.available)
        room = self.available
        for _ in range(REPAIRS):
            if chosen is None:
                break
            over = shortage(self.total(chosen), self.available)
            if not over:
                return Level(chosen, price)
            # What stands between the layers does not fit beside them: leave that much room.
            taken = {r: int(np.ceil(amount)) for r, amount in over.items()}
            room += Cost(luts=-taken.pop("cells", 0), **{r: -amount for r, amount in taken.items()})
            chosen, _ = self.cheapest(numbers, room)
        return Level(None, price)

    def better(self, cycles: float, period_ns: float, limit: float) -> tuple[tuple[Candidate, ...] | None, float]:
        """A plan within the limits that fits and whose price is the least below ``limit``, with all between its layers; and a
        price that no such plan can go below, at most ``limit``."""
        numbers = [np.flatnonzero((f[:, 0] <= cycles) & (f[:, 1] <= period_ns)) for f in self._figures]
        options = [knapsack.Options(f[n, 2], f[n, 3:].astype(np.int64))
                   for f, n in zip(self._figures, numbers, strict=True)]
        capacity = [max(0, int(getattr(self.available, r))) for r in BLOCKS]
        shares = np.array([self._share(r) for r in BLOCKS])
        best: tuple[Candidate, ...] | None = None
        plans = inorder.plans_in_order(
            options, capacity, lambda o: o.cells * self._share("cells") + o.blocks @ shares,
            max_cells=self.available.cells, states=self.states, limit=lambda: limit)
        for least, picks in plans:
            if self._nodes_left == 0 or self._plans_left == 0:
                return best, min(least, limit)
            self._nodes_left -= 1
            if picks is not None:
                self._plans_left -= 1
                chosen = tuple(layer[n[pick]] for layer, n, pick in zip(self.layers, numbers, picks, strict=True))
                price = self.price(self.total(chosen))
                if price < limit and self.fits(chosen):
                    best, limit = chosen, price
        return best, limit

    # --- over all limits ---------------------------------------------------------------------------------------------

    def fastest(self) -> Found | None:
        """The plan with the least frame time, None if nothing fits."""
        best: tuple[float, tuple[Candidate, ...]] | None = None
        last_step, last_period = len(self.steps) - 1, len(self.periods) - 1
        boxes: list[tuple[float, int, int, int, int]] = [(0.0, 0, last_step, 0, last_period)]
        floor = np.inf  # least bound of the pairs that cannot be divided any more
        looked_at = 0
        while boxes:
            if (best is not None and boxes[0][0] >= best[0]) or looked_at >= MAX_LEVELS:
                floor = min(floor, boxes[0][0])
                break
            _, s0, s1, p0, p1 = heapq.heappop(boxes)
            level = self.level(self.steps[s1], self.periods[p1])
            looked_at += 1
            if not np.isfinite(level.price):
                continue
            if level.chosen is not None:
                value = self.time_of(level.chosen)
                if best is None or value < best[0]:
                    best = value, level.chosen
            if (s0, p0) == (s1, p1):
                step, period = self.steps[s0], self.periods[p0]
                limit = np.inf if best is None else self._price_for(best[0], step, period)
                chosen, least = self.better(step, period, limit)
                if chosen is not None and (best is None or self.time_of(chosen) < best[0]):
                    best = self.time_of(chosen), chosen
                floor = min(floor, self.frame_time(step, period, least))
                continue
            if s1 - s0 >= p1 - p0:
                middle = (s0 + s1) // 2
                halves = ((s0, middle, p0, p1), (middle + 1, s1, p0, p1))
            else:
                middle = (p0 + p1) // 2
                halves = ((s0, s1, p0, middle), (s0, s1, middle + 1, p1))
            for half in halves:
                least = self.frame_time(self.steps[half[0]], self.periods[half[2]], level.price)
                heapq.heappush(boxes, (least, *half))
        if best is None:
            return None
        return Found(best[1], best[0], min(best[0], floor))

    def smallest(self, frame_ns: float) -> Found | None:
        """The plan of least price whose slowest stage takes at most ``frame_ns`` for a frame; None if there is none."""
        best: tuple[float, tuple[Candidate, ...]] | None = None
        floor = np.inf
        for period in self.periods:
            cycles = frame_ns / (period or self.period_ns)
            level = self.level(cycles, period)
            if not np.isfinite(level.price):
                continue
            if level.chosen is not None:
                price = self.price(self.total(level.chosen))
                best = (price, level.chosen) if best is None or price < best[0] else best
            chosen, least = self.better(cycles, period, np.inf if best is None else best[0])
            if chosen is not None:
                best = self.price(self.total(chosen)), chosen
            floor = min(floor, least)
        return None if best is None else Found(best[1], best[0], min(best[0], floor))
