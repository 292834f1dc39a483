"""Activations cut into slices so narrow that a slice and the index fit one LUT4: small dictionaries without multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from amaranth import Cat, Module, Signal, Value, signed
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange, tree_levels
from ..gateware.lanes import exact_range, fill, lookup
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..mac import MacUnit
from ..network import Codebook
from ..network.tensor import Ints, signed_bits
from ..paths import Path, note_paths
from ..remembered import once_per_codebook

TABLE_INPUTS = 4
"""Bits of a slice and an index together: every bit of the product is a LUT4."""


class Part(NamedTuple):
    """What some bits of an activation contribute: ``dictionary * values``, to be shifted left by ``first``."""

    first: int
    values: Ints
    """By code, the bits read as unsigned; those of the highest slice of a signed activation as signed."""


class SplitTables(MacUnit):
    """A table for each slice of an activation, addressed by slice and index; the slices' products are added.

    For a dictionary of 4 values a slice has 2 bits, for one of 8 values 1 bit, for one of 2 values 3 bits. A product of an
    activation of 4 bits by one of 4 values takes two tables and an adder; a multiplier in logic would add four rows, and a
    table of the whole product takes several LUT4 for each bit.
    """

    name = "split-tables"
    needs = "a dictionary of at most 8 values"
    spreads = True

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        if codebook.table is not None:
            return "split-tables needs a dictionary, not a product table"
        if codebook.index_bits >= TABLE_INPUTS:
            return f"split-tables needs a dictionary of at most {1 << TABLE_INPUTS - 1} values, not {codebook.entries}"
        if x_bits + codebook.index_bits <= TABLE_INPUTS:
            return (f"split-tables needs something to split: {x_bits} bits of an activation and {codebook.index_bits} of an "
                    f"index fit one table")
        if not codebook.dictionary.any():
            return "split-tables needs a dictionary value other than 0"
        return None

    @cached_property
    def term(self) -> TermRange:
        """Range of the products without the zeros that all of them end in."""
        return exact_range(self)

    @cached_property
    def values(self) -> Ints:
        """Dictionary without the zeros that all products end in."""
        return self.codebook.dictionary[0] >> self.term.zeros

    @cached_property
    def slices(self) -> list[Part]:
        """Slices of an activation, lowest first."""
        width = TABLE_INPUTS - self.index_bits
        parts = []
        for first in range(0, self.x_bits, width):
            bits = min(width, self.x_bits - first)
            codes = np.arange(1 << bits)
            if self.x_signed and first + bits == self.x_bits:
                codes = codes - ((codes >> bits - 1) << bits)
            parts.append(Part(first, codes))
        return parts

    @property
    def lane_registers(self) -> int:
        """Levels of adders in a lane but for the first, which stands directly behind the tables."""
        return max(0, tree_levels(len(self.slices)) - 1)

    @property
    def latency(self) -> int:
        return array_latency(self.simd, lane_registers=self.lane_registers)

    def bits(self, part: Part) -> int:
        """Width of a part's products; at least one bit more than its neighbour's shift takes away."""
        products = np.multiply.outer(part.values, self.values)
        return max(signed_bits(min(0, int(products.min())), int(products.max())), len(part.values).bit_length())

    def words(self, part: Part) -> list[int]:
        """Table of a slice, its code in the low bits of the address."""
        entries = np.array(fill(self.values.tolist(), self.index_bits))
        return (entries[:, None] * part.values[None, :]).reshape(-1).tolist()

    def merged(self, low: Part, high: Part) -> Part:
        """Two neighbours as one."""
        shift = high.first - low.first
        return Part(low.first, ((high.values[:, None] << shift) + low.values[None, :]).reshape(-1))

    @once_per_codebook
    def lane_cost(self) -> Cost:
        """Cells of a lane: a lut for each bit of a table that differs from the others, adders, registers between."""
        luts = 0
        for part in self.slices:
            words = np.array(self.words(part))
            inputs = np.arange(len(words))[None, :] >> np.arange(TABLE_INPUTS)[:, None] & 1
            plain = {row.tobytes() for row in inputs.astype(bool)}
            functions = {(words >> bit & 1).astype(bool).tobytes() for bit in range(self.bits(part))}
            luts += len({function for function in functions if 0 < function.count(1) < len(function)} - plain)
        adder_bits = adders = ffs = 0
        level = self.slices
        # Tables and the first adder between two registers, the other adders each behind a register.
        note_paths([Path(levels=1, adders=1, bits=max(map(self.bits, level)) + 2), Path(adders=1, bits=self.term.bits)])
        for number in range(tree_levels(len(level))):
            following = []
            for low, high in zip(level[::2], level[1::2], strict=False):
                both = self.merged(low, high)
                adders += 1
                adder_bits += self.bits(both) - (high.first - low.first)
                following.append(both)
            level = following + level[len(following) * 2:]
            ffs += sum(map(self.bits, level)) if number < self.lane_registers else 0
        return Cost(luts=luts + adder_bits, ffs=ffs, adder_bits=adder_bits, adders=adders)

    def cost(self) -> Cost:
        return array_cost(self, self.term, lane=self.lane_cost()) + Cost(ffs=2 * self.lane_registers)

    def create(self) -> wiring.Component:
        return SplitTablesArray(self)


class SplitTablesArray(MacArray):
    """The array of `SplitTables`."""

    def __init__(self, unit: SplitTables):
        super().__init__(unit, unit.term, lane_registers=unit.lane_registers)
        self.split = unit

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        unit, (x,) = self.split, row
        level: list[tuple[Part, Value]] = []
        for part in unit.slices:
            code = x.as_unsigned()[part.first:part.first + len(part.values).bit_length() - 1]
            level.append((part, lookup(Cat(code, controls), unit.words(part), signed(unit.bits(part)))))
        for number in range(tree_levels(len(unit.slices))):
            following = []
            for place in range(0, len(level), 2):
                part, value = level[place]
                if place + 1 < len(level):
                    high, upper = level[place + 1]
                    shift = high.first - part.first
                    # The low bits pass by the adder.
                    value = Cat(value[:shift], value[shift:].as_signed() + upper)
                    part = unit.merged(part, high)
                    value = value[:unit.bits(part)].as_signed()
                if number < unit.lane_registers:
                    kept = Signal(signed(unit.bits(part)), name=f"{name}_{number}_{part.first}", reset_less=True)
                    with m.If(en):
                        m.d.sync += kept.eq(value)
                    value = kept
                following.append((part, value))
            level = following
        return Term(level[0][1])
