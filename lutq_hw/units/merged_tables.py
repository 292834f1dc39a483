"""Products of neighbouring lanes and their sum as one table, for few bits: there is no adder between them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange
from ..gateware.lanes import by_address, exact_range, lookup
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network import Codebook
from ..paths import counted_paths, note_paths

ADDRESS_BITS = 6
"""Most address bits of a table: inputs of the widest lut."""

Bit = TypeVar("Bit")


class Table(NamedTuple):
    """What a table costs."""

    luts: int
    bits: int
    """Results of its own, each kept in a register."""

    shared_luts: int
    shared_bits: int
    """The same of results that the indices have no part in: all outputs have them in common."""


class MergedTables(MacUnit):
    """Every two lanes look the sum of their products up, in a table addressed by both activations and both indices.

    For activations of 1 bit and a dictionary of 2 values a bit of that sum is one LUT4, where two look-ups and an adder take
    more than two; up to six address bits it is one LUT6. The adder tree has a level less, and half the operands.
    """

    name = "merged-tables"
    needs = "a dictionary, and at most 3 bits of an activation and an index together"
    spreads = True

    group: ClassVar[int] = 2
    """Lanes that share a table."""

    rewriting: ClassVar[float] = 1
    """What synthesis takes for a table of a whole group, for each lut that it is packed into, where it needs several."""

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        if codebook.table is not None:
            return f"{cls.name} needs a dictionary, not a product table"
        most = ADDRESS_BITS // cls.group
        if x_bits + codebook.index_bits > most:
            return (f"{cls.name} needs an activation and an index of at most {most} bits together, not "
                    f"{x_bits} and {codebook.index_bits}")
        return None

    @property
    def terms(self) -> int:
        """Terms of an output in a word."""
        return -(-self.simd // self.group)

    @property
    def latency(self) -> int:
        return array_latency(self.terms)

    @cached_property
    def term(self) -> TermRange:
        """Range of a table's sum, that of fewer lanes where there are no more."""
        one = exact_range(self)
        lanes = min(self.group, self.simd)
        return TermRange(lanes * one.low, lanes * one.high, one.zeros)

    @property
    def width(self) -> int:
        """Bits of a table's sum that the accumulator has a use for."""
        return min(self.term.bits, max(1, self.acc_bits - self.term.zeros))

    @cached_property
    def words(self) -> list[int]:
        """Products by address, the activation's code in the low bits."""
        return by_address(self, self.products >> self.term.zeros)

    def table(self, lanes: int) -> Table:
        """Cells of a table of so many lanes."""
        logic = Logic(self.family.lut_inputs)
        x, index = ([[logic.input((name, lane, bit)) for bit in range(bits)] for lane in range(lanes)]
                    for name, bits in (("x", self.x_bits), ("index", self.index_bits)))
        found, other = ({bit for bit in way(logic, x, index) if bit > 1} for way in (self.rippled, self.coded))
        with counted_paths():  # of which those of one are not taken
            if logic.luts(sorted(other)) < logic.luts(sorted(found)):
                found = other
        shared = {bit for bit in found if logic.support(bit) <= set().union(*x)}
        luts = logic.luts(sorted(shared))
        with counted_paths() as paths:
            own = logic.luts(sorted(found)) - luts
        # Synthesis sees through the carries of so few inputs: fewer luts one behind the other than there are inputs.
        inputs = lanes * (self.x_bits + self.index_bits)
        if lanes == self.group and inputs > self.family.lut_inputs:
            own = round(own * self.rewriting)
        note_paths(path._replace(levels=min(path.levels, inputs - 1)) for path in paths)
        return Table(own, len(found - shared), luts, len(shared))

    def rippled(self, logic: Logic, x: Sequence[Sequence[int]], index: Sequence[Sequence[int]]) -> list[int]:
        """Bits of a table's sum, as products that are looked up and added."""
        products = [[logic.tree([word >> bit & 1 for word in self.words], [*mine, *which]) for bit in range(self.width)]
                    for mine, which in zip(x, index, strict=True)]
        return added(products, logic.xor, logic.mux)

    def coded(self, logic: Logic, x: Sequence[Sequence[int]], index: Sequence[Sequence[int]]) -> list[int]:
        """The same as a table addressed by which of its few values each lane's product has."""
        values, code = np.unique(self.words, return_inverse=True)
        bits = max(1, (len(values) - 1).bit_length())
        address = [logic.tree([which >> bit & 1 for which in code.tolist()], [*mine, *choice])
                   for mine, choice in zip(x, index, strict=True) for bit in range(bits)]
        padded = [*values.tolist(), *[0] * ((1 << bits) - len(values))]
        totals = functools.reduce(lambda sums, _: [a + b for b in padded for a in sums], x[1:], padded)
        return [logic.tree([total >> bit & 1 for total in totals], address) for bit in range(self.width)]

    def cost(self) -> Cost:
        # Here the registers of the tables are counted bit by bit.
        whole = array_cost(self, self.term, lane=Cost(ffs=-self.width), terms=self.terms)
        full, rest = divmod(self.simd, self.group)
        for lanes, count in ((self.group, full), (rest, 1)):
            if lanes and count:
                table = self.table(lanes)
                whole += Cost(luts=table.luts, ffs=table.bits) * (self.pe * count)
                whole += Cost(luts=table.shared_luts, ffs=table.shared_bits) * (self.spread * count)
        return whole

    def create(self) -> wiring.Component:
        return MergedTablesArray(self)


def added(numbers: Sequence[Sequence[Bit]], xor: Callable[[Bit, Bit], Bit], mux: Callable[[Bit, Bit, Bit], Bit]) -> list[Bit]:
    """Sum of numbers of as many bits, modulo their width, without an adder's carry chain.

    Written so, synthesis makes a table of it that is smaller than what it finds from the table's contents.
    """
    *first, last = numbers
    if not first:
        return list(last)
    carry: Bit | None = None
    total = []
    for a, b in zip(added(first, xor, mux), last, strict=True):
        differs = xor(a, b)
        total.append(differs if carry is None else xor(differs, carry))
        carry = mux(a, b, a) if carry is None else mux(differs, carry, a)
    return total


class MergedTablesArray(MacArray):
    """The array of `MergedTables`."""

    def __init__(self, unit: MergedTables):
        super().__init__(unit, unit.term, group=unit.group)
        self.tables = unit

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        unit = self.tables

        def named(value: Value) -> Signal:
            # Every bit once: what is used twice would be written down twice.
            wire = Signal(len(value), name=f"{name}_wire")
            m.d.comb += wire.eq(value)
            return wire

        products = [named(lookup(Cat(x, controls.word_select(lane, unit.index_bits)), unit.words, signed(self.term.bits)))
                    for lane, x in enumerate(row)]
        total = added(products, lambda a, b: named(a ^ b), lambda select, high, low: named(Mux(select, high, low)))
        return Term(Cat(total).as_signed())
