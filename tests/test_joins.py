"""Adds, average pools, requantise nodes and activation tables: what they refuse, what they compute, no hardware yet."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Limits, random_codes, random_network, random_table, residual_network
from test_golden import both, naive_step

from lutq_hw import golden, golden_fast, step_tables
from lutq_hw.errors import ModelError, PlanError
from lutq_hw.network import (
    ActivationTable,
    Add,
    AvgPool2d,
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    Network,
    Node,
    Output,
    Requantize,
    Shift,
    TensorType,
    Thresholds,
)
from lutq_hw.performance import Performance
from lutq_hw.pipeline import Layer, pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.planner import make_plan, unit_verdicts

SEEDS = st.integers(0, 2**32 - 1)
VECTOR = TensorType((3,), 4)
MAP = TensorType((2, 3, 1), 3, signed=True)


def refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=f"^{re.escape(sentence)}$"):
        make()


# --- activation tables


@given(SEEDS)
def test_equal_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits, signed = int(rng.integers(1, 7)), bool(rng.integers(2))
    step = random_table(rng, int(rng.integers(1, 33)), bits, signed, monotone=True)
    equal = step.thresholds(2)
    assert (equal.channels, equal.bits, equal.signed) == (2, bits, signed)
    edges = (np.arange(len(step.values) + 1)[:, None] << step.shift) + np.array([-1, 0, 1])
    ends = [-(1 << 31), -1, 0, 1, (1 << 31) - 1, (1 << 32) - 1]
    acc = np.concatenate([edges.reshape(-1), ends, rng.integers(-(1 << 31), 1 << 31, 50)])[:, None].repeat(2, axis=1)
    np.testing.assert_array_equal(equal.apply(acc), step.apply(acc))


def test_equal_thresholds_by_hand() -> None:
    always = -(1 << 39)
    rising = ActivationTable([2, 2, 3, 5], 2, 3).thresholds(2)
    assert rising.values.tolist() == [[always, always, 8, 12, 12]] * 2 and not rising.descending.any()
    falling = ActivationTable([1, 0, 0, -2], 3, 2, signed=True).thresholds(1)
    assert falling.values.tolist() == [[7, 23, 23]] and falling.descending.tolist() == [1]
    assert ActivationTable([0, 0], 1, 4).thresholds(1).values.tolist() == [[1 << 39]]


def test_a_table_by_hand() -> None:
    step = ActivationTable([1, 0, 3], 2, 2)
    network = Network("n", (Input("image", TensorType((1,), 8, signed=True)), Requantize("r", "image", step),
                            Output("out", "r")))
    expected = {-128: 1, -1: 1, 0: 1, 3: 1, 4: 0, 7: 0, 8: 3, 127: 3}
    assert both(network, [[code] for code in expected])["out"][:, 0].tolist() == list(expected.values())


@pytest.mark.parametrize("arguments, sentence", [
    (([0, 1], 0, 9), "step bits must be an integer from 1 to 8, not 9"),
    (([0, 1], 32, 1), "shift must be an integer from 0 to 31, not 32"),
    (([0, 1], 0, 1, 1), "step signed must be true or false, not 1"),
    (([[0, 1]], 0, 1), "activation table must have shape (N,) with N from 1 to 65536, not (1, 2)"),
    (([], 0, 1), "activation table must have shape (N,) with N from 1 to 65536, not (0,)"),
    ((np.zeros(65537, int), 0, 1), "activation table must have shape (N,) with N from 1 to 65536, not (65537,)"),
    (([0.5], 0, 1), "activation table must hold integers, not float64"),
    (([0, 2], 0, 1), "activation table must hold codes from 0 to 1, not 0 to 2"),
    (([-3, 1], 0, 2, True), "activation table must hold codes from -2 to 1, not -3 to 1"),
])
def test_tables_refuse(arguments: Any, sentence: str) -> None:
    refused(lambda: ActivationTable(*arguments), sentence)


def test_a_table_that_rises_and_falls_has_no_thresholds() -> None:
    refused(lambda: ActivationTable([0, 1, 0], 1, 1).thresholds(1),
            "activation table must never decrease or never increase to have equal thresholds, not do both")


# --- nodes


@pytest.mark.parametrize("make, sentence", [
    (lambda: Add("a", "xy"), "inputs must be the names of nodes, not 'xy'"),  # type: ignore[arg-type]
    (lambda: Add("a", ("x", 3)), "inputs must be the names of nodes, not ('x', 3)"),  # type: ignore[arg-type]
    (lambda: Add("a", ()), "inputs must be the names of nodes, not ()"),
    (lambda: Add("a", ("x",)), "inputs must name 2 to 8 nodes, not 1"),
    (lambda: Add("a", ("x",) * 9), "inputs must name 2 to 8 nodes, not 9"),
    (lambda: Add("a b", ("x", "x")),
     "node name must be a letter followed by letters, digits and underscores, not 'a b'"),
    (lambda: Add("a", ("x", "y"), (1,)), "shifts must be one integer for each of 2 inputs, not (1,)"),
    (lambda: Add("a", ("x", "y"), 1), "shifts must be one integer for each of 2 inputs, not 1"),  # type: ignore[arg-type]
    (lambda: Add("a", ("x", "y"), (0, -1)), "shift must be an integer from 0 to 31, not -1"),
    (lambda: Add("a", ("x", "y"), step=3), "step must be Thresholds, Shift, ActivationTable or None, not int"),  # type: ignore[arg-type]
    (lambda: AvgPool2d("a", "x", 0), "kernel must be two integers from 1 to 64, not 0"),  # type: ignore[arg-type]
    (lambda: AvgPool2d("a", "x", 2, padding=2), "padding must be smaller than the kernel (2, 2), not (2, 2)"),  # type: ignore[arg-type]
    (lambda: AvgPool2d("a", "x", 2, step=3), "step must be Thresholds, Shift, ActivationTable or None, not int"),  # type: ignore[arg-type]
    (lambda: Requantize("a", "x", None), "step must be Thresholds, Shift or ActivationTable, not NoneType"),  # type: ignore[arg-type]
    (lambda: Requantize("a", 3, Shift(1, 2)), "input must be the name of a node, not 3"),  # type: ignore[arg-type]
])
def test_nodes_refuse(make: Callable[[], Any], sentence: str) -> None:
    refused(make, sentence)


@pytest.mark.parametrize("node, types, sentence", [
    (Add("a", ("x", "y")), [VECTOR, TensorType((4,), 4)],
     "inputs of an add must have one shape, not 3 u4 of x and 4 u4 of y"),
    (Add("a", ("x", "y")), [VECTOR], "add must have 2 input types, not 1"),
    (Add("a", ("x", "y"), (28, 28)), [VECTOR, VECTOR], "sum must fit 32 bits, not 33"),
    (Add("a", ("x", "y"), step=Thresholds([[1]], 1)), [VECTOR, VECTOR],
     "thresholds must have one row for each of 3 channels, not 1"),
    (AvgPool2d("a", "x", (2, 2)), [VECTOR], "input of an average pool must be a map (H, W, C), not 3 u4"),
    (AvgPool2d("a", "x", (3, 2)), [MAP], "kernel must be at most the padded input (H = 2), not 3"),
    (AvgPool2d("a", "x", (2, 2)), [TensorType((2, 3, 1), 32)], "sum must fit 32 bits, not 34"),
    (Requantize("a", "x", Thresholds([[1]] * 2, 1)), [VECTOR],
     "thresholds must have one row for each of 3 channels, not 2"),
])
def test_nodes_refuse_inputs(node: Any, types: Sequence[TensorType], sentence: str) -> None:
    refused(lambda: node.output(*types), sentence)


def test_raw_sums_have_the_smallest_type() -> None:
    signed = TensorType((3,), 4, signed=True)
    assert Add("a", ("x", "y")).output(VECTOR, VECTOR) == TensorType((3,), 5)
    assert Add("a", ("x", "x", "x", "x")).output(*[VECTOR] * 4) == TensorType((3,), 6)
    assert Add("a", ("x", "y")).output(signed, signed) == TensorType((3,), 5, signed=True)
    assert Add("a", ("x", "y"), (0, 3)).output(signed, VECTOR) == TensorType((3,), 8, signed=True)
    assert Add("a", ("x", "y"), (28, 24)).output(VECTOR, VECTOR).bits == 32
    assert Add("a", ("x", "y"), step=Shift(1, 6)).output(VECTOR, VECTOR) == TensorType((3,), 6)
    assert AvgPool2d("a", "x", (2, 2)).output(MAP) == TensorType((1, 1, 1), 5, signed=True)
    assert AvgPool2d("a", "x", (2, 2), (1, 1), (1, 0)).output(TensorType((2, 3, 5), 1)) == TensorType((3, 2, 5), 3)
    assert Requantize("a", "x", Shift(1, 3)).output(TensorType((2,), 32)) == TensorType((2,), 3)


def test_input_types_and_digest() -> None:
    def network(first: str, second: str, shifts: tuple[int, ...]) -> Network:
        nodes: tuple[Node, ...] = (Input("image", VECTOR), Requantize("a", "image", Shift(0, 2)),
                                   Requantize("b", "image", Shift(1, 2)), Requantize("c", "image", Shift(2, 2)),
                                   Add("sum", (first, second, "c"), shifts), Add("all", ("sum", "a", "b")),
                                   Output("out", "all"))
        return Network("n", nodes)

    one = network("a", "b", (0, 0, 1))
    assert one.input_types(one["sum"]) == (TensorType((3,), 2),) * 3 and one.input_types(one.input) == ()
    assert one.consumers("a") == (one["sum"], one["all"])
    digests = {one.digest, network("b", "a", (0, 0, 1)).digest, network("a", "b", (0, 1, 0)).digest}
    assert len(digests) == 3 and network("a", "b", (0, 0, 1)).digest == one.digest


# --- values


def test_add_by_hand() -> None:
    network = Network("n", (
        Input("image", TensorType((2,), 3, signed=True)), Requantize("half", "image", Shift(1, 3, signed=True)),
        Add("sum", ("image", "half", "image"), (0, 2, 1)),
        Add("code", ("sum", "half"), step=Thresholds([[-9, 0, 5], [0, 2, 11]], 2, descending=[0, 1])),
        Output("out", "code")))
    results = both(network, [[3, -4], [1, -1], [0, 0]])
    assert results["half"].tolist() == [[2, -2], [1, 0], [0, 0]]
    assert results["sum"].tolist() == [[17, -20], [7, -3], [0, 0]]
    assert results["out"].tolist() == [[3, 3], [3, 3], [2, 3]]


def test_average_pool_by_hand() -> None:
    network = Network("n", (
        Input("image", MAP), AvgPool2d("sum", "image", (2, 2), (1, 2), (1, 1)), Flatten("flat", "sum"),
        Output("out", "flat")))
    # [[-4, 3, 2], [1, -1, 0]], padded by a 0 on every side: sums, not averages.
    results = both(network, [[[[-4], [3], [2]], [[1], [-1], [0]]]])
    assert results["sum"][0, :, :, 0].tolist() == [[-4, 5], [-3, 4], [1, -1]]


def naive(network: Network, node: Any, values: list[np.ndarray]) -> np.ndarray:
    """One of the new nodes, in plain Python integers."""
    result = np.zeros(network.types[node.name].shape, np.int64)
    for at in np.ndindex(result.shape):
        if isinstance(node, AvgPool2d):
            assert node.stride is not None
            acc = 0
            for ky, kx in np.ndindex(node.kernel):
                y = at[0] * node.stride[0] + ky - node.padding[0]
                z = at[1] * node.stride[1] + kx - node.padding[1]
                if 0 <= y < values[0].shape[0] and 0 <= z < values[0].shape[1]:
                    acc += int(values[0][y, z, at[2]])
        else:
            shifts = node.shifts if isinstance(node, Add) else (0,)
            acc = sum(int(value[at]) * 2**shift for value, shift in zip(values, shifts, strict=True))
        if isinstance(node.step, ActivationTable):
            table = node.step.values.tolist()
            result[at] = table[min(max(acc // 2**node.step.shift, 0), len(table) - 1)]
        else:
            result[at] = naive_step(node, at[-1], acc)
    return result


@settings(max_examples=120, deadline=None)
@given(seed=SEEDS)
def test_fast_path_equals_the_specification_and_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, Limits(extent=6, channels=4, graph=True))
    codes = random_codes(rng, network, 3)
    results = both(network, codes)
    for node in network.nodes:
        x = network.types[node.name]
        assert x.min <= results[node.name].min() and results[node.name].max() <= x.max
        if isinstance(node, Add | AvgPool2d | Requantize):
            expected = naive(network, node, [results[name][0] for name in node.inputs])
            np.testing.assert_array_equal(results[node.name][0], expected, err_msg=node.name)
    np.testing.assert_array_equal(golden_fast.FastNetwork(network).output(codes), results["out"])


def test_steps_with_and_without_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    for _ in range(25):
        network = random_network(rng, Limits(extent=5, channels=4, graph=True))
        codes = random_codes(rng, network, 3)
        tabulated = both(network, codes)
        for entries in (0, 60):
            monkeypatch.setattr(step_tables, "MAX_STEP_TABLE", entries)
            monkeypatch.setattr(step_tables, "MAX_BUCKETS", 2 * entries)
            for name, values in both(network, codes).items():
                np.testing.assert_array_equal(values, tabulated[name])
        monkeypatch.undo()


def test_a_residual_network_equals_the_specification() -> None:
    rng = np.random.default_rng(2)
    network = residual_network(rng, blocks=1, width=4, extent=8)
    assert sum(isinstance(node, Add) for node in network.nodes) == 3
    both(network, rng.integers(0, 256, (4, 8, 8, 3)))


def test_results_are_let_go_after_their_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    network = residual_network(rng, blocks=1, width=2, extent=8)
    alive: list[int] = []
    compute = golden_fast.FastNetwork._compute

    def watch(self: golden_fast.FastNetwork, node: Node, results: dict[str, np.ndarray]) -> np.ndarray:
        alive.append(len(results))
        return compute(self, node, results)

    monkeypatch.setattr(golden_fast.FastNetwork, "_compute", watch)
    images = rng.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    golden.evaluate(network, images)
    assert max(alive) <= 3 < len(network.nodes)


@pytest.mark.parametrize("bits", [4, 8])
def test_product_tables_with_symmetric_repeated_and_zero_columns(bits: int) -> None:
    rng = np.random.default_rng(bits)
    x = TensorType((5, 4, 6), bits, signed=True)
    half = rng.integers(-90, 90, (2, 1 << bits, 3))
    table = np.concatenate([half, -half, 0 * half[..., :1], half[..., :1]], axis=2)
    groups = rng.integers(0, 2, (3, 2, 2))
    weights = Codebook(rng.integers(0, 8, (6, 3, 2, 2)), table=table, subgroups=groups)
    conv = Conv2d("conv", "image", weights, step=Shift(6, 4), padding=(1, 1), groups=3)
    deep = Conv2d("deep", "conv", Codebook(rng.integers(0, 8, (6, 3, 3, 1)), table=rng.integers(-9, 9, (16, 8))),
                  stride=(2, 1), padding=(0, 2), groups=6)
    if bits == 8:  # and a table of zeros only
        conv = replace(conv, weights=Codebook(conv.weights.assignments, table=0 * table), bias=range(6))
    network = Network("n", (Input("image", x), conv, deep, Flatten("flat", "deep"), Output("out", "flat")))
    both(network, random_codes(rng, network, 3))


# --- hardware


def tabled(step: ActivationTable) -> Network:
    rng = np.random.default_rng(1)
    hidden = Dense("hidden", "image", Codebook(rng.integers(0, 4, (6, 8)), [-2, -1, 1, 3]), rng.integers(-9, 9, 6), step)
    scores = Dense("scores", "hidden", Codebook(rng.integers(0, 3, (5, 6)), [-1, 0, 1]))
    return Network("tabled", (Input("image", TensorType((8,), 3)), hidden, scores, Output("out", "scores")))


def test_a_table_costs_and_takes_what_its_thresholds_do() -> None:
    from lutq_hw.board import find_board
    step = ActivationTable([0, 0, 1, 3, 3, 2 + 1, 6, 7], 2, 3)
    network = tabled(step)
    hidden = network.nodes[1]
    equal = Network("equal", (network.nodes[0], replace(hidden, step=step.thresholds(6)), *network.nodes[2:]))  # type: ignore[type-var]
    board = find_board("icebreaker")
    plan, other = make_plan(network, board), make_plan(equal, board)
    assert plan.layers == other.layers and plan["hidden"].output.startswith("threshold")  # type: ignore[union-attr]
    a, b = Performance(network, plan), Performance(equal, other)
    assert (a.cost, a.latency, a.cycles_per_frame) == (b.cost, b.latency, b.cycles_per_frame)


def test_a_table_without_thresholds_stays_one() -> None:
    from lutq_hw.board import find_board
    network = tabled(ActivationTable([0, 2, 1], 2, 3))
    entry = make_plan(network, find_board("icebreaker"))["hidden"]
    assert isinstance(entry, LayerPlan) and (entry.output, entry.unit) != ("activation-table", "product-table")
    assert entry.output == "activation-table"
    thresholds = replace(entry, output="thresholds"), replace(entry, node="scores", output="scores")
    with pytest.raises(PlanError, match=r"^layer hidden: output thresholds cannot be used: hidden has no thresholds$"):
        pipeline(network, Plan(network.digest, thresholds))


def test_a_monotone_table_stays_one_where_the_plan_says_so() -> None:
    network = tabled(ActivationTable([0, 1, 3, 3], 2, 3))
    entry = LayerPlan(node="hidden", unit="shift-add", pe=1, channels=1, output="activation-table")
    stages = pipeline(network, Plan(network.digest, (entry, replace(entry, node="scores", output="scores")))).stages
    assert isinstance(stages[0], Layer) and isinstance(stages[0].node.step, ActivationTable)


def test_a_product_table_in_front_of_an_activation_table_is_no_default() -> None:
    node = tabled(ActivationTable([0, 2, 1], 2, 3)).nodes[1]
    assert isinstance(node, Dense)
    reason = unit_verdicts(node, TensorType((8,), 3))["product-table"]
    assert reason == "taken only when asked for: with the activation table behind it, it is claimed by patents"
    assert unit_verdicts(node, TensorType((8,), 3), ["product-table"])["product-table"] is None


def test_a_table_that_is_too_large_is_refused() -> None:
    from lutq_hw.board import find_board
    network = tabled(ActivationTable(np.arange(4096) % 5, 2, 3))
    sentence = (r"^layer hidden: no output stage can finish it \(.*activation-table: the activation table of hidden has 4096 "
                r"entries, at most 2048 can be looked up; .*\)$")
    with pytest.raises(PlanError, match=sentence):
        make_plan(network, find_board("icebreaker"))
