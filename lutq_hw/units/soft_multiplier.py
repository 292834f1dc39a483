"""Decode the index and multiply in logic: a row of conditional adders, one for each bit of the activation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from amaranth import Cat, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import wiring

from ..cost import Cost
from ..families import ICE40
from ..gateware.accumulate import TermRange
from ..gateware.lanes import exact_range, fill, lookup
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..logic_estimate import Logic
from ..mac import MacUnit
from ..network import Codebook
from ..network.tensor import signed_bits
from ..paths import Path, note_paths
from ..remembered import once_per_codebook

ROWS = 3
"""Most bits of an activation that are multiplied between two registers."""

CLEAR_LUTS = 0.5
"""Of activations of one bit, which Yosys lets clear the product register: 0 to 1.5 for each lane."""


class SoftMultiplier(MacUnit):
    """A multiplier without DSP block in each lane, behind a table that turns the index into the dictionary's value.

    From the lowest bit of the activation up, every bit adds the value to what is left of the sum, or does not. On iCE40 a
    bit of a conditional adder is one LUT4 with its carry: sum, value, carry, and whether to add. A lane of 8-bit activations
    and values takes 8 luts for the value, 8 for the lowest bit and 9 for each of the others.
    """

    name = "soft-multiplier"
    needs = "a dictionary with a value other than 0"
    spreads = True

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        if codebook.table is not None:
            return "soft-multiplier needs a dictionary, not a product table"
        if not codebook.dictionary.any():
            return "soft-multiplier needs a dictionary value other than 0"
        return None

    @cached_property
    def term(self) -> TermRange:
        """Range of the products without the zeros that all of them end in."""
        return exact_range(self)

    @cached_property
    def values(self) -> list[int]:
        """Dictionary without the zeros that all products end in, negated where the only bit of an activation is its sign."""
        values = self.codebook.dictionary[0] >> self.term.zeros
        return (-values if self.x_signed and self.x_bits == 1 else values).tolist()

    @property
    def value_shape(self) -> Shape:
        """Shape of a decoded value."""
        return shape_of(min(self.values), max(self.values))

    @cached_property
    def sums(self) -> list[Shape]:
        """Shape of the sum behind each bit of the activation, without the bits of the product that are finished."""
        shapes = []
        for bit in range(self.x_bits):
            x = np.arange(1 << bit + 1)
            if self.x_signed and 0 < bit == self.x_bits - 1:
                x = x - ((x >> bit) << bit + 1)
            products = np.multiply.outer(x, self.values) >> bit
            shapes.append(shape_of(int(products.min()), int(products.max())))
        return shapes

    @cached_property
    def registered(self) -> list[int]:
        """Bits of the activation in front of which a lane has registers."""
        stages = -(-self.x_bits // ROWS)
        return [-(-self.x_bits * stage // stages) for stage in range(1, stages)]

    @property
    def latency(self) -> int:
        return array_latency(self.simd, lane_registers=len(self.registered))

    @once_per_codebook
    def lane_cost(self) -> Cost:
        """Cells of a lane: table, lowest bit, conditional adders, registers between (those of the activation are a row's)."""
        logic = Logic(self.family.lut_inputs)
        index, lowest = [logic.input(bit) for bit in range(self.index_bits)], logic.input("x")
        entries, bits = fill(self.values, self.index_bits), self.value_shape.width
        value = [logic.tree([entry >> bit & 1 for entry in entries], index) for bit in range(bits)]
        if self.x_bits > 1:
            luts = logic.luts([logic.mux(lowest, bit, 0) for bit in value] + value)
        else:
            luts = logic.luts(value) + CLEAR_LUTS
        widths = [shape.width for shape in self.sums]
        ends = [*self.registered, self.x_bits]
        table = 1 + (self.index_bits >= self.family.lut_inputs)  # with the lowest bit of the activation in it, if it has room
        for first, end in zip([1, *self.registered], ends, strict=True):
            # Only on iCE40 the lut of an adder's bit has an input left for whether to add.
            choices = 0 if self.family is ICE40 else end - first
            # A path through several adders runs along a part of each carry.
            levels, bits = table * (first == 1) + choices, -(-max(widths[first - 1:end]) // max(1, end - first))
            note_paths([Path(levels=levels, adders=end - first, bits=bits)])
        ffs = sum(bits + widths[bit - 1] + bit - 1 for bit in self.registered)
        return Cost(luts=luts + sum(widths[1:]), ffs=ffs, adder_bits=sum(widths[1:]), adders=len(widths) - 1)

    @property
    def conditional_bits(self) -> int:
        # Bits of the value that are the same for all entries, as the sign and bits below it may be, are gated once.
        columns = {tuple(value >> bit & 1 for value in self.values) for bit in range(self.value_shape.width)}
        return self.pe * self.simd * (self.x_bits - 1) * sum(any(column) for column in columns)

    def cost(self) -> Cost:
        row = Cost(ffs=sum(self.x_bits - bit for bit in self.registered))
        return array_cost(self, self.term, lane=self.lane_cost(), row=row) + Cost(ffs=2 * len(self.registered))

    def create(self) -> wiring.Component:
        return SoftMultiplierArray(self)


def shape_of(low: int, high: int) -> Shape:
    """The narrowest shape that holds both, and at least one bit."""
    return signed(signed_bits(low, max(0, high))) if low < 0 else unsigned(max(1, high.bit_length()))


class SoftMultiplierArray(MacArray):
    """The array of `SoftMultiplier`."""

    def __init__(self, unit: SoftMultiplier):
        super().__init__(unit, unit.term, lane_registers=len(unit.registered))
        self.soft = unit

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        unit = self.soft

        def net(what: str, shape: Shape, value: Value) -> Signal:
            found = Signal(shape, name=f"{name}_{what}")
            m.d.comb += found.eq(value)
            return found

        def register(what: str, value: Value) -> Signal:
            kept = Signal(value.shape(), name=f"{name}_{what}", reset_less=True)
            with m.If(en):
                m.d.sync += kept.eq(value)
            return kept

        x: Value = row[0].as_unsigned()
        value: Value = lookup(controls, unit.values, unit.value_shape)
        finished: Any = Cat()
        total: Value = net("sum0", unit.sums[0], Mux(x[0], value, 0))
        for bit, shape in enumerate(unit.sums[1:], start=1):
            if bit in unit.registered:
                x, value = register(f"x{bit}", x), register(f"value{bit}", value)
                finished, total = register(f"finished{bit}", finished), register(f"total{bit}", total)
            finished, rest = Cat(finished, total[0]), net(f"rest{bit}", shape, total >> 1)
            # Nothing is subtracted but the highest bit of a signed activation: complements at both ends of an adder cost
            # nothing, one of the value would.
            added = ~(~rest + value) if unit.x_signed and bit == unit.x_bits - 1 else rest + value
            total = net(f"sum{bit}", shape, Mux(x[bit], added, rest))
        product = Cat(finished, total)
        return Term(net("product", signed(self.term.bits), product.as_signed() if total.shape().signed else product))
