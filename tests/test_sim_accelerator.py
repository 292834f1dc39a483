# amaranth: UnusedElaboratable=no
"""Whole accelerators in Verilator (and Icarus): words and cycles equal golden, and what is said when they do not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import random_codes
from sim_cases import SIMULATORS, case_of, small_network, small_plan

from lutq_hw import golden
from lutq_hw.network import Network
from lutq_hw.network.tensor import Ints
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.sim.case import Case
from lutq_hw.sim.runner import Bench
from lutq_hw.sim.stalls import Stalls

FRAMES = 3
FASTEST = SIMULATORS[-1]
"""Icarus where it is installed: these designs are small, and it builds in a second."""


def example(seed: int) -> tuple[Network, Ints]:
    """A network and frames for it."""
    rng = np.random.default_rng(seed)
    network = small_network(rng)
    return network, random_codes(rng, network, FRAMES)


def wrong_differences(bench: Bench, case: Case) -> list[str]:
    outcome = bench.run([case])
    assert not outcome.equal
    return outcome.verdicts[case.name].differences


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_values_and_cycles_equal_golden_under_every_kind_of_pause(simulator: str, tmp_path: Path):
    network, codes = example(5)
    case = case_of("small", network, small_plan(network), codes)
    bench = Bench([case], tmp_path / "work", simulator=simulator, waves="vcd")
    for stalls in (Stalls(), Stalls(0.5, 0.5, 3), Stalls(0.9, 0.2, 4)):
        case = case_of("small", network, small_plan(network), codes, stalls)
        outcome = bench.run([case], waves=tmp_path / "run.vcd" if stalls.seed == 4 else None)
        verdict = outcome.verdicts["small"]
        assert verdict.differences == [], stalls
        assert outcome.equal
        assert verdict.words == sum(len(probe.words) for probe in case.probes) > FRAMES * 100
        assert verdict.streams == len(case.probes) > 5
    results = golden.run(network, codes)
    for name in ("image", "conv1", "pool", "conv2", "dense"):
        np.testing.assert_array_equal(bench.recorded(case, name), results[name])
    waveform = (tmp_path / "run.vcd").read_text()
    assert "$enddefinitions" in waveform
    assert "conv1" in waveform and "conv2" in waveform


def test_the_first_difference_is_named(tmp_path: Path):
    network, codes = example(6)
    case = case_of("small", network, small_plan(network), codes)
    bench = Bench([case], tmp_path, simulator=FASTEST)

    # A layer's table, all zeros in the design: the layer is named, with the pixel and both values.
    table, *_ = sorted((tmp_path / "small_dut").glob("conv2*index*.hex"))
    sound = table.read_text()
    table.write_text("".join(f"{'0' * len(word)}\n" for word in sound.split()))
    found = re.match(r"layer conv2, frame 0, pixel \(y (\d+), x (\d+)\), channel (\d+): hardware gave (\d+), "
                     r"golden says (\d+) \(cycle \d+\)$", wrong_differences(bench, case)[0])
    assert found is not None
    y, x, channel, hardware, wanted = map(int, found.groups())
    assert golden.run(network, codes)["conv2"][0, y, x, channel] == wanted != hardware
    table.write_text(sound)

    # A word that is expected one cycle earlier than it comes.
    conv2 = next(probe for probe in case.probes if probe.name == "conv2")
    early = [*conv2.cycles[:4], conv2.cycles[4] - 1, *conv2.cycles[5:]]
    changed = replace(case, probes=tuple(replace(p, cycles=early) if p is conv2 else p for p in case.probes))
    y, x, channel = map(int, np.unravel_index(4 * conv2.format.lanes, conv2.format.type.shape))
    position = f"frame 0, pixel (y {y}, x {x}), channel {channel}"
    times = f"hardware moved the word in cycle {conv2.cycles[4]}, golden says {conv2.cycles[4] - 1}"
    assert wrong_differences(bench, changed) == [f"layer conv2, {position}: {times}"]
    assert bench.run([case]).equal


def test_two_plans_of_one_network_agree_in_value_and_each_with_its_own_cycles(tmp_path: Path):
    network, codes = example(8)
    slow = Plan(network.digest, tuple(
        replace(layer, pe=1, channels=1, rows=1, output_lanes=1, index_memory="bram") if isinstance(layer, LayerPlan)
        else replace(layer, channels=1) for layer in small_plan(network).layers))
    cases = [case_of("fast", network, small_plan(network), codes), case_of("slow", network, slow, codes)]
    outcome = Bench(cases, tmp_path, simulator=FASTEST).run(cases)
    assert outcome.equal
    assert cases[0].cycles < cases[1].cycles
