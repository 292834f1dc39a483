# amaranth: UnusedElaboratable=no
"""The synthesised netlist of a small network, iCE40 cells and all, against golden: the last rung before place and route."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from networks import random_codes
from sim_cases import SIMULATORS, small_network, small_plan

from lutq_hw import golden
from lutq_hw.gateware.accelerator import Accelerator
from lutq_hw.sim.case import accelerator_case
from lutq_hw.sim.netlist import OPTIONS, netlist_sources
from lutq_hw.sim.runner import Bench
from lutq_hw.sim.stalls import Stalls


def test_the_netlist_equals_golden_in_value_and_time(tmp_path: Path):
    simulator = SIMULATORS[-1]
    rng = np.random.default_rng(21)
    network = small_network(rng)
    accelerator = Accelerator(network, small_plan(network))
    results = golden.run(network, random_codes(rng, network, 2))
    sources = netlist_sources(accelerator, tmp_path, name="netlist_dut")
    text = sources[1].read_text()
    assert "SB_LUT4" in text and "SB_RAM40_4K" in text
    case = replace(accelerator_case("netlist", accelerator, network, results, Stalls(0.3, 0.3, 2)), component=None)
    outcome = Bench([case], tmp_path, simulator=simulator, sources=sources, options=OPTIONS[simulator]).run([case])
    verdict = outcome.verdicts["netlist"]
    assert verdict.differences == []
    assert verdict.words == sum(len(probe.words) for probe in case.probes) == 2 * (7 * 6 + 10)
