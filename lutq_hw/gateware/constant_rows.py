"""Constant multiples of an activation, and look-ups by index: the combinational parts of the lanes."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Array, Const, Value, signed, unsigned

from ..network.tensor import signed_bits

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
    low = -(1 << shape.width - 1) if shape.signed else 0
    levels = range(low, low + (1 << shape.width))
    bits = signed_bits(min(level * factor for level in levels), max(level * factor for level in levels))
    digits = signed_digits(factor)
    if len(digits) > 1 and shape.width <= TABLE_BITS:
        return lookup(x, [level * factor for level in [*levels[-low:], *levels[:-low or None]]][:1 << shape.width], signed(bits))
    total: Value = Const(0, signed(1))
    for sign, shift in digits:
        total = total + (x << shift) if sign > 0 else total - (x << shift)
    return total[:bits].as_signed() if len(total) >= bits else total


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


def select(index: Value, values: Sequence[Value]) -> Value:
    """One of the values in logic; ``values`` may be fewer than the addresses."""
    order = fill(range(len(values)), len(index))
    return Value.cast(Array(values[n] for n in order)[index])
