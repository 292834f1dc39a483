"""Read-only table in block RAM or in luts."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Const, Module, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..cost import BRAM_SHAPES, bram_shape

CHUNK = BRAM_SHAPES[-1][1]

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
        ``bram`` or ``luts``; a table of one word is always wires. In block RAM, every block spans the whole depth, up to
        2,048 words, and a slice of the word (`cost.bram_shape`), so that the number of blocks is known beforehand and no
        luts select between them.
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
        if self.style == "luts":
            m.d.comb += self.data.eq(self._memory(m, "memory0", self.words, width))
            return m
        # Rows beyond the deepest block stand in further memories; which one was read is remembered.
        found = []
        for first in range(0, depth, CHUNK):
            rows = self.words[first:first + CHUNK]
            piece = bram_shape(len(rows))[0]
            found.append(Cat(*(
                self._memory(m, f"memory{first + low}", [word >> low & ((1 << piece) - 1) for word in rows],
                             min(piece, width - low)) for low in range(0, width, piece))))
        if len(found) == 1:
            m.d.comb += self.data.eq(found[0])
            return m
        chunk = Signal(range(len(found)))
        with m.If(self.en):
            m.d.sync += chunk.eq(self.addr >> (CHUNK - 1).bit_length())
        with m.Switch(chunk):
            for number, data in enumerate(found):
                with m.Case(number):
                    m.d.comb += self.data.eq(data)
        return m

    def _memory(self, m: Module, name: str, words: Sequence[int], width: int) -> Value:
        """One memory, addressed by the low bits of ``addr``."""
        init = list(words) if len(words) > 1 else [*words, 0]  # a memory of one word would become wires
        # Yosys asks rom_style for read-only memories; without it small ones would change place as it likes.
        m.submodules[name] = rom = memory.Memory(shape=width, depth=len(init), init=init,
                                                 attrs={"rom_style": STYLES[self.style]})
        port = rom.read_port()
        m.d.comb += [port.addr.eq(self.addr), port.en.eq(self.en)]
        return port.data
