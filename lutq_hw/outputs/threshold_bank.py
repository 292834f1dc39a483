"""All thresholds of a channel compared at once: one word a cycle, for codes of few bits or thresholds that are shared."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from amaranth import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring

from ..gateware.rom import Rom
from ..gateware.serial import SerialStage
from ..logic_estimate import Logic, filled
from ..network import Thresholds
from ..network.tensor import Ints, signed_bits
from ..output import OutputStage
from ..sums import Sums
from .scores import offset_adders, offset_bits, offset_table, offset_words
from .thresholds import folded_bounds

OWN = 7
"""Most thresholds of a channel where channels differ: each is a table column and an adder in every lane."""

SHARED = 63
"""Most thresholds that all channels share: each is a comparison with a constant, a third of a lut for every bit."""

SAMPLE = 100
"""Columns of a table whose logic is counted; a larger table is that much more of the same."""


def are_shared(step: Thresholds) -> bool:
    """Whether one row of thresholds, counted in one direction, serves all channels."""
    return bool((step.values == step.values[0]).all() and (step.descending == step.descending[0]).all())


def at_least(value: Value, bound: int) -> Value:
    """``value >= bound`` of a signed value: a chain of AND and OR, three bits to a LUT4, where a carry chain takes one."""
    bits = len(value)
    bound += 1 << bits - 1
    if not 0 < bound < 1 << bits:
        return Const(int(bound <= 0), 1)
    met: Value = Const(1, 1)
    for n, bit in enumerate((*value[:-1], ~value[-1])):
        met = bit & met if bound >> n & 1 else bit | met
    return met


def ones(thermometer: Sequence[Value]) -> list[Value]:
    """Bits of the number of ones, lowest first, in ``2**n - 1`` bits of which no one follows a zero."""
    if not thermometer:
        return []
    half = len(thermometer) // 2
    rest = [Mux(thermometer[half], high, low)
            for low, high in zip(thermometer[:half], thermometer[half + 1:], strict=True)]
    return [*ones(rest), thermometer[half]]


@cache
def compare_luts(bounds: tuple[int | None, ...], bits: int, mixed: bool, lut_inputs: int) -> int:
    """Luts of a lane between its sum of ``bits``, or the signs of comparisons with stored bounds (None), and its code.

    ``bounds`` are compared with the sum as a number without sign; with ``mixed`` a stored bit inverts the code.
    """
    logic = Logic(lut_inputs)
    value = [logic.input(bit) for bit in range(bits)]
    thermometer = []
    for t, bound in enumerate(bounds):
        met = logic.input(("sign", t)) if bound is None else int(bound < 1 << bits)
        if bound is not None and 0 < bound < 1 << bits:
            for n, bit in enumerate(value):
                met = logic.mux(bit, met, 0) if bound >> n & 1 else logic.mux(bit, 1, met)
        thermometer.append(met)
    down = logic.input("down") if mixed else 0
    return logic.luts([logic.xor(bit, down) for bit in _height(logic, thermometer)])


def _height(logic: Logic, thermometer: Sequence[int]) -> list[int]:
    """`ones` of bits in ``logic``."""
    if not thermometer:
        return []
    half = len(thermometer) // 2
    rest = [logic.mux(thermometer[half], high, low)
            for low, high in zip(thermometer[:half], thermometer[half + 1:], strict=True)]
    return [*_height(logic, rest), thermometer[half]]


class ThresholdBank(OutputStage):
    """Any monotone step, one cycle for each word. The comparisons of a channel are a thermometer; its height is the code.

    Thresholds that all channels share are constants, and what is left of the bias is added to the sum before. Otherwise a
    table word holds a channel's bounds, less those that are the same in every channel. Channels that count downwards are
    held as in `ThresholdSearch`: complemented, and marked by one more bit where others count upwards.
    """

    name = "threshold-bank"
    needs = f"thresholds, at most {OWN} in each channel or {SHARED} that all channels share"

    @classmethod
    def reject(cls, sums: Sums) -> str | None:
        if not isinstance(sums.step, Thresholds):
            return f"{sums.name} has no thresholds"
        count, shared = sums.step.values.shape[1], are_shared(sums.step)
        if count <= (SHARED if shared else OWN):
            return None
        whose = "shared by all channels" if shared else "in each channel"
        return (f"{sums.name} has {count} thresholds {whose}; a bank compares with at most {OWN} of a channel, or {SHARED} "
                "shared by all, at once")

    @property
    def step(self) -> Thresholds:
        """The layer's step."""
        assert isinstance(self.sums.step, Thresholds)
        return self.sums.step

    @property
    def steps(self) -> int:
        return 1

    @property
    def result_levels(self) -> int:
        return self.step.bits  # of the thermometer, each bit of its height chooses among the halves of what is left

    @cached_property
    def offsets(self) -> Ints:
        """``(O,)`` what is added to the sums, 0 for the first channel: biases of channels that share their thresholds."""
        return (self.sums.bias - self.sums.bias[0]) * are_shared(self.step)

    @cached_property
    def total_range(self) -> tuple[int, int]:
        """Range of what is compared."""
        low, high = self.sum_range
        return low + int(self.offsets.min()), high + int(self.offsets.max())

    @cached_property
    def bounds(self) -> Ints:
        """``(O, 2**bits - 1)`` the thermometer's bit t is ``acc + offset >= bounds[o, t]``."""
        return folded_bounds(self.step, self.sums.bias - self.offsets, self.total_range)[:, 1:]

    @cached_property
    def varying(self) -> list[int]:
        """Thresholds that stand in the table; all others are constants."""
        return [t for t, column in enumerate(self.bounds.T) if self.rows > 1 and (column != column[0]).any()]

    @property
    def word_bits(self) -> int:
        """Bits of a negated bound in the table."""
        low, high = self.total_range
        return signed_bits(-high - 1, -low)

    @property
    def mixed(self) -> bool:
        """Whether some channels count upwards and some downwards."""
        return self.rows > 1 and len(set(self.step.descending.tolist())) > 1

    def _columns(self, lut_inputs: int) -> tuple[int, float]:
        """Bits that the tables of all lanes hold in a row, and luts of these tables in logic. Equal bits are one cell."""
        width = self.table[0] if self.varying or self.mixed else 0
        tables = [self.words(lane) for lane in range(self.lanes)]
        found = list(dict.fromkeys(tuple(word >> n & 1 for word in words) for words in tables for n in range(width)))
        logic = Logic(lut_inputs)
        row = [logic.input(bit) for bit in range((self.rows - 1).bit_length())]
        sample = filled(np.array(found[:SAMPLE], int).reshape(-1, self.rows), 1 << len(row))
        luts = logic.luts([logic.tree(column, row) for column in sample.tolist()])
        return len(found), luts * len(found) / max(1, len(sample))

    def words(self, lane: int) -> list[int]:
        """Table of one lane, a word for each row: negated bounds, the lowest first, then the mark."""
        mask, found = (1 << self.word_bits) - 1, []
        for o in range(lane, self.sums.outputs, self.lanes):
            fields = [int(-self.bounds[o, t]) & mask for t in self.varying]
            word = sum(field << n * self.word_bits for n, field in enumerate(fields))
            found.append(word | int(self.step.descending[o]) << len(fields) * self.word_bits if self.mixed else word)
        return found

    @property
    def table(self) -> tuple[int, int]:
        return len(self.varying) * self.word_bits + self.mixed or offset_bits(self.offsets), self.rows

    @property
    def contents(self) -> Ints | None:
        return None if self.varying or self.mixed else offset_words(self, self.offsets)

    @property
    def lone_carries(self) -> int:
        return self.lanes * len(self.varying) * self.word_bits

    def features(self, lut_inputs: int) -> dict[str, float]:
        bits = signed_bits(*self.total_range)
        stored, luts = self._columns(lut_inputs) if self.memory == "luts" else (0, 0.0)
        constants = [tuple(None if t in self.varying else bound + (1 << bits - 1) for t, bound in enumerate(row))
                     for row in self.bounds[:self.lanes].tolist()]
        compared = sum(compare_luts(row, bits, self.mixed, lut_inputs) for row in constants)
        behind_adder = bool(self.offsets.any()) and self.bounds.shape[1] == 1  # shares its luts, where it is made of luts
        added = offset_adders(self, self.offsets, max(bits, self.acc_bits))
        return {**added, **{name: added.get(name, 0) + amount for name, amount in self._bound_adders.items()},
                "bounds": compared * (not behind_adder),
                "merged": compared * behind_adder,
                "signs": self.lanes * len(self.varying),
                "columns": luts, "column_ffs": stored}

    @cached_property
    def _bound_adders(self) -> dict[str, float]:
        """Cells of the adders that compare with bounds of the table; and where the carry is in a cell beside the lut, luts in
        front of it: one for each different column of bits that a bit of the sum is compared with, and its inverters."""
        found = {"bound_cells": self.lanes * len(self.varying) * self.word_bits, "bound_luts": 0, "inverted": 0}
        for lane in range(self.lanes):
            words = -self.bounds[lane::self.lanes, self.varying]
            for bit in range(self.word_bits):
                columns = {column.tobytes(): column for column in (words >> bit & 1).T.astype(np.uint8)}
                found["bound_luts"] += sum(0 < column.sum() < len(column) for column in columns.values())
                found["inverted"] += any(column.all() for column in columns.values())
        return dict(found)

    def create(self) -> wiring.Component:
        return _BankStage(self)


