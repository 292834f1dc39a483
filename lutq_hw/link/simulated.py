"""A board inside Amaranth's simulator, true to the cycle; a transport like the serial port."""

from __future__ import annotations

from collections import deque
from typing import Any

from amaranth import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.sim import Simulator

from ..gateware.host import HostLink


class LineEncoder:
    """Levels of a UART line, cycle by cycle, for bytes to send; a bit takes ``bit_cycles``, which need not be whole."""

    def __init__(self, bit_cycles: float):
        self.bit_cycles = bit_cycles
        self._bits: deque[int] = deque()
        self._spent = 0.0

    def send(self, data: bytes, *, stop: int = 1) -> None:
        """Queues bytes; ``stop=0`` sends them without their stop bits."""
        for byte in data:
            self._bits.extend([0, *(byte >> n & 1 for n in range(8)), stop])

    def pause(self, bits: int) -> None:
        """Queues silence."""
        self._bits.extend([1] * bits)

    @property
    def idle(self) -> bool:
        """True if everything is sent."""
        return not self._bits

    def step(self) -> int:
        """Level of the next cycle."""
        if not self._bits:
            self._spent = 0.0
            return 1
        level = self._bits[0]
        self._spent += 1
        if self._spent >= self.bit_cycles:
            self._spent -= self.bit_cycles
            self._bits.popleft()
        return level


class LineDecoder:
    """Bytes from the levels of a UART line.

    Attributes
    ----------
    received
        Bytes so far; whoever reads them may clear it.
    framing_errors
        Bytes without a stop bit.
    """

    def __init__(self, bit_cycles: float):
        self.bit_cycles = bit_cycles
        self.received = bytearray()
        self.framing_errors = 0
        self._levels: list[int] | None = None  # since the start bit began

    def step(self, level: int) -> None:
        """Takes the level of the next cycle."""
        if self._levels is None:
            self._levels = None if level else []
        if self._levels is None:
            return
        self._levels.append(level)
        if len(self._levels) >= 9.5 * self.bit_cycles + 1:
            bits = [self._levels[int((n + 0.5) * self.bit_cycles)] for n in range(10)]
            if bits[0] == 0 and bits[9] == 1:
                self.received.append(sum(bit << n for n, bit in enumerate(bits[1:9])))
            else:
                self.framing_errors += 1
            self._levels = None


class SimulatedBoard:
    """`HostLink` and an accelerator, connected like on a board, behind the interface of a transport.

    Parameters
    ----------
    link
        The host link; its divisor should be small (4), for speed.
    accelerator
        Any component with streams ``i`` and ``o`` of the link's formats.
    bit_cycles
        Clock cycles of a bit at the host's end; by default the link's divisor.
    patience
        Cycles that `read` waits for a byte.
    vcd
        Path of a waveform file, if wanted.
    """

    PERIOD_S = 1e-6
    name = "simulated board"

    def __init__(self, link: HostLink, accelerator: Any, *, bit_cycles: float | None = None,
                 patience: int = 20_000, vcd: str | None = None):
        self.link: Any = link
        self.patience = patience
        self.encoder = LineEncoder(bit_cycles or link.divisor)
        self.decoder = LineDecoder(bit_cycles or link.divisor)
        self.cycle = 0
        self.shown: list[int] = []
        m = Module()
        m.submodules.link = self.link
        m.submodules.accelerator = ResetInserter(self.link.reset_accelerator)(accelerator)
        wiring.connect(m, self.link.words, accelerator.i)
        wiring.connect(m, accelerator.o, self.link.results)
        self._simulator = Simulator(m)
        self._simulator.add_clock(self.PERIOD_S)
        self._simulator.add_testbench(self._wires, background=True)
        self._waves = self._simulator.write_vcd(vcd) if vcd else None
        if self._waves:
            self._waves.__enter__()

    async def _wires(self, ctx) -> None:
        link, rx = self.link, 1
        async for _, _, tx, shown, number in ctx.tick().sample(link.tx, link.show.valid, link.show.number):
            self.decoder.step(tx)
            if shown:
                self.shown.append(number)
            self.cycle += 1
            level = self.encoder.step()
            if level != rx:  # every access costs the simulator time
                ctx.set(link.rx, rx := level)

    def run(self, cycles: int) -> None:
        """Lets time pass."""
        self._simulator.run_until((self.cycle + cycles) * self.PERIOD_S)

    def write(self, data: bytes) -> None:
        """Queues bytes for the receiver."""
        self.encoder.send(data)

    def read(self) -> bytes:
        """The bytes that came since the last call, at least one; nothing after `patience` cycles of silence."""
        waited = 0
        while not self.decoder.received and waited < self.patience:
            self.run(50)
            waited = waited + 50 if self.encoder.idle else 0
        data = bytes(self.decoder.received)
        self.decoder.received.clear()
        return data

    def close(self) -> None:
        """Finishes the waveform file."""
        if self._waves:
            self._waves.__exit__(None, None, None)
            self._waves = None
