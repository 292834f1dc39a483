"""Few signed digits: sums of up to four powers of two, a common factor last, controls straight from the index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from amaranth import Module, Value, unsigned
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange
from ..gateware.digits import signed_digits
from ..gateware.lane_cost import row_bits, row_cost
from ..gateware.lanes import TABLE_BITS, by_address, complemented_range, fill, lookup, multiple
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..gateware.shifter import Shifter, odd_and_shift, stage_uses
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network import Codebook
from ..network.tensor import Ints
from ..paths import counted_paths
from ..remembered import kept_view, once_per_codebook

MAX_DIGITS = 4
"""Signed digits of a value, without what all values have in common."""

MAX_ODDS = 8
"""Odd multiples in a row; with more of them every product may as well be formed (shared-products)."""

Bit = frozenset[object]
"""A bit as the inputs that it is a function of."""

NONE: Bit = frozenset()
"""The bit 0."""


class SignedDigits(MacUnit):
    """As shift-add, in fewer luts and with one register less: what a lane does is read off the bits of its index.

    A value is ``factor * sign * odd * 2**shift``. The odd multiples (1; 3, 5, 11, ...) are sums of shifted copies of an
    activation, formed once for all outputs; a lane selects one, shifts it and complements it. The dictionary's order is
    chosen so that sign and shift are bits of the index as far as they go, and needs neither luts nor registers to be
    decoded. The odd part of what all values have in common is multiplied into the finished sums.
    """

    name = "signed-digits"
    needs = "a dictionary whose values are sums of at most four signed powers of two"
    spreads = True

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        if codebook.table is not None:
            return "signed-digits needs a dictionary, not a product table"
        values = codebook.dictionary[0].tolist()
        factor = common_factor(values)
        for value in values:
            if len(signed_digits(value // factor)) > MAX_DIGITS:
                return f"signed-digits needs dictionary values of at most {MAX_DIGITS} signed digits, not {value}"
        odds = {odd_and_shift(value // factor)[0] for value in values} - {0}
        if len(odds) > MAX_ODDS:
            return f"signed-digits needs at most {MAX_ODDS} different odd multiples, not {len(odds)}"
        if not odds:
            return "signed-digits needs a dictionary value other than 0"
        return None

    @classmethod
    def view(cls, weights: Codebook) -> Codebook:
        return by_shift(weights)

    @cached_property
    def factor(self) -> int:
        """What the finished sums are multiplied by."""
        return common_factor(self.codebook.dictionary[0].tolist())

    @cached_property
    def values(self) -> list[int]:
        """Dictionary without the factor."""
        return [value // self.factor for value in self.codebook.dictionary[0].tolist()]

    @property
    def row_register(self) -> bool:
        """Whether a row needs adders, and so a register."""
        return self.x_bits > TABLE_BITS and any(odd > 1 for odd in self.shifter.odds)

    @property
    def latency(self) -> int:
        return array_latency(self.simd, row_register=self.row_register, factor=self.factor)

    @cached_property
    def term(self) -> TermRange:
        """Range of a complemented product without the zeros that all products end in.

        With ``offset`` a complement has neither its + 1 nor sign bits: it is larger than the product by a constant.
        """
        exact = complemented_range(self, self.factor)
        if not self.offset or self.x_signed:
            return exact
        largest = max(map(abs, self.values)) * int(self.levels[-1]) >> exact.zeros
        return TermRange(0, (1 << largest.bit_length()) - 1, exact.zeros)

    @property
    @once_per_codebook
    def excess(self) -> Ints:
        if self.x_signed:
            return super().excess
        unit = self if self.offset else replace(self, offset=True)
        sign = np.array(unit.controls.get("sign", [int(value < 0) for value in self.values]))
        if unit.clears:
            sign = sign * (np.array(self.values) != 0)
        return sign * (unit.term.high * self.factor << unit.term.zeros)

    @cached_property
    def shifter(self) -> Shifter:
        """What a lane does for each index."""
        return Shifter(self.values, self.term.zeros)

    @cached_property
    def controls(self) -> dict[str, list[int]]:
        """`Shifter.controls`, bits of the index where that can be."""
        nothing = [value == 0 for value in self.values]
        # A closed gate may be shifted and complemented as well: -0 is 0.
        bits = {name: column if name == "nonzero" or (name == "sign" and min(self.values) >= 0)
                else by_index_bit(column, nothing) for name, column in self.shifter.controls.items()}
        return {name: column for name, column in bits.items() if len(set(column)) > 1}

    @property
    @once_per_codebook
    def clears(self) -> bool:
        """Whether the product of 0 is the reset of the register behind a lane: a gate takes an input of every first stage.

        Behind a gate two stages of shifts are three luts deep, and what synthesis does to make them two costs luts. That
        depends on LUT4 only, whatever the family: the hardware is one.
        """
        if "nonzero" not in self.controls or self.x_bits < 3:
            return False  # a narrow activation's gate finds room in the luts behind it
        with counted_paths():  # of which one is not taken
            return self.lane_luts(4, True) - self.lane_luts(4, False) < (len(self.shifter.stages) > 1)

    def lane_luts(self, lut_inputs: int, clears: bool) -> float:
        """Luts of a lane: its controls where they are no bits of the index, gate, shifts, complement.

        The smallest of three ways to see it: stage after stage, every bit from the raw index, or a table.
        """
        logic = Logic(lut_inputs)
        index = [logic.input(("index", bit)) for bit in range(self.index_bits)]
        bits = {name: logic.tree(fill(column, self.index_bits), index) for name, column in self.controls.items()}
        if clears:
            reset = bits.pop("nonzero")
            value = self.shifter.logic(logic, bits, self.levels, self.term.bits)
            return min(self._staged_luts(lut_inputs, clears), logic.luts([*value, reset]))
        value = self.shifter.logic(logic, bits, self.levels, self.term.bits)
        return min(self._staged_luts(lut_inputs, clears), logic.luts(value), self._table_luts(lut_inputs))

    def _table_luts(self, lut_inputs: int) -> float:
        """Luts of a lane where index and activation have at most one bit more than a lut has inputs: two for each bit."""
        inputs = self.x_bits + self.index_bits
        if inputs > lut_inputs + 1:
            return math.inf
        negative = np.array([value < 0 for value in self.values])
        terms = self.levels[:, None] * (abs(np.array(self.values)) >> self.term.zeros) ^ -negative.astype(int)
        words = np.array(by_address(self, terms))
        luts = 0
        for function in {tuple(words >> bit & 1) for bit in range(self.term.bits)}:
            cube = np.reshape(function, [2] * inputs)
            support = sum(bool((np.take(cube, 0, axis) != np.take(cube, 1, axis)).any()) for axis in range(inputs))
            luts += (support > 1) + (support > lut_inputs)
        return luts

    def _staged_luts(self, lut_inputs: int, clears: bool) -> int:
        """Luts of a lane, stage after stage."""
        codes = range(1 << self.index_bits)
        raw = {tuple(code >> bit & 1 ^ flip for code in codes): bit for bit in range(self.index_bits) for flip in (0, 1)}
        columns = {name: tuple(fill(column, self.index_bits)) for name, column in self.controls.items()}
        stages = Stages(lut_inputs)
        # Two bits of the index are as good as what is found from them.
        whole = frozenset(("index", bit) for bit in range(self.index_bits)) if self.index_bits <= 2 else NONE
        bits = {name: frozenset([("index", raw[column])]) if column in raw else whole or frozenset([name])
                for name, column in columns.items()}
        width = self.term.bits
        logic = Logic()
        rows = [[frozenset([bit]) if bit > 1 else NONE for bit in row_bits(logic, self.levels * odd, width)]
                for odd in self.shifter.odds]
        place = [bit for name, bit in bits.items() if name.startswith("odd")]
        rows = [rows[n] for n in fill(range(len(rows)), len(place))]
        for control in place:
            rows = [stages.mux(control, high, low) for low, high in zip(rows[::2], rows[1::2], strict=True)]
        value = rows[0]
        if "nonzero" in bits and not clears:
            value = stages.mux(bits["nonzero"], value, [NONE] * width)
        for stage, shift in enumerate(self.shifter.stages):
            if f"shift{stage}" in bits:
                value = stages.mux(bits[f"shift{stage}"], ([NONE] * shift + value)[:width], value)
        if "sign" in bits:
            value = stages.join(bits["sign"], value)
        decode = Logic(lut_inputs)
        index = [decode.input(bit) for bit in range(self.index_bits)]
        found = [decode.tree(column, index) for name, column in columns.items()
                 if column not in raw and (not whole or (clears and name == "nonzero"))]
        return stages.luts(value) + decode.luts(found)

    @once_per_codebook
    def lane_cost(self) -> Cost:
        """Cells of a lane."""
        return Cost(luts=self.lane_luts(self.family.lut_inputs, self.clears), ffs=self.term.carries)

    @once_per_codebook
    def row_cost(self) -> Cost:
        """Cells of one activation's odd multiples."""
        odds = self.shifter.odds
        return row_cost(self, [self.levels * odd for odd in odds], odds, self.term.bits, registered=self.row_register)

    def cost(self) -> Cost:
        lane = self.lane_cost() + Cost(ffs=self.index_bits * self.row_register)
        return array_cost(self, self.term, row=self.row_cost(), lane=lane, factor=self.factor)

    def create(self) -> wiring.Component:
        return SignedDigitsArray(self)


