"""The K products of an activation, formed once and shared by every output."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from amaranth import Module, Signal, Value, signed, unsigned
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange
from ..gateware.digits import signed_digits
from ..gateware.lane_cost import Choice, row_cost, select_logic, selection_cost, table_logic
from ..gateware.lanes import (
    TABLE_BITS,
    by_address,
    column,
    complemented_range,
    exact_range,
    lookup,
    multiple,
    select,
)
from ..gateware.mac_array import MacArray, Term, array_cost, array_latency
from ..mac import MacUnit
from ..network.tensor import Ints
from ..remembered import once_per_codebook

DIRECT_BITS = 8
"""Bits of index and activation together up to which a lane may be cheaper as a function of just these."""


class SharedProducts(MacUnit):
    """Row of products of each activation, formed once a cycle; every lane selects one by its index.

    Of a dictionary the row holds magnitudes, and a lane complements one for a negative value: the + 1 is the carry
    input of an adder behind. Of a product table it holds the columns.
    """

    name = "shared-products"
    needs = "nothing: any dictionary or product table"
    spreads = True

    @property
    def latency(self) -> int:
        return array_latency(self.simd, row_register=self.row_register)

    @property
    def row_register(self) -> bool:
        """Whether a row needs adders, and so a register."""
        book = self.codebook
        return self.x_bits > TABLE_BITS and (
            book.table is not None or any(len(signed_digits(abs(value))) > 1 for value in book.dictionary[0].tolist()))

    @cached_property
    def term(self) -> TermRange:
        """Range of what a lane sums."""
        return exact_range(self) if self.codebook.dictionary is None else complemented_range(self)

    @cached_property
    def signs(self) -> list[int] | None:
        """1 for every entry whose product is complemented; None for a table."""
        return None if self.codebook.dictionary is None else [int(value < 0) for value in self.codebook.dictionary[0]]

    @cached_property
    def keys(self) -> list[int]:
        """What an entry's product is found by: its magnitude, or the number of its column."""
        dictionary = self.codebook.dictionary
        if dictionary is None:
            return list(range(self.codebook.entries))
        return (abs(dictionary[0]) >> self.term.zeros).tolist()

    @cached_property
    def columns(self) -> dict[int, Ints]:
        """Value for every activation, by key: what a row holds."""
        if self.signs is None:
            return {key: self.products[:, key] >> self.term.zeros for key in self.keys}
        return {key: self.levels * key for key in sorted(set(self.keys))}

    @property
    def place(self) -> list[int]:
        """Where in the row the product of an entry is."""
        order = list(self.columns)
        return [order.index(key) for key in self.keys]

    @once_per_codebook
    def parts(self) -> tuple[Cost, Choice, Choice | None]:
        """Cells of a row, luts of a lane's selection, and luts of a lane as a function of index and activation."""
        columns, bits = list(self.columns.values()), self.term.bits
        factors = [1] * len(columns) if self.signs is None else list(self.columns)
        row = row_cost(self, columns, factors, bits, registered=self.row_register)
        signs, inputs = self.signs if self.term.carries else None, self.family.lut_inputs
        select = Choice.of(lambda: select_logic(columns, self.place, self.index_bits, bits, signs, inputs))
        if self.row_register or self.index_bits + self.x_bits > DIRECT_BITS:
            return row, select, None
        products = np.array([self.columns[key] for key in self.keys]).T
        words = by_address(self, products if self.signs is None else products ^ -np.array(self.signs))
        return row, select, Choice.of(lambda: table_logic(words, self.x_bits, self.index_bits, bits, inputs))

    def cost(self) -> Cost:
        lane, row = selection_cost(self, *self.parts())
        registers = Cost(ffs=self.index_bits * self.row_register + self.term.carries)
        return array_cost(self, self.term, lane=lane + registers, row=row)

    def create(self) -> wiring.Component:
        return SharedProductsArray(self)


class SharedProductsArray(MacArray):
    """The array of `SharedProducts`."""

    def __init__(self, unit: SharedProducts):
        super().__init__(unit, unit.term, row_register=unit.row_register)
        self.shared = unit

    def row(self, m: Module, t: int, *activations: Value) -> Sequence[Value]:
        (x,) = activations
        if self.shared.signs is None:
            return [column(x, values.tolist(), signed(self.term.bits)) for values in self.shared.columns.values()]
        return [multiple(x, magnitude) for magnitude in self.shared.columns]

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        product = Signal(signed(self.term.bits), name=name)
        m.d.comb += product.eq(select(controls, row, self.shared.place))
        signs = self.shared.signs
        if signs is None or not self.term.carries:
            return Term(product)
        sign = lookup(controls, signs, unsigned(1))
        return Term((product ^ sign.replicate(len(product))).as_signed(), sign)
