# amaranth: UnusedElaboratable=no
"""ROM and banked RAM against lists, around every depth at which their blocks change."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from lutq_hw.gateware.ram import BankedRam
from lutq_hw.gateware.rom import Rom


def run(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("style", ["bram", "luts"])
@pytest.mark.parametrize("depth", [2, 255, 257, 1025, 2048, 2049, 4097, 5000])
def test_rom(depth, style):
    rng = np.random.default_rng(depth)
    words = [int(word) for word in rng.integers(0, 1 << 13, depth)]
    addresses = [0, depth - 1, min(2047, depth - 1), min(2048, depth - 1), *rng.integers(0, depth, 40)]

    async def bench(ctx):
        for address in map(int, addresses):
            ctx.set(dut.addr, address)
            ctx.set(dut.en, 1)
            await ctx.tick()
            assert ctx.get(dut.data) == words[address]
            ctx.set(dut.en, 0)
            ctx.set(dut.addr, depth - 1 - address)
            await ctx.tick()
            assert ctx.get(dut.data) == words[address], "data stays while the table is not read"

    dut = Rom(words, width=13, style=style)
    run(dut, bench)


def test_rom_words_must_fit():
    with pytest.raises(ValueError, match=r"^ROM words must fit 3 bits, not 0 to 8$"):
        Rom([0, 8], width=3, style="bram")


@pytest.mark.parametrize("banks", [1, 3])
@pytest.mark.parametrize("depth", [2, 256, 257, 2048, 2049, 4500])
def test_ram(depth, banks):
    rng = np.random.default_rng(depth + banks)
    dut = BankedRam(5, depth, banks)
    addresses = sorted({0, 1, depth - 1, min(2047, depth - 1), min(2048, depth - 1), *map(int, rng.integers(0, depth, 20))})
    content = {(address, bank): int(rng.integers(0, 32)) for address in addresses for bank in range(banks)}

    async def bench(ctx):
        for (address, bank), word in content.items():
            ctx.set(dut.write_addr, address)
            ctx.set(dut.write_data, word)
            ctx.set(dut.write_en, 1 << bank)
            await ctx.tick()
        ctx.set(dut.write_en, 0)
        ctx.set(dut.read_en, 1)
        for address in addresses:
            ctx.set(dut.read_addr, address)
            await ctx.tick()
            assert ctx.get(dut.read_data) == sum(content[address, bank] << 5 * bank for bank in range(banks))

    run(dut, bench)
