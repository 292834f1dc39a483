"""A read-only memory of products in every lane, addressed by index and activation: any table at all.

A product table followed by an activation table is claimed by patents US 11,488,016 and US 12,118,466: the planner takes this
unit only when asked to, or when the table has no other structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from amaranth import Cat, Module, Value, signed
from amaranth.lib import memory, wiring

from ..cost import Cost, bram_count
from ..gateware.accumulate import TermRange
from ..gateware.lanes import exact_range, fill, lookup
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network.tensor import Ints

LOGIC_BITS = 8
"""Address bits up to which a lane's table is logic; a larger one is block RAM."""


class ProductTable(MacUnit):
    """Every lane looks its product up. A table of at most 2**8 words is logic, a larger one block RAM."""

    name = "product-table"

    @property
    def latency(self) -> int:
        return array_latency(self.simd)

    @property
    def address_bits(self) -> int:
        """Bits of index and activation together."""
        return self.index_bits + self.x_bits

    @cached_property
    def term(self) -> TermRange:
        """Range of the products without the zeros that all of them end in."""
        return exact_range(self)

    @cached_property
    def words(self) -> Ints:
        """Products by address, the activation's code in the low bits."""
        codes = self.levels & ((1 << self.x_bits) - 1)
        table = np.empty_like(self.products)
        table[codes] = self.products >> self.term.zeros
        return table.T.reshape(-1)

    @cached_property
    def lane_luts(self) -> int:
        """LUT4 of a table in logic: the better of two decision diagrams, activation first or index first."""
        counts = []
        for x_first in (True, False):
            logic = Logic()
            x = [logic.input(f"x{bit}") for bit in range(self.x_bits)]
            index = [logic.input(f"k{bit}") for bit in range(self.index_bits)]
            words = np.array(fill(self.words.tolist(), self.address_bits)).reshape(-1, 1 << self.x_bits)
            words = words if x_first else words.T
            order = [*x, *index] if x_first else [*index, *x]
            counts.append(logic.luts([logic.table((words >> bit & 1).reshape(-1).tolist(), order) for bit in range(self.term.bits)]))
        return min(counts)

    def cost(self) -> Cost:
        if self.address_bits <= LOGIC_BITS:
            return array_cost(self, self.term, lane=Cost(luts=self.lane_luts))
        blocks = bram_count(self.term.bits, 1 << self.address_bits)
        return array_cost(self, self.term, lane=Cost(brams=blocks, ffs=-min(self.term.bits, self.acc_bits)))

    def create(self) -> wiring.Component:
        return ProductTableArray(self)


class ProductTableArray(MacArray):
    """The array of `ProductTable`."""

    def __init__(self, unit: ProductTable):
        super().__init__(unit, unit.term)
        self.table = unit

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        unit, (x,) = self.table, row
        address = Cat(x, controls)
        shape = signed(self.term.bits)
        if unit.address_bits <= LOGIC_BITS:
            return Term(lookup(address, unit.words.tolist(), shape))
        rom = memory.Memory(shape=shape, depth=1 << unit.address_bits, init=unit.words.tolist(), attrs={"ram_style": "block"})
        m.submodules[f"{name}_rom"] = rom
        port = rom.read_port()
        m.d.comb += [port.addr.eq(address), port.en.eq(en)]
        return Term(port.data, registered=True)
