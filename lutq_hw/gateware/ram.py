"""Block RAM of a known number of blocks, written in banks."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..cost import BRAM_SHAPES, bram_chunks, bram_shape, masked

CHUNK_BITS = (BRAM_SHAPES[-1][1] - 1).bit_length()
"""Address bits of the deepest block; memories beyond it stand behind each other."""


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
        chunks = bram_chunks(self.depth)
        found = []
        for number, depth in enumerate(chunks):
            piece = bram_shape(depth)[0]
            found.append(Cat(*(
                self._block(m, f"bank{bank}_{number}_{low}", min(piece, self.width - low), None, bank, low, number, depth)
                for bank in range(self.banks) for low in range(0, self.width, piece))))
        if len(found) == 1:
            m.d.comb += self.read_data.eq(found[0])
            return m
        chunk = Signal(range(len(found)))
        with m.If(self.read_en):
            m.d.sync += chunk.eq(self.read_addr >> CHUNK_BITS)
        with m.Switch(chunk):
            for number, data in enumerate(found):
                with m.Case(number):
                    m.d.comb += self.read_data.eq(data)
        return m

    def _block(self, m: Module, name: str, bits: int, granularity: int | None, bank: int = 0, low: int = 0,
               chunk: int = 0, depth: int | None = None) -> Value:
        """One memory: all banks when it has a granularity, else some bits of one bank in one chunk of the addresses."""
        depth = max(2, self.depth if depth is None else depth)
        m.submodules[name] = ram = memory.Memory(
            shape=unsigned(bits), depth=depth, init=[], attrs={"ram_style": "block"})
        write = ram.write_port(granularity=granularity)
        read = ram.read_port()
        here = (self.write_addr >> CHUNK_BITS) == chunk if self.depth > 1 << CHUNK_BITS else Const(1)
        m.d.comb += [
            write.addr.eq(self.write_addr), read.addr.eq(self.read_addr), read.en.eq(self.read_en),
            write.en.eq(self.write_en if granularity else self.write_en[bank] & here),
            write.data.eq(Cat(*[self.write_data] * self.banks) if granularity else self.write_data[low:low + bits]),
        ]
        return read.data
