"""The golden model against hand-worked values, an independent loop, and its own fast path."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Limits, random_codes, random_network

from lutq_hw import golden, golden_fast, step_tables
from lutq_hw.errors import InputError, ModelError
from lutq_hw.network import (
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Network,
    Node,
    Output,
    Shift,
    TensorType,
    Thresholds,
)


def chain(x: TensorType, *nodes: Node, encode: Any = None) -> Network:
    return Network("test", (Input("image", x, encode), *nodes))


def both(network: Network, codes: Any) -> dict[str, np.ndarray]:
    """Results of the specification, after checking that the fast path has the same."""
    results = golden.run(network, np.asarray(codes))
    fast = golden_fast.FastNetwork(network).run(np.asarray(codes))
    assert results.keys() == fast.keys()
    for name, values in results.items():
        assert values.dtype == fast[name].dtype == np.int64
        np.testing.assert_array_equal(values, fast[name], err_msg=name)
    return results


# --- worked by hand


def test_dense_by_hand() -> None:
    network = chain(TensorType((3,), 4), Dense("fc", "image", Codebook([[0, 1, 2], [2, 2, 0]], [-2, 0, 5]), [10, -1]),
                    Output("out", "fc"))
    # [1, 2, 3]: -2 + 0 + 15 + 10 = 23; 5 + 10 - 6 - 1 = 8.  [15, 0, 0]: -30 + 10 = -20; 75 - 1 = 74.
    assert both(network, [[1, 2, 3], [15, 0, 0]])["out"].tolist() == [[23, 8], [-20, 74]]


def test_thresholds_by_hand() -> None:
    step = Thresholds([[-1, 2, 2], [-1, 2, 2]], 2, descending=[0, 1])
    network = chain(TensorType((1,), 4, signed=True), Dense("fc", "image", Codebook([[0], [0]], [1]), step=step),
                    Output("out", "fc"))
    # Ascending counts acc >= t, descending acc <= t; both at equality.
    expected = {-2: [0, 3], -1: [1, 3], 0: [1, 2], 1: [1, 2], 2: [3, 2], 3: [3, 0]}
    assert both(network, [[x] for x in expected])["out"].tolist() == list(expected.values())


def test_signed_thresholds_begin_at_the_smallest_code() -> None:
    network = chain(TensorType((1,), 4, signed=True),
                    Dense("fc", "image", Codebook([[0]], [1]), step=Thresholds([[-4, 0, 4]], 2, signed=True)),
                    Output("out", "fc"))
    assert both(network, [[-8], [-4], [0], [7]])["out"].tolist() == [[-2], [-1], [0], [1]]


def test_shift_rounds_half_up_and_saturates() -> None:
    network = chain(TensorType((1,), 8, signed=True),
                    Dense("fc", "image", Codebook([[0]], [1]), step=Shift(2, 3, signed=True)), Output("out", "fc"))
    expected = {-128: -4, -11: -3, -10: -2, -7: -2, -6: -1, -3: -1, -2: 0, 1: 0, 2: 1, 5: 1, 6: 2, 13: 3, 127: 3}
    assert both(network, [[x] for x in expected])["out"][:, 0].tolist() == list(expected.values())


def test_shift_by_zero_only_saturates() -> None:
    network = chain(TensorType((1,), 8, signed=True), Dense("fc", "image", Codebook([[0]], [1]), step=Shift(0, 4)),
                    Output("out", "fc"))
    assert both(network, [[-5], [0], [15], [16]])["out"][:, 0].tolist() == [0, 0, 15, 15]


def test_convolution_by_hand() -> None:
    weights = Codebook(np.arange(4).reshape(1, 2, 2, 1), [1, 10, 100, 1000])
    network = chain(TensorType((2, 2, 1), 4), Conv2d("conv", "image", weights, padding=(1, 1)), Flatten("flat", "conv"),
                    Output("out", "flat"))
    # Image [[1, 2], [3, 4]]; weight (ky, kx) = 10 ** (2 ky + kx); cross-correlation, so nothing is flipped.
    assert both(network, [[[[1], [2]], [[3], [4]]]])["conv"][0, :, :, 0].tolist() == [
        [1000, 2100, 200], [3010, 4321, 402], [30, 43, 4]]


def test_stride_and_groups_by_hand() -> None:
    weights = Codebook([[[[0]]], [[[1]]], [[[2]]], [[[3]]]], [1, 2, 3, 4])
    network = chain(TensorType((3, 2, 2), 4), Conv2d("conv", "image", weights, stride=(2, 1), groups=2),
                    Flatten("flat", "conv"), Output("out", "flat"))
    image = np.arange(12).reshape(1, 3, 2, 2)
    # Outputs 0 and 1 read channel 0, outputs 2 and 3 channel 1; rows 0 and 2 remain.
    assert both(network, image)["conv"][0].tolist() == [
        [[0, 0, 3, 4], [2, 4, 9, 12]], [[8, 16, 27, 36], [10, 20, 33, 44]]]


def test_padding_of_a_product_table_looks_up_code_zero() -> None:
    # Rows for code 0 and code 1: padding is code 0, and its product need not be zero.
    weights = Codebook(np.zeros((1, 1, 3, 1), int), table=[[7], [70]])
    network = chain(TensorType((1, 1, 1), 1), Conv2d("conv", "image", weights, padding=(0, 1)), Flatten("flat", "conv"),
                    Output("out", "flat"))
    assert both(network, [[[[1]]], [[[0]]]])["out"].tolist() == [[84], [21]]


def test_product_table_of_signed_codes_by_hand() -> None:
    network = chain(TensorType((2,), 2, signed=True),
                    Dense("fc", "image", Codebook([[0, 1]], table=[[1, 5], [2, 6], [3, 7], [4, 8]])),
                    Output("out", "fc"))
    # Rows belong to codes -2, -1, 0, 1.
    assert both(network, [[-2, -2], [1, -1], [0, 0]])["out"].tolist() == [[6], [10], [10]]


def test_subgroups_by_hand() -> None:
    weights = Codebook([[0, 0, 1, 1]], [[1, -1], [100, -100]], subgroups=[0, 1, 0, 1])
    network = chain(TensorType((4,), 4), Dense("fc", "image", weights), Output("out", "fc"))
    assert both(network, [[1, 2, 3, 4]])["out"].tolist() == [[1 + 200 - 3 - 400]]


def test_max_pool_by_hand() -> None:
    network = chain(TensorType((2, 3, 1), 3, signed=True), MaxPool2d("pool", "image", (2, 2), (1, 2), (1, 1)),
                    Flatten("flat", "pool"), Output("out", "flat"))
    # All codes are negative: padding must not win.
    assert both(network, [[[[-4], [-3], [-2]], [[-1], [-4], [-3]]]])["pool"][0, :, :, 0].tolist() == [
        [-4, -2], [-1, -2], [-1, -3]]


def test_flatten_is_channel_last() -> None:
    network = chain(TensorType((2, 2, 2), 4), Flatten("flat", "image"), Output("out", "flat"))
    assert both(network, np.arange(8).reshape(1, 2, 2, 2))["out"].tolist() == [list(range(8))]


def test_the_lowest_index_wins_a_tie() -> None:
    network = chain(TensorType((4,), 4), Output("out", "image", "argmax"))
    assert both(network, [[1, 5, 5, 2], [3, 3, 3, 3], [0, 0, 0, 1]])["out"].tolist() == [[1], [0], [3]]


def test_the_largest_come_in_order_and_the_lower_index_first() -> None:
    network = chain(TensorType((4,), 4, True), Output("out", "image", "top3"))
    assert str(network.types["out"]) == str(TensorType((3,), 2))
    assert both(network, [[1, 5, 5, 2], [3, 3, 3, 3], [-8, -8, -8, 7], [-1, -2, 0, -8]])["out"].tolist() == [
        [1, 2, 3], [0, 1, 2], [3, 0, 1], [2, 0, 1]]


# --- an independent loop over plain Python integers


def naive_sum(node: Any, x: TensorType, output: int, terms: list[int]) -> int:
    acc = int(node.bias[output])
    index, group = node.weights.assignments[output].reshape(-1), node.weights.subgroups.reshape(-1)
    for a, w, g in zip(terms, index.tolist(), group.tolist(), strict=True):
        if node.weights.table is None:
            acc += a * int(node.weights.dictionary[g, w])
        else:
            acc += int(node.weights.table[g, a - x.min, w])
    return acc


def naive_step(node: Any, output: int, acc: int) -> int:
    step = node.step
    if step is None:
        return acc
    low = -(1 << step.bits - 1) if step.signed else 0
    if isinstance(step, Shift):
        code = (2 * acc + (1 << step.shift)) // (1 << step.shift + 1)
        return min(max(code, low), low + (1 << step.bits) - 1)
    row = step.values[output].tolist()
    return low + sum(acc <= t if step.descending[output] else acc >= t for t in row)


def naive_conv(node: Conv2d, x: TensorType, frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    result = np.zeros(shape, np.int64)
    channels, outputs = x.channels // node.groups, node.outputs // node.groups
    for row, column, o in itertools.product(*map(range, shape)):
        first = o // outputs * channels
        terms = []
        for ky, kx, c in itertools.product(range(node.kernel[0]), range(node.kernel[1]), range(channels)):
            y, z = row * node.stride[0] + ky - node.padding[0], column * node.stride[1] + kx - node.padding[1]
            inside = 0 <= y < frame.shape[0] and 0 <= z < frame.shape[1]
            terms.append(int(frame[y, z, first + c]) if inside else 0)
        result[row, column, o] = naive_step(node, o, naive_sum(node, x, o, terms))
    return result


def naive_pool(node: MaxPool2d, frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    assert node.stride is not None
    result = np.zeros(shape, np.int64)
    for row, column, c in itertools.product(*map(range, shape)):
        top, left = row * node.stride[0] - node.padding[0], column * node.stride[1] - node.padding[1]
        result[row, column, c] = max(
            int(frame[y, z, c])
            for y in range(max(0, top), min(frame.shape[0], top + node.kernel[0]))
            for z in range(max(0, left), min(frame.shape[1], left + node.kernel[1])))
    return result


def naive_run(network: Network, frame: np.ndarray) -> dict[str, np.ndarray]:
    results = {network.input.name: frame}
    for node in network.nodes[1:]:
        value, x = results[node.inputs[0]], network.input_type(node)
        if isinstance(node, Dense):
            terms = value.tolist()
            result = np.array([naive_step(node, o, naive_sum(node, x, o, terms)) for o in range(node.outputs)])
        elif isinstance(node, Conv2d):
            result = naive_conv(node, x, value, network.types[node.name].shape)
        elif isinstance(node, MaxPool2d):
            result = naive_pool(node, value, network.types[node.name].shape)
        elif isinstance(node, Flatten):
            result = np.array([code for row in value.tolist() for pixel in row for code in pixel]
                              if value.ndim == 3 else value)
        else:
            scores = value.tolist()
            if network.output.kind == "argmax":
                result = np.array([scores.index(max(scores))])
            elif network.output.top:
                ranked = sorted(range(len(scores)), key=lambda n: (-scores[n], n))
                result = np.array(ranked[:network.output.top])
            else:
                result = value
        results[node.name] = result
    return results


@pytest.mark.parametrize("seed", range(40))
def test_matches_an_independent_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, Limits(extent=6, channels=4))
    codes = random_codes(rng, network, 2)
    results = both(network, codes)
    for n, frame in enumerate(codes):
        for name, values in naive_run(network, frame).items():
            np.testing.assert_array_equal(results[name][n], values, err_msg=f"seed {seed}, {name}")


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_fast_path_equals_the_specification(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    results = both(network, random_codes(rng, network, 4))
    for name, values in results.items():
        x = network.types[name]
        assert values.shape[1:] == x.shape
        assert x.min <= values.min() and values.max() <= x.max


# --- the fast path's own corners


def test_double_precision_where_single_would_round() -> None:
    rng = np.random.default_rng(3)
    weights = Codebook(rng.integers(0, 64, (5, 30)), rng.integers(-(1 << 18), 1 << 18, 64))
    dense = Dense("fc", "image", weights)
    assert golden_fast.largest_sum(dense, TensorType((30,), 8)) > 1 << 24
    network = chain(TensorType((30,), 8), dense, Output("out", "fc"))
    codes = rng.integers(0, 256, (200, 30))
    exact = both(network, codes)["out"]
    single = (codes.astype(np.float32) @ weights.values.T.astype(np.float32)).astype(np.int64)
    assert (single != exact).any()  # so this test would notice


def test_thresholds_far_apart_are_searched_not_tabulated(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    limits = Limits(tables=False)
    for network in [random_network(rng, limits) for _ in range(10)]:
        codes = random_codes(rng, network, 3)
        tabulated = both(network, codes)
        monkeypatch.setattr(step_tables, "MAX_STEP_TABLE", 0)
        for name, values in both(network, codes).items():
            np.testing.assert_array_equal(values, tabulated[name])
        monkeypatch.undo()


def test_large_maps_are_computed_in_row_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_fast, "BUDGET", 100)
    rng = np.random.default_rng(5)
    for _ in range(15):
        network = random_network(rng)
        assert golden_fast.batch_size(network) <= 100
        both(network, random_codes(rng, network, 3))


def test_subgroups_are_kept_and_not_flattened() -> None:
    """More distinct values over all subgroups than one flat dictionary may hold: golden must not care."""
    dictionary = np.arange(2 * 200).reshape(2, 200) - 200
    rng = np.random.default_rng(6)
    weights = Codebook(rng.integers(0, 200, (300, 4)), dictionary, subgroups=[0, 1, 1, 0])
    with pytest.raises(ModelError, match=r"^subgroups must share at most 256 distinct entries, not 3\d\d$"):
        _ = weights.flat
    both(chain(TensorType((4,), 4), Dense("fc", "image", weights), Output("out", "fc")), rng.integers(0, 16, (5, 4)))


# --- images in, accuracy out


PIXELS = chain(TensorType((2, 2, 1), 4), Flatten("flat", "image"), Output("out", "flat", "argmax"),
               encode=np.arange(256) >> 4)


def test_encode_maps_pixels_through_the_table() -> None:
    images = np.array([0, 15, 16, 255], np.uint8).reshape(1, 2, 2, 1)
    assert golden.encode(PIXELS, images).reshape(-1).tolist() == [0, 0, 1, 15]


def test_encode_flattens_images_for_a_vector_input() -> None:
    network = chain(TensorType((4,), 8), Output("out", "image"))
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    assert golden.encode(network, images).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("fast", [True, False])
def test_evaluate_runs_in_batches(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "BATCH", 3)
    monkeypatch.setattr(golden_fast, "BUDGET", 12)
    images = np.random.default_rng(0).integers(0, 256, (8, 2, 2, 1)).astype(np.uint8)
    done: list[int] = []
    results = golden.evaluate(PIXELS, images, fast=fast, progress=done.append)
    assert done == [3, 6, 8]
    assert results.tolist() == (images >> 4).reshape(8, 4).argmax(axis=1)[:, None].tolist()
    assert golden.accuracy(PIXELS, results, results[:, 0]) == 1.0
    assert golden.accuracy(PIXELS, results, results[:, 0] + 1) == 0.0


def test_predictions_from_scores() -> None:
    network = chain(TensorType((3,), 4), Output("out", "image"))
    assert golden.predictions(network, np.array([[1, 4, 4], [9, 0, 0]])).tolist() == [1, 0]


def refused(sentence: str) -> Any:
    return pytest.raises(InputError, match=f"^{re.escape(sentence)}$")


def test_wrong_images_and_codes_are_refused() -> None:
    with refused("images must be 2x2x1 like the input of the network, not 2x3x1"):
        golden.encode(PIXELS, np.zeros((5, 2, 3, 1), np.uint8))
    with refused("images must hold integers, not float64"):
        golden.encode(PIXELS, np.zeros((5, 2, 2, 1)))
    with refused("images must hold uint8 pixels, not int16"):
        golden.encode(PIXELS, np.zeros((5, 2, 2, 1), np.int16))
    with refused("codes must be from 0 to 15, not 0 to 16"):
        golden.run(PIXELS, np.array([[[[0], [1]], [[2], [16]]]]))
    with refused("codes must have shape (N, 2, 2, 1), not (2, 2, 1)"):
        golden.run(PIXELS, np.zeros((2, 2, 1), int))
    with refused("codes must be integers, not float64"):
        golden.run(PIXELS, np.zeros((1, 2, 2, 1)))
    with refused("labels must be one for each of 2 images, not 3"):
        golden.accuracy(PIXELS, np.zeros((2, 1), np.int64), np.zeros(3, np.int64))
