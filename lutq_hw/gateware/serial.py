"""The frame that all output stages share: hold a word of sums, work on it slice by slice, step by step."""

from __future__ import annotations

from abc import abstractmethod

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring

from ..output import OutputStage
from .skid import SkidBuffer


class SerialStage(wiring.Component):
    """Control of an `OutputStage`; a subclass adds the arithmetic of one lane."""

    def __init__(self, stage: OutputStage):
        self.stage = stage
        super().__init__(stage.members)

    @abstractmethod
    def lane(self, m: Module, lane: int, acc: Value) -> Value:
        """Result of ``acc`` in the last step of a slice, or `OutputStage.delay` cycles with `moves` later.

        Tables are read at `next_row`, with `enable`.
        """

    def elaborate(self, platform) -> Module:
        m = Module()
        s = self.stage
        m.submodules.result = result = SkidBuffer(len(self.o.payload))
        wiring.connect(m, result.o, wiring.flipped(self.o))
        # Registered: otherwise readiness would ripple from the next layer's buffer through to this one's in one cycle.
        self.moves = free = result.i.ready
        busy = Signal()
        held = Signal(s.acc_bits * s.pe)
        step = Signal(s.steps, init=1 << (s.steps - 1))  # one-hot, counting down: bit 0 is the last step
        left = Signal(range(s.slices), init=s.slices - 1) if s.slices > 1 else None
        row = Signal(range(s.rows)) if s.rows > 1 else None

        # Whether this is the last step of a word, decided a cycle ahead: readiness is then one lut away from registers.
        single = s.slices == 1 and s.steps == 1
        at_end = Signal(init=single)
        slice_end, word_end = Signal(), Signal()
        self.enable = Signal()
        m.d.comb += [
            slice_end.eq(busy & step[0]),
            word_end.eq(busy & at_end),
            self.enable.eq(~slice_end | free),
            self.i.ready.eq(~busy | (word_end & free)),
        ]
        self.step = step
        self.next_step = Signal.like(step)
        m.d.comb += self.next_step.eq(Mux(~busy | slice_end, 1 << (s.steps - 1), step >> 1))
        # The table is read one cycle ahead, so the row is that of the step that follows.
        self.next_row = None
        if row is not None:
            self.next_row = Signal.like(row)
            m.d.comb += self.next_row.eq(Mux(slice_end, Mux(row == s.rows - 1, 0, row + 1), row))
            with m.If(self.enable):
                m.d.sync += row.eq(self.next_row)

        width = s.lanes * s.acc_bits
        last_step_next = step[1] if s.steps > 1 else Const(0)
        if left is not None:
            last_step_next = Mux(step[0], (left == 1) & (s.steps == 1), last_step_next & (left == 0))
        with m.If(self.enable & busy):
            m.d.sync += [step.eq(self.next_step), at_end.eq(last_step_next)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [busy.eq(1), held.eq(self.i.payload.as_value()), at_end.eq(single)]
            if left is not None:
                m.d.sync += left.eq(s.slices - 1)
        with m.Elif(slice_end & free):
            if left is not None:
                m.d.sync += [held.eq(held >> width), left.eq(left - 1)]
            with m.If(word_end):
                m.d.sync += busy.eq(0)

        results = [self.lane(m, i, held.word_select(i, s.acc_bits).as_signed()) for i in range(s.lanes)]
        done = slice_end
        if s.delay:
            done = Signal()
            with m.If(free):
                m.d.sync += done.eq(slice_end)
        m.d.comb += [
            result.i.valid.eq(done),
            result.i.payload.eq(Cat(r.as_unsigned()[:s.type.bits] for r in results)),
        ]
        return m
