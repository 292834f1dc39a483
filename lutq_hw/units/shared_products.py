"""The K products of an activation, formed once and shared by every output."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from amaranth import Module, Signal, Value, signed, unsigned
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.accumulate import TermRange
from ..gateware.lanes import TABLE_BITS, column, complemented_range, exact_range, lookup, multiple, select, signed_digits
from ..gateware.mac_array import MacArray, Term, array_latency
from ..mac import MacUnit


class SharedProducts(MacUnit):
    """Row of products of each activation, formed once a cycle; every lane selects one by its index.

    Of a dictionary the row holds magnitudes, and a lane complements one for a negative value: the + 1 is the carry input of
    an adder behind. Of a product table it holds the columns.
    """

    name = "shared-products"

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

    def cost(self) -> Cost:
        return Cost()

    def create(self) -> wiring.Component:
        return SharedProductsArray(self)


class SharedProductsArray(MacArray):
    """The array of `SharedProducts`."""

    def __init__(self, unit: SharedProducts):
        super().__init__(unit, unit.term, row_register=unit.row_register)
        book = unit.codebook
        self.signs = None if book.dictionary is None else [int(value < 0) for value in book.dictionary[0]]
        keys = [*range(book.entries)] if book.dictionary is None else (abs(book.dictionary[0]) >> self.term.zeros).tolist()
        self.distinct = sorted(set(keys))
        self.place = [self.distinct.index(key) for key in keys]

    def row(self, m: Module, s: int, x: Value) -> Sequence[Value]:
        if self.signs is None:
            return [column(x, (self.unit.products[:, key] >> self.term.zeros).tolist(), signed(self.term.bits)) for key in self.distinct]
        return [multiple(x, magnitude) for magnitude in self.distinct]

    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        product = Signal(signed(self.term.bits), name=name)
        m.d.comb += product.eq(select(controls, row, self.place))
        if self.signs is None or not self.term.carries:
            return Term(product)
        sign = lookup(controls, self.signs, unsigned(1))
        return Term((product ^ sign.replicate(len(product))).as_signed(), sign)
