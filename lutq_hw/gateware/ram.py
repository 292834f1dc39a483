"""Block RAM of a known number of blocks, written in banks."""

from __future__ import annotations

from amaranth import Cat, Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..cost import bram_shape, masked


class BankedRam(wiring.Component):
    """``banks`` words of ``width`` bits at every address; one or more banks are written, all are read.

    Read data follows ``read_addr`` by one cycle in which ``read_en`` was high. An address must not be read in the cycle
    that writes it. How the memory is cut into blocks is decided here and not by synthesis, so that `cost.ram_brams`
    counts them exactly.

    Attributes
    ----------
    write_addr, write_data, write_en
        The same word goes to every bank whose enable is high.
    read_addr, read_en, read_data
        Bank 0 in the low bits.
    """

    def __init__(self, width: int, depth: int, banks: int):
        self.width, self.depth, self.banks = width, depth, banks
        super().__init__({
            "write_addr": In(range(max(2, depth))), "write_data": In(width), "write_en": In(banks),
            "read_addr": In(range(max(2, depth))), "read_en": In(1), "read_data": Out(width * banks)})

    def elaborate(self, platform) -> Module:
        m = Module()
        if masked(self.depth, self.banks):
            # Banks share blocks: those of 16 bits can write single bits.
            data = self._block(m, "banks", self.width * self.banks, self.width)
            m.d.comb += self.read_data.eq(data)
            return m
        piece = bram_shape(self.depth)[0]
        found = []
        for bank in range(self.banks):
            for low in range(0, self.width, piece):
                bits = min(piece, self.width - low)
                found.append(self._block(m, f"bank{bank}_{low}", bits, None, bank, low))
        m.d.comb += self.read_data.eq(Cat(*found))
        return m

    def _block(self, m: Module, name: str, bits: int, granularity: int | None, bank: int = 0, low: int = 0):
        m.submodules[name] = ram = memory.Memory(
            shape=unsigned(bits), depth=max(2, self.depth), init=[], attrs={"ram_style": "block"})
        write = ram.write_port(granularity=granularity)
        read = ram.read_port()
        m.d.comb += [
            write.addr.eq(self.write_addr), read.addr.eq(self.read_addr), read.en.eq(self.read_en),
            write.en.eq(self.write_en if granularity else self.write_en[bank]),
            write.data.eq(Cat(*[self.write_data] * self.banks) if granularity else self.write_data[low:low + bits]),
        ]
        return read.data
