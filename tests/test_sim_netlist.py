# amaranth: UnusedElaboratable=no
"""Synthesised netlists in the cells of every FPGA family against golden: the last rung before place and route.

Every unit with every output stage comes through every family, a tiny network for each pair of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import random_codes
from sim_cases import SIMULATORS, small_network, small_plan
from test_outputs import random_step
from test_units import DICTIONARIES, accepts, codebook

from lutq_hw import golden
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.gateware.accelerator import Accelerator
from lutq_hw.network import Codebook, Dense, Input, Network, Output, TensorType
from lutq_hw.outputs import OUTPUTS
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.sim.case import Case, accelerator_case
from lutq_hw.sim.netlist import OPTIONS, modelled_netlist, netlist_sources
from lutq_hw.sim.runner import Bench
from lutq_hw.sim.stalls import Stalls
from lutq_hw.units import UNITS

OTHERS = [name for name, family in FAMILIES.items() if family is not ICE40]

def tiny_network(unit: str, output: str) -> tuple[Network, Plan]:
    """A dense layer that has both."""
    rng = np.random.default_rng([len(unit), len(output)])
    several = [values for values in DICTIONARIES.values() if len(values) > 2]
    values, bits = next((values, bits) for bits in (3, 1) for values in (*several, (-21, 34))
                        if accepts(unit, codebook(values), bits))
    weights = Codebook(rng.integers(0, len(values), (4, 6)), dictionary=values)
    node = Dense("dense", "image", weights, rng.integers(-9, 10, 4), random_step(rng, output, 4))
    network = Network("tiny", (Input("image", TensorType((6,), bits)), node, Output("out", "dense")))
    layer = LayerPlan(node="dense", unit=unit, pe=2, channels=3, output=output, output_lanes=1)
    return network, Plan(network.digest, (layer,))


def netlist_case(unit: str, output: str, family: str, folder: Path) -> tuple[Case, list[Path]]:
    """The netlist of `tiny_network` and what it must do; Verilog that it needs."""
    network, plan = tiny_network(unit, output)
    accelerator = Accelerator(network, plan)
    name = f"{family}_{unit}_{output}".replace("-", "_")
    if family == ICE40.name:
        sources = netlist_sources(accelerator, folder, name=f"{name}_dut")
    else:
        netlist, cells = modelled_netlist(accelerator, folder, name=f"{name}_dut", family=FAMILIES[family])
        assert cells.cost.luts > 50 and cells.carries > 0 and cells.cost.brams == cells.cost.dsps == 0
        sources = [netlist]
    codes = random_codes(np.random.default_rng(3), network, 6)
    case = accelerator_case(name, accelerator, network, golden.run(network, codes), Stalls(0.3, 0.4, 5))
    return replace(case, component=None), sources


def simulate_netlists(combinations: list[tuple[str, str, str]], folder: Path) -> None:
    """All of them side by side in one build of Verilator."""
    made = [netlist_case(*combination, folder) for combination in combinations]
    cases = [case for case, _ in made]
    sources = list(dict.fromkeys(path for _, paths in made for path in paths))
    outcome = Bench(cases, folder, sources=sources, options=OPTIONS["verilator"]).run(cases)
    assert {name: verdict.differences for name, verdict in outcome.verdicts.items() if verdict.differences} == {}
    assert sum(verdict.words for verdict in outcome.verdicts.values()) == len(cases) * 6 * (2 + 4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_netlist_of_each_family_equals_golden(tmp_path: Path):
    """Another pair for each family, in one build; all pairs of each family are in the next test."""
    simulate_netlists(list(zip(UNITS, OUTPUTS, OTHERS, strict=False)), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_unit_and_stage_in_every_family(family: str, output: str, tmp_path: Path):
    simulate_netlists([(unit, output, family) for unit in UNITS], tmp_path)


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
