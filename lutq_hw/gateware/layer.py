"""One weight layer: window reader and index ROM feed the MAC unit, whose sums the output stage finishes."""

from __future__ import annotations

import numpy as np
from amaranth import Cat, Module, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..network.tensor import Ints
from ..pipeline import Layer
from .rom import Rom
from .window import WindowReader


def index_words(layer: Layer) -> Ints:
    """Indices in reading order, ``(words, pe, simd)``: word w of a pixel is row w."""
    index = layer.unit.codebook.assignments.reshape(-1, layer.plan.pe, layer.node.terms)
    # (group of channels, pe, word, lane), then pe behind the word
    return index[:, :, layer.order].transpose(0, 2, 1, 3).reshape(-1, layer.plan.pe, layer.plan.simd)


def gap_words(layer: Layer) -> Ints:
    """Indices in the gap that the unit asks for, ``(gap, pe, simd)``: the same ones for every lane."""
    steps = np.array(layer.unit.readout, int)[:, None, None]
    return np.broadcast_to(steps, (len(steps), layer.plan.pe, layer.plan.simd))


def packed(words: Ints, bits: int) -> list[int]:
    """Each row of ``words`` as one number, its first entry in the low bits."""
    flat = words.reshape(len(words), -1)
    weights = [1 << bits * i for i in range(flat.shape[1])]
    return [sum(int(v) * w for v, w in zip(row, weights, strict=True)) for row in flat]


def terms(layer: Layer, x: Value) -> Value:
    """A word of the window reader, kernel row outermost, as the unit takes it: channel group outermost."""
    plan, bits = layer.plan, layer.x.bits
    return Cat(x.word_select((row * plan.spread + group) * plan.channels + channel, bits) for group in range(plan.spread)
               for row in range(plan.rows) for channel in range(plan.channels))


class LayerEngine(wiring.Component):
    """Stream of input words in, stream of output words out, timing as in `timing.LayerTimer`."""

    def __init__(self, layer: Layer):
        self.layer = layer
        super().__init__({"i": In(stream.Signature(unsigned(layer.input.width))),
                          "o": Out(stream.Signature(unsigned(layer.output.width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        layer = self.layer
        unit = layer.unit
        m.submodules.window = window = WindowReader(layer.window, bits=layer.x.bits)
        m.submodules.unit = mac = unit.create()
        m.submodules.output = output = layer.stage.create()
        words = np.concatenate([index_words(layer), gap_words(layer)])
        width = unit.index_bits * unit.pe * unit.simd
        m.submodules.index_rom = rom = Rom(packed(words, unit.index_bits), width=width, style=layer.plan.index_memory)
        wiring.connect(m, wiring.flipped(self.i), window.i)
        weight = Signal.like(window.weight)
        with m.If(window.en):
            m.d.sync += weight.eq(window.weight)
        m.d.comb += [
            window.en.eq(mac.i.ready),
            rom.en.eq(window.en),
            rom.addr.eq(weight),
            mac.i.valid.eq(window.valid),
            mac.i.payload.x.as_value().eq(terms(layer, window.x)),
            mac.i.payload.index.as_value().eq(rom.data),
            mac.i.payload.last.eq(window.last),
        ]
        wiring.connect(m, mac.o, output.i)
        wiring.connect(m, output.o, wiring.flipped(self.o))
        return m

