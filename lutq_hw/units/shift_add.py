"""Shifts and adders only: for dictionaries of powers of two and sums of two powers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from functools import cached_property

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange
from ..gateware.digits import signed_digits
from ..gateware.lane_cost import row_bits, row_cost
from ..gateware.lanes import complemented_range, fill, lookup, multiple, select
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency, once_per_codebook
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network import Codebook


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
    def odds(self) -> list[int]:
        """The odd multiples in the row of an activation."""
        return sorted({odd for odd, _ in map(odd_and_shift, self.codebook.dictionary[0].tolist()) if odd}) or [0]

    @cached_property
    def stages(self) -> tuple[int, ...]:
        """What the stages of the shifter shift by."""
        parts = map(odd_and_shift, self.codebook.dictionary[0].tolist())
        return shift_stages(frozenset(shift - self.term.zeros for odd, shift in parts if odd))

    @cached_property
    def controls(self) -> dict[str, list[int]]:
        """Control bits of a lane for every index: ``odd`` number in the row, ``nonzero``, ``shift`` stages, ``sign``.

        Bits that are the same for every index are left out.
        """
        values = self.codebook.dictionary[0].tolist()
        parts = [odd_and_shift(value) for value in values]
        which = [self.odds.index(odd) if odd else 0 for odd, _ in parts]
        shifts = [shift - self.term.zeros if odd else 0 for odd, shift in parts]
        odd_bits = range((len(self.odds) - 1).bit_length())
        bits = {f"odd{bit}": [number >> bit & 1 for number in which] for bit in odd_bits}
        bits["nonzero"] = [int(value != 0) for value in values]
        uses = stage_uses(self.stages, shifts)
        bits |= {f"shift{stage}": [use[stage] for use in uses] for stage in range(len(self.stages))}
        bits["sign"] = [int(value < 0) for value in values]
        return {name: column for name, column in bits.items() if len(set(column)) > 1}

    @once_per_codebook
    def lane_luts(self) -> int:
        """Luts of the controls of a lane and of its gate and shifts, as packed by `Logic`."""
        logic = Logic(self.family.lut_inputs)
        bits = {name: logic.input(name) for name in self.controls}
        width = self.term.bits
        place = [bit for name, bit in bits.items() if name.startswith("odd")]
        rows = [row_bits(logic, self.levels * odd, width) for odd in self.odds]
        columns = zip(*(rows[n] for n in fill(range(len(rows)), len(place))), strict=True)
        value = [logic.table(column, place) for column in columns]
        if "nonzero" in bits:
            value = [logic.mux(bits["nonzero"], bit, 0) for bit in value]
        for name, control in bits.items():
            if name.startswith("shift"):
                moved = [0] * self.stages[int(name.removeprefix("shift"))] + value
                value = [logic.mux(control, high, low) for high, low in zip(moved, value, strict=False)]
        value = [logic.xor(bits.get("sign", 0), bit) for bit in value]
        decode = Logic(self.family.lut_inputs)
        index = [decode.input(bit) for bit in range(self.index_bits)]
        controls = [decode.tree(fill(column, self.index_bits), index) for column in self.controls.values()]
        return logic.luts(value) + decode.luts(controls)

    @once_per_codebook
    def row_cost(self) -> Cost:
        """Cells of one activation's odd multiples."""
        columns = [self.levels * odd for odd in self.odds]
        return row_cost(self, columns, self.odds, self.term.bits, registered=True)

    def cost(self) -> Cost:
        lane = Cost(luts=self.lane_luts(), ffs=len(self.controls))
        return array_cost(self, self.term, row=self.row_cost(), lane=lane)

    def create(self) -> wiring.Component:
        return ShiftAddArray(self)


def odd_and_shift(value: int) -> tuple[int, int]:
    """``(odd, shift)`` with ``abs(value) == odd << shift``; ``(0, 0)`` for 0."""
    shift = max(0, (value & -value).bit_length() - 1)
    return abs(value) >> shift, shift


def stage_uses(stages: tuple[int, ...], shifts: Sequence[int]) -> list[tuple[int, ...]]:
    """Which stages make each of the shifts, as 0 and 1."""
    sums = {sum(itertools.compress(stages, use)): use for use in itertools.product((0, 1), repeat=len(stages))}
    return [sums[shift] for shift in shifts]


@functools.cache
def shift_stages(shifts: frozenset[int]) -> tuple[int, ...]:
    """The fewest stages, and among these the smallest, that can make all the shifts."""
    largest = max(shifts, default=0)
    for count in range(4):
        for stages in sorted(itertools.combinations_with_replacement(range(1, largest + 1), count), key=sum):
            if shifts <= {sum(itertools.compress(stages, use)) for use in itertools.product((0, 1), repeat=count)}:
                return stages
    return tuple(1 << bit for bit in range(largest.bit_length()))


class ShiftAddArray(MacArray):
    """The array of `ShiftAdd`: rows and controls, register, gate and shift, register, sums."""

    def __init__(self, unit: ShiftAdd):
        super().__init__(unit, unit.term, row_register=True)
        self.shift_add = unit

    def row(self, m: Module, t: int, *activations: Value) -> Sequence[Value]:
        (x,) = activations
        return [x if odd == 1 else multiple(x, odd) for odd in self.shift_add.odds]

    def controls(self, index: Value) -> Value:
        return Cat(lookup(index, column, unsigned(1)) for column in self.shift_add.controls.values())

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        unit = self.shift_add
        bits = dict(zip(unit.controls, controls, strict=True))
        place = Cat(bit for key, bit in bits.items() if key.startswith("odd"))
        value = select(place, row, range(len(row)))
        if "nonzero" in bits:
            value = Mux(bits["nonzero"], value, 0)
        for key, bit in bits.items():
            if key.startswith("shift"):
                value = Mux(bit, value << unit.stages[int(key.removeprefix("shift"))], value)
        negative = unit.codebook.dictionary[0] < 0
        sign = bits.get("sign", Const(int(negative.all()), 1))
        wide = Signal(signed(unit.term.bits), name=name)
        m.d.comb += wide.eq(value)
        if not self.term.carries:
            return Term(wide)
        return Term((wide ^ sign.replicate(len(wide))).as_signed(), sign)
