"""What the combinational parts of lanes cost, from their tables: see `logic_estimate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..cost import Cost
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network.tensor import Ints
from ..paths import Path, counted_paths, note_paths
from .digits import adder_luts, signed_digits
from .lanes import TABLE_BITS, fill

REWRITING = 1.25
"""What ABC takes for functions of index and activation, for each LUT4 that a packed decision diagram takes."""

FOUR_WAY = 0.85
"""The same for a selection from unrelated table columns: ABC knows the multiplexer of four in two LUT4."""


class Choice(NamedTuple):
    """One of several ways to make the same, counted before anybody knows whether it is taken."""

    luts: int
    paths: list[Path]

    @classmethod
    def of(cls, count: Callable[[], int]) -> Choice:
        """What ``count`` counts, without noting its paths."""
        with counted_paths() as paths:
            return cls(count(), paths)


def table_logic(words: Sequence[int], x_bits: int, index_bits: int, width: int, lut_inputs: int = 4) -> int:
    """Luts of a function of index and activation: the better of two decision diagrams, activation first or index first.

    ``words`` are given by address, the activation's code in the low bits.
    """
    counts: list[tuple[int, list[Path]]] = []
    for x_first in (True, False):
        logic = Logic(lut_inputs)
        x = [logic.input(f"x{bit}") for bit in range(x_bits)]
        index = [logic.input(f"k{bit}") for bit in range(index_bits)]
        table = np.array(words).reshape(-1, 1 << x_bits)
        table = (table if x_first else table.T).reshape(-1)
        order = [*x, *index] if x_first else [*index, *x]
        with counted_paths() as paths:
            counts.append((logic.luts([logic.table((table >> bit & 1).tolist(), order) for bit in range(width)]), paths))
    luts, paths = min(counts, key=lambda entry: entry[0])
    note_paths(paths)
    return round(REWRITING * luts)


def row_bits(logic: Logic, column: Ints, width: int) -> list[int]:
    """Bits of a row's value as inputs of a network, one input for all that are the same function of the activation.

    ``column`` holds the value for every activation.
    """
    bits = []
    for bit in range(width):
        function = (column >> bit & 1).astype(bool)
        bits.append(int(function[0]) if function.all() or not function.any() else logic.input(function.tobytes()))
    return bits


def row_cost(unit: MacUnit, columns: Sequence[Ints], factors: Sequence[int], width: int, *, registered: bool) -> Cost:
    """Cells that form a row: a lut for each bit that is not one of the activation's, or adders.

    ``factors`` are what the columns multiply by, if the activation is too wide for look-ups.
    """
    codes = unit.levels & (1 << unit.x_bits) - 1
    plain = {(codes >> bit & 1).astype(bool).tobytes() for bit in range(unit.x_bits)}
    seen: set[bytes] = set()
    luts = adders = adder_bits = 0
    for number, column in enumerate(columns):
        bits = {(column >> bit & 1).astype(bool).tobytes() for bit in range(width)}
        bits = {bit for bit in bits if 0 < bit.count(1) < len(bit)}
        if unit.x_bits <= TABLE_BITS:
            luts += len(bits - seen - plain)
        else:
            behind = max(0, len(signed_digits(factors[number])) - 1)
            if behind:
                # Synthesis adds more than two numbers up without a carry, a lut for each number more, and then once with one.
                note_paths([Path(levels=behind - 1, adders=1, bits=len(bits))])
            adders += behind
            adder_bits += adder_luts(factors[number], len(bits))
        seen |= bits
    return Cost(luts=luts + adder_bits, ffs=len(seen) if registered else 0, adder_bits=adder_bits, adders=adders)


def select_logic(columns: Sequence[Ints], place: Sequence[int], index_bits: int, width: int,
                 signs: Sequence[int] | None = None, lut_inputs: int = 4) -> int:
    """Luts of a lane that selects from a row (`lanes.select`) and complements where ``signs`` has a 1."""
    logic = Logic(lut_inputs)
    rows = [row_bits(logic, column, width) for column in columns]
    index = [logic.input(bit) for bit in range(index_bits)]
    steer = index
    steer_bits = (len(rows) - 1).bit_length()
    if steer_bits < index_bits:
        numbers = fill(place, index_bits)
        steer = [logic.tree([number >> bit & 1 for number in numbers], index) for bit in range(steer_bits)]
        place = range(len(rows))
    order = fill(place, len(steer))
    outputs = [logic.table([bits[n] for n in order], steer) for bits in zip(*rows, strict=True)]
    if signs is not None:
        sign = logic.tree(fill(signs, index_bits), index)
        outputs = [*(logic.xor(sign, bit) for bit in outputs), sign]
    return logic.luts(outputs)


def selection_cost(unit: MacUnit, row: Cost, selection: Choice, function: Choice | None) -> tuple[Cost, Cost]:
    """``(lane, row)`` of an array that selects from rows, or computes each lane from index and activation.

    Yosys sees through a row that is not registered (``function`` given), and forgets it where that is smaller. A row of
    table columns for one output only is forgotten anyway.
    """
    table = unit.codebook.table is not None
    select = round(FOUR_WAY * selection.luts) if table else selection.luts
    shared = unit.pe // unit.spread
    if function is not None and (function.luts <= select + row.luts / shared or (table and shared == 1)):
        note_paths(function.paths)
        return Cost(luts=function.luts), Cost(ffs=row.ffs)
    note_paths(selection.paths)
    return Cost(luts=select), row