class Stages:
    """Luts of a chain of two-way multiplexers over words, a stage after the other.

    A stage goes into the luts of the one before where the inputs suffice; `Logic` would rather see through to all inputs.
    """

    def __init__(self, lut_inputs: int):
        self.lut_inputs = lut_inputs
        self.known: dict[Bit, Bit] = {}

    def join(self, control: Bit, *words: Sequence[Bit]) -> list[Bit]:
        """Bit by bit a function of ``control`` and of the words."""
        for bits in zip(*words, strict=True):
            if len(control.union(*bits)) > self.lut_inputs:
                for bit in bits:
                    if len(bit) > 1:
                        self.known.setdefault(bit, frozenset([("lut", len(self.known))]))
        # What is a lut for one reader is one for all.
        return [control.union(*(self.known.get(bit, bit) for bit in bits)) for bits in zip(*words, strict=True)]

    def mux(self, control: Bit, high: Sequence[Bit], low: Sequence[Bit]) -> list[Bit]:
        """A word or another."""
        joined = self.join(control, high, low)
        return [a if a == b else both for a, b, both in zip(high, low, joined, strict=True)]

    def luts(self, outputs: Sequence[Bit]) -> int:
        """Luts of everything that was cut off on the way, and of the outputs."""
        return len(self.known) + len({bit for bit in outputs if len(bit) > 1} - self.known.keys())


