# amaranth: UnusedElaboratable=no
"""Receiver and transmitter against a UART made of lists of levels."""

import random

import pytest
from amaranth import Module
from amaranth.lib.crc.catalog import CRC16_IBM_3740
from amaranth.sim import Simulator

from lutq_hw.gateware.crc import ByteCrc
from lutq_hw.gateware.uart import UartReceiver, UartTransmitter
from lutq_hw.link.simulated import LineDecoder, LineEncoder


def levels(data: bytes, bit_cycles: float, *, stop: int = 1) -> list[int]:
    """The line, cycle by cycle."""
    encoder = LineEncoder(bit_cycles)
    encoder.send(data, stop=stop)
    line = []
    while not encoder.idle:
        line.append(encoder.step())
    return line


def receive(divisor: int, line: list[int]) -> tuple[bytes, int]:
    """Bytes and number of errors that a receiver finds on the line."""
    receiver: UartReceiver = UartReceiver(divisor)
    found, errors = bytearray(), 0

    async def bench(ctx):
        nonlocal errors
        for level in [*line, *[1] * 12 * divisor]:
            ctx.set(receiver.rx, level)
            _, _, valid, byte, error = await ctx.tick().sample(receiver.o.valid, receiver.o.payload, receiver.error)
            assert not (valid and error)
            if valid:
                found.append(byte)
            errors += error

    simulator = Simulator(receiver)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return bytes(found), errors


def test_line_model_round_trip():
    data = random.Random(2).randbytes(40)
    decoder = LineDecoder(5.3)
    for level in levels(data, 5.3):
        decoder.step(level)
    assert (bytes(decoder.received), decoder.framing_errors) == (data, 0)
    assert levels(b"\x31", 2) == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("divisor", [4, 5, 8, 13])
@pytest.mark.parametrize("off", [0.98, 0.99, 1.0, 1.01, 1.02])
def test_receives_back_to_back_at_a_rate_somewhat_off(divisor, off):
    data = bytes([0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80]) + random.Random(divisor).randbytes(10)
    assert receive(divisor, levels(data, divisor * off)) == (data, 0)


@pytest.mark.parametrize("seed", range(3))
def test_receives_after_pauses_of_any_length(seed):
    rng = random.Random(seed)
    data, line = rng.randbytes(12), []
    for byte in data:
        line += [1] * rng.randrange(9) + levels(bytes([byte]), 4)
    assert receive(4, line) == (data, 0)


def test_ignores_a_glitch_of_one_cycle():
    line = levels(b"\x5a", 8)
    for start in range(0, len(line), 8):
        line[start + 4] ^= 1
    idle = [1] * 20
    idle[10] = 0
    assert receive(8, [*idle, *line]) == (b"\x5a", 0)


def test_a_byte_without_stop_bit_is_an_error_and_the_next_one_is_not():
    line = levels(b"\x77", 6, stop=0) + [0] * 20 + [1] * 3 + levels(b"\x12", 6)
    assert receive(6, line) == (b"\x12", 1)


def test_a_line_stuck_low_is_one_error():
    assert receive(4, [0] * 400) == (b"", 1)


@pytest.mark.parametrize("divisor", [4, 7])
@pytest.mark.parametrize("pause", [0, 3])
def test_transmits(divisor, pause):
    transmitter: UartTransmitter = UartTransmitter(divisor)
    data = bytes([0x00, 0xFF]) + random.Random(divisor).randbytes(8)
    line, starts = [], []

    async def source(ctx):
        for byte in data:
            ctx.set(transmitter.i.payload, byte)
            ctx.set(transmitter.i.valid, 1)
            await ctx.tick().until(transmitter.i.ready)
            starts.append(len(line))
            ctx.set(transmitter.i.valid, 0)
            for _ in range(pause):
                await ctx.tick()

    async def sink(ctx):
        async for _, _, tx in ctx.tick().sample(transmitter.tx):
            line.append(tx)

    simulator = Simulator(transmitter)
    simulator.add_clock(1e-6)
    simulator.add_testbench(sink, background=True)
    simulator.add_testbench(source)
    simulator.run()
    simulator.run_until(1e-6 * (len(line) + 10 * divisor + 5))
    if pause == 0:
        begin = line.index(0)
        assert line[begin:begin + 10 * divisor * len(data)] == levels(data, divisor)
    decoder = LineDecoder(divisor)
    for level in line:
        decoder.step(level)
    assert (bytes(decoder.received), decoder.framing_errors) == (data, 0)


@pytest.mark.parametrize("divisor", [3, 0, 70_000])
def test_a_divisor_out_of_range_is_refused(divisor):
    for kind in (UartReceiver, UartTransmitter):
        with pytest.raises(ValueError, match=f"^Divisor must be 4 to 65535 clock cycles of a bit, not {divisor}$"):
            kind(divisor)


def test_crc_equals_that_of_amaranth():
    m = Module()
    m.submodules.crc = dut = ByteCrc()
    message = b"123456789"

    async def bench(ctx):
        for data in (message, random.Random(3).randbytes(50)):
            ctx.set(dut.valid, 0)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for byte in data:
                ctx.set(dut.valid, 0)
                await ctx.tick()
                ctx.set(dut.valid, 1)
                ctx.set(dut.data, byte)
                await ctx.tick()
            expected = CRC16_IBM_3740(8).compute(data)
            assert ctx.get(dut.crc) == expected
            assert data != message or expected == 0x29B1
            for byte in expected.to_bytes(2, "big"):
                ctx.set(dut.data, byte)
                await ctx.tick()
            assert ctx.get(dut.crc) == 0

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
