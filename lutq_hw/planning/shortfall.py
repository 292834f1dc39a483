"""The sentence for a network that does not fit: which resource, how far over, what would help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .budget import NAMES, RESOURCES, Budget, shortage
from .candidates import Candidate
from .search import SMALL, Search


def attempts(search: Search) -> Iterator[list[Candidate]]:
    """The cheapest candidates, again and again with other weights, to find plans that are short of as little as can be."""
    weights = {r: SMALL[r] / max(1.0, getattr(search.available, r)) for r in RESOURCES}
    for _ in range(40):
        chosen = [min(layer, key=lambda c: sum(weights[r] * getattr(c.cost, r) for r in RESOURCES))
                  for layer in search.layers]
        yield chosen
        # A resource that is exceeded becomes dearer, until layers that can do without it do.
        for r, over in shortage(search.total(chosen), search.available).items():
            weights[r] *= 1.2 + min(4.0, over / max(1.0, getattr(search.available, r)))


def too_large(name: str, board: Budget, search: Search) -> str:
    """Sentence for a network whose smallest plan does not fit."""
    def excess(chosen: Sequence[Candidate]) -> float:
        over = shortage(search.total(chosen), search.available)
        return sum(amount / max(1.0, getattr(search.available, r)) for r, amount in over.items())

    chosen = min(attempts(search), key=excess)
    over = shortage(search.total(chosen), search.available)
    parts = []
    for r, amount in over.items():
        available = getattr(search.available, r)
        worst = max(chosen, key=lambda c: getattr(c.cost, r))
        parts.append(f"{available + amount:.0f} {NAMES.get(r, r)} where {available:.0f} are available "
                     f"({100 * amount / max(1.0, available):.0f} % over, {worst.plan.node} alone takes "
                     f"{getattr(worst.cost, r):.0f})")
    remedy = ("fewer weights or smaller dictionaries" if "brams" in over and "cells" not in over
              else "fewer or narrower layers, fewer activation bits")
    return (f"{name} does not fit the {board.title}: its smallest plan needs {' and '.join(parts)}; "
            f"{remedy} or a larger board would help")
