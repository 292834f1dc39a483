"""The frame of a MAC unit's component: rows shared by all outputs, lanes, product registers, sums."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from amaranth import Cat, Module, Shape, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from ..cost import Cost
from ..mac import MacUnit
from .accumulate import Accumulate, TermRange, scale_levels, spare_carry, sums_cost, tree_levels

NOTHING = Cost()


class Term(NamedTuple):
    """Result of a lane."""

    value: Value
    carry: Value | None = None
    registered: bool = False
    """The value comes out of a register or memory port that moves with ``en``."""

    clear: Value | None = None
    """Value and carry are 0 whatever they say: the reset of their registers, which may cost less than a gate before them."""


def array_latency(terms: int, *, row_register: bool = False, lane_registers: int = 0, factor: int = 1) -> int:
    """Cycles from the last word's transfer to ``o.valid`` of a `MacArray` with that many terms for each output."""
    return row_register + lane_registers + 1 + tree_levels(terms) + 1 + scale_levels(factor)


class MacArray(wiring.Component):
    """Words of ``unit.input_layout`` become words of ``unit.output_layout``; the timing is that of `MacUnit`.

    A unit derives from it and says what a row, the controls of a lane and a lane are. Rows and controls may be kept in
    registers, which costs one cycle and shortens the path.

    Parameters
    ----------
    unit, term
        What is built, and the range of its terms.
    row_register
        Rows and controls are kept in registers.
    group
        Lanes that make one term together; the last group of an output may have fewer.
    lane_registers
        Levels of registers inside a lane; every path through it has that many.
    factor
        What the sums are multiplied by (`Accumulate`).
    """

    def __init__(self, unit: MacUnit, term: TermRange, *, row_register: bool = False, group: int = 1,
                 lane_registers: int = 0, factor: int = 1):
        super().__init__(unit.members)
        self.unit, self.term, self.row_register = unit, term, row_register
        self.group, self.lane_registers, self.factor = group, lane_registers, factor

    def row(self, m: Module, t: int, *x: Value) -> Sequence[Value]:
        """Values formed once from the activations of term ``t``, for all outputs that sum over them; combinational."""
        return x

    def controls(self, index: Value) -> Value:
        """What a lane wants to know of its index; combinational."""
        return index

    @abstractmethod
    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        """Product of one lane, or sum of the products of a group, whose ``controls`` are then side by side.

        Combinational apart from ``lane_registers``, unless it says otherwise.
        """

    def elaborate(self, platform) -> Module:
        m = Module()
        unit = self.unit
        terms = -(-unit.simd // self.group)
        m.submodules.sums = sums = Accumulate(pe=unit.pe, simd=terms, acc_bits=unit.acc_bits, term=self.term,
                                              factor=self.factor)
        connect(m, sums.o, flipped(self.o))
        m.d.comb += self.i.ready.eq(sums.en)
        word = self.i.p
        valid, last = self.i.valid, word.last
        members = [range(first, min(first + self.group, unit.simd)) for first in range(0, unit.simd, self.group)]
        rows = [list(self.row(m, t, *(word.x[g * unit.simd + s] for s in group)))
                for g in range(unit.spread) for t, group in enumerate(members)]
        controls = [self.controls(word.index[lane]) for lane in range(unit.pe * unit.simd)]

        def register(value: Value, name: str, reset_less: bool = True) -> Signal:
            kept = Signal(value.shape(), name=name, reset_less=reset_less)
            with m.If(sums.en):
                m.d.sync += kept.eq(value)
            return kept

        def cleared(value: Value, shape: Shape, name: str, clear: Value | None) -> Signal:
            kept = Signal(shape, name=name, reset_less=True)
            with m.If(sums.en):
                m.d.sync += kept.eq(value)
                if clear is not None:
                    with m.If(clear):
                        m.d.sync += kept.eq(0)
            return kept

        def wire(value: Value, name: str) -> Signal:
            # All lanes use it: without a name it would be written down in each of them.
            named = Signal(value.shape(), name=name)
            m.d.comb += named.eq(value)
            return named

        keep = register if self.row_register else wire
        rows = [[keep(value, f"row{t}_{n}") for n, value in enumerate(row)] for t, row in enumerate(rows)]
        if self.row_register:
            controls = [register(value, f"control{lane}") for lane, value in enumerate(controls)]
            valid, last = register(valid, "valid_row", reset_less=False), register(last, "last_row", reset_less=False)
        for level in range(self.lane_registers):
            valid = register(valid, f"valid_lane{level}", reset_less=False)
            last = register(last, f"last_lane{level}", reset_less=False)
        for number in range(unit.pe * terms):
            p, t = divmod(number, terms)
            row = rows[p * unit.spread // unit.pe * terms + t]
            own = [controls[p * unit.simd + s] for s in members[t]]
            name = f"{p}_{t}"
            value, carry, registered, clear = self.lane(m, sums.en, f"lane{name}", row, own[0] if len(own) == 1 else Cat(own))
            if carry is not None and t == 0 and spare_carry(terms):
                value, carry = value + carry, None
            if not registered:
                value = cleared(value, sums.terms[number].shape(), f"product{name}", clear)
            m.d.comb += sums.terms[number].eq(value)
            if carry is not None:
                m.d.comb += sums.carries[number].eq(cleared(carry, unsigned(1), f"carry{name}", clear))
        m.d.comb += [
            sums.valid.eq(register(valid, "valid", reset_less=False)),
            sums.last.eq(register(last, "last", reset_less=False)),
        ]
        return m


def array_cost(unit: MacUnit, term: TermRange, *, lane: Cost, row: Cost = NOTHING, terms: int | None = None,
               exact_first: bool = False, factor: int = 1) -> Cost:
    """Cells of a `MacArray`: rows, lanes with their product registers, sums.

    ``lane`` and ``row`` are those of one term (of ``terms`` for each output, `MacUnit.simd` when absent); a lane's product
    register is added here. ``exact_first`` says that the first lane brings no carry of its own accord.
    """
    terms = unit.simd if terms is None else terms
    product_bits = min(term.bits, max(1, unit.acc_bits - term.zeros))
    sums = sums_cost(pe=unit.pe, simd=terms, acc_bits=unit.acc_bits, term=term, factor=factor)
    increments = unit.pe * product_bits if term.carries and spare_carry(terms) and not exact_first else 0
    registers = Cost(ffs=unit.pe * terms * product_bits + 2)
    carried = Cost(luts=increments, adder_bits=increments, adders=unit.pe if increments else 0)
    return sums + registers + carried + lane * (unit.pe * terms) + row * (unit.spread * terms)
