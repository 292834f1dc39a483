"""Runs inside the simulator, started by cocotb: two wires become a transport for the host driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import Event, FallingEdge, SimTimeoutError, Timer, with_timeout
from cocotb.utils import get_sim_time

from lutq_hw import modelfile
from lutq_hw.errors import LinkError
from lutq_hw.link.device import Device

from .bench import PERIOD_NS, RESET_CYCLES
from .uart import DIVISOR, first_difference

BIT_NS = DIVISOR * PERIOD_NS

PATIENCE_NS = 200_000 * PERIOD_NS
"""Silence after which `read` gives up, as the serial port does."""


class Wires:
    """A transport of the host driver: bytes become levels on ``rx``, levels on ``tx`` become bytes."""

    name = "simulated board"

    def __init__(self, dut: Any):
        self.dut = dut
        self.received = bytearray()
        self.sent = self.answered = 0
        self.arrived = Event()
        self._queue = bytearray()
        self._wanted = Event()

    async def send(self) -> None:
        """Sends what `write` queued, for ever."""
        while True:
            self._wanted.clear()
            while self._queue:
                byte = self._queue.pop(0)
                for level in (0, *(byte >> n & 1 for n in range(8)), 1):
                    self.dut.rx.value = level
                    await Timer(BIT_NS, unit="ns")
            await self._wanted.wait()

    async def receive(self) -> None:
        """Collects bytes, for ever."""
        while True:
            await FallingEdge(self.dut.tx)
            await Timer(BIT_NS + BIT_NS // 2, unit="ns")
            byte = 0
            for n in range(8):
                byte |= int(self.dut.tx.value) << n
                await Timer(BIT_NS, unit="ns")
            assert int(self.dut.tx.value) == 1, "byte without stop bit"
            self.received.append(byte)
            self.answered += 1
            self.arrived.set()

    @resume
    async def write(self, data: bytes) -> None:
        """Queues ``data``."""
        self._queue += data
        self.sent += len(data)
        self._wanted.set()

    @resume
    async def read(self) -> bytes:
        """What has come, at least one byte; nothing after `PATIENCE_NS` of silence."""
        if not self.received:
            self.arrived.clear()
            try:
                await with_timeout(self.arrived.wait(), PATIENCE_NS, "ns")
            except SimTimeoutError:
                return b""
        data = bytes(self.received)
        self.received.clear()
        return data

    def close(self) -> None:
        """Nothing to close."""


@cocotb.test()
async def answers_equal_golden(dut: Any) -> None:
    """The driver checks the board, sends all frames and gets golden's results."""
    network = modelfile.load(Path("model.npz"))
    with np.load("uart.npz") as job:
        images, results = job["images"], job["results"]
    wires = Wires(dut)
    dut.rx.value = 1
    dut.rst.value = 1
    Clock(dut.clk, PERIOD_NS, unit="ns").start(start_high=False)
    await Timer(RESET_CYCLES * PERIOD_NS, unit="ns")
    dut.rst.value = 0
    await Timer(4 * BIT_NS, unit="ns")
    cocotb.start_soon(wires.send())
    cocotb.start_soon(wires.receive())

    def drive() -> list[str]:
        device = Device(wires, network)
        try:
            found = device.infer(images, progress=lambda done: Path("progress").write_text(str(done)))
        except LinkError as error:
            return [str(error)]
        difference = first_difference(network, results, found)
        return [difference] if difference else []

    differences = await bridge(drive)()
    cycles = int(get_sim_time("ns") // PERIOD_NS)
    Path("verdict.json").write_text(json.dumps(
        {"differences": differences, "bytes_moved": wires.sent + wires.answered, "cycles": cycles}))
    assert not differences, differences
