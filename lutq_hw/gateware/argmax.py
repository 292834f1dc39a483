"""Index of the largest element of a frame."""

from __future__ import annotations

from amaranth import Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class ArgmaxStage(wiring.Component):
    """Index of the largest of ``words * lanes`` elements, the lowest on a tie; one word a cycle.

    ``o`` is valid the cycle after the frame's last word; a word is taken while ``o`` is free or being taken.
    """

    def __init__(self, *, bits: int, is_signed: bool, lanes: int, words: int, index_bits: int):
        self.shape = signed(bits) if is_signed else unsigned(bits)
        self.lanes, self.words = lanes, words
        super().__init__({"i": In(stream.Signature(unsigned(bits * lanes))),
                          "o": Out(stream.Signature(unsigned(index_bits)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        word = Signal(range(max(2, self.words)))
        best = Signal(self.shape)
        take, last = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(self.o.ready | ~self.o.valid),
            take.eq(self.i.valid & self.i.ready),
            last.eq(word == self.words - 1),
        ]
        value, index, found = best, self.o.payload, word != 0
        for lane in range(self.lanes):
            new = Signal(self.shape, name=f"new{lane}")
            m.d.comb += new.eq(self.i.payload.word_select(lane, len(best)))
            better = Signal(name=f"better{lane}")
            m.d.comb += better.eq(~found | (new > value))
            value = Mux(better, new, value)
            index = Mux(better, word * self.lanes + lane, index)
            found = Const(1)
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(take & last)
        with m.If(take):
            m.d.sync += [best.eq(value), self.o.payload.eq(index), word.eq(Mux(last, 0, word + 1))]
        return m
