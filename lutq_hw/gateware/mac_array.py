"""The frame of a MAC unit's component: rows shared by all outputs, lanes, product registers, sums."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from amaranth import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from ..cost import Cost
from ..mac import MacUnit
from ..network import Codebook
from ..paths import Path, counted_paths, note_paths
from .accumulate import Accumulate, TermRange, spare_carry, sums_cost, tree_levels

NOTHING = Cost()

Unit = TypeVar("Unit", bound=MacUnit)
Measure = TypeVar("Measure")


class Term(NamedTuple):
    """Result of a lane."""

    value: Value
    carry: Value | None = None
    registered: bool = False
    """The value comes out of a register or memory port that moves with ``en``."""


def once_per_codebook(measure: Callable[[Unit], Measure]) -> Callable[[Unit], Measure]:
    """Remembers what depends on a unit's codebook and activation only: a planner asks for hundreds of sizes."""
    known: WeakKeyDictionary[Codebook, dict[tuple[int, bool, str], tuple[Measure, list[Path]]]] = WeakKeyDictionary()

    @functools.wraps(measure)
    def remember(unit: Unit) -> Measure:
        measured = known.setdefault(unit.codebook, {})
        key = (unit.x_bits, unit.x_signed, unit.family.name)
        if key not in measured:
            with counted_paths() as paths:
                measured[key] = measure(unit), paths
        found, paths = measured[key]
        note_paths(paths)
        return found

    return remember


def array_latency(simd: int, *, row_register: bool = False) -> int:
    """Cycles from the last word's transfer to ``o.valid`` of a `MacArray`."""
    return row_register + 1 + tree_levels(simd) + 1


class MacArray(wiring.Component):
    """Words of ``unit.input_layout`` become words of ``unit.output_layout``; the timing is that of `MacUnit`.

    A unit derives from it and says what a row, the controls of a lane and a lane are. Rows and controls may be kept in
    registers, which costs one cycle and shortens the path.
    """

    def __init__(self, unit: MacUnit, term: TermRange, *, row_register: bool = False):
        super().__init__(unit.members)
        self.unit, self.term, self.row_register = unit, term, row_register

    def row(self, m: Module, s: int, x: Value) -> Sequence[Value]:
        """Values formed once from activation ``s``, for all outputs that sum over it; combinational."""
        return [x]

    def controls(self, index: Value) -> Value:
        """What a lane wants to know of its index; combinational."""
        return index

    @abstractmethod
    def lane(self, m: Module, en: Value, name: str, row: Sequence[Value], controls: Value) -> Term:
        """Product of one lane, combinational unless it says otherwise."""

    def elaborate(self, platform) -> Module:
        m = Module()
        unit = self.unit
        m.submodules.sums = sums = Accumulate(pe=unit.pe, simd=unit.simd, acc_bits=unit.acc_bits, term=self.term)
        connect(m, sums.o, flipped(self.o))
        m.d.comb += self.i.ready.eq(sums.en)
        word = self.i.p
        valid, last = self.i.valid, word.last
        rows = [list(self.row(m, s, x)) for s, x in enumerate(word.x)]
        controls = [self.controls(word.index[lane]) for lane in range(unit.pe * unit.simd)]

        def register(value: Value, name: str, reset_less: bool = True) -> Signal:
            kept = Signal(value.shape(), name=name, reset_less=reset_less)
            with m.If(sums.en):
                m.d.sync += kept.eq(value)
            return kept

        if self.row_register:
            rows = [[register(value, f"row{s}_{n}") for n, value in enumerate(row)] for s, row in enumerate(rows)]
            controls = [register(value, f"control{lane}") for lane, value in enumerate(controls)]
            valid, last = register(valid, "valid_row", reset_less=False), register(last, "last_row", reset_less=False)
        for lane in range(unit.pe * unit.simd):
            p, s = divmod(lane, unit.simd)
            value, carry, registered = self.lane(m, sums.en, f"lane{p}_{s}", rows[unit.activation(p, s)], controls[lane])
            if carry is not None and s == 0 and spare_carry(unit.simd):
                value, carry = value + carry, None
            if not registered:
                product = Signal(sums.terms[lane].shape(), name=f"product{p}_{s}", reset_less=True)
                with m.If(sums.en):
                    m.d.sync += product.eq(value)
                value = product
            m.d.comb += sums.terms[lane].eq(value)
            if carry is not None:
                m.d.comb += sums.carries[lane].eq(register(carry, f"carry{p}_{s}"))
        m.d.comb += [
            sums.valid.eq(register(valid, "valid", reset_less=False)),
            sums.last.eq(register(last, "last", reset_less=False)),
        ]
        return m


def array_cost(unit: MacUnit, term: TermRange, *, lane: Cost, row: Cost = NOTHING) -> Cost:
    """Cells of a `MacArray`: rows, lanes with their product registers, sums.

    ``lane`` and ``row`` are those of one lane and of one activation; a lane's product register is added here.
    """
    product_bits = min(term.bits, max(1, unit.acc_bits - term.zeros))
    sums = sums_cost(pe=unit.pe, simd=unit.simd, acc_bits=unit.acc_bits, term=term)
    increments = unit.pe * product_bits if term.carries and spare_carry(unit.simd) else 0
    registers = Cost(ffs=unit.pe * unit.simd * product_bits + 2)
    carried = Cost(luts=increments, adder_bits=increments, adders=unit.pe if increments else 0)
    return sums + registers + carried + lane * (unit.pe * unit.simd) + row * (unit.spread * unit.simd)
