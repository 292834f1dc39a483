"""One candidate for each layer, so that all together fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..cost import Cost
from ..costing import gearbox_cost
from .budget import RESOURCES, shortage
from .candidates import Candidate

EAGERNESS = {"cells": 1.0, "brams": 0.3, "dsps": 0.3, "sprams": 0.3}
"""What a share of each is worth while everything fits: saved logic cells make the clock faster, unused blocks nothing."""

FULL_SLOWDOWN = 0.25
"""By how much an FPGA with all available cells used is clocked slower than an empty one, seen on iCE40UP5K builds."""


def total(chosen: Sequence[Candidate]) -> Cost:
    """Price of all candidates and of the gearboxes between them."""
    return sum((c.cost for c in chosen), Cost()) + gearbox_cost("Collector", 4, 3) * len(chosen)


def attempts(layers: Sequence[Sequence[Candidate]], available: Cost) -> Iterator[list[Candidate]]:
    """Cheapest candidates, again and again with other weights until they fit or no weight helps."""
    weights = {r: EAGERNESS[r] / max(1.0, getattr(available, r)) for r in RESOURCES}
    for _ in range(40):
        chosen = [min(layer, key=lambda c: sum(weights[r] * getattr(c.cost, r) for r in RESOURCES)) for layer in layers]
        yield chosen
        # A resource that is exceeded becomes dearer, until layers that can do without it do.
        for r, over in shortage(total(chosen), available).items():
            weights[r] *= 1.2 + min(4.0, over / max(1.0, getattr(available, r)))


def choose(layers: Sequence[Sequence[Candidate]], cycles: float, available: Cost) -> list[Candidate] | None:
    """Cheapest candidates within ``cycles`` that fit together, or None."""
    fast = [[c for c in layer if c.cycles <= cycles] for layer in layers]
    if not all(fast):
        return None
    return next((chosen for chosen in attempts(fast, available) if not shortage(total(chosen), available)), None)


def frame_time(chosen: Sequence[Candidate], available: Cost) -> float:
    """Cycles of a frame, weighted by how much slower a fuller FPGA is clocked."""
    return max(c.cycles for c in chosen) * (1 + FULL_SLOWDOWN * total(chosen).cells / max(1.0, available.cells))
