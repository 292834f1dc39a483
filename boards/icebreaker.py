"""iCEBreaker: iCE40UP5K in SG48, 12 MHz oscillator on the PLL's pad, FT2232H for programming and UART.

The class of the last frame is shown on the seven-segment PMOD in socket 1A if one is plugged in; its lowest bit lights
the green LED, and the red LED changes with every result. The user button resets the design.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth import C, Cat, ClockDomain, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal
from amaranth.hdl import Elaboratable
from amaranth.lib import io, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from lutq_hw.board import Board, require_boards_package
from lutq_hw.cost import Cost
from lutq_hw.gateware.system import System

REFERENCE_HZ = 12e6

VCO_HZ = (533e6, 1066e6)
PHASE_DETECTOR_HZ = (10e6, 133e6)
"""Limits of the PLL, from its data sheet."""

MAX_HZ = 60e6
"""Beyond what this FPGA's logic reaches in any design worth building."""

POWER_ON_CYCLES = int(15e-6 * MAX_HZ)
"""Block RAM reads as zero for about 3 µs after configuration (Amaranth's platform says where that is known from)."""


@dataclass(frozen=True)
class Pll:
    """Dividers of an SB_PLL40 with simple feedback, as its parameters have them."""

    divr: int
    divf: int
    divq: int

    @property
    def hz(self) -> float:
        """Output frequency."""
        return REFERENCE_HZ / (self.divr + 1) * (self.divf + 1) / 2 ** self.divq

    @property
    def filter_range(self) -> int:
        """FILTER_RANGE for the frequency at the phase detector."""
        detector_hz = REFERENCE_HZ / (self.divr + 1)
        return next(i for i, limit in enumerate((17e6, 26e6, 44e6, 66e6, 101e6, 133.1e6), 1) if detector_hz < limit)


def all_plls() -> list[Pll]:
    """Every setting within the limits, slowest first."""
    found = []
    for divr in range(16):
        detector_hz = REFERENCE_HZ / (divr + 1)
        if not PHASE_DETECTOR_HZ[0] <= detector_hz <= PHASE_DETECTOR_HZ[1]:
            continue
        for divf in range(128):
            if VCO_HZ[0] <= detector_hz * (divf + 1) <= VCO_HZ[1]:
                found += [Pll(divr, divf, divq) for divq in range(1, 7)]
    return sorted(found, key=lambda pll: pll.hz)


def pll_at_most(hz: float) -> Pll:
    """The fastest setting up to ``hz``; the slowest of all if ``hz`` is below it."""
    plls = all_plls()
    return max((pll for pll in plls if pll.hz <= hz), key=lambda pll: pll.hz, default=plls[0])


