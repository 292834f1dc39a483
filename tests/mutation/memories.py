# amaranth: UnusedElaboratable=no
"""Memories and queues by themselves: reads and writes as words of a stream, so that the same simulation drives them."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth import Module, Mux, Signal, Value, unsigned
from amaranth.back import rtlil
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from lutq_hw.cost import bram_count, ram_brams
from lutq_hw.gateware.fifo import StreamFifo
from lutq_hw.gateware.ram import BankedRam
from lutq_hw.gateware.rom import Rom
from lutq_hw.timing import FifoTimer

from .drive import PipelineTimer, Run, Wrong

BLOCK = re.compile(r'attribute \\r[ao]m_style "block"\n(?:\s*attribute .*\n)*\s*memory width (\d+) size (\d+)')


@dataclass(frozen=True)
class Placed(Run):
    """A run of what must be in so many blocks of RAM, which costs count beforehand."""

    blocks: int = 0

    def __call__(self) -> None:
        memories = BLOCK.findall(rtlil.convert(self.build(), name="top", emit_src=False))
        found = sum(bram_count(int(width), int(depth)) for width, depth in memories)
        if found != self.blocks:
            raise Wrong(f"it is in {found} blocks, not in {self.blocks}")
        super().__call__()


class RamStream(wiring.Component):
    """Every word writes or reads a `BankedRam`, or does both; what was read is the word that comes out."""

    def __init__(self, width: int, depth: int, banks: int):
        self.shape = width, depth, banks
        address = unsigned((depth - 1).bit_length())
        self.word = data.StructLayout({"read": 1, "read_addr": address, "write_en": unsigned(banks), "write_addr": address,
                                       "write_data": unsigned(width)})
        super().__init__({"i": In(stream.Signature(self.word)), "o": Out(stream.Signature(unsigned(width * banks)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.ram = ram = BankedRam(*self.shape)
        word: Any = self.i.payload
        en = self.o.ready | ~self.o.valid
        with m.If(en):
            m.d.sync += self.o.valid.eq(self.i.valid & word.read)
        m.d.comb += [
            self.i.ready.eq(en), self.o.payload.eq(ram.read_data), ram.read_addr.eq(word.read_addr), ram.read_en.eq(en),
            ram.write_addr.eq(word.write_addr), ram.write_data.eq(word.write_data),
            ram.write_en.eq(Mux(en & self.i.valid, word.write_en, 0)),
        ]
        return m

    def legal(self, m: Module, payload: Value, taken: Value) -> Value:
        """No address that there is not, none that is read while it is written."""
        bits: Value = Signal(self.word)
        depth = self.shape[1]
        word: Any = bits
        given: Any = self.word(payload)
        m.d.comb += [
            word.eq(given),
            word.read_addr.eq(Mux(given.read_addr < depth, given.read_addr, 0)),
            word.write_addr.eq(Mux(given.write_addr < depth, given.write_addr, 0)),
            word.write_en.eq(Mux(word.read_addr == word.write_addr, 0, given.write_en)),
        ]
        return Value.cast(bits)


class RomStream(wiring.Component):
    """Every word is an address of a `Rom`."""

    def __init__(self, words: Sequence[int], width: int, style: str):
        self.words, self.width, self.style = words, width, style
        super().__init__({"i": In(stream.Signature(unsigned((len(words) - 1).bit_length()))),
                          "o": Out(stream.Signature(unsigned(width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.rom = rom = Rom(self.words, width=self.width, style=self.style)
        en = self.o.ready | ~self.o.valid
        with m.If(en):
            m.d.sync += self.o.valid.eq(self.i.valid)
        m.d.comb += [self.i.ready.eq(en), rom.en.eq(en), rom.addr.eq(self.i.payload), self.o.payload.eq(rom.data)]
        return m

    def legal(self, m: Module, payload: Value, taken: Value) -> Value:
        """No address that there is not."""
        return Mux(payload < len(self.words), payload, 0)


def ends_of(depth: int) -> list[int]:
    """Addresses at both ends of a memory, of its blocks, and of what an address with a bit missing would be."""
    return sorted({a for a in (0, 1, 2, 255, 256, 511, 512, 1023, 1024, 2047, 2048, depth // 2, depth - 2, depth - 1)
                   if 0 <= a < depth})


def ram_checks() -> list[Run]:
    """Depths around those at which blocks change, words wider than a block, banks that share blocks or do not."""
    shapes = [(3, 5, 1), (2, 4, 3), (18, 3, 1), (7, 2, 2), (9, 257, 2), (1, 2048, 1), (3, 2050, 1), (1, 2050, 2), (1, 1, 1)]
    checks = []
    for seed, shape in enumerate(shapes):
        width, depth, banks = shape
        rng = np.random.default_rng(seed)
        layout = RamStream(*shape).word
        content: dict[int, list[int]] = {}
        words, reads, results = [], [], []
        fresh = [(address, bank) for address in ends_of(depth) for bank in range(banks)]
        for step in range(len(fresh) + 40):
            full = [address for address, stored in content.items() if None not in stored]
            read = bool(full) and rng.random() < 0.7
            source = int(rng.choice(full)) if full else 0
            address, banked = fresh[step] if step < len(fresh) else (int(rng.choice(ends_of(depth))), 0)
            enable = 1 << banked if step < len(fresh) else int(rng.integers(1 << banks))
            if read and source == address:
                read = False
            value = int(rng.integers(1 << width))
            words.append(layout.const({"read": read, "read_addr": source if read else 0, "write_en": enable,
                                       "write_addr": address, "write_data": value}).as_bits())
            reads.append(read)
            if read:
                results.append(sum(part << width * bank for bank, part in enumerate(content[source])))
            stored: list[Any] = content.setdefault(address, [None] * banks)
            stored[:] = [value if enable >> bank & 1 else part for bank, part in enumerate(stored)]
        timer = functools.partial(PipelineTimer, 1, reads)
        checks.append(Placed(functools.partial(RamStream, *shape), timer, [words], [results], seed, RamStream(*shape).legal,
                             blocks=ram_brams(*shape)))
    return checks


def rom_checks() -> list[Run]:
    """Depths and widths around those at which blocks change, in block RAM and in luts."""
    shapes = [(1, 3), (2, 1), (5, 4), (30, 17), (257, 9), (600, 5), (2048, 3), (2049, 2), (4100, 3)]
    checks = []
    for seed, (depth, width) in enumerate(shapes):
        rng = np.random.default_rng(seed)
        table = rng.integers(1 << width, size=depth).tolist()
        addresses = [*ends_of(depth), *rng.integers(depth, size=24).tolist()]
        for style in ("bram", "luts") if depth < 2000 else ("bram",):
            make = functools.partial(RomStream, table, width, style)
            timer = functools.partial(PipelineTimer, 1, [True] * len(addresses))
            results = [table[address] for address in addresses]
            blocks = bram_count(width, depth) if style == "bram" and depth > 1 else 0
            checks.append(Placed(make, timer, [addresses], [results], seed, make().legal, blocks=blocks))
    return checks


def fifo_checks() -> list[Run]:
    """Queues of a few words in both kinds of memory."""
    shapes = [(1, 3), (2, 2), (3, 1), (4, 2), (6, 4)]
    checks = []
    for seed, (depth, width) in enumerate(shapes):
        words = np.random.default_rng(seed).integers(1 << width, size=40).tolist()
        for number, memory in enumerate(("luts", "bram")):
            make = functools.partial(StreamFifo, width, depth, memory)
            checks.append(Placed(make, functools.partial(FifoTimer, depth), [words], [words], seed + 2 * number,
                                 blocks=ram_brams(width, depth, 1) if memory == "bram" else 0))
    return checks
