"""A read-only memory of products in every lane, addressed by index and activation: any table at all.

A product table followed by an activation table is claimed by patents US 11,488,016 and US 12,118,466: the planner takes
this unit only when asked to, or when the table has no other structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from amaranth import Cat, Module, Signal, Value, signed
from amaranth.lib import memory, wiring

from ..cost import Cost, bram_count
from ..families import ICE40
from ..gateware.accumulate import TermRange
from ..gateware.lane_cost import Choice, row_cost, select_logic, selection_cost, table_logic
from ..gateware.lanes import by_address, exact_range, lookup, select
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..paths import counted_paths, note_paths
from ..remembered import once_per_codebook

LOGIC_BITS = 7
"""Address bits up to which a lane's table is logic; a larger one is block RAM."""

BANK_BITS = 11
"""Address bits of the deepest iCE40 block RAM; a larger table stands in several banks."""

BANK_WORDS = 1 << BANK_BITS


class ProductTable(MacUnit):
    """Every lane looks its product up. A table of at most 2**7 words is logic, a larger one block RAM."""

    name = "product-table"
    needs = "nothing: any dictionary or product table"
    spreads = True

    @property
    def latency(self) -> int:
        return array_latency(self.simd)

    @property
    def address_bits(self) -> int:
        """Bits of index and activation together."""
        return self.index_bits + self.x_bits

    @property
    def banks(self) -> int:
        """Memories of a lane whose table is block RAM."""
        return 1 << max(0, self.address_bits - BANK_BITS)

    @cached_property
    def term(self) -> TermRange:
        """Range of the products without the zeros that all of them end in."""
        return exact_range(self)

    @cached_property
    def words(self) -> list[int]:
        """Products by address, the activation's code in the low bits."""
        return by_address(self, self.products >> self.term.zeros)

    @once_per_codebook
    def parts(self) -> tuple[Cost, Choice, Choice]:
        """Cells of a row of products, luts of a lane's selection, and luts of a lane as a function of its address."""
        columns, bits = list((self.products >> self.term.zeros).T), self.term.bits
        row = row_cost(self, columns, [1] * len(columns), bits, registered=False)
        inputs = self.family.lut_inputs
        select = Choice.of(lambda: select_logic(columns, range(len(columns)), self.index_bits, bits, lut_inputs=inputs))
        return row, select, Choice.of(lambda: table_logic(self.words, self.x_bits, self.index_bits, bits, inputs))

    def bank_words(self, bank: int) -> list[int]:
        """Contents of a bank."""
        return self.words[bank * BANK_WORDS:(bank + 1) * BANK_WORDS]

    def bank_blocks(self, bank: int) -> int:
        """Block RAMs of a bank; Yosys drops the bits that are the same in all words."""
        words = np.array(self.bank_words(bank))
        varying = sum(len(np.unique(words >> bit & 1)) > 1 for bit in range(self.term.bits))
        return bram_count(varying, len(words), self.family)

    def cost(self) -> Cost:
        if self.address_bits <= LOGIC_BITS:
            lane, row = selection_cost(self, *self.parts())
            return array_cost(self, self.term, lane=lane, row=row)
        # The product register is the one in the block RAM.
        product_bits = min(self.term.bits, max(1, self.acc_bits - self.term.zeros))
        bank_bits = max(0, self.address_bits - BANK_BITS)
        logic = Logic(self.family.lut_inputs)
        banks = [[logic.input((bank, bit)) for bank in range(self.banks)] for bit in range(product_bits)]
        steer = [logic.input(bit) for bit in range(bank_bits)]
        with counted_paths() as steered:
            luts = logic.luts([logic.table(bit, steer) for bit in banks])
        # From the block RAM to the first adder; where that is the accumulator, what begins a sum is in it on iCE40 only.
        alone = self.simd == 1 and self.family is not ICE40
        note_paths(path._replace(levels=path.levels + alone, adders=1, bits=product_bits + 1, brams=1) for path in steered)
        blocks = sum(map(self.bank_blocks, range(self.banks)))
        return array_cost(self, self.term, lane=Cost(luts=luts, ffs=bank_bits - product_bits, brams=blocks))

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
        # Banks of the deepest shape that a block RAM has: Yosys' own way to deepen one is not predictable.
        ports = []
        for bank in range(unit.banks):
            words = unit.bank_words(bank)
            rom = memory.Memory(shape=shape, depth=len(words), init=words, attrs={"ram_style": "block"})
            m.submodules[f"{name}_rom{bank}"] = rom
            port = rom.read_port()
            m.d.comb += [port.addr.eq(address[:len(port.addr)]), port.en.eq(en)]
            ports.append(port.data)
        if unit.banks == 1:
            return Term(ports[0], registered=True)
        bank = Signal(range(unit.banks), name=f"{name}_bank", reset_less=True)
        with m.If(en):
            m.d.sync += bank.eq(address >> BANK_BITS)
        return Term(select(bank, ports, range(unit.banks)).as_signed(), registered=True)
