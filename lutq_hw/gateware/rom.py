"""Read-only table in block RAM or in luts."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Const, Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..cost import bram_shape

STYLES = {"bram": "block", "luts": "logic"}


class Rom(wiring.Component):
    """``data`` is word ``addr`` of the previous cycle in which ``en`` was high.

    Parameters
    ----------
    words
        Contents, non-negative.
    width
        Bits of a word.
    style
        ``bram`` or ``luts``; a table of one word is always wires. In block RAM, every block spans the whole depth and
        a slice of the word (`cost.bram_shape`), so that the number of blocks is known beforehand and no luts select
        between them.
    """

    def __init__(self, words: Sequence[int], *, width: int, style: str):
        self.words = [int(word) for word in words]
        self.style = style
        if min(self.words) < 0 or max(self.words) >> width:
            raise ValueError(f"ROM words must fit {width} bits, not {min(self.words)} to {max(self.words)}")
        super().__init__({"addr": In(range(len(self.words))), "en": In(1), "data": Out(width)})

    def elaborate(self, platform) -> Module:
        m = Module()
        width, depth = len(self.data), len(self.words)
        if depth == 1:
            m.d.comb += self.data.eq(Const(self.words[0], width))
            return m
        piece = bram_shape(depth)[0] if self.style == "bram" else width
        data = []
        for low in range(0, width, piece):
            bits = min(piece, width - low)
            init = [word >> low & ((1 << bits) - 1) for word in self.words]
            # Yosys asks rom_style for read-only memories; without it small ones would change place as it likes.
            m.submodules[f"memory{low}"] = rom = memory.Memory(
                shape=bits, depth=depth, init=init, attrs={"rom_style": STYLES[self.style]})
            port = rom.read_port()
            m.d.comb += [port.addr.eq(self.addr), port.en.eq(self.en)]
            data.append(port.data)
        m.d.comb += self.data.eq(Cat(*data))
        return m