class StartUp(wiring.Component):
    """Holds the reset until the PLL has been locked for `POWER_ON_CYCLES` cycles.

    Attributes
    ----------
    locked
        May be asynchronous; when it falls the reset comes back two cycles later.
    reset
        A register.
    """

    def __init__(self) -> None:
        super().__init__({"locked": In(1), "reset": Out(1, init=1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        locked = Signal()
        wait = Signal(range(POWER_ON_CYCLES + 1))
        m.submodules.locked = FFSynchronizer(self.locked, locked, o_domain="start")
        with m.If(~locked):
            m.d.start += [wait.eq(0), self.reset.eq(1)]
        with m.Elif(wait != POWER_ON_CYCLES):
            m.d.start += wait.eq(wait + 1)
        with m.Else():
            m.d.start += self.reset.eq(0)
        return m


class Clock(Elaboratable):
    """Drives the domain ``sync`` from the PLL; its reset is held by `StartUp`, and while ``button`` is high."""

    def __init__(self, pad: Any, button: Any, pll: Pll):
        self.pad, self.button, self.pll = pad, button, pll

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.start = ClockDomain(reset_less=True, local=True)
        m.submodules.start_up = start_up = StartUp()
        locked = Signal()
        # The pad variant: on this board the oscillator is wired to the PLL's own pin.
        m.submodules.pll = Instance(
            "SB_PLL40_PAD",
            p_FEEDBACK_PATH="SIMPLE", p_PLLOUT_SELECT="GENCLK",
            p_DIVR=C(self.pll.divr, 4), p_DIVF=C(self.pll.divf, 7), p_DIVQ=C(self.pll.divq, 3),
            p_FILTER_RANGE=C(self.pll.filter_range, 3),
            i_PACKAGEPIN=self.pad.io, i_RESETB=Const(1), i_BYPASS=Const(0),
            o_PLLOUTGLOBAL=ClockSignal("start"), o_LOCK=locked,
        )
        m.d.comb += [
            ClockSignal("sync").eq(ClockSignal("start")),
            start_up.locked.eq(locked & ~self.button),
            ResetSignal("sync").eq(start_up.reset),
        ]
        return m


SEGMENTS = (0x3F, 0x06, 0x5B, 0x4F, 0x66, 0x6D, 0x7D, 0x07, 0x7F, 0x6F, 0x77, 0x7C, 0x39, 0x5E, 0x79, 0x71)
"""Lit segments of the digits 0 to F; bit 0 is segment a."""


class SevenSegment(wiring.Component):
    """Two hexadecimal digits for the seven-segment PMOD.

    Attributes
    ----------
    number
        What to show; bits above the eighth are not shown.
    blank
        Show nothing.
    segments
        Lit when low, a first.
    low_digit
        Which digit the segments are for: the right one when high. Changes every 1,024 cycles.
    """

    def __init__(self, bits: int):
        super().__init__({"number": In(bits), "blank": In(1), "segments": Out(7), "low_digit": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        ticks = Signal(11)
        digit = Signal(4)
        lit = Signal(7)
        m.d.comb += digit.eq(Mux(ticks[-1], self.number[:4], self.number[4:8]))
        with m.Switch(digit):
            for value, pattern in enumerate(SEGMENTS):
                with m.Case(value):
                    m.d.comb += lit.eq(pattern)
        m.d.sync += [ticks.eq(ticks + 1), self.low_digit.eq(ticks[-1]), self.segments.eq(Mux(self.blank, 0x7F, ~lit))]
        return m


class Top(Elaboratable):
    """A system on the iCEBreaker."""

    def __init__(self, system: System, pll: Pll):
        self.system, self.pll = system, pll

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.system = system = self.system
        uart = platform.request("uart", dir={"rx": "-", "tx": "-"})
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.submodules.button = button = io.Buffer("i", platform.request("button", dir="-"))
        m.submodules.display = display = io.Buffer("o", platform.request("seven_segment", dir="-"))
        m.submodules.green = green = io.Buffer("o", platform.request("led_g", dir="-"))
        m.submodules.red = red = io.Buffer("o", platform.request("led_r", dir="-"))
        m.submodules.clock = Clock(platform.request("clk12", dir="-"), button.i, self.pll)
        m.submodules.digits = digits = SevenSegment(max(8, len(system.show.number)))
        blank, toggle = Signal(init=1), Signal()
        with m.If(system.show.valid):
            m.d.sync += [blank.eq(0), toggle.eq(~toggle)]
        m.d.comb += [
            system.rx.eq(rx.i),
            tx.o.eq(system.tx),
            digits.number.eq(system.show.number),
            digits.blank.eq(blank),
            display.o.eq(Cat(digits.segments, digits.low_digit)),
            green.o.eq(system.show.number[0]),
            red.o.eq(toggle),
        ]
        return m


class Icebreaker(Board):
    """The iCEBreaker."""

    name = "icebreaker"
    title = "iCEBreaker (iCE40UP5K)"
    family = "ice40"
    device, package = "up5k", "sg48"
    capacity = Cost(luts=5280, ffs=5280, brams=30, sprams=4, dsps=8)
    # Host link 445 luts, clock and display 60, and 13 % of the logic cells free: at 91 % occupied, nextpnr searches for
    # minutes and places nothing, and the clock falls long before that. A plan that leaves no more than that is 81 %
    # when placed, since what synthesis merges across parts is counted twice.
    reserved = Cost(luts=1205, ffs=268, brams=4)
    around = Cost(luts=60, ffs=34)
    plan_clock_hz = 45e6  # what full plans reach
    clock_range_hz = (all_plls()[0].hz, MAX_HZ)
    max_baud, ftdi = 3_000_000, True
    programmers = (("iceprog",), ("openFPGALoader", "-b", "ice40_generic"))
    programmer_hint = "run: apt-get install fpga-icestorm (or: apt-get install openfpgaloader)"

    def clock_at_most(self, hz: float) -> float:
        return pll_at_most(min(hz, self.clock_range_hz[1])).hz

    def platform(self) -> Any:
        require_boards_package()
        from amaranth.build import Attrs, Pins, Resource
        from amaranth_boards.icebreaker import ICEBreakerPlatform
        platform = ICEBreakerPlatform()
        # Socket 1A: segments a to g, then the digit's common line.
        pins = Pins("1 2 3 4 7 8 9 10", dir="o", conn=("pmod", 0))
        platform.add_resources([Resource("seven_segment", 0, pins, Attrs(IO_STANDARD="SB_LVCMOS"))])
        return platform

    def create(self, system: System, clock_hz: float) -> Elaboratable:
        return Top(system, pll_at_most(clock_hz))


BOARD = Icebreaker()
