"""Constant multiples of an activation, and look-ups by index: the combinational parts of the lanes."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Array, Const, Mux, Value, signed, unsigned

from ..cost import Cost
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network.tensor import Ints, signed_bits
from .accumulate import TermRange

TABLE_BITS = 4
"""Activations up to this width: a function of one is a LUT4 for each bit of the result. Wider ones need adders."""


def signed_digits(value: int) -> list[tuple[int, int]]:
    """``(sign, shift)`` of the fewest powers of two whose sum is ``value`` (non-adjacent form), lowest first."""
    digits = []
    shift = 0
    while value:
        if value & 1:
            sign = 2 - (value & 3)
            digits.append((sign, shift))
            value -= sign
        value >>= 1
        shift += 1
    return digits


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
    for sign, shift in digits:
        total = (total + (x << shift) if sign > 0 else total - (x << shift))[:bits].as_signed()
    return total


def column(x: Value, entries: Sequence[int], shape) -> Value:
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


def lookup(index: Value, entries: Sequence[int], shape) -> Value:
    """Entry of a table in logic; ``entries`` may be fewer than the addresses."""
    filled = fill(entries, len(index))
    return Value.cast(Array(Const(entry, shape) for entry in filled)[index.as_unsigned()])


def select(index: Value, values: Sequence[Value], place: Sequence[int]) -> Value:
    """``values[place[index]]`` as a tree of multiplexers, steered by a shorter number where many entries share few values."""
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


def exact_range(unit: MacUnit) -> TermRange:
    """Range of a unit's products."""
    zeros = _zeros(unit.products.reshape(-1).tolist())
    return TermRange(int(unit.products.min() >> zeros), int(unit.products.max() >> zeros), zeros)


def complemented_range(unit: MacUnit) -> TermRange:
    """Range of ``|d| * x``, complemented for a negative value d, of a unit with a dictionary."""
    values = unit.codebook.dictionary[0]
    zeros = _zeros(values.tolist())
    negative = values < 0
    terms = unit.levels[:, None] * (abs(values) >> zeros)[None, :] ^ -negative.astype(int)[None, :]
    return TermRange(int(terms.min()), int((unit.products >> zeros).max()), zeros, carries=bool(negative.any()))


def row_bits(logic: Logic, column: Ints, width: int) -> list[int]:
    """Bits of a row's value as inputs of a network, the same input for bits that are the same function of the activation.

    ``column`` holds the value for every activation.
    """
    bits = []
    for bit in range(width):
        function = (column >> bit & 1).astype(bool)
        bits.append(int(function[0]) if function.all() or not function.any() else logic.input(function.tobytes()))
    return bits


def row_cost(unit: MacUnit, columns: Sequence[Ints], digits: Sequence[int], width: int, *, registered: bool) -> Cost:
    """Cells that form a row: a LUT4 for each bit that is not one of the activation's, or an adder bit.

    ``digits`` are the signed digits of each column's factor, used where the activation is too wide for look-ups.
    """
    codes = unit.levels & (1 << unit.x_bits) - 1
    plain = {(codes >> bit & 1).astype(bool).tobytes() for bit in range(unit.x_bits)}
    seen: set[bytes] = set()
    luts = 0
    for column, count in zip(columns, digits, strict=True):
        bits = {(column >> bit & 1).astype(bool).tobytes() for bit in range(width)}
        bits = {bit for bit in bits if 0 < bit.count(1) < len(bit)}
        luts += len(bits - seen - plain) if unit.x_bits <= TABLE_BITS else max(0, count - 1) * len(bits)
        seen |= bits
    return Cost(luts=luts, ffs=len(seen) if registered else 0)
