"""One option for each layer, with the fewest logic cells for every number of blocks: exact, by dynamic programming.

Blocks are whole and few, so a table over all numbers of brams, dsps and sprams holds the fewest cells of the layers so far;
each layer makes the next table from it. What is asked of the result (least cells, least price) can be read off the
last table, as long as more cells are never better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_STATES = 1 << 16
"""Entries of the table; beyond, blocks are counted in twos, fours, ..."""

Floats = NDArray[np.float64]
Table = NDArray[Any]


@dataclass(frozen=True)
class Options:
    """Options of one layer: ``cells (n,)`` and ``blocks (n, kinds)``."""

    cells: Floats
    blocks: NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """Number of the option of every layer, the price of all, and a price that no choice can go below."""

    picks: tuple[int, ...]
    price: float
    bound: float


def units_of(capacity: Sequence[int], layers: Sequence[Options], states: int) -> tuple[list[int], list[int]]:
    """How many blocks of each kind make a unit of the table, and the most that all layers can use of what there is."""
    most = [min(whole, sum(int(layer.blocks[:, kind].max()) for layer in layers)) for kind, whole in enumerate(capacity)]
    units = [1] * len(most)
    while np.prod([-(-n // unit) + 1 for n, unit in zip(most, units, strict=True)]) > states:
        widest = max(range(len(most)), key=lambda kind: most[kind] / units[kind])
        units[widest] *= 2
    return units, most


def cheapest(layers: Sequence[Options], capacity: Sequence[int], price: Callable[[Table, Sequence[Table]], Table],
             *, max_cells: float, states: int = MAX_STATES) -> Choice | None:
    """The choice with the least ``price(cells, blocks)`` that has room for its blocks and at most ``max_cells``.

    With more than ``states`` states blocks are counted in units of several: rounded up for the choice, rounded down for
    the bound. Then a choice may be missed; None says that none was found.
    """
    units, most = units_of(capacity, layers, states)
    up = [Options(layer.cells, -(-layer.blocks // units)) for layer in layers]
    found = _solve(up, [n // unit for n, unit in zip(most, units, strict=True)], units, price, max_cells)
    if max(units) == 1:
        return None if found is None else Choice(*found, found[1])
    if found is None:
        return None
    down = [Options(layer.cells, layer.blocks // units) for layer in layers]
    loose = _solve(down, [-(-n // unit) for n, unit in zip(most, units, strict=True)], units, price, max_cells)
    assert loose is not None, "a looser count has every choice of the stricter one"
    cells = np.array(sum(layer.cells[pick] for layer, pick in zip(layers, found[0], strict=True)))
    blocks = sum(layer.blocks[pick] for layer, pick in zip(layers, found[0], strict=True))
    return Choice(found[0], float(price(cells, list(np.asarray(blocks)))), loose[1])


def bound(layers: Sequence[Options], capacity: Sequence[int], price: Callable[[Table, Sequence[Table]], Table],
          *, max_cells: float, states: int = MAX_STATES) -> float:
    """A price that no choice can go below; infinite if there is provably none."""
    units, most = units_of(capacity, layers, states)
    down = [Options(layer.cells, layer.blocks // units) for layer in layers]
    loose = _solve(down, [-(-n // unit) for n, unit in zip(most, units, strict=True)], units, price, max_cells)
    return np.inf if loose is None else loose[1]


def _solve(layers: Sequence[Options], capacity: Sequence[int], units: Sequence[int],
           price: Callable[[Table, Sequence[Table]], Table], max_cells: float) -> tuple[tuple[int, ...], float] | None:
    """Picks and their price, exact in units of blocks."""
    table, choices = _tables(layers, capacity)
    blocks = np.meshgrid(*(np.arange(n + 1) * unit for n, unit in zip(capacity, units, strict=True)), indexing="ij")
    prices = np.where(table <= max_cells, price(table, blocks), np.inf)
    state = np.unravel_index(int(prices.argmin()), prices.shape)
    if not np.isfinite(prices[state]):
        return None
    least, picks = float(prices[state]), []
    for layer, choice in zip(reversed(layers), reversed(choices), strict=True):
        pick = int(choice[state])
        picks.append(pick)
        state = tuple(int(n - used) for n, used in zip(state, layer.blocks[pick], strict=True))
    return tuple(reversed(picks)), least


def _tables(layers: Sequence[Options], capacity: Sequence[int]) -> tuple[Floats, list[NDArray[np.int16]]]:
    """Fewest cells for exactly these blocks, over all blocks, and for every layer the option that it took there."""
    shape = tuple(n + 1 for n in capacity)
    table = np.full(shape, np.inf)
    table[(0,) * len(shape)] = 0
    reach = np.zeros(len(shape), np.int64)  # the part of the table that is not infinite
    choices = []
    for layer in layers:
        following, choice = np.full(shape, np.inf), np.zeros(shape, np.int16)
        limit = np.minimum(reach + layer.blocks.max(axis=0), capacity)
        for number, (cells, used) in enumerate(zip(layer.cells, layer.blocks, strict=True)):
            width = np.minimum(reach, capacity - used) + 1
            if (width < 1).any():
                continue
            source = tuple(slice(0, n) for n in width)
            target = tuple(slice(first, first + n) for first, n in zip(used, width, strict=True))
            sums = table[source] + cells
            better = sums < following[target]
            np.copyto(following[target], sums, where=better)
            np.copyto(choice[target], number, where=better)
        table, reach = following, limit
        choices.append(choice)
    return table, choices