def common_factor(values: Sequence[int]) -> int:
    """Odd part of the greatest common divisor; 1 of zeros."""
    divisor = math.gcd(*values) or 1
    return divisor // (divisor & -divisor)


def by_index_bit(column: list[int], free: list[bool]) -> list[int]:
    """``column`` with those that are ``free`` chosen so that it is a bit of the index, if it can be."""
    if not all(free):
        for bit in range((len(column) - 1).bit_length()):
            for flip in (0, 1):
                wanted = [(n >> bit & 1) ^ flip for n in range(len(column))]
                if all(anything or a == b for a, b, anything in zip(column, wanted, free, strict=True)):
                    return wanted
    return column


@kept_view
def by_shift(weights: Codebook) -> Codebook:
    """``weights.flat`` with the sign in the highest bit of the index and the shift in the lowest, as far as they go.

    Where a bit of the index is a control of the lane, no lut has to find it. Numbers that are left name an entry again.
    """
    flat = weights.flat
    if flat.table is not None or flat.entries < 2:
        return flat
    values = flat.dictionary[0].tolist()
    factor = common_factor(values)
    zeros = min((shift for odd, shift in map(odd_and_shift, values) if odd), default=0)
    shifter = Shifter([value // factor for value in values], zeros)
    half = 1 << flat.index_bits - 1
    places: list[int | None] = [None for _ in range(2 * half)]
    # Zero goes last, to what is left: its controls are those of a shift with the gate closed.
    for entry in sorted(range(len(values)), key=lambda entry: (values[entry] == 0, abs(values[entry]))):
        odd, shift = shifter.parts[entry]
        (use,) = stage_uses(shifter.stages, [shift])
        which = shifter.odds.index(odd) if odd else 0
        wanted = sum(bit << n for n, bit in enumerate((*use, which)))
        begin = half if values[entry] < 0 else 0
        free = [begin + wanted % half, *range(begin, begin + half), *range(2 * half)]
        places[next(place for place in free if places[place] is None)] = entry
    return flat.reordered([entry if entry is not None else places[place ^ half] or 0 for place, entry in enumerate(places)])


class SignedDigitsArray(MacArray):
    """The array of `SignedDigits`."""

    def __init__(self, unit: SignedDigits):
        super().__init__(unit, unit.term, row_register=unit.row_register, factor=unit.factor)
        self.digits, self.clears = unit, unit.clears

    def row(self, m: Module, t: int, *activations: Value) -> Sequence[Value]:
        (x,) = activations
        return [x if odd == 1 else multiple(x, odd) for odd in self.digits.shifter.odds]

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        bits = {key: lookup(controls, column, unsigned(1)) for key, column in self.digits.controls.items()}
        return self.digits.shifter.lane(m, name, row, bits, self.term, clears=self.clears)
