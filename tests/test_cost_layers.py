"""Estimates of whole layers against recorded synthesis: luts within 15 %, blocks exactly."""

import json
from importlib import resources

import numpy as np
import pytest

from benchmarks.layer_points import random_depthwise, random_layer
from lutq_hw.costing import stage_cost

TOLERANCE = 0.15

POINTS, DEPTHWISE = (json.loads((resources.files("lutq_hw") / "points" / name).read_text())
                     for name in ("layer.json", "depthwise.json"))


def test_there_are_points_of_many_kinds():
    plans = [random_layer(np.random.default_rng(point["seed"])).plan for point in POINTS]
    assert len(plans) >= 30
    assert {"shift-add", "shared-products", "multiplier"} <= {plan.unit for plan in plans}


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"seed{point['seed']}")
def test_layer_is_priced_right(point):
    cost = stage_cost(random_layer(np.random.default_rng(point["seed"])))
    assert abs(cost.luts / point["luts"] - 1) <= TOLERANCE, f"{cost.luts:.0f} luts, measured {point['luts']}"
    assert (cost.brams, cost.dsps) == (point["brams"], point["dsps"])


@pytest.mark.parametrize("point", DEPTHWISE, ids=lambda point: f"seed{point['seed']}")
def test_depthwise_layer_is_priced_right(point):
    layer = random_depthwise(np.random.default_rng(point["seed"]))
    cost = stage_cost(layer)
    assert layer.plan.spread > 1
    assert abs(cost.luts / point["luts"] - 1) <= TOLERANCE, f"{cost.luts:.0f} luts, measured {point['luts']}"
    assert (cost.brams, cost.dsps) == (point["brams"], point["dsps"])
