"""The whole board design in the simulator, driven over its two wires by the host driver that drives a real board.

`simulate_uart` builds and starts; ``uart_bench.py`` runs inside the simulator, where the driver's calls, which wait for
bytes, take place in a thread of their own while the clock runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lutq_hw import golden, modelfile
from lutq_hw.emit import write_verilog
from lutq_hw.errors import ToolError
from lutq_hw.gateware.system import System
from lutq_hw.network import Network
from lutq_hw.network.tensor import Ints
from lutq_hw.plan import Plan
from lutq_hw.progress import SILENT, Progress

from .runner import watched
from .scoreboard import element
from .simulators import Simulator, tail

DIVISOR = 4
"""Clock cycles of a bit: the fewest that the UART can do, to keep simulations short."""

SHELL = """\
module lutq_uart (
    input wire clk /* verilator public_flat_rw */,
    input wire rst /* verilator public_flat_rw */,
    input wire rx /* verilator public_flat_rw */,
    output wire tx /* verilator public_flat_rd */
);
    system_dut dut (.clk(clk), .rst(rst), .rx(rx), .tx(tx));
endmodule
"""


@dataclass(frozen=True)
class UartOutcome:
    """What came back over the wire."""

    differences: list[str]
    """The first wrong result or the driver's complaint, a sentence; empty when all is equal."""

    bytes_moved: int
    cycles: int


def simulate_uart(network: Network, plan: Plan, images: Ints, folder: Path, *, simulator: str = "verilator",
                  waves: Path | None = None, progress: Progress = SILENT) -> UartOutcome:
    """Send ``images`` (as `golden.encode` takes them) to the simulated board and compare the answers with golden.

    Raises
    ------
    ToolError
        If a tool is missing or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engine = Simulator(simulator, folder / "build", waves=None if waves is None else waves.suffix[1:])
    with progress.stage(f"building the simulation with {simulator}"):
        design = write_verilog(System(network, plan, divisor=DIVISOR), folder, name="system_dut")[0]
        shell = folder / "shell.sv"
        shell.write_text(SHELL)
        frame_bits = network.input.type.size * network.input.type.bits
        engine.build([design, shell], "lutq_uart", cycles=len(images) * frame_bits * DIVISOR * 10 // 8)
    modelfile.save(network, folder / "model.npz")
    np.savez(folder / "uart.npz", images=images, results=golden.evaluate(network, images))
    verdict_file = folder / "verdict.json"
    verdict_file.unlink(missing_ok=True)
    with progress.stage("simulating", total=len(images), unit="frames") as stage:
        with watched(folder / "progress", stage):
            engine.run("lutq_hw.sim.uart_bench", folder, waves_file=waves)
    if not verdict_file.exists():
        log = folder / "run.log"
        raise ToolError(f"{simulator} stopped without a result; its log is {log} and ends with{tail(log)}")
    return UartOutcome(**json.loads(verdict_file.read_text()))


def first_difference(network: Network, results: Ints, found: Ints) -> str | None:
    """Sentence about the first result that differs, or None."""
    wrong = np.flatnonzero(results.reshape(-1) != found.reshape(-1))
    if not len(wrong):
        return None
    position = element({"shape": results.shape[1:]}, int(wrong[0]))
    return (f"layer {network.output.name}, {position}: the board answered {found.reshape(-1)[wrong[0]]}, "
            f"golden says {results.reshape(-1)[wrong[0]]}")
