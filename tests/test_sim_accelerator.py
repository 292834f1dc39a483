# amaranth: UnusedElaboratable=no
"""Whole accelerators in Verilator (and Icarus): words and cycles equal golden, and what is said when they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import random_codes
from sim_cases import SIMULATORS, case_of, small_network, small_plan

from lutq_hw import golden
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.sim.case import Case
from lutq_hw.sim.runner import Bench
from lutq_hw.sim.stalls import Stalls

FRAMES = 3


class Built:
    """One network, built once for all tests of a simulator."""

    def __init__(self, simulator: str, folder: Path):
        rng = np.random.default_rng(5)
        self.network = small_network(rng)
        self.plan = small_plan(self.network)
        self.codes = random_codes(rng, self.network, FRAMES)
        self.bench = Bench([self.case()], folder, simulator=simulator, waves="vcd")

    def case(self, stalls: Stalls | None = None) -> Case:
        return case_of("small", self.network, self.plan, self.codes, stalls)


@pytest.fixture(scope="module", params=SIMULATORS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("stalls", [Stalls(), Stalls(0.5, 0.5, 3), Stalls(0.9, 0.2, 4)], ids=str)
def test_values_and_cycles_equal_golden(built: Built, stalls: Stalls):
    case = built.case(stalls)
    outcome = built.bench.run([case])
    verdict = outcome.verdicts["small"]
    assert verdict.differences == []
    assert outcome.equal
    assert verdict.words == sum(len(probe.words) for probe in case.probes) > FRAMES * 100
    assert verdict.streams == len(case.probes) > 5


def test_recorded_streams_are_the_layers_results(built: Built):
    case = built.case(Stalls(0.3, 0.3, 6))
    built.bench.run([case])
    results = golden.run(built.network, built.codes)
    for name in ("image", "conv1", "pool", "conv2", "dense"):
        np.testing.assert_array_equal(built.bench.recorded(case, name), results[name])


def test_a_wrong_threshold_is_named_by_layer_pixel_and_channel(built: Built):
    case = built.case()
    tables = sorted((built.bench.folder / "small_dut").glob("conv1*table*.hex"))
    sound = tables[0].read_text()
    words = sound.split()
    digits = len(words[0])
    # Complementing the highest bit of every threshold turns all comparisons of the two channels of this lane around.
    tables[0].write_text("".join(f"{int(word, 16) ^ 1 << (4 * digits - 4):0{digits}x}\n" for word in words))
    try:
        first, *_ = built.bench.run([case]).verdicts["small"].differences
    finally:
        tables[0].write_text(sound)
    results = golden.run(built.network, built.codes)["conv1"]
    position = first.split(": hardware gave ")[0]
    assert position.startswith("layer conv1, frame 0, pixel (y ")
    got, rest = first.split(": hardware gave ")[1].split(", golden says ")
    y, x, channel = (int(part.strip("(), yxchanel")) for part in position.split("(")[1].split(","))
    assert int(rest.split(" ")[0]) == results[0, y, x, channel] != int(got)


def test_a_late_word_is_named_with_both_cycles(built: Built):
    case = built.case()
    conv2 = next(probe for probe in case.probes if probe.name == "conv2")
    wrong = replace(conv2, cycles=[*conv2.cycles[:4], conv2.cycles[4] - 1, *conv2.cycles[5:]])
    changed = replace(case, probes=tuple(wrong if probe is conv2 else probe for probe in case.probes))
    differences = built.bench.run([changed]).verdicts["small"].differences
    element = np.unravel_index(4 * conv2.format.lanes, conv2.format.type.shape)
    y, x, channel = (int(n) for n in element)
    assert differences == [(f"layer conv2, frame 0, pixel (y {y}, x {x}), channel {channel}: hardware moved the word in "
                           f"cycle {conv2.cycles[4]}, golden says {conv2.cycles[4] - 1}")]


def test_a_waveform_is_written(built: Built, tmp_path: Path):
    path = tmp_path / "run.vcd"
    assert built.bench.run([built.case()], waves=path).equal
    text = path.read_text()
    assert "$enddefinitions" in text
    assert "conv1" in text and "conv2" in text


def test_a_plan_for_other_arrays_takes_other_cycles_and_still_agrees(tmp_path: Path):
    """Two plans of one network side by side in one build."""
    rng = np.random.default_rng(8)
    network = small_network(rng)
    codes = random_codes(rng, network, 2)
    slow = Plan(network.digest, tuple(
        replace(layer, pe=1, channels=1, rows=1, output_lanes=1, index_memory="bram") if isinstance(layer, LayerPlan)
        else replace(layer, channels=1) for layer in small_plan(network).layers))
    cases = [case_of("fast", network, small_plan(network), codes), case_of("slow", network, slow, codes)]
    outcome = Bench(cases, tmp_path, simulator=SIMULATORS[-1]).run(cases)
    assert outcome.equal
    assert cases[0].cycles < cases[1].cycles
