# amaranth: UnusedElaboratable=no
"""Every MAC unit is proved equal to a naive sum, cycle for cycle, for all inputs and stalls after reset.

Bounded model checking: `DEPTH` cycles beyond the latency. Beside equality the stream rules are proved: what is offered
stays offered, unchanged, until it is taken. A unit with a gap keeps sums in memories, for which the solver needs longer:
it is proved at the smallest size, over one dot product and the gaps around it; one that leaves no gap behind long dot
products also over three of these, which follow each other at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from amaranth import Array, Cat, Const, Module, Mux, ResetSignal, Signal, signed
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from formal import assert_held, prove
from spaced import component

from lutq_hw.mac import MacUnit
from lutq_hw.network import Codebook
from lutq_hw.units import UNITS

DEPTH = 3


class Proof(wiring.Component):
    """A unit beside its specification: a sum is formed at once when its words are taken, then waits in registers."""

    def __init__(self, unit: MacUnit):
        self.unit = unit
        super().__init__({"payload": In(unit.input_layout.size), "valid": In(1), "ready": In(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += Assume(~ResetSignal())
        unit = self.unit
        m.submodules.unit = dut = component(unit)
        m.d.comb += [dut.i.payload.as_value().eq(self.payload), dut.i.valid.eq(self.valid), dut.o.ready.eq(self.ready)]
        word = dut.i.p
        if unit.codebook.entries < 1 << unit.index_bits:
            for index in word.index:
                m.d.comb += Assume(index < unit.codebook.entries)

        advance = dut.o.ready | ~dut.o.valid
        rest = Signal(range(unit.startup + unit.gap + 1), init=unit.startup + unit.gap)
        takes = Signal()
        m.d.comb += [takes.eq(advance & self.valid & (rest == 0)), Assert(dut.i.ready == (advance & (rest == 0)))]
        with m.If(takes & word.last):
            m.d.sync += rest.eq(unit.gap)
        with m.Elif(advance & (rest != 0)):
            m.d.sync += rest.eq(rest - 1)
        if unit.order is not None:
            position = Signal(range(len(unit.order)))
            m.d.comb += Assume(word.last == (position == len(unit.order) - 1))
            with m.If(takes):
                m.d.sync += position.eq(Mux(word.last, 0, position + 1))
        width = unit.pe * unit.acc_bits
        stages = [(Signal(name=f"ends{n}"), Signal(width, name=f"sums{n}")) for n in range(unit.latency)]
        totals = []
        for p in range(unit.pe):
            so_far = Signal(signed(unit.acc_bits), name=f"so_far{p}")
            total = Signal(signed(unit.acc_bits), name=f"total{p}")
            m.d.comb += total.eq(sum((self.product(word, p, s) for s in range(unit.simd)), start=so_far))
            with m.If(takes):
                m.d.sync += so_far.eq(Mux(word.last, 0, total))
            totals.append(total)
        with m.If(advance):
            m.d.sync += [stages[0][0].eq(takes & word.last), stages[0][1].eq(Cat(totals))]
            for (ends, sums), (before, earlier) in zip(stages[1:], stages, strict=False):
                m.d.sync += [ends.eq(before), sums.eq(earlier)]
        ends, sums = stages[-1]
        m.d.comb += Assert(dut.o.valid == ends)
        with m.If(ends):
            m.d.comb += Assert(dut.o.payload.as_value() == sums)

        assert_held(m, dut.o)
        return m

    def product(self, word, p: int, s: int):
        """Product of one lane, straight from the table."""
        unit = self.unit
        codes = unit.levels & ((1 << unit.x_bits) - 1)
        columns = []
        for k in range(unit.codebook.entries):
            by_code = np.empty(len(codes), np.int64)
            by_code[codes] = unit.summed[:, k]
            x = word.x[unit.activation(p, s)].as_unsigned()
            columns.append(Array(Const(int(value), signed(24)) for value in by_code)[x])
        return Array(columns)[word.index[p * unit.simd + s]]


def prove_unit(unit: MacUnit, folder: Path) -> None:
    """Runs the proof of ``unit``."""
    words = 0 if unit.order is None else 3 * len(unit.order)
    prove(Proof(unit), unit.startup + unit.gap + words + unit.latency + DEPTH, folder)


def dictionary(*values: int) -> Codebook:
    return Codebook(assignments=np.arange(len(values))[None, :], dictionary=values)


CASES = {
    "signs": (dictionary(-4, -1, 0, 2), 2, False, 1, 2),
    "odd": (dictionary(-3, 0, 5), 2, True, 2, 1),
    "two": (dictionary(-1, 1), 2, False, 2, 2),
    "bits": (dictionary(-3, 3), 1, False, 1, 3),
    "constants": (dictionary(-4, -1, 0, 2), 2, False, 1, 2),
    "resets": (dictionary(-2, -1, 0, 1, 2), 3, False, 1, 1),
    "slices": (dictionary(-2, -1, 0, 1, 3), 2, True, 1, 1),
    "rows": (dictionary(-2, 0, 3), 4, True, 1, 1),
    "spread": (dictionary(-1, 0, 1), 1, True, 2, 2),
    "table": (Codebook(assignments=[[0, 1, 2]], table=[[0, 3, -4], [1, 1, 7], [-5, 0, 2], [2, -8, 6]]), 2, False, 2, 1),
}


SMALLEST = (dictionary(-1, 0, 2), dictionary(-3, 0, 3))
"""Of these the first that a unit with a gap takes."""


def unit_of(name: str, case: str) -> MacUnit | None:
    """The unit ``name`` for a case; None if it does not take it, or if it has no constants to be off by.

    A unit with a gap has one proof, under the name of "odd".
    """
    kind = UNITS[name]
    book, x_bits, x_signed, pe, simd = CASES[case]
    spread, acc_bits = 2 if case == "spread" else 1, 6
    if not kind.any_length:
        book = next(book for book in SMALLEST if kind.reject(book, 1, False) is None)
        x_bits, x_signed, pe, simd, acc_bits = 1, False, 1, 1, 3
    taken = kind.any_length or case == "odd"
    if not taken or kind.reject(book, x_bits, x_signed) is not None or (spread > 1 and not kind.spreads):
        return None
    unit = kind(codebook=book, x_bits=x_bits, x_signed=x_signed, pe=pe, simd=simd, acc_bits=acc_bits, spread=spread)
    if case == "constants":
        return unit.off(acc_bits) if unit.excess.any() else None
    return unit


PAIRS = [(name, case) for name in UNITS for case in CASES if unit_of(name, case) is not None]


def is_quick(name: str, case: str) -> bool:
    """Whether a proof is part of the default suite: the first that a unit without a gap has, "odd" where it takes it."""
    first = next(other for unit, other in sorted(PAIRS, key=lambda pair: pair[1] != "odd") if unit == name)
    return UNITS[name].any_length and case == first


@pytest.mark.parametrize(("name", "case"),
                         [pair if is_quick(*pair) else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS])
def test_unit_equals_the_naive_sum(name, case, tmp_path):
    unit = unit_of(name, case)
    assert unit is not None
    prove_unit(unit, tmp_path)


def back_to_back(name: str) -> MacUnit | None:
    """A unit that may need a gap, with dot products that are long enough to need none; None if there is always one."""
    kind = UNITS[name]
    alone = kind(codebook=dictionary(0, 1), x_bits=1, x_signed=False, pe=1, simd=1, acc_bits=3)
    fold = 1 + alone.gap
    # Outputs that have one entry only make room for the sums of any others.
    book = Codebook(np.repeat([[0], [1]], fold, axis=1), dictionary=(0, 1))
    unit = replace(alone, codebook=kind.view(book), order=np.arange(fold)[:, None])
    return None if unit.gap else unit


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, kind in UNITS.items() if not kind.any_length and back_to_back(name)])
def test_dot_products_without_a_gap(name, tmp_path):
    unit = back_to_back(name)
    assert unit is not None
    prove_unit(unit, tmp_path)


def test_a_wrong_unit_is_refuted(tmp_path):
    """The proof can fail: one product off by one is found."""

    class Wrong(UNITS["shift-add"]):
        @property
        def products(self):
            return super().products + (self.levels == 1)[:, None] * (np.arange(self.codebook.entries) == 2)[None, :]

    book, x_bits, x_signed, pe, simd = CASES["signs"]
    with pytest.raises(AssertionError, match="FAIL"):
        prove_unit(Wrong(codebook=book, x_bits=x_bits, x_signed=x_signed, pe=pe, simd=simd, acc_bits=6), tmp_path)
