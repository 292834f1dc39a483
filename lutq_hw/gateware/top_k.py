"""Indices of the largest elements of a frame, in order."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class TopKStage(wiring.Component):
    """Indices of the ``count`` largest of ``words`` elements, the largest in the low bits; the lower index first on a tie.

    One element a cycle is put into a sorted list: every place compares with it, and those behind it move down. Timing as
    in `argmax.ArgmaxStage`: ``o`` is valid the cycle after the frame's last element; an element is taken while ``o`` is
    free or being taken.
    """

    def __init__(self, *, bits: int, is_signed: bool, words: int, index_bits: int, count: int):
        self.shape = signed(bits) if is_signed else unsigned(bits)
        self.words, self.index_bits, self.count = words, index_bits, count
        super().__init__({"i": In(stream.Signature(unsigned(bits))),
                          "o": Out(stream.Signature(unsigned(index_bits * count)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        word = Signal(range(max(2, self.words)))
        filled = Signal(self.count)  # a thermometer of the places that hold an element of this frame
        take, last = Signal(), Signal()
        new = Signal(self.shape)
        m.d.comb += [
            self.i.ready.eq(self.o.ready | ~self.o.valid),
            take.eq(self.i.valid & self.i.ready),
            last.eq(word == self.words - 1),
            new.eq(self.i.payload),
        ]
        values = [Signal(self.shape, name=f"value{n}", reset_less=True) for n in range(self.count)]
        indices = [self.o.payload.word_select(n, self.index_bits) for n in range(self.count)]
        above = Const(0)  # whether the new element comes before the place in front
        for n, value in enumerate(values):
            before = Signal(name=f"before{n}")
            m.d.comb += before.eq(~filled[n] | (new > value))
            moved, moved_index = (values[n - 1], indices[n - 1]) if n else (new, word)
            with m.If(take & before):
                m.d.sync += [value.eq(Mux(above, moved, new)), indices[n].eq(Mux(above, moved_index, word))]
            above = before
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(take & last)
        with m.If(take):
            m.d.sync += [word.eq(Mux(last, 0, word + 1)), filled.eq(Mux(last, 0, Cat(Const(1, 1), filled)))]
        return m
