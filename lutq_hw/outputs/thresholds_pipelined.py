"""Binary search in two cycles a step, comparison and table read, with two searches taking turns in one lane."""

from __future__ import annotations

from functools import cached_property

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring

from ..gateware.rom import Rom
from ..gateware.skid import SkidBuffer
from ..network.tensor import Ints
from ..output import OutputStage
from ..sums import Sums
from .thresholds import ThresholdSearch


class PipelinedSearch(OutputStage):
    """Any monotone step, exact, with the tables of `ThresholdSearch`; a register cuts its loop, for fast clocks.

    While one search compares, the other reads its next word. These are two slices of a word where a word has an even
    number of them, or two words where a word is one slice: the interval is then that of `ThresholdSearch`. An odd number
    above one leaves nothing to take turns with, and a step takes two cycles.
    """

    name = "thresholds-pipelined"
    needs = "thresholds, codes of at least two bits"
    takes_constants = True
    cut = True

    @classmethod
    def reject(cls, sums: Sums) -> str | None:
        reason = ThresholdSearch.reject(sums)
        if reason is None and sums.type.bits == 1:
            return f"{sums.name} has one threshold for each channel: no loop to cut"
        return reason

    @cached_property
    def search(self) -> ThresholdSearch:
        """What has the same bounds and tables."""
        return ThresholdSearch(sums=self.sums, pe=self.pe, lanes=self.lanes, memory=self.memory)

    @property
    def bounds(self) -> Ints:
        """``(O, 2**bits)`` as `ThresholdSearch.bounds`."""
        return self.search.bounds

    @property
    def table(self) -> tuple[int, int]:
        return self.search.table

    @property
    def contents(self) -> Ints:
        return self.search.contents

    @property
    def comparisons(self) -> int:
        """Steps of a search."""
        return self.search.steps

    @property
    def pairs(self) -> bool:
        """Whether two slices of a word take turns."""
        return self.slices % 2 == 0

    @property
    def at_once(self) -> int:
        return 2 if self.slices == 1 else 1

    @property
    def steps(self) -> int:
        return self.comparisons if self.pairs or self.at_once == 2 else 2 * self.comparisons

    @property
    def delay(self) -> int:
        return 1

    @property
    def ends(self) -> tuple[bool, ...]:
        period = 2 * self.comparisons
        if self.at_once == 2:
            return tuple(cycle == period - 1 for cycle in range(period))
        first = period - 2
        return tuple(cycle % period in ((first, first + 1) if self.pairs else (first,)) for cycle in range(self.interval))

    def features(self, lut_inputs: int) -> dict[str, float]:
        width = self.lanes * self.acc_bits
        loads = self.pe * self.acc_bits * self.at_once
        return {"held": loads + width if self.pairs and self.slices > 2 else loads, "held_ffs": loads,
                "steps": 2 * self.comparisons, "search": self.lanes * (3 * self.comparisons + 1),
                "carries": self.lanes * self.search.word_bits}

    def create(self) -> wiring.Component:
        return _PipelinedStage(self)


