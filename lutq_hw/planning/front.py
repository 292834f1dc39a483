"""All efficient plans of a network on a board: for each speed the fewest logic cells, whether they fit or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..cost import Cost
from .candidates import Candidate
from .pareto import efficient
from .search import Search


@dataclass(frozen=True)
class Point:
    """A plan: cycles of its slowest stage for a frame, price, and whether all of it is available."""

    cycles: int
    cost: Cost
    fits: bool


def point(search: Search, chosen: Sequence[Candidate]) -> Point:
    """The point of a plan."""
    return Point(max(c.cycles for c in chosen), search.total(chosen), search.fits(chosen))


def front(search: Search, *known: Point) -> list[Point]:
    """Plans that no other one equals or beats in both cycles and logic cells, fastest first.

    They have the blocks of the board, but as many logic cells as they like: what a larger board of its kind would give.
    Exact for the layers; what stands between them is added afterwards, so a ``known`` plan may be better, and then is there.
    """
    slowest = search.periods[-1]
    plans: dict[int, tuple[Candidate, ...] | None] = {}

    def cheapest(step: int) -> tuple[Candidate, ...] | None:
        if step not in plans:
            numbers = search.options(search.steps[step], slowest)
            plans[step] = None if numbers is None else search.cheapest(numbers, search.available, cells_only=True)[0]
        return plans[step]

    # Between two steps with the same plan, or none at all, there is nothing to look for.
    spans = [(0, len(search.steps) - 1)]
    while spans:
        low, high = spans.pop()
        if cheapest(low) != cheapest(high) and high - low > 1:
            middle = (low + high) // 2
            spans += [(low, middle), (middle, high)]
    points = [*known, *(point(search, chosen) for chosen in plans.values() if chosen is not None)]
    return [points[i] for i in efficient(np.array([(p.cycles, p.cost.cells) for p in points]).reshape(-1, 2))]
