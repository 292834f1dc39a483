"""Bytes over two wires: eight data bits, least significant first, no parity, one stop bit."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

MIN_DIVISOR = 4
"""Fewest clock cycles of a bit: with fewer, a rate 2 % off would sample the stop bit's neighbour."""

MAX_DIVISOR = 0xFFFF


def check_divisor(divisor: int) -> int:
    """``divisor`` if a UART can have it, else `ValueError`."""
    if not MIN_DIVISOR <= divisor <= MAX_DIVISOR:
        raise ValueError(f"Divisor must be {MIN_DIVISOR} to {MAX_DIVISOR} clock cycles of a bit, not {divisor!r}")
    return divisor


class UartReceiver(wiring.Component):
    """Offers each byte for one cycle, about the middle of its stop bit.

    The line is synchronised, then every decision takes the majority of the last three samples, so that a glitch of one
    cycle does nothing. The next start bit is looked for from the middle of the stop bit on, which leaves half a bit for
    a sender that is faster.

    Attributes
    ----------
    rx
        The line, idle high, asynchronous.
    o
        Bytes; valid for one cycle. The payload is steady from a bit's time before until the next start bit.
    error
        High for one cycle instead of ``o.valid`` if the stop bit was low; the line must go high before the next byte.
    """

    def __init__(self, divisor: int):
        self.divisor = check_divisor(divisor)
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(unsigned(8), always_ready=True)),
                          "error": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        now, line = Signal(init=1), Signal(init=1)
        before = Signal(2, init=0b11)
        m.submodules.synchronizer = FFSynchronizer(self.rx, now, init=1)
        m.d.sync += before.eq(Cat(now, before[0]))
        m.d.comb += line.eq((now & before[0]) | (now & before[1]) | (before[0] & before[1]))

        ticks = Signal(range(self.divisor))
        sample = Signal()
        bits = Signal(8)
        m.d.comb += [sample.eq(ticks == 0), self.o.payload.eq(bits)]
        # Registers: behind them the parser decides what a byte means. The bits stay as they are until the next start bit.
        m.d.sync += [ticks.eq(ticks - 1), self.o.valid.eq(0), self.error.eq(0)]
        with m.If(sample):
            m.d.sync += ticks.eq(self.divisor - 1)
        with m.FSM():
            with m.State("IDLE"):
                # A start bit seen now began up to a cycle earlier: its middle is half a bit less half a cycle away.
                m.d.sync += ticks.eq((self.divisor - 1) // 2 - 1)
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                m.d.sync += bits.eq(0x80)  # the one reaches bit 0 when seven bits are in
                with m.If(sample):
                    with m.If(line):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "DATA"
            with m.State("DATA"):
                with m.If(sample):
                    m.d.sync += bits.eq(Cat(bits[1:], line))
                    with m.If(bits[0]):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(sample):
                    m.d.sync += [self.o.valid.eq(line), self.error.eq(~line)]
                    with m.If(line):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "BREAK"
            with m.State("BREAK"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTransmitter(wiring.Component):
    """Sends a byte in ``10 * divisor`` cycles; back to back when the next one is there in time.

    Attributes
    ----------
    tx
        The line, idle high; a register.
    i
        Bytes. ``tx`` shows the start bit the cycle after the transfer.
    """

    def __init__(self, divisor: int):
        self.divisor = check_divisor(divisor)
        super().__init__({"tx": Out(1, init=1), "i": In(stream.Signature(unsigned(8)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        ticks = Signal(range(self.divisor))
        shift = Signal(9)  # what follows the bit on the line; the highest one is the stop bit, zeros behind it
        # Both decided a cycle ahead, since much of the host link waits for them: the bit has been on the line for its time,
        # and nothing is left of the byte either.
        done, ready = Signal(init=1), Signal(init=1)
        m.d.comb += self.i.ready.eq(ready)
        with m.If(~done):
            m.d.sync += [ticks.eq(ticks - 1), done.eq(ticks == 1), ready.eq((shift == 0) & (ticks == 1))]
        with m.Elif(~ready):
            m.d.sync += [self.tx.eq(shift[0]), shift.eq(shift >> 1), ticks.eq(self.divisor - 1), done.eq(0)]
        with m.Elif(self.i.valid):
            m.d.sync += [self.tx.eq(0), shift.eq(Cat(self.i.payload, 1)), ticks.eq(self.divisor - 1), done.eq(0), ready.eq(0)]
        return m
