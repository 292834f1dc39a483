"""Shifts and adders only: for dictionaries of powers of two and sums of two powers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from amaranth import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange
from ..gateware.lanes import TABLE_BITS, complemented_range, lookup, multiple, select, signed_digits
from ..gateware.mac_array import MacArray, Term, array_latency
from ..mac import MacUnit
from ..network import Codebook


class ShiftAdd(MacUnit):
    """Every lane shifts an odd multiple of its activation as its index says, and complements it for a negative value.

    A value is ``sign * odd * 2**shift``. The odd multiples (1; 3, 5, 7, … of sums of two powers) are formed once for each
    activation. A negative product is the complement plus a carry, which the adders behind take for nothing.
    """

    name = "shift-add"

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        if codebook.table is not None:
            return "shift-add needs a dictionary, not a product table"
        for value in codebook.dictionary.reshape(-1).tolist():
            if len(signed_digits(value)) > 2:
                return f"shift-add needs dictionary values 0, ±2^s or ±2^s ± 2^t, not {value}"
        return None

    @property
    def latency(self) -> int:
        return array_latency(self.simd, row_register=self.row_register)

    @cached_property
    def shifts(self) -> list[int]:
        """Shift of every entry, 0 for the zero entry."""
        return [max(0, (value & -value).bit_length() - 1) for value in self.codebook.dictionary[0].tolist()]

    @cached_property
    def odds(self) -> list[int]:
        """Odd magnitude of every entry, 0 for the zero entry."""
        return [abs(value) >> shift for value, shift in zip(self.codebook.dictionary[0].tolist(), self.shifts, strict=True)]

    @property
    def row_register(self) -> bool:
        """Whether the odd multiples need adders, and so a register."""
        return self.x_bits > TABLE_BITS and max(self.odds) > 1

    @cached_property
    def term(self) -> TermRange:
        """Range of a complemented product without the zeros that all products end in."""
        return complemented_range(self)

    def cost(self) -> Cost:
        return Cost()

    def create(self) -> wiring.Component:
        return ShiftAddArray(self)


class ShiftAddArray(MacArray):
    """The array of `ShiftAdd`."""

    def __init__(self, unit: ShiftAdd):
        super().__init__(unit, unit.term, row_register=unit.row_register)
        self.distinct = sorted({odd for odd in unit.odds if odd}) or [0]
        self.shift_add = unit

    def row(self, m: Module, s: int, x: Value) -> Sequence[Value]:
        return [multiple(x, odd) if odd > 1 else x for odd in self.distinct]

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], index: Value) -> Term:
        unit = self.shift_add
        zeros = self.term.zeros
        shifts = [max(0, shift - zeros) for shift in unit.shifts]
        which = [self.distinct.index(odd) if odd else 0 for odd in unit.odds]
        negative = [int(value < 0) for value in unit.codebook.dictionary[0]]
        value = select(index, [row[n] for n in which]) if len(row) > 1 else row[0]
        if 0 in unit.odds:
            value = Mux(lookup(index, [int(odd != 0) for odd in unit.odds], unsigned(1)), value, 0)
        for bit in range(max(shifts).bit_length()):
            value = Mux(lookup(index, [shift >> bit & 1 for shift in shifts], unsigned(1)), value << (1 << bit), value)
        wide = Signal(signed(self.term.bits), name=name)
        m.d.comb += wide.eq(value)
        if not self.term.carries:
            return Term(wide)
        sign = lookup(index, negative, unsigned(1))
        return Term(wide ^ sign.replicate(self.term.bits), sign)
