"""One weight layer: window reader and index ROM feed the MAC unit, whose sums the output stage finishes."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..network.tensor import Ints
from ..pipeline import Layer
from .rom import Rom
from .window import WindowReader


def index_words(layer: Layer) -> Ints:
    """Indices in reading order, ``(words, pe, simd)``: word w of a pixel is row w."""
    plan, window = layer.plan, layer.window
    index = layer.node.weights.flat.assignments
    if index.ndim == 2:
        index = index[:, None, None, :]
    kh, kw = window.kernel
    # (group, repetition, pe) x (kernel row step, row, kernel column, word, channel)
    split = index.reshape(window.groups, window.repeat, plan.pe, kh // plan.rows, plan.rows, kw, window.group_words,
                          plan.channels)
    order = split.transpose(0, 1, 3, 5, 6, 2, 4, 7)
    return order.reshape(-1, plan.pe, plan.simd)


def packed(words: Ints, bits: int) -> list[int]:
    """Each row of ``words`` as one number, its first entry in the low bits."""
    flat = words.reshape(len(words), -1)
    weights = [1 << bits * i for i in range(flat.shape[1])]
    return [sum(int(v) * w for v, w in zip(row, weights, strict=True)) for row in flat]


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
        words = index_words(layer)
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
            mac.i.payload.x.as_value().eq(window.x),
            mac.i.payload.index.as_value().eq(rom.data),
            mac.i.payload.last.eq(window.last),
        ]
        wiring.connect(m, mac.o, output.i)
        wiring.connect(m, output.o, wiring.flipped(self.o))
        return m

