"""Constant multiples of an activation, and look-ups by index: the combinational parts of lanes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth import Cat, Const, Mux, Shape, Value, signed, unsigned

from ..mac import MacUnit
from ..network.tensor import Ints, signed_bits
from ..remembered import once_per_codebook
from .accumulate import TermRange
from .digits import signed_digits

TABLE_BITS = 4
"""Activations up to this width: a function of one is a LUT4 for each bit of the result. Wider ones need adders."""


def multiple(x: Value, factor: int) -> Value:
    """``x * factor`` in shifts and adders, or as a look-up where ``x`` is narrow; never a multiplier."""
    shape = x.shape()
    levels = range(-(1 << shape.width - 1), 1 << shape.width - 1) if shape.signed else range(1 << shape.width)
    products = [level * factor for level in levels]
    bits = signed_bits(min(0, *products), max(products))
    digits = signed_digits(factor)
    if len(digits) > 1 and shape.width <= TABLE_BITS:
        return column(x, products, signed(bits))
    total: Value = Const(0, signed(bits))
    for number, (sign, shift) in enumerate(reversed(digits)):
        moved = x << shift
        total = moved if number == 0 and sign > 0 else total + moved if sign > 0 else total - moved
        total = total[:bits].as_signed() if len(total) > bits else total
    return total


def column(x: Value, entries: Sequence[int], shape: Shape) -> Value:
    """Function of an activation, given for its values in ascending order."""
    half = len(entries) // 2 if x.shape().signed else 0
    return lookup(x, [*entries[half:], *entries[:half]], shape)


def fill(entries: Sequence[int], bits: int) -> list[int]:
    """``entries`` for all ``2**bits`` addresses: one that never occurs does what it does without its highest bits."""
    filled = list(entries)
    for address in range(len(filled), 1 << bits):
        while address >= len(entries):
            address &= ~(1 << address.bit_length() - 1)
        filled.append(entries[address])
    return filled


def by_address(unit: MacUnit, table: Ints) -> list[int]:
    """Words of a memory that holds ``table (L, K)``: the activation's code is the low part of the address."""
    words = np.empty_like(table)
    words[unit.levels & (1 << unit.x_bits) - 1] = table
    return fill(words.T.reshape(-1).tolist(), unit.index_bits + unit.x_bits)


def lookup(index: Value, entries: Sequence[int], shape: Shape) -> Value:
    """Entry of a table in logic; ``entries`` may be fewer than the addresses.

    A tree of multiplexers, every distinct one once: from a case statement Yosys would make a block RAM.
    """
    words = fill([entry & (1 << shape.width) - 1 for entry in entries], len(index))
    zero, one = Const(0, 1), Const(1, 1)
    known: dict[tuple[int, int, int], Value] = {}
    bits = []
    for bit in range(shape.width):
        level: list[Value] = [one if word >> bit & 1 else zero for word in words]
        for number, steer in enumerate(index.as_unsigned()):
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [low if low is high else known.setdefault((number, id(high), id(low)), Mux(steer, high, low))
                     for low, high in pairs]
        bits.append(level[0])
    return Cat(bits).as_signed() if shape.signed else Cat(bits)


def select(index: Value, values: Sequence[Value], place: Sequence[int]) -> Value:
    """``values[place[index]]`` as a tree of multiplexers, steered by a shorter number where entries share values."""
    bits = (len(values) - 1).bit_length()
    if bits < len(index):
        index, place = lookup(index, place, unsigned(bits)), range(len(values))
    level = [values[place[n]] for n in fill(range(len(place)), len(index))]
    for bit in index:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [low if low is high else Mux(bit, high, low) for low, high in pairs]
    return level[0]


def _zeros(values: Sequence[int]) -> int:
    """Zeros that all values end in."""
    union = 0
    for value in values:
        union |= abs(value)
    return max(0, (union & -union).bit_length() - 1)


@once_per_codebook
def exact_range(unit: MacUnit) -> TermRange:
    """Range of a unit's products."""
    zeros = _zeros(unit.products.reshape(-1).tolist())
    return TermRange(int(unit.products.min() >> zeros), int(unit.products.max() >> zeros), zeros)


@once_per_codebook
def complemented_range(unit: MacUnit, factor: int = 1) -> TermRange:
    """Range of ``|d| * x``, complemented for a negative value d of a unit's dictionary, which is divided by ``factor``."""
    values = unit.codebook.dictionary[0] // factor
    zeros = _zeros(values.tolist())
    negative = values < 0
    terms = unit.levels[:, None] * (abs(values) >> zeros)[None, :] ^ -negative.astype(int)[None, :]
    highest = int((unit.products // factor >> zeros).max())
    return TermRange(int(terms.min()), highest, zeros, carries=bool(negative.any()))
