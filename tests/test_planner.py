"""Planner: what it chooses, that it fits, and what it says when nothing does."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from lutq_hw.cost import Cost
from lutq_hw.errors import PlanError
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, MaxPool2d, Network, Output, TensorType, Thresholds
from lutq_hw.performance import Performance
from lutq_hw.pipeline import pipeline
from lutq_hw.plan import LayerPlan, Plan, PoolPlan
from lutq_hw.planner import candidates, explain, make_plan, pareto, shortage
from lutq_hw.planning.candidates import pareto_by_ports
from lutq_hw.units import UNITS


@dataclass(frozen=True)
class Board:
    """Just what the planner asks of a board."""

    available: Cost
    name: str = "bench"
    title: str = "Bench"
    family: str = "ice40"
    plan_clock_hz: float = 20e6


ROOMY = Board(Cost(luts=4000, brams=26, dsps=8))


def network(rng=None, *, table: bool = False) -> Network:
    rng = rng or np.random.default_rng(5)
    x = TensorType((12, 12, 1), 4)
    conv = Conv2d("conv", "image", Codebook(rng.integers(0, 6, (8, 3, 3, 1)), dictionary=[-8, -2, -1, 0, 1, 4]),
                  step=Thresholds(np.sort(rng.integers(-90, 90, (8, 15))), 4), padding=1)
    weights = (Codebook(rng.integers(0, 3, (10, 288)), table=rng.integers(-50, 50, (16, 3))) if table else
               Codebook(rng.integers(0, 6, (10, 288)), dictionary=[-8, -2, -1, 0, 1, 4]))
    return Network("bench net", (Input("image", x), conv, MaxPool2d("pool", "conv", 2), Flatten("flat", "pool"),
                                 Dense("fc", "flat", weights), Output("out", "fc")))


def test_fastest_plan_fits_and_can_be_built():
    net = network()
    plan = make_plan(net, ROOMY)
    performance = Performance(net, plan)
    assert not shortage(performance.cost, ROOMY.available)
    slowest = performance.slowest
    assert slowest.cycles <= performance.cycles_per_frame <= 1.02 * slowest.cycles
    assert performance.latency > performance.cycles_per_frame
    assert plan.board == "bench" and plan.digest == net.digest


def test_lanes_of_the_slowest_layer_are_busy():
    """No cycle is lost between windows, rows and frames when the neighbours are faster."""
    net = network()
    layers = (LayerPlan(node="conv", unit="multiplier", pe=4, channels=1, rows=1, output_lanes=4),
              PoolPlan(node="pool", channels=4),
              LayerPlan(node="fc", unit="multiplier", pe=2, channels=4, output="scores"))
    performance = Performance(net, Plan(net.digest, layers))
    assert performance.slowest.layer.name == "conv"
    assert performance.cycles_per_frame == 12 * 12 * 2 * 9
    assert performance.slowest.lane_utilisation == 1


def test_more_room_is_never_slower():
    net = network()
    cycles = [Performance(net, make_plan(net, replace(ROOMY, available=Cost(luts=luts, brams=26)))).cycles_per_frame
              for luts in (900, 1300, 2000, 4000)]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[0] > cycles[-1]


def test_smallest_plan_for_a_rate():
    net = network()
    costs = []
    for fps in (500, 2000, 8000):
        performance = Performance(net, make_plan(net, ROOMY, fps=fps))
        assert ROOMY.plan_clock_hz / performance.cycles_per_frame >= fps
        costs.append(performance.cost.luts)
    assert costs[0] <= costs[1] <= costs[2]


def test_rate_out_of_reach():
    with pytest.raises(PlanError, match=r"^bench net cannot reach 1e\+06 frames/s on the Bench: the fastest plan that fits "
                                        r"takes \d+ cycles a frame, \d+ frames/s at 20 MHz; ask for a lower --fps, or "
                                        r"train a smaller network$"):
        make_plan(network(), ROOMY, fps=1e6)


@pytest.mark.parametrize(("available", "sentence"), [
    (Cost(luts=400, brams=26), (r"its smallest plan needs \d+ logic cells where 400 are available \(\d+ % over, \w+ alone "
                                         r"takes \d+\); fewer or narrower layers, fewer activation bits or a larger board")),
    (Cost(luts=4000, brams=1), (r"its smallest plan needs \d+ brams where 1 are available \(\d+ % over, \w+ alone "
                                         r"takes \d+\); fewer weights or smaller dictionaries or a larger board")),
])
def test_network_that_does_not_fit(available, sentence):
    with pytest.raises(PlanError, match=f"^bench net does not fit the Bench: {sentence} would help$"):
        make_plan(network(), replace(ROOMY, available=available))


def test_product_table_only_when_asked_for_or_needed():
    units = {layer.unit for layer in make_plan(network(), ROOMY).layers if isinstance(layer, LayerPlan)}
    assert "product-table" not in units
    asked = make_plan(network(), ROOMY, units=["product-table"])
    assert {layer.unit for layer in asked.layers if isinstance(layer, LayerPlan)} == {"product-table"}
    entry = make_plan(network(table=True), ROOMY)["fc"]
    assert isinstance(entry, LayerPlan) and UNITS[entry.unit].reject(
        network(table=True).weighted[1].weights.flat, 4, False) is None


@pytest.mark.parametrize("family, unit", [("ice40", "merged-tables"), ("series7", "merged-triples")])
def test_the_family_decides(family: str, unit: str):
    """Three products of binary activations and their sum are one lut for each bit where luts have six inputs."""
    weights = Codebook(np.random.default_rng(0).integers(0, 2, (16, 192)), dictionary=[-7, 11])
    net = Network("binary", (Input("bits", TensorType((192,), 1)), Dense("fc", "bits", weights), Output("out", "fc")))
    (layer,) = make_plan(net, replace(ROOMY, family=family, available=Cost(luts=700, brams=20))).layers
    assert isinstance(layer, LayerPlan) and layer.unit == unit


def test_units_by_name():
    with pytest.raises(PlanError, match=f"^unit must be one of {re.escape(', '.join(UNITS))}, not 'magic'$"):
        make_plan(network(), ROOMY, units=["magic"])
    with pytest.raises(PlanError, match=r"^layer fc: no unit can run it \(.*shift-add: .*\)$"):
        make_plan(network(table=True), ROOMY, units=["shift-add"])


def test_every_unit_of_every_layer_has_a_verdict():
    net = network()
    plan = make_plan(net, ROOMY)
    verdicts = explain(net, plan, ROOMY)
    assert [(v.node, v.unit) for v in verdicts] == [(node, unit) for node in ("conv", "fc") for unit in UNITS]
    assert all(v.reason for v in verdicts)
    assert [v.node for v in verdicts if v.chosen] == ["conv", "fc"]


def test_pareto_keeps_what_nothing_beats():
    for layer in candidates(network()):
        assert pareto_by_ports(layer) == layer, "candidates are already reduced"
        kept = pareto(layer)
        assert kept[0].cycles == layer[0].cycles == min(c.cycles for c in layer)
        assert all(any(all(a <= b for a, b in zip(k.figures, c.figures, strict=True)) for k in kept) for c in layer)


EDITS = [
    ({"pe": 3}, "layer conv: pe must divide the 8 output channels of a group, not 3"),
    ({"channels": 2}, "layer conv: channels must divide the 1 input channels of a group, not 2"),
    ({"pe": 4, "output_lanes": 3}, "layer conv: output_lanes must divide the 4 sums of a word (pe), not 3"),
    ({"spread": 2}, "layer conv: spread must divide the 1 channel groups, not 2"),
    ({"rows": 2}, "layer conv: rows must be 1 or the kernel's 3, not 2"),
    ({"unit": "magic"}, f"layer conv: unit must be one of {', '.join(UNITS)}, not 'magic'"),
    ({"output": "scores"}, "layer conv: output scores cannot be used: conv has a step"),
    ({"output": "shift"}, ("layer conv: output shift cannot be used: thresholds of conv are not evenly "
                           "spaced by a power of two")),
]


@pytest.mark.parametrize(("change", "sentence"), EDITS)
def test_edited_plans_are_checked_again(change, sentence):
    net = network()
    plan = make_plan(net, ROOMY)
    entry = plan["conv"]
    assert isinstance(entry, LayerPlan)
    edited = Plan(plan.digest, (replace(entry, **{"output_lanes": 1} | change), *plan.layers[1:]))
    with pytest.raises(PlanError, match=f"^{re.escape(sentence)}$"):
        pipeline(net, edited)


def test_plan_of_another_model():
    net, other = network(), network(np.random.default_rng(6))
    with pytest.raises(PlanError, match=r"^plan must be for model [0-9a-f]{16}, not [0-9a-f]{16}; make the plan again$"):
        pipeline(other, make_plan(net, ROOMY))
