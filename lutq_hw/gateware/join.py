"""Sums of several streams, and none at all: what stands before the output stage of an add and of a requantise."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..joins import Join, Requantizer
from ..network import TensorType


def codes_of(word: Value, x: TensorType, lane: int) -> Value:
    """Element ``lane`` of a word, as the number that it is."""
    code = word.word_select(lane, x.bits)
    return code.as_signed() if x.signed else code


class StreamAdder(wiring.Component):
    """``Σ_i code_i << shift_i`` of ``lanes`` elements of every input, without a register.

    A word moves when all inputs have one and ``o`` is ready; ``o.ready`` must not depend on ``o.valid``.

    Parameters
    ----------
    types, shifts
        Of each input ``i0``, ``i1`` ...
    lanes
        Elements in a word.
    bits
        Width of the signed sums.
    """

    def __init__(self, types: Sequence[TensorType], shifts: Sequence[int], lanes: int, bits: int):
        self.types, self.shifts, self.lanes, self.bits = types, shifts, lanes, bits
        inputs = {f"i{k}": In(stream.Signature(unsigned(lanes * x.bits))) for k, x in enumerate(types)}
        super().__init__({**inputs, "o": Out(stream.Signature(data.ArrayLayout(signed(bits), lanes)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        inputs = [getattr(self, f"i{k}") for k in range(len(self.types))]
        m.d.comb += self.o.valid.eq(Cat(i.valid for i in inputs).all())
        m.d.comb += [i.ready.eq(self.o.valid & self.o.ready) for i in inputs]
        for lane in range(self.lanes):
            parts = [codes_of(i.payload, x, lane) << shift
                     for i, x, shift in zip(inputs, self.types, self.shifts, strict=True)]
            while len(parts) > 1:  # in pairs, so that many inputs make a flat tree
                parts = [sum(parts[k + 1:k + 2], start=parts[k]) for k in range(0, len(parts), 2)]
            m.d.comb += self.o.payload[lane].eq(parts[0])
        return m


class JoinEngine(wiring.Component):
    """Streams in, the stream of their finished sums out; timing as in `timing.output_timer`."""

    def __init__(self, join: Join):
        self.join = join
        inputs = {f"i{k}": In(stream.Signature(unsigned(form.width))) for k, form in enumerate(join.inputs)}
        super().__init__({**inputs, "o": Out(stream.Signature(unsigned(join.output.width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        join = self.join
        m.submodules.adder = adder = StreamAdder(join.types, join.node.shifts, join.plan.channels, join.sums.bits)
        m.submodules.output = output = join.stage.create()
        for k in range(len(join.types)):
            wiring.connect(m, wiring.flipped(getattr(self, f"i{k}")), getattr(adder, f"i{k}"))
        wiring.connect(m, adder.o, output.i)
        wiring.connect(m, output.o, wiring.flipped(self.o))
        return m


class RequantizeEngine(wiring.Component):
    """Stream of codes in, stream of finished codes out; timing as in `timing.output_timer`."""

    def __init__(self, requantizer: Requantizer):
        self.requantizer = requantizer
        super().__init__({"i": In(stream.Signature(unsigned(requantizer.input.width))),
                          "o": Out(stream.Signature(unsigned(requantizer.output.width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        requantizer = self.requantizer
        x, bits = requantizer.input.type, requantizer.sums.bits
        m.submodules.output = output = requantizer.stage.create()
        m.d.comb += [output.i.valid.eq(self.i.valid), self.i.ready.eq(output.i.ready)]
        for lane in range(requantizer.plan.channels):
            code = Signal(signed(bits), name=f"code{lane}")
            m.d.comb += [code.eq(codes_of(self.i.payload, x, lane)), output.i.payload[lane].eq(code)]
        wiring.connect(m, output.o, wiring.flipped(self.o))
        return m
