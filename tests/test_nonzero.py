# amaranth: UnusedElaboratable=no
"""Skipping zeros: schedules against a naive walk, and whole layers in simulation, values and cycles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import random_codes
from sim_cases import amaranth_verdict, case_of

from lutq_hw import nonzero
from lutq_hw.board import find_board
from lutq_hw.cli.plan import describe, text
from lutq_hw.costing import stage_cost
from lutq_hw.errors import PlanError
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, MaxPool2d, Network, Output, TensorType, Thresholds
from lutq_hw.nonzero import NonzeroReads
from lutq_hw.performance import Performance
from lutq_hw.pipeline import Layer, pipeline
from lutq_hw.plan import LayerPlan, Plan, PoolPlan
from lutq_hw.planning.candidates import layer_candidates, nonzero_candidates
from lutq_hw.sim.stalls import Stalls
from lutq_hw.timing import schedule
from lutq_hw.units import UNITS

DICTIONARY = (-4, 0, 1, 2)
ZERO = 1


def sparse_book(rng: np.random.Generator, shape: tuple[int, ...], kept: float) -> Codebook:
    """Weights of which about the part ``kept`` is not zero."""
    index = np.where(rng.random(shape) < kept, rng.choice([0, 2, 3], shape), ZERO)
    index.reshape(-1)[0] = ZERO
    return Codebook(index, dictionary=DICTIONARY)


def sparse_network(seed: int, *, padding: int = 1, stride: int = 1, kept: float = 0.3) -> Network:
    """A convolution and a dense layer, most of whose weights are zero."""
    rng = np.random.default_rng(seed)
    image = Input("image", TensorType((5, 6, 3), 3))
    conv = Conv2d("conv", "image", sparse_book(rng, (6, 3, 3, 3), kept), padding=(padding, padding), stride=(stride, stride),
                  step=Thresholds(np.sort(rng.integers(-30, 30, (6, 3))), 2))
    size = conv.output(image.type).size
    dense = Dense("dense", "flat", sparse_book(rng, (8, size), kept / 2), bias=rng.integers(-9, 9, 8))
    return Network("sparse", (image, conv, Flatten("flat", "conv"), dense, Output("out", "dense")))


def sparse_plan(network: Network, conv_pe: int, dense_pe: int) -> Plan:
    """Both layers skip their zeros."""
    return Plan(network.digest, (
        LayerPlan(node="conv", unit="shift-add", pe=conv_pe, channels=1, terms="nonzero"),
        LayerPlan(node="dense", unit="shared-products", pe=dense_pe, channels=1, terms="nonzero", output="scores",
                  index_memory="luts")))


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 3, 6]), st.floats(0, 1))
def test_the_steps_walk_every_nonzero_weight_once(seed: int, pe: int, kept: float):
    rng = np.random.default_rng(seed)
    book = sparse_book(rng, (6, 3, 2, 5), kept)
    reads = NonzeroReads(window=None, codebook=book, pe=pe)  # type: ignore[arg-type]
    weights = book.assignments.reshape(6, 3, 10)
    steps, first = reads.steps, 0
    for group, length in enumerate(reads.lengths):
        for lane in range(pe):
            seen = np.full((3, 10), ZERO)
            row, position, visited = 0, -1, set()
            for word in range(first, first + length):
                down = int(steps.rows[word, lane])
                row, position = row + down, (0 if down else position + 1) + int(steps.run[word, lane])
                assert (row, position) not in visited
                visited.add((row, position))
                seen[row, position] = steps.index[word, lane]
            np.testing.assert_array_equal(seen, weights[group * pe + lane])
        first += length
        assert reads.ends[first - 1] and not any(reads.ends[first - length:first - 1])
    assert first == reads.words == len(reads.ends) == len(steps.index)
    most = [max(1, int((weights[g:g + pe] != ZERO).sum(axis=(1, 2)).max())) for g in range(0, 6, pe)]
    assert reads.words >= sum(most)
    assert reads.words <= nonzero.SLOWER * sum(most) or reads.run_bits < nonzero.MAX_RUN_BITS


@pytest.mark.parametrize(("seed", "padding", "stride", "conv_pe", "dense_pe", "stalls"), [
    (1, 1, 1, 1, 1, Stalls()), (2, 0, 1, 2, 4, Stalls(0.5, 0.5, 3)), (3, 1, 2, 3, 8, Stalls(0.0, 0.8, 4)),
    (4, 2, 1, 6, 2, Stalls(0.8, 0.0, 5)), (5, 1, 3, 2, 1, Stalls(0.3, 0.3, 6))])
def test_values_and_cycles_equal_golden(seed, padding, stride, conv_pe, dense_pe, stalls, tmp_path: Path):
    network = sparse_network(seed, padding=padding, stride=stride)
    codes = random_codes(np.random.default_rng(seed), network, 3)
    verdict = amaranth_verdict(case_of("sparse", network, sparse_plan(network, conv_pe, dense_pe), codes, stalls), tmp_path)
    assert verdict.differences == []
    assert verdict.words > 0


@pytest.mark.parametrize("unit", [name for name, unit in UNITS.items() if unit.any_length])
def test_every_unit_gets_its_own_indices(unit: str, tmp_path: Path):
    network = sparse_network(12)
    node, x = network.weighted[0], network.input.type
    if UNITS[unit].refusal(node.weights, x):
        pytest.skip(f"{unit} takes no such dictionary")
    conv = replace(sparse_plan(network, 2, 4).layers[0], unit=unit)
    plan = Plan(network.digest, (conv, sparse_plan(network, 2, 4).layers[1]))
    codes = random_codes(np.random.default_rng(12), network, 1)
    assert amaranth_verdict(case_of("sparse", network, plan, codes), tmp_path).differences == []


def test_no_cycle_is_spent_on_a_zero():
    network = sparse_network(7, kept=0.2)
    plan = sparse_plan(network, 1, 1)
    conv, dense = (stage for stage in pipeline(network, plan).stages if isinstance(stage, Layer))
    assert conv.nonzero is not None and dense.nonzero is not None
    assert conv.nonzero.words <= nonzero.SLOWER * (conv.node.weights.flat.assignments != ZERO).sum() + 6
    times = schedule(pipeline(network, plan), 4)
    assert times.interval == Performance(network, plan).cycles_per_frame <= max(conv.interval, dense.interval)


def test_lanes_are_balanced_by_the_order_of_the_channels(tmp_path: Path):
    rng = np.random.default_rng(9)
    image = Input("image", TensorType((6, 6, 2), 3))
    index = np.where(rng.random((8, 3, 3, 2)) < np.array([0.9, 0.1] * 4)[:, None, None, None], 3, ZERO)
    conv = Conv2d("conv", "image", Codebook(index, dictionary=DICTIONARY), step=Thresholds(np.zeros((8, 1), int), 1))
    second = Conv2d("second", "pool", sparse_book(rng, (4, 2, 2, 8), 0.5), step=Thresholds(np.zeros((4, 1), int), 1))
    last = Dense("dense", "flat", sparse_book(rng, (4, 16), 0.5))
    nodes = (image, conv, MaxPool2d("pool", "conv", 2, 1), second, Flatten("flat", "second"), last, Output("out", "dense"))
    network = Network("uneven", nodes)
    plan = Plan(network.digest, (
        LayerPlan(node="conv", unit="shift-add", pe=2, channels=1, terms="nonzero"), PoolPlan(node="pool", channels=4),
        LayerPlan(node="second", unit="shift-add", pe=2, channels=2, rows=2),
        LayerPlan(node="dense", unit="shift-add", pe=4, channels=1, output="scores", output_lanes=2)))
    found = pipeline(network, plan)
    layer = found.stages[0]
    assert isinstance(layer, Layer) and layer.nonzero is not None
    counts = (index != ZERO).sum(axis=(1, 2, 3))
    assert layer.nonzero.words == np.sort(counts)[::-1][::2].sum() < 0.7 * counts.reshape(-1, 2).max(axis=1).sum()
    assert found.streams[1].order is not None and found.streams[-1].order is None
    verdict = amaranth_verdict(case_of("uneven", network, plan, random_codes(rng, network, 2)), tmp_path)
    assert verdict.differences == []


def test_the_planner_skips_zeros_where_that_is_faster():
    network = sparse_network(11, kept=0.1)
    conv = network.weighted[0]
    found = nonzero_candidates(network, conv, ["shift-add", "shared-products"])
    dense = layer_candidates(conv, network.input_type(conv), ["shift-add", "shared-products"])
    assert min(c.cycles for c in found if isinstance(c.plan, LayerPlan) and c.plan.pe == 1) < min(
        c.cycles for c in dense if isinstance(c.plan, LayerPlan) and c.plan.pe * c.plan.simd == 1)
    for candidate in found:
        assert isinstance(candidate.plan, LayerPlan)
        others = [replace(layer, terms="all") for layer in sparse_plan(network, 1, 1).layers if layer.node == "dense"]
        stages = pipeline(network, Plan(network.digest, (candidate.plan, *others))).stages
        built = next(stage for stage in stages if isinstance(stage, Layer))
        assert candidate.cycles == max(built.interval, built.input.words)
        price = stage_cost(built)
        assert (candidate.cost.brams, candidate.cost.luts) == (price.brams, pytest.approx(price.luts))


def test_skipped_zeros_are_shown():
    network = sparse_network(8)
    shown = text(describe(Performance(network, sparse_plan(network, 1, 1)), find_board("icebreaker")))
    assert shown.count("1 x 1, nonzero terms") == 2


def test_what_cannot_skip_zeros_is_refused():
    network = sparse_network(8)
    full = Dense("dense", "image", Codebook(np.zeros((4, 6), int), dictionary=(1, 2)))
    dense = Network("full", (Input("image", TensorType((6,), 3)), full, Output("out", "dense")))
    layer = LayerPlan(node="dense", unit="shift-add", pe=1, channels=1, terms="nonzero", output="scores")
    plan = Plan(dense.digest, (layer,))
    with pytest.raises(PlanError, match=r"^layer dense: terms nonzero cannot be used: reading non-zero terms only needs "
                                        r"weights that are zero, and none is$"):
        pipeline(dense, plan)
    plan = Plan(network.digest, (LayerPlan(node="conv", unit="shift-add", pe=1, channels=3, terms="nonzero"),))
    with pytest.raises(PlanError, match=r"^layer conv: channels and rows must be 1 where terms is nonzero, not 3 and 1$"):
        pipeline(network, plan)
    with pytest.raises(PlanError, match=r"^layer conv: terms must be all or nonzero, not 'some'$"):
        Plan.from_json(sparse_plan(network, 1, 1).to_json().replace('"nonzero"', '"some"', 1))
