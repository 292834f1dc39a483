"""Shifts and adders only: for dictionaries of powers of two and sums of two powers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from amaranth import Cat, Module, Value, unsigned
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange
from ..gateware.digits import signed_digits
from ..gateware.lane_cost import row_cost
from ..gateware.lanes import complemented_range, fill, lookup, multiple
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..gateware.shifter import Shifter
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network import Codebook
from ..remembered import once_per_codebook


class ShiftAdd(MacUnit):
    """Every lane shifts an odd multiple of its activation as its index says, and complements it for a negative value.

    A value is ``sign * odd * 2**shift``. The odd multiples (1; 3, 5, 7, … of sums of two powers) are formed once for
    each activation. A negative product is the complement plus a carry, which the adders behind take for nothing.
    """

    name = "shift-add"
    needs = "a dictionary of 0, ±2^s and ±2^s ± 2^t"
    spreads = True

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
        return array_latency(self.simd, row_register=True)

    @cached_property
    def term(self) -> TermRange:
        """Range of a complemented product without the zeros that all products end in."""
        return complemented_range(self)

    @cached_property
    def shifter(self) -> Shifter:
        """What a lane does for each index."""
        return Shifter(self.codebook.dictionary[0].tolist(), self.term.zeros)

    @once_per_codebook
    def lane_cost(self) -> Cost:
        """Cells of the controls of a lane and of its gate and shifts, as packed by `Logic`."""
        controls = self.shifter.controls
        logic, decode = Logic(self.family.lut_inputs), Logic(self.family.lut_inputs)
        value = self.shifter.logic(logic, {name: logic.input(name) for name in controls}, self.levels, self.term.bits)
        index = [decode.input(bit) for bit in range(self.index_bits)]
        found = [decode.tree(fill(column, self.index_bits), index) for column in controls.values()]
        return Cost(luts=logic.luts(value) + decode.luts(found), ffs=len(controls))

    @once_per_codebook
    def row_cost(self) -> Cost:
        """Cells of one activation's odd multiples."""
        odds = self.shifter.odds
        return row_cost(self, [self.levels * odd for odd in odds], odds, self.term.bits, registered=True)

    def cost(self) -> Cost:
        return array_cost(self, self.term, row=self.row_cost(), lane=self.lane_cost())

    def create(self) -> wiring.Component:
        return ShiftAddArray(self)


class ShiftAddArray(MacArray):
    """The array of `ShiftAdd`: rows and controls, register, gate and shift, register, sums."""

    def __init__(self, unit: ShiftAdd):
        super().__init__(unit, unit.term, row_register=True)
        self.shifter = unit.shifter

    def row(self, m: Module, t: int, *activations: Value) -> Sequence[Value]:
        (x,) = activations
        return [x if odd == 1 else multiple(x, odd) for odd in self.shifter.odds]

    def controls(self, index: Value) -> Value:
        return Cat(lookup(index, column, unsigned(1)) for column in self.shifter.controls.values())

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        bits = dict(zip(self.shifter.controls, controls, strict=True))
        return self.shifter.lane(m, name, row, bits, self.term)
