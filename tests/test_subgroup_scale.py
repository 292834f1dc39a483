# amaranth: UnusedElaboratable=no
"""Layers with several subgroups on the unit that scales sums: values, cycles, and what it says where it cannot."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from networks import random_codes
from sim_cases import amaranth_verdict, case_of
from test_units import layer_stimulus, run

from lutq_hw.errors import PlanError
from lutq_hw.geometry import term_order
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, Network, Output, Shift, TensorType
from lutq_hw.network.tensor import signed_bits
from lutq_hw.pipeline import pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.planning.candidates import layer_candidates
from lutq_hw.sim.stalls import Stalls
from lutq_hw.units.shift_add import ShiftAdd
from lutq_hw.units.subgroup_scale import SubgroupScale

SHAPES = {"row": (3, 1, 1), "pixel": (3, 2, 1), "layer": (1, 1, 1)}


def weights(rng: np.random.Generator, subgroup: str, outputs: int = 4, channels: int = 2, *, scales=None) -> Codebook:
    """Ternary weights of a 3 x 2 kernel with a scale for each subgroup, one of them 0 now and then."""
    shape = SHAPES[subgroup]
    count = int(np.prod(shape))
    if scales is None:
        scales = rng.integers(0, 100, count)
        scales[rng.integers(count)] = 93
    groups = np.broadcast_to(np.arange(count).reshape(shape), (3, 2, channels))
    return Codebook(rng.integers(0, 3, (outputs, 3, 2, channels)), dictionary=np.outer(scales, [-1, 0, 1]), subgroups=groups)


@pytest.mark.parametrize("subgroup", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_layer(subgroup, seed):
    rng, draw = random.Random(f"{subgroup} {seed}"), np.random.default_rng(seed)
    book = weights(draw, subgroup, channels=4)
    node = Conv2d("conv", "image", book, step=Shift(2, 3))
    order = term_order(node, channels=rng.choice([1, 2, 4]), rows=1)
    x = TensorType((5, 5, 4), rng.choice([1, 4]), signed=bool(seed % 2))
    low, high = book.sum_range(x)
    unit = SubgroupScale.for_layer(book, x, pe=2, simd=order.shape[1], order=order,
                                   acc_bits=signed_bits(min(0, low.min()), max(0, high.max())))
    assert len(unit.ends) == len(set(book.subgroups.reshape(-1).tolist()))
    run(unit, *layer_stimulus(unit, 6, rng), seed, rng.choice(["never", "often"]), rng.choice(["never", "bursts"]))


def network(rng: np.random.Generator, subgroup: str, **kwargs) -> Network:
    return Network("syq", (
        Input("image", TensorType((5, 4, 2), 3)),
        Conv2d("conv", "image", weights(rng, subgroup, **kwargs), step=Shift(6, 3), padding=(1, 0)),
        Flatten("flat", "conv"),
        Dense("fc", "flat", Codebook(rng.integers(0, 3, (4, 60)), dictionary=[-1, 0, 1])),
        Output("out", "fc")))


def plan(net: Network, **conv) -> Plan:
    return Plan(net.digest, (
        LayerPlan(node="conv", output="shift", **{"unit": "subgroup-scale", "pe": 2, "channels": 1, **conv}),
        LayerPlan(node="fc", unit="subgroup-scale", pe=2, channels=2, output="scores")))


@pytest.mark.parametrize("subgroup, conv", [("row", {}), ("pixel", {"channels": 2}), ("pixel", {}), ("layer", {"rows": 3})])
def test_network_equals_golden(subgroup, conv, tmp_path: Path):
    rng = np.random.default_rng(3)
    net = network(rng, subgroup)
    case = case_of("syq", net, plan(net, **conv), random_codes(rng, net, 3), Stalls(0.3, 0.3, 5))
    assert amaranth_verdict(case, tmp_path).differences == []


def test_gap_only_where_a_dot_product_is_short():
    node = Conv2d("conv", "image", weights(np.random.default_rng(1), "row", channels=16, scales=[3, 5, 7]), step=Shift(2, 3))
    gaps = []
    for channels in (1, 4, 16):
        order = term_order(node, channels=channels, rows=1)
        gaps.append(SubgroupScale.for_layer(node.weights, TensorType((5, 5, 16), 4), pe=1, simd=channels, acc_bits=20,
                                            order=order).gap)
    assert gaps[0] == 0 and gaps == sorted(gaps) and gaps[-1] > 0


def test_rows_are_not_mixed():
    net = network(np.random.default_rng(1), "row")
    with pytest.raises(PlanError, match=r"^layer conv: unit subgroup-scale cannot be used: subgroup-scale needs words of one "
                                        r"subgroup; read one kernel row at a time \(rows 1\)$"):
        pipeline(net, plan(net, rows=3))
    found = layer_candidates(net.weighted[0], net.input.type, ["subgroup-scale"])
    assert found and all(isinstance(c.plan, LayerPlan) and c.plan.rows == 1 for c in found)


def test_planner_says_when_no_order_will_do():
    rng = np.random.default_rng(1)
    book = Codebook(rng.integers(0, 3, (4, 200)), dictionary=[[-1, 0, 1], [-2, 0, 2]], subgroups=np.arange(200) % 2)
    assert SubgroupScale.refusal(book, TensorType((200,), 4)) is None
    assert SubgroupScale.reject_order(book, np.arange(200)[:, None]) == (
        "subgroup-scale needs subgroups in at most 64 runs of words, not 200")


@pytest.mark.parametrize(("dictionary", "sentence"), [
    ([[-1, 0, 1], [-3, 0, 2]], "subgroup-scale needs dictionaries of -a, 0 and a, not [-3, 0, 2]"),
    ([[-1, 0, 1], [3, 0, -3]], "subgroup-scale needs dictionaries that differ by positive factors"),
    ([[0, 0, 0]], "subgroup-scale needs a dictionary with a value other than 0"),
    ([[-1, 0, 1], [0, 0, 0], [-5, 0, 5]], None),
])
def test_reject(dictionary, sentence):
    assert SubgroupScale.reject(Codebook([[0, 1, 2]], dictionary=dictionary), 4, False) == sentence


def test_index_is_not_widened():
    """Nine scales flatten to 19 values, 5 bits; here the index keeps its 2."""
    book = weights(np.random.default_rng(2), "pixel", scales=[3, 5, 7, 9, 11, 13])
    assert SubgroupScale.view(book).index_bits == 2
    assert ShiftAdd.view(book).index_bits > 2
