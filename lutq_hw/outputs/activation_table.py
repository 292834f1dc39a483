"""The code is read from a table at the shifted sum: the activation table of a table-based neural unit (TBNU).

A product table followed by an activation table is claimed by patents US 11,488,016 and US 12,118,466. A monotone table is
therefore built as the thresholds equal to it unless a plan names this stage; one that is not monotone can be nothing else.
"""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
from amaranth import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring

from ..gateware.lanes import lookup
from ..gateware.rom import Rom
from ..gateware.serial import SerialStage
from ..logic_estimate import Logic
from ..network import ActivationTable
from ..network.tensor import Ints, signed_bits
from ..output import OutputStage
from ..sums import Sums
from .scores import offset_adders, offset_bits, offset_table, offset_words
from .shift import any_of

DEEPEST = 2048
"""Most entries of a table: the words of the deepest block RAM of iCE40."""


@cache
def lookup_luts(words: tuple[int, ...], width: int, total: int, lut_inputs: int) -> int:
    """Luts that clamp a number of ``total`` bits to the address of a word, and look its ``width`` bits up; 0: only clamp.

    Few bits are looked up first, and are those of the first or last word where the number is beyond these.
    """
    logic = Logic(lut_inputs)
    bits = (len(words) - 1).bit_length()
    inputs = [logic.input(n) for n in range(total)]
    place = [inputs[min(n, total - 1)] for n in range(max(total, bits + 2))]
    above, luts = any_of(logic, place[bits:-1])
    address = [logic.mux(place[-1], 0, logic.mux(above, 1, bit)) for bit in place[:bits]]
    if not width:
        return luts + logic.luts(address)
    columns = [[word >> bit & 1 for word in words] for bit in range(width)]
    before = logic.luts([logic.tree(column, address) for column in columns])
    behind = logic.luts([logic.mux(place[-1], column[0], logic.mux(above, column[-1], logic.tree(column, place[:bits])))
                         for column in columns])
    return luts + min(before, behind)


class TableLookup(OutputStage):
    """``code = table[clamp((acc + bias[o]) >> shift)]``, one cycle for each word; any function, monotone or not.

    In block RAM the table answers a cycle later (`delay`); in logic it is a tree of multiplexers.
    """

    name = "activation-table"
    needs = f"an activation table of at most {DEEPEST} entries"

    @classmethod
    def reject(cls, sums: Sums) -> str | None:
        if not isinstance(sums.step, ActivationTable):
            return f"{sums.name} has no activation table"
        count = len(sums.step.values)
        if count > DEEPEST:
            return f"the activation table of {sums.name} has {count} entries, at most {DEEPEST} can be looked up"
        return None

    @property
    def step(self) -> ActivationTable:
        """The layer's step."""
        assert isinstance(self.sums.step, ActivationTable)
        return self.sums.step

    @property
    def steps(self) -> int:
        return 1

    @property
    def delay(self) -> int:
        return int(self.memory == "bram")

    @property
    def address_bits(self) -> int:
        """Bits of the number of an entry."""
        return max(1, (len(self.step.values) - 1).bit_length())

    @cached_property
    def words(self) -> list[int]:
        """Codes by address; those behind the table's end are its last entry, so that saturation clamps."""
        values = self.step.values & (1 << self.step.bits) - 1
        return np.pad(values, (0, (1 << self.address_bits) - len(values)), mode="edge").tolist()

    @property
    def offsets(self) -> Ints:
        """``(O,)`` what is added before the shift."""
        return self.sums.bias

    @property
    def total_bits(self) -> int:
        """Width of ``acc + bias``."""
        low, high = self.sum_range
        return signed_bits(min(low + int(self.offsets.min()), 0), max(high + int(self.offsets.max()), 0))

    @property
    def table(self) -> tuple[int, int]:
        return offset_bits(self.offsets), self.rows

    @property
    def contents(self) -> Ints | None:
        return offset_words(self, self.offsets)

    @property
    def read_by_sum(self) -> tuple[int, int]:
        return (self.step.bits, len(self.words)) if self.memory == "bram" else (0, 1)

    @property
    def result_levels(self) -> int:
        # Whether a bit above the address is set, the address clamped, and in it a tree of two-way multiplexers over what a
        # lut knows.
        above = 2 * (self.total_bits > self.step.shift + self.address_bits)
        return above + (max(1, self.address_bits - 3) if self.memory == "luts" else 0)

    def features(self, lut_inputs: int) -> dict[str, float]:
        return {**offset_adders(self, self.offsets, self.total_bits, self.step.shift),
                "lookup": self.lanes * lookup_luts(tuple(self.words), 0 if self.memory == "bram" else self.step.bits,
                                                   max(1, self.total_bits - self.step.shift), lut_inputs)}

    def create(self) -> wiring.Component:
        return _TableStage(self)


class _TableStage(SerialStage):
    def lane(self, m: Module, lane: int, acc: Value) -> Value:
        s = self.stage
        assert isinstance(s, TableLookup)
        bits, shift = s.address_bits, s.step.shift
        total = Signal(signed(max(s.total_bits, shift + bits + 2)), name=f"total{lane}")
        m.d.comb += total.eq(acc + offset_table(self, m, lane, s.offsets))
        place, address = total[shift:], Signal(bits, name=f"address{lane}")
        # Clamped by looking at the bits above the address: comparators would cost a carry chain each.
        m.d.comb += address.eq(Mux(total[-1], 0, place[:bits] | place[bits:-1].any().replicate(bits)))
        if not s.delay:
            return lookup(address, s.words, unsigned(s.step.bits))
        m.submodules[f"values{lane}"] = values = Rom(s.words, width=s.step.bits, style=s.memory)
        m.d.comb += [values.addr.eq(address), values.en.eq(self.moves)]
        return values.data