class _PipelinedStage(wiring.Component):
    """What compares in this cycle is in front; the other one reads, and comes to the front with the next cycle.

    ``step`` and ``other_step`` are their steps, one-hot and counting down to bit 0; the first one where a search begins or
    none is. ``row`` is the channel that the other one reads for, ``ends`` says that the front's search ends. ``enable``
    stops everything while a result cannot leave, ``move`` changes places.
    """

    row: Value | None

    def __init__(self, stage: PipelinedSearch):
        self.stage = stage
        super().__init__(stage.members)

    def elaborate(self, platform) -> Module:
        m = Module()
        s = self.stage
        first = 1 << s.comparisons - 1
        m.submodules.result = result = SkidBuffer(len(self.o.payload))
        wiring.connect(m, result.o, wiring.flipped(self.o))
        self.step = Signal(s.comparisons, init=first)
        self.other_step = Signal(s.comparisons, init=first)
        self.ends, self.enable, self.move, done = Signal(), Signal(), Signal(), Signal()
        m.d.comb += self.enable.eq(~done | result.i.ready)
        with m.If(self.enable):
            m.d.sync += done.eq(self.ends)
        sums = self._words(m) if s.at_once == 2 else self._slices(m)
        m.d.comb += [
            result.i.valid.eq(done),
            result.i.payload.eq(Cat(self._lane(m, n, sums.word_select(n, s.acc_bits).as_signed())
                                    for n in range(s.lanes))),
        ]
        return m

    def _words(self, m: Module) -> Value:
        """Two words take turns; the sums of the one in front.

        Words end in the order in which they came, so if one is there, the next takes the other place, and if two are, that
        of the one that ends. Without any it goes behind the front, where its first word of the table is read.
        """
        s = self.stage
        front_busy, other_busy, to_front, to_other = Signal(), Signal(), Signal(), Signal()
        next_front, next_other = Signal(), Signal()
        place = Signal(init=1)  # decided a cycle ahead: readiness is then one lut away from registers
        front, behind = (Signal(s.pe * s.acc_bits, name=name, reset_less=True) for name in ("front", "behind"))
        m.d.comb += [
            self.ends.eq(self.step[0]),
            self.move.eq(self.enable),
            self.i.ready.eq(self.enable & place),
            to_front.eq(self.i.valid & front_busy & ~other_busy),
            to_other.eq(self.i.valid & place & ~(front_busy & ~other_busy)),
            next_front.eq(to_front | other_busy),
            next_other.eq(to_other | (front_busy & ~self.step[0])),
        ]
        with m.If(self.enable):
            m.d.sync += [
                self.step.eq(self.other_step),
                self.other_step.eq(Mux(front_busy, self.step.rotate_right(1), self.other_step.init)),
                front_busy.eq(next_front),
                other_busy.eq(next_other),
                place.eq(self.other_step[0] | ~(next_front & next_other)),
                # What comes is taken where no word is, be it one or not: that need not be known in time.
                front.eq(Mux(other_busy, behind, self.i.payload.as_value())),
                behind.eq(Mux(front_busy & ~self.step[0], front, self.i.payload.as_value())),
            ]
        if s.rows > 1:
            # Every second word is the same place's. At rest places do not change, and the next word is the front's.
            row = Signal(range(s.rows))
            other_row = Signal(range(s.rows), init=1)
            with m.If(self.enable & (self.i.valid | front_busy | other_busy)):
                m.d.sync += row.eq(other_row)
                with m.If(self.step[0]):
                    m.d.sync += other_row.eq(Mux(row >= s.rows - 2, row - (s.rows - 2), row + 2))
                with m.Else():
                    m.d.sync += other_row.eq(row)
            self.row = other_row
        else:
            self.row = None
        return front

    def _slices(self, m: Module) -> Value:
        """Two slices of a word take turns, or one with a pause; the sums of the one in front."""
        s = self.stage
        rounds = s.slices // 2 if s.pairs else s.slices
        left = Signal(range(rounds)) if rounds > 1 else None
        second = Signal(init=1)  # the second of a pair is in front; so it is at rest, when the first one reads
        busy, at_end, first_ends = Signal(), Signal(), Signal()
        held = Signal(s.pe * s.acc_bits, reset_less=True)
        m.d.comb += [
            first_ends.eq(self.step[0] & ~second),
            self.ends.eq(self.step[0] if s.pairs else first_ends),
            self.move.eq(busy & self.enable),
            self.i.ready.eq(~busy | (at_end & self.enable)),
        ]
        width = s.lanes * s.acc_bits
        moved = held >> width
        if s.pairs:
            swapped = Cat(held[width:2 * width], held[:width], held[2 * width:])
            moved = swapped if s.slices == 2 else Mux(self.step[0], moved, swapped)
        with m.If(~busy | self.enable):
            with m.If(~busy | at_end):
                # Whether a word is there or not: that need not be known in time.
                m.d.sync += [busy.eq(self.i.valid), second.eq(~self.i.valid), at_end.eq(0),
                             held.eq(self.i.payload.as_value())]
                if left is not None:
                    m.d.sync += left.eq(rounds - 1)
            with m.Else():
                m.d.sync += second.eq(~second)
                with m.If(first_ends):
                    m.d.sync += at_end.eq(1 if left is None else left == 0)
                    if left is not None:
                        m.d.sync += left.eq(left - 1)
                with m.If(1 if s.pairs else first_ends):
                    m.d.sync += held.eq(moved)
        with m.If(self.move):
            m.d.sync += [self.step.eq(self.other_step), self.other_step.eq(self.step.rotate_right(1))]
        # The next row is the first one's as soon as that has ended: the second has then read its last word.
        count = s.rows // 2 if s.pairs else s.rows
        row = Signal(range(count))
        with m.If(self.move & first_ends):
            m.d.sync += row.eq(Mux(row == count - 1, 0, row + 1))
        self.row = Cat(~second, row) if s.pairs else row
        return held[:width]

    def _lane(self, m: Module, lane: int, acc: Value) -> Value:
        """Code of the search that ended in the cycle before."""
        s = self.stage
        bits, word_bits = s.comparisons, s.search.word_bits
        m.submodules[f"table{lane}"] = table = Rom(s.contents[lane].tolist(), width=s.table[0], style=s.memory)
        # What is known of the codes, without the bit that is compared and those below; the other's last bit is `below`.
        known, other, now = (Signal(bits, name=f"{name}{lane}") for name in ("known", "other", "now"))
        excess = Signal(signed(max(word_bits, s.acc_bits) + 1), name=f"excess{lane}")
        below = Signal(name=f"below{lane}", reset_less=True)
        code = Signal(bits - 1, name=f"code{lane}", reset_less=True)
        m.d.comb += [
            excess.eq(acc + table.data[:word_bits].as_signed()),
            now.eq(other | ((self.other_step << 1)[:bits] & (~below).replicate(bits))),
            table.addr.eq(Cat(now | self.other_step, [] if self.row is None else self.row)),
            table.en.eq(self.enable),
        ]
        with m.If(self.move):
            m.d.sync += [known.eq(now), other.eq(Mux(self.step[0], 0, known)), below.eq(excess[-1]), code.eq(known[1:])]
        found = Cat(~below, code)
        if s.search.inverts:
            flip = Signal(name=f"flip{lane}", reset_less=True)
            with m.If(self.move):
                m.d.sync += flip.eq(table.data[word_bits])
            found = found ^ flip.replicate(bits)
        return found ^ (1 << bits - 1 if s.sums.type.signed else 0)