class _BankStage(SerialStage):
    def lane(self, m: Module, lane: int, acc: Value) -> Value:
        s = self.stage
        assert isinstance(s, ThresholdBank)
        total = Signal(signed(signed_bits(*s.total_range)), name=f"total{lane}")
        added = acc + offset_table(self, m, lane, s.offsets) if s.offsets.any() else acc
        m.d.comb += total.eq(added)
        bounds, word = s.bounds[lane].tolist(), None
        if (s.varying or s.mixed) and self.next_row is not None:
            width = len(s.varying) * s.word_bits + s.mixed
            m.submodules[f"bounds{lane}"] = table = Rom(s.words(lane), width=width, style=s.memory)
            m.d.comb += [table.addr.eq(self.next_row), table.en.eq(self.enable)]
            word = table.data
        thermometer = []
        for t, bound in enumerate(bounds):
            if t not in s.varying or word is None:
                met = at_least(total, bound)
            else:
                excess = Signal(signed(max(s.word_bits, len(total)) + 1), name=f"excess{lane}_{t}")
                negated = word.word_select(s.varying.index(t), s.word_bits)
                m.d.comb += excess.eq(total + negated.as_signed())
                met = ~excess[-1]
            thermometer.append(met)
        down = word[-1] if s.mixed and word is not None else Const(int(s.step.descending[lane]), 1)
        code = Signal(s.step.bits, name=f"code{lane}")
        m.d.comb += [bit.eq(count ^ down) for bit, count in zip(code, ones(thermometer), strict=True)]
        return code ^ (1 << s.step.bits - 1 if s.step.signed else 0)
