# amaranth: UnusedElaboratable=no
"""Depthwise and grouped convolutions with several channel groups at once: values, cycles, what plans may say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import Graph, random_codes
from sim_cases import amaranth_verdict, case_of

from lutq_hw.board import find_board
from lutq_hw.cli.plan import describe, text
from lutq_hw.cost import Cost
from lutq_hw.errors import PlanError
from lutq_hw.mac import MacUnit
from lutq_hw.network import AvgPool2d, Codebook, Conv2d, Dense, Flatten, Input, Network, Output, Shift, TensorType, Thresholds
from lutq_hw.performance import Performance
from lutq_hw.pipeline import pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.planner import make_plan
from lutq_hw.sim.stalls import Stalls
from lutq_hw.units import UNITS

POWERS = [-4, -1, 0, 1, 2]


def mobile_network(rng: np.random.Generator, *, width: int = 4, extent: int = 6) -> Network:
    """A MobileNet of two blocks: depthwise 3 x 3 and pointwise 1 x 1 convolutions, then average and classes."""
    graph = Graph(Input("image", TensorType((extent, extent, 1), 4)))

    def conv(name: str, outputs: int, kernel: int, stride: int, groups: int) -> None:
        shape = (outputs, kernel, kernel, graph.type.channels // groups)
        step = Thresholds(np.sort(rng.integers(-12, 25, (outputs, 3))), 2, descending=rng.integers(0, 2, outputs))
        graph.put(Conv2d(name, graph.last, Codebook(rng.integers(0, len(POWERS), shape), POWERS),
                         rng.integers(-3, 4, outputs), step, stride=stride, padding=kernel // 2, groups=groups))

    conv("conv", width, 3, 1, 1)
    for block, stride in enumerate((1, 2)):
        channels = graph.type.channels
        conv(f"dw{block}", channels, 3, stride, channels)
        conv(f"pw{block}", 2 * channels, 1, 1, 1)
    graph.put(AvgPool2d("pool", graph.last, graph.type.map_shape[:2], step=Shift(2, 3)))
    graph.put(Flatten("flat", graph.last))
    graph.put(Dense("scores", "flat", Codebook(rng.integers(0, len(POWERS), (10, graph.type.size)), POWERS)))
    graph.put(Output("out", "scores"))
    return Network("mobile", tuple(graph.nodes))


class Board:
    """Just what the planner asks of a board."""

    available = Cost(luts=2500, brams=60)
    name, title, family, plan_clock_hz = "bench", "Bench", "ice40", 20e6


def test_a_mobile_network_equals_golden(tmp_path: Path):
    rng = np.random.default_rng(2)
    network = mobile_network(rng)
    plan = make_plan(network, Board())
    assert {entry.spread > 1 for entry in plan.layers if entry.node in ("dw0", "dw1")} == {True}  # type: ignore[union-attr]
    verdict = amaranth_verdict(case_of("mobile", network, plan, random_codes(rng, network, 2), Stalls(0.3, 0.3, 3)), tmp_path)
    assert verdict.differences == [] and verdict.words > 0


def depthwise(groups: int, multiplier: int = 1, channels: int = 1, bits: int = 3,
              values: Sequence[int] = (-1, 0, 1)) -> Network:
    """One grouped convolution."""
    rng = np.random.default_rng(groups)
    outputs = groups * multiplier
    conv = Conv2d("conv", "image", Codebook(rng.integers(0, len(values), (outputs, 3, 3, channels)), values),
                  step=Shift(1, 3), padding=1, groups=groups)
    return Network("net", (Input("image", TensorType((5, 4, groups * channels), bits)), conv, Flatten("flat", "conv"),
                           Output("out", "flat")))


SIZES = [(4, 1, 1, 4, 3), (6, 2, 1, 3, 1), (4, 2, 2, 2, 3)]

SPREADING = [name for name, unit in UNITS.items() if unit.spreads]


@pytest.mark.parametrize(("unit", "groups", "multiplier", "channels", "spread", "rows"), [
    (unit, *SIZES[n % 3]) for n, unit in enumerate(SPREADING)])
def test_several_groups_at_once(unit: str, groups: int, multiplier: int, channels: int, spread: int, rows: int,
                                tmp_path: Path):
    made = (depthwise(groups, multiplier, channels, bits, values) for bits in (3, 1) for values in ((-1, 0, 1), (-1, 2)))
    network = next(net for net in made for node in net.weighted
                   if UNITS[unit].refusal(node.weights, net.input_type(node)) is None)
    entry = LayerPlan(node="conv", unit=unit, pe=spread * multiplier, channels=channels, rows=rows, spread=spread,
                      output="shift", output_lanes=spread * multiplier)
    plan = Plan(network.digest, (entry,))
    codes = random_codes(np.random.default_rng(1), network, 2)
    assert amaranth_verdict(case_of("grouped", network, plan, codes, Stalls(0.3, 0.3, 1)), tmp_path).differences == []


def test_groups_at_once_are_shown():
    network = depthwise(4, 2)
    entry = LayerPlan(node="conv", unit="shift-add", pe=4, channels=1, rows=3, spread=2, output="shift", output_lanes=4)
    shown = text(describe(Performance(network, Plan(network.digest, (entry,))), find_board("icebreaker")))
    assert "4 x 3 (3 rows), 2 groups at once" in shown


def test_cycles_shrink_with_the_groups_at_once():
    network = depthwise(8)
    one = LayerPlan(node="conv", unit="shift-add", pe=1, channels=1, rows=3, output="shift")
    cycles = [Performance(network, Plan(network.digest, (replace(one, pe=s, spread=s, output_lanes=s),))).cycles_per_frame
              for s in (1, 2, 4, 8)]
    assert cycles == [5 * 4 * 3 * 8 // s for s in (1, 2, 4, 8)]


EDITS = [
    ({"spread": 3, "pe": 6}, "layer conv: spread must divide the 4 channel groups, not 3"),
    ({"spread": 2, "pe": 2}, ("layer conv: pe and channels must be 4 and 1, all outputs of 2 groups and all inputs of one, "
                              "where spread is 2, not 2 and 1")),
]


@pytest.mark.parametrize(("change", "sentence"), EDITS)
def test_plans_are_checked(change: dict[str, int], sentence: str):
    network = depthwise(4, 2)
    entry = LayerPlan(node="conv", unit="shift-add", pe=1, channels=1, output="shift")
    with pytest.raises(PlanError, match=f"^{re.escape(sentence)}$"):
        pipeline(network, Plan(network.digest, (replace(entry, **change),)))


def test_a_unit_that_cannot_spread_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(UNITS["shift-add"], "spreads", MacUnit.spreads)
    network = depthwise(4)
    entry = LayerPlan(node="conv", unit="shift-add", pe=2, channels=1, spread=2, output="shift")
    sentence = "layer conv: unit shift-add cannot sum over 2 groups at once, so spread must be 1"
    with pytest.raises(PlanError, match=f"^{re.escape(sentence)}$"):
        pipeline(network, Plan(network.digest, (entry,)))
