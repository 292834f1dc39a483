"""A read-only memory of products in every lane, addressed by index and activation: any table at all.

A product table followed by an activation table is claimed by patents US 11,488,016 and US 12,118,466: the planner takes
this unit only when asked to, or when the table has no other structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from amaranth import Cat, Module, Value, signed
from amaranth.lib import memory, wiring

from ..cost import Cost, bram_count
from ..gateware.accumulate import TermRange
from ..gateware.lane_cost import row_cost, select_logic, selection_cost, table_logic
from ..gateware.lanes import by_address, exact_range, lookup
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency, once_per_codebook
from ..mac import MacUnit

LOGIC_BITS = 7
"""Address bits up to which a lane's table is logic; a larger one is block RAM."""


class ProductTable(MacUnit):
    """Every lane looks its product up. A table of at most 2**7 words is logic, a larger one block RAM."""

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
    def words(self) -> list[int]:
        """Products by address, the activation's code in the low bits."""
        return by_address(self, self.products >> self.term.zeros)

    @once_per_codebook
    def parts(self) -> tuple[Cost, int, int | None]:
        """Cells of a row of products, LUT4 of a lane's selection, and LUT4 of a lane as a function of its address."""
        columns, bits = list((self.products >> self.term.zeros).T), self.term.bits
        row = row_cost(self, columns, [1] * len(columns), bits, registered=False)
        direct = table_logic(self.words, self.x_bits, self.index_bits, bits)
        return row, select_logic(columns, range(len(columns)), self.index_bits, bits), direct

    def cost(self) -> Cost:
        if self.address_bits <= LOGIC_BITS:
            lane, row = selection_cost(self, *self.parts())
            return array_cost(self, self.term, lane=lane, row=row)
        # The product register is the one in the block RAM.
        product_bits = min(self.term.bits, max(1, self.acc_bits - self.term.zeros))
        blocks = bram_count(self.term.bits, 1 << self.address_bits)
        return array_cost(self, self.term, lane=Cost(brams=blocks, ffs=-product_bits))

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
            return Term(lookup(address, unit.words, shape))
        words = unit.words
        rom = memory.Memory(shape=shape, depth=1 << unit.address_bits, init=words, attrs={"ram_style": "block"})
        m.submodules[f"{name}_rom"] = rom
        port = rom.read_port()
        m.d.comb += [port.addr.eq(address), port.en.eq(en)]
        return Term(port.data, registered=True)
