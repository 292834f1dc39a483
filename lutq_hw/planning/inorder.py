"""Plans in order of price, the cheapest first: A* over the layers, with the exact price of the rest as its estimate.

Prices here are those of the layers alone. Who looks at the plans in this order and adds what stands between the layers may
stop at the first plan whose layers alone are as dear as the best whole: no later one can be better.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .knapsack import Floats, Options, Table, units_of

Priced = Callable[[Options], Floats]


def plans_in_order(layers: Sequence[Options], capacity: Sequence[int], price: Priced, *, max_cells: float, states: int,
                   limit: Callable[[], float]) -> Iterator[tuple[float, tuple[int, ...] | None]]:
    """Pairs of a price that no later plan goes below, and a plan of that price or None.

    Ends when every plan cheaper than ``limit()`` (which may fall meanwhile) has come. A None stands for a step in between,
    so that the caller can stop after some number of steps.

    Parameters
    ----------
    price
        Price of each option; prices of layers add up.
    """
    units, most = units_of(capacity, layers, states)
    prices = [price(layer) for layer in layers]
    shape = [-(-n // unit) + 1 for n, unit in zip(most, units, strict=True)]
    rest_price = _rest(layers, prices, shape, units)
    rest_cells = _rest(layers, [layer.cells for layer in layers], shape, units)
    room = np.array(most)

    def state(left: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        return tuple((-(-left // units)).T)  # rounded up: the estimate must not be above the truth

    # Deeper nodes first among equals, so that whole plans come early.
    nodes: list[tuple[float, int, int, tuple[int, ...], float, float, NDArray[np.int64]]] = [
        (float(rest_price[0][state(room)]), 0, 0, (), 0.0, 0.0, room)]
    made = 0
    while nodes and nodes[0][0] < limit():
        least, _, _, picks, spent, cells, left = heapq.heappop(nodes)
        depth = len(picks)
        if depth == len(layers):
            yield least, picks
            continue
        yield least, None
        layer = layers[depth]
        after = left - layer.blocks
        possible = np.flatnonzero((after >= 0).all(axis=1))
        if not len(possible):
            continue
        after = after[possible]
        whole_cells = cells + layer.cells[possible]
        here = spent + prices[depth][possible]
        bounds = here + rest_price[depth + 1][state(after)]
        good = (whole_cells + rest_cells[depth + 1][state(after)] <= max_cells + 1e-6) & (bounds < limit())
        for n in np.flatnonzero(good):
            made += 1
            heapq.heappush(nodes, (float(bounds[n]), -depth, made, (*picks, int(possible[n])), float(here[n]),
                                   float(whole_cells[n]), after[n]))


def _rest(layers: Sequence[Options], values: Sequence[Floats], shape: Sequence[int], units: Sequence[int]) -> list[Table]:
    """For every layer the least value of it and all that follow, by the blocks that are left; blocks rounded down."""
    tables: list[Table] = [np.zeros(shape)]
    for layer, value in zip(reversed(layers), reversed(values), strict=True):
        table = np.full(shape, np.inf)
        blocks = layer.blocks // units
        least: dict[tuple[int, ...], float] = {}
        for used, amount in zip(map(tuple, blocks.tolist()), value.tolist(), strict=True):
            least[used] = min(amount, least.get(used, amount))
        for used, amount in least.items():
            if any(u >= n for u, n in zip(used, shape, strict=True)):
                continue
            target = tuple(slice(u, None) for u in used)
            source = tuple(slice(0, n - u) for u, n in zip(used, shape, strict=True))
            np.minimum(table[target], tables[-1][source] + amount, out=table[target])
        tables.append(table)
    return tables[::-1]
