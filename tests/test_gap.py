# amaranth: UnusedElaboratable=no
"""Gaps between dot products: reader, cycle model, index ROM and planner keep to what a unit asks for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import random_codes
from sim_cases import amaranth_verdict, case_of

from lutq_hw.errors import PlanError
from lutq_hw.gateware.layer import gap_words, index_words
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, Network, Output, Shift, TensorType
from lutq_hw.performance import Performance
from lutq_hw.pipeline import Layer, pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.planning.candidates import layer_candidates
from lutq_hw.sim.stalls import Stalls
from lutq_hw.timing import schedule
from lutq_hw.units import UNITS
from lutq_hw.units.shift_add import ShiftAdd

STEPS = (2, 0, 1)


class Paced(ShiftAdd):
    """A unit that asks for a gap, though it could do without."""

    name = "paced"
    any_length = False

    @property
    def readout(self) -> tuple[int, ...]:
        return STEPS


@pytest.fixture(autouse=True)
def paced(monkeypatch):
    monkeypatch.setitem(UNITS, "paced", Paced)


def network(rng: np.random.Generator) -> Network:
    def book(*shape: int) -> Codebook:
        return Codebook(rng.integers(0, 4, shape), dictionary=[-4, -1, 0, 2])

    return Network("paced", (
        Input("image", TensorType((6, 5, 2), 3)),
        Conv2d("conv", "image", book(4, 3, 2, 2), step=Shift(2, 3), stride=(1, 2), padding=(2, 1)),
        Flatten("flat", "conv"),
        Dense("fc", "flat", book(4, 96)),
        Output("out", "fc")))


def plan(net: Network, **conv: int) -> Plan:
    return Plan(net.digest, (
        LayerPlan(node="conv", unit="paced", pe=2, output="shift", output_lanes=2, **{"channels": 1, **conv}),
        LayerPlan(node="fc", unit="paced", pe=2, channels=2, output="scores", index_memory="luts")))


@pytest.mark.parametrize("conv", [{}, {"rows": 3}, {"channels": 2, "rows": 3}, {"channels": 2}])
@pytest.mark.parametrize("pauses", [(0.0, 0.0), (0.5, 0.4)])
def test_gateware_keeps_the_cycles(conv, pauses, tmp_path: Path):
    rng = np.random.default_rng(7)
    net = network(rng)
    codes = random_codes(rng, net, 3)
    verdict = amaranth_verdict(case_of("paced", net, plan(net, **conv), codes, Stalls(*pauses, 7)), tmp_path)
    assert verdict.differences == []


def test_a_gap_costs_cycles_for_every_dot_product():
    net = network(np.random.default_rng(1))
    stages = pipeline(net, plan(net))
    conv = next(stage for stage in stages.stages if isinstance(stage, Layer))
    assert (conv.window.fold, conv.window.gap, conv.window.period) == (12, 3, 15)
    assert conv.interval == 8 * 3 * 2 * 15
    assert Performance(net, plan(net)).cycles_per_frame == conv.interval
    first = schedule(stages, 1).times[stages.outputs[0][0]]
    within = [b - a for a, b in itertools.pairwise(first)]
    assert within.count(15) >= len(within) - 8, "outputs are a period apart, but where rows are waited for"


def test_planner_counts_the_gap():
    net = network(np.random.default_rng(1))
    node = net.weighted[0]
    for candidate in layer_candidates(node, net.input_type(node), ["paced"]):
        assert isinstance(candidate.plan, LayerPlan)
        layer = Layer("conv", node, net.input_type(node), candidate.plan)
        assert candidate.cycles == max(layer.interval, layer.input.words)


def test_steps_of_the_gap_stand_behind_the_weights():
    net = network(np.random.default_rng(1))
    layer = next(stage for stage in pipeline(net, plan(net)).stages if isinstance(stage, Layer))
    assert len(index_words(layer)) == 2 * 12
    assert gap_words(layer)[:, :, 0].tolist() == [[step] * 2 for step in STEPS]


def test_zeros_cannot_be_skipped_at_a_fixed_pace():
    net = network(np.random.default_rng(1))
    conv, dense = plan(net).layers
    assert isinstance(conv, LayerPlan)
    with pytest.raises(PlanError, match=r"^layer conv: unit paced needs dot products of one length, so terms must be all, "
                                        r"not nonzero$"):
        pipeline(net, Plan(net.digest, (replace(conv, terms="nonzero"), dense)))
