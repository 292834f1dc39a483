"""Read-only table in block RAM or in luts."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Const, Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

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
        ``bram`` or ``luts``; a table of one word is always wires.
    """

    def __init__(self, words: Sequence[int], *, width: int, style: str):
        self.words = [int(word) for word in words]
        self.style = style
        if min(self.words) < 0 or max(self.words) >> width:
            raise ValueError(f"ROM words must fit {width} bits, not {min(self.words)} to {max(self.words)}")
        super().__init__({"addr": In(range(len(self.words))), "en": In(1), "data": Out(width)})

    def elaborate(self, platform) -> Module:
        m = Module()
        if len(self.words) == 1:
            m.d.comb += self.data.eq(Const(self.words[0], len(self.data)))
            return m
        # Yosys asks rom_style for read-only memories; without it small ones would change place as it likes.
        m.submodules.memory = rom = memory.Memory(
            shape=len(self.data), depth=len(self.words), init=self.words, attrs={"rom_style": STYLES[self.style]})
        port = rom.read_port()
        m.d.comb += [port.addr.eq(self.addr), port.en.eq(self.en), self.data.eq(port.data)]
        return m
