"""Weights -a and a, and 0: activations are added or subtracted, and the sum is multiplied by a."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from amaranth import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange, spare_carry
from ..gateware.lanes import TABLE_BITS, column, fill, lookup
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network import Codebook
from ..paths import Path, note_paths
from ..remembered import kept_view, once_per_codebook


@kept_view
def by_sign(weights: Codebook) -> Codebook:
    """``weights.flat`` in the order a, 0, -a, -a: a bit of the index is the sign, and no LUT4 has to find it."""
    flat = weights.flat
    if flat.table is not None or flat.entries > 3:
        return flat
    order = sorted(range(flat.entries), key=lambda entry: -int(flat.dictionary[0, entry]))
    return flat.reordered([*order, order[2]] if len(order) == 3 else order)


PAIR_BITS = 2
"""Activations up to this width: a function of two is a LUT4 for each bit."""


class AddSubtract(MacUnit):
    """Adders only: a lane passes its activation, its complement, or nothing.

    The + 1 of a complement is the carry input of an adder behind, and what ``a`` is beyond a power of two is multiplied into
    the finished sums. Where both signs occur and no zero, two lanes work together (`paired`): with several outputs, the sum
    and the difference of two activations are formed once for all of them, and a pair selects one and complements it. That is
    a LUT4 for each bit, where two lanes and their adder take three.

    With activations of 1 bit the sum counts bits: ``a * (2 * popcount(x & b) - popcount(x))`` with b = 1 for the weight a.
    A pair is then a counter of four inputs, with its share of -popcount(x) in the count; behind XNORs and an unsigned
    popcount every output would need an adder to subtract it.
    """

    name = "add-subtract"
    needs = "a dictionary of -a and a, with or without 0"
    spreads = True

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        if codebook.table is not None:
            return "add-subtract needs a dictionary, not a product table"
        values = codebook.dictionary.reshape(-1).tolist()
        if len({abs(value) for value in values} - {0}) != 1 or min(values) >= 0 or max(values) <= 0:
            return f"add-subtract needs dictionary values -a and a, with or without 0, not {sorted(set(values))}"
        return None

    @classmethod
    def view(cls, weights: Codebook) -> Codebook:
        return by_sign(weights)

    @cached_property
    def values(self) -> list[int]:
        """Dictionary, divided by a."""
        return [(value > 0) - (value < 0) for value in self.codebook.dictionary[0].tolist()]

    @property
    def magnitude(self) -> int:
        """The a."""
        return int(abs(self.codebook.dictionary).max())

    @property
    def zeros(self) -> int:
        """Zeros that a ends in."""
        return (self.magnitude & -self.magnitude).bit_length() - 1

    @property
    def factor(self) -> int:
        """What a is beyond a power of two."""
        return self.magnitude >> self.zeros

    @property
    def paired(self) -> bool:
        """Whether two lanes make one term."""
        return set(self.values) == {-1, 1} and self.simd > 1 and (self.pe > self.spread or self.counting)

    @property
    def counting(self) -> bool:
        """Whether a pair is a function of two activations of 1 bit and two indices of 1 bit."""
        return self.x_bits == 1 and self.index_bits == 1 and set(self.values) == {-1, 1}

    @property
    def terms(self) -> int:
        """Terms of an output in a word."""
        return -(-self.simd // 2) if self.paired else self.simd

    @property
    def latency(self) -> int:
        return array_latency(self.terms, factor=self.factor)

    @cached_property
    def term(self) -> TermRange:
        """Range of what a lane or a pair sums, complements without their + 1."""
        low, high = int(self.levels[0]), int(self.levels[-1])
        if self.counting and self.paired:
            return TermRange(-2, 2, self.zeros)
        if self.paired:
            largest = max(2 * high, -2 * low, high - low)
            return TermRange(min(2 * low, -1 - 2 * high, low - high - 1), largest, self.zeros, True)
        return TermRange(min(low, -1 - high), max(high, -low), self.zeros, True)

    @once_per_codebook
    def lane_luts(self) -> tuple[int, int, int]:
        """Luts of a lane, of one that brings no carry, and of a pair."""
        logic = Logic(self.family.lut_inputs)
        keep, sign = self._controls(logic, "k")
        x = [logic.input(f"x{bit}") for bit in range(self.x_bits)]
        value = [logic.mux(keep, logic.xor(sign, bit), sign) for bit in x]
        lane = logic.luts([*value, sign])
        # The lowest bits of x and -x are the same; above an unsigned x there is a 0.
        negated = [x[0], *(logic.input(f"n{bit}") for bit in range(self.x_bits))]
        wider = [*x, x[-1] if self.x_signed else 0]
        exact = logic.luts([logic.mux(keep, logic.mux(sign, *bits), 0) for bits in zip(negated, wider, strict=True)])
        _, other = self._controls(logic, "m")
        which = logic.xor(sign, other)
        both = [logic.input(f"s{bit}") for bit in range(self.x_bits + 1)] + ([] if self.x_signed else [0])
        value = [both[0], *(logic.mux(which, logic.input(f"d{bit}"), both[bit]) for bit in range(1, len(both)))]
        return lane, exact, logic.luts([*(logic.xor(sign, bit) for bit in value), sign])

    def _controls(self, logic: Logic, name: str) -> tuple[int, int]:
        """Bits of an index that say whether its value is not 0, and whether it is negative."""
        index = [logic.input(f"{name}{bit}") for bit in range(self.index_bits)]
        keep, sign = ([int(test(value)) for value in self.values] for test in (bool, (-1).__eq__))
        return tuple(logic.tree(fill(bits, self.index_bits), index) for bits in (keep, sign))  # pyright: ignore

    def cost(self) -> Cost:
        lane, exact, pair = self.lane_luts()
        if not self.paired:
            first = spare_carry(self.simd)
            # The carry needs no register: it is the top bit of an unsigned activation's complement; a signed one's has a
            # bit less than the term.
            whole = array_cost(self, self.term, lane=Cost(luts=lane), exact_first=first, factor=self.factor)
            if not first:
                return whole
            row = Cost(luts=self.x_bits)
            if self.x_bits > TABLE_BITS:
                row = Cost(luts=self.x_bits + 1, adder_bits=self.x_bits + 1, adders=1)
            return whole + Cost(luts=(exact - lane) * self.pe) + row * self.spread
        alone = self.pe * (self.simd % 2)
        if self.counting:
            # The lowest bit of a count is no matter of the weights: all outputs share it.
            whole = array_cost(self, self.term, lane=Cost(luts=2, ffs=-1), terms=self.terms, factor=self.factor)
            return whole + Cost(luts=1, ffs=1) * (self.spread * self.terms) - Cost(luts=1, ffs=1) * alone
        row = Cost(luts=5)
        if self.x_bits > PAIR_BITS:
            bits = 2 * (self.x_bits + 1)
            row = Cost(luts=bits, adder_bits=bits, adders=2)
            # Sum and difference, which of them and its complement, and the carry of a first pair.
            first = spare_carry(self.terms)
            note_paths([Path(levels=2, adders=1 + first, bits=self.term.bits if first else self.x_bits + 1)])
        carry = Cost(ffs=int(not self.x_signed))
        whole = array_cost(self, self.term, lane=Cost(luts=pair) + carry, row=row, terms=self.terms, factor=self.factor)
        spare = Cost(luts=pair - lane, ffs=1) * alone + carry * alone + row * (self.spread * (self.simd % 2))
        return whole - spare - carry * (self.pe * spare_carry(self.terms))

    def create(self) -> wiring.Component:
        return AddSubtractArray(self)


class AddSubtractArray(MacArray):
    """The array of `AddSubtract`."""

    def __init__(self, unit: AddSubtract):
        super().__init__(unit, unit.term, group=2 if unit.paired else 1, factor=unit.factor)
        self.signs = [int(value < 0) for value in unit.values]
        self.keeps = [abs(value) for value in unit.values]
        self.counting = unit.counting and unit.paired
        self.exact_first = not unit.paired and spare_carry(unit.simd)

    def row(self, m: Module, t: int, *x: Value) -> Sequence[Value]:
        if len(x) == 2 and not self.counting:
            return [pair(*x, sign, self.unit.x_bits) for sign in (1, -1)]
        if t > 0 or not self.exact_first:
            return x
        bits = self.unit.x_bits
        negated = column(x[0], (-self.unit.levels).tolist(), signed(bits + 1)) if bits <= TABLE_BITS else -x[0]
        return [x[0], negated]

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        bits = self.unit.index_bits
        sign = lookup(controls[:bits], self.signs, unsigned(1))
        value = Signal(signed(self.term.bits), name=name)
        if self.counting:
            return Term(lookup(Cat(*row, controls), self.counts(len(row)), signed(self.term.bits)))
        if len(controls) > bits:
            other = lookup(controls[bits:], self.signs, unsigned(1))
            m.d.comb += value.eq(Mux(sign ^ other, row[1], row[0]))
        elif len(row) == 2:
            keep = lookup(controls, self.keeps, unsigned(1))
            m.d.comb += value.eq(Mux(keep, Mux(sign, row[1], row[0]), 0))
            return Term(value)
        else:
            m.d.comb += value.eq(Mux(lookup(controls, self.keeps, unsigned(1)), row[0], 0))
        return Term((value ^ sign.replicate(len(value))).as_signed(), sign)

    def counts(self, lanes: int) -> list[int]:
        """Sums of one or two lanes by their activations, then their indices, all of 1 bit."""
        level = int(self.unit.levels.sum())  # the one that is not 0
        return [sum(level * (address >> n & 1) * (1 - 2 * self.signs[address >> lanes + n & 1]) for n in range(lanes))
                for address in range(1 << 2 * lanes)]


def pair(a: Value, b: Value, sign: int, bits: int) -> Value:
    """``a + sign * b``."""
    if bits > PAIR_BITS:
        return a + b if sign > 0 else a - b
    half = 1 << bits - 1 if a.shape().signed else 1 << bits
    levels = [code if code < half else code - 2 * half for code in range(1 << bits)]
    return lookup(Cat(a, b), [a + sign * b for b in levels for a in levels], signed(bits + 2))
