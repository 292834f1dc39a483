# amaranth: UnusedElaboratable=no
"""Layers whose MAC unit leaves constants in its sums, which the output stage takes off with its thresholds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import random_codes
from sim_cases import amaranth_verdict, case_of

from lutq_hw.costing import stage_cost
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, Network, Output, Shift, TensorType, Thresholds
from lutq_hw.pipeline import Layer, pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.planning.candidates import layer_candidates
from lutq_hw.sim.stalls import Stalls

POWERS = (-8, -4, -2, 0, 1, 2, 4, 8)
OTHERS = (-33, -11, 0, 22)


def network(seed: int, *, signed: bool = False) -> Network:
    """A padded convolution and a dense layer with thresholds, some of them descending, and one with a shift."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(-60, 61, (4, 7)))
    return Network("offset", (
        Input("image", TensorType((5, 4, 2), 4, signed)),
        Conv2d("conv", "image", Codebook(rng.integers(0, 8, (4, 3, 3, 2)), dictionary=POWERS), rng.integers(-20, 21, 4),
               Thresholds(rows, 3, descending=[0, 1, 1, 0]), padding=1),
        Flatten("flat", "conv"),
        Dense("fc", "flat", Codebook(rng.integers(0, 4, (4, 80)), dictionary=OTHERS), rng.integers(-20, 21, 4),
              Thresholds(rows * 9, 3)),
        Dense("last", "fc", Codebook(rng.integers(0, 8, (2, 4)), dictionary=POWERS), step=Shift(2, 4)),
        Output("out", "last")))


def plan(net: Network) -> Plan:
    entry = LayerPlan(node="conv", unit="signed-digits", pe=2, channels=2, rows=3, output="thresholds")
    return Plan(net.digest, (entry, replace(entry, node="fc", channels=4, rows=1),
                             replace(entry, node="last", rows=1, output="shift")))


def layers(net: Network, with_plan: Plan) -> dict[str, Layer]:
    return {stage.name: stage for stage in pipeline(net, with_plan).stages if isinstance(stage, Layer)}


@pytest.mark.parametrize("seed", range(3))
def test_values_and_cycles_equal_golden(seed: int, tmp_path: Path):
    net = network(seed)
    found = layers(net, plan(net))
    assert {name: layer.unit.offset for name, layer in found.items()} == {"conv": True, "fc": True, "last": False}
    case = case_of("offset", net, plan(net), random_codes(np.random.default_rng(seed), net, 3), Stalls(0.3, 0.3, seed))
    assert amaranth_verdict(case, tmp_path).differences == []


def test_constants_are_those_of_the_weights():
    """By definition: what the unit adds up for every output where all activations are 0, and where all are the largest."""
    net = network(1)
    conv = layers(net, plan(net))["conv"]
    exact = layers(net, Plan(net.digest, tuple(replace(entry, unit="shared-products") for entry in plan(net).layers)))["conv"]
    index = conv.unit.codebook.assignments.reshape(4, -1)
    nothing = conv.unit.summed[0, index].sum(axis=1)
    assert nothing.any() and (nothing == conv.sums.low - exact.sums.low).all()
    assert (nothing == conv.sums.high - exact.sums.high).all()
    assert (conv.sums.bias + nothing == exact.sums.bias).all()
    assert conv.unit.acc_bits == conv.sums.bits == conv.stage.acc_bits


def test_signed_activations_have_no_constants():
    net = network(2, signed=True)
    assert not layers(net, plan(net))["conv"].unit.offset


def test_candidates_cost_what_is_built():
    net = network(3)
    conv = net.weighted[0]
    found = layer_candidates(conv, net.input_type(conv), ["signed-digits", "shift-add"])
    offset = 0
    for candidate in found[::5]:
        assert isinstance(candidate.plan, LayerPlan)
        layer = Layer("conv", conv, net.input_type(conv), candidate.plan)
        assert candidate.cost == stage_cost(layer)
        offset += layer.unit.offset
    assert offset
