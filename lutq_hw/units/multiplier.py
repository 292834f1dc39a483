"""The baseline: decode the index to its dictionary value and multiply in a DSP block."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from amaranth import Module, Signal, Value, signed
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange
from ..gateware.lanes import exact_range, fill, lookup
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network import Codebook
from ..network.tensor import signed_bits
from ..remembered import once_per_codebook

OPERAND_BITS = 16
"""Width of the operands of a DSP block (SB_MAC16)."""

INFERRED_BITS = 11
"""Products from this width on become a DSP block in Yosys by themselves."""

SOFT_LUTS = 8
"""Luts for each bit of a dictionary value that the family's synthesis finds too narrow for a DSP block, on Gowin."""


class Multiplier(MacUnit):
    """A DSP block for each lane, behind a table that turns the index into the dictionary's value."""

    name = "multiplier"
    needs = "a dictionary of at least two values, 16 bits each at most"
    spreads = True

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        if codebook.table is not None:
            return "multiplier needs a dictionary, not a product table"
        for value in codebook.dictionary.reshape(-1).tolist():
            if signed_bits(value, value) > OPERAND_BITS:
                return f"multiplier needs dictionary values of at most {OPERAND_BITS} bits, not {value}"
        distinct = sorted(set(codebook.dictionary.reshape(-1).tolist()))
        if len(distinct) < 2 or (distinct[1:] == [0] and -distinct[0] & -distinct[0] - 1 == 0):
            return f"multiplier needs a dictionary that leaves something to multiply, not {distinct}"
        return None

    @property
    def latency(self) -> int:
        return array_latency(self.simd)

    @cached_property
    def term(self) -> TermRange:
        """Range of the products."""
        return exact_range(self)

    @cached_property
    def values(self) -> list[int]:
        """Dictionary without the zeros that all products end in."""
        return (self.codebook.dictionary[0] >> self.term.zeros).tolist()

    @property
    def value_bits(self) -> int:
        """Bits of a decoded value."""
        return signed_bits(min(0, *self.values), max(self.values))

    @once_per_codebook
    def decode_luts(self) -> int:
        """Luts that look a value up, as packed by `Logic`."""
        logic = Logic(self.family.lut_inputs)
        index = [logic.input(bit) for bit in range(self.index_bits)]
        entries = fill(self.values, self.index_bits)
        return logic.luts([logic.tree([entry >> bit & 1 for entry in entries], index) for bit in range(self.value_bits)])

    def cost(self) -> Cost:
        # The product register is the one in the DSP block.
        product_bits = min(self.term.bits, max(1, self.acc_bits - self.term.zeros))
        lane = Cost(luts=self.decode_luts(), ffs=-product_bits, dsps=1)
        if self.value_bits < self.family.dsp_operand_bits:
            adders = SOFT_LUTS * self.value_bits
            lane = Cost(luts=self.decode_luts() + adders, adder_bits=adders, adders=self.value_bits - 1)
        return array_cost(self, self.term, lane=lane)

    def create(self) -> wiring.Component:
        return MultiplierArray(self)


class MultiplierArray(MacArray):
    """The array of `Multiplier`."""

    def __init__(self, unit: Multiplier):
        super().__init__(unit, unit.term)
        self.multiplier = unit

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        (x,) = row
        bits = self.term.bits
        value = lookup(controls, self.multiplier.values, signed(self.multiplier.value_bits))
        if bits >= INFERRED_BITS:
            return Term(x * value)
        # Yosys leaves products under 11 bits to logic, and cuts operands to the bits that the product needs. So the
        # activation gets a one above all bits of the product, and the product is kept at full width.
        wide = Signal(signed(OPERAND_BITS), name=f"{name}_wide", attrs={"keep": 1})
        m.d.comb += wide.eq((x + (1 << OPERAND_BITS - 2)) * value)
        return Term(wide[:bits].as_signed())
