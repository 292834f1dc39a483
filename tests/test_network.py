"""Network types: every wrong argument is one exact sentence, and right ones are what hardware relies on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import random_network

from lutq_hw.errors import ModelError
from lutq_hw.network import (
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Network,
    Output,
    Shift,
    TensorType,
    Thresholds,
)
from lutq_hw.network.tensor import integers, magnitude, signed_bits

SEEDS = st.integers(0, 2**32 - 1)


def refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=f"^{re.escape(sentence)}$"):
        make()


# --- integers


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=20))
def test_integers_keep_every_value(values: list[int]) -> None:
    array = integers(values, "x")
    assert array.dtype == np.int64 and array.tolist() == values and not array.flags.writeable
    assert magnitude(array) == max(map(abs, values))


def test_integers_are_copied() -> None:
    source = np.arange(3)
    array = integers(source, "x")
    source[0] = 9
    assert array.tolist() == [0, 1, 2]


@pytest.mark.parametrize("value, sentence", [
    ([1.0, 2.0], "x must hold integers, not float64"),
    ([True, False], "x must hold integers, not bool"),
    ([1, True], "x must hold integers, not bool"),
    ([[1, 2], [3, np.True_]], "x must hold integers, not bool"),
    ([[1, 2], [3]], "x must be a rectangular array of integers"),
    ([1 << 70], "x must hold integers, not object"),
    (["1"], "x must hold integers, not <U1"),
    (None, "x must hold integers, not object"),
    (np.array([1 << 63], np.uint64), "x must fit int64, not span 9223372036854775808 to 9223372036854775808"),
])
def test_integers_refuses(value: Any, sentence: str) -> None:
    refused(lambda: integers(value, "x"), sentence)


def test_integers_of_a_narrow_type() -> None:
    assert integers([0, 255], "x", dtype=np.uint8).dtype == np.uint8
    refused(lambda: integers([-1], "x", dtype=np.uint8), "x must fit uint8, not span -1 to -1")


@given(st.integers(-(1 << 40), 1 << 40), st.integers(0, 1 << 40))
def test_signed_bits_is_the_smallest_width(low: int, length: int) -> None:
    high = low + length
    bits = signed_bits(low, high)
    assert -(1 << bits - 1) <= low and high < 1 << bits - 1
    smaller = bits - 1
    assert smaller == 0 or low < -(1 << smaller) // 2 or high >= (1 << smaller) // 2


# --- tensor types


@given(st.integers(1, 32), st.booleans(), st.sampled_from([(1,), (7,), (2, 3, 4), (1, 1, 5)]))
def test_tensor_type(bits: int, signed: bool, shape: tuple[int, ...]) -> None:
    x = TensorType(shape, bits, signed)
    assert x.max - x.min + 1 == 1 << bits and (x.min < 0) == signed
    assert x.size == int(np.prod(shape)) and x.channels == shape[-1] and int(np.prod(x.map_shape)) == x.size
    if bits <= 8:
        assert x.levels.tolist() == list(range(x.min, x.max + 1))


def test_tensor_type_as_text_and_from_numpy() -> None:
    assert str(TensorType((28, 28, 1), 4)) == "28x28x1 u4" and str(TensorType((10,), 13, True)) == "10 s13"
    x = TensorType((np.int64(3),), np.int32(4))  # type: ignore[arg-type]
    assert type(x.shape[0]) is int and type(x.bits) is int and x == TensorType((3,), 4)


@pytest.mark.parametrize("arguments, sentence", [
    (((2, 2), 4), "shape must be (H, W, C) or (N,) with positive extents, not (2, 2)"),
    ((3, 4), "shape must be (H, W, C) or (N,) with positive extents, not 3"),
    (([3], 4), "shape must be (H, W, C) or (N,) with positive extents, not [3]"),
    (((0,), 4), "shape must be (H, W, C) or (N,) with positive extents, not (0,)"),
    (((True,), 4), "shape must be (H, W, C) or (N,) with positive extents, not (True,)"),
    (((2.0,), 4), "shape must be (H, W, C) or (N,) with positive extents, not (2.0,)"),
    (((65537,), 4), "shape must have no extent above 65536, not (65537,)"),
    (((1, 4097, 1), 4), "shape must have no extent above 4096, not (1, 4097, 1)"),
    (((4096, 4096, 2), 4), "shape must have at most 16777216 elements, not (4096, 4096, 2)"),
    (((3,), 0), "bits must be an integer from 1 to 32, not 0"),
    (((3,), 33), "bits must be an integer from 1 to 32, not 33"),
    (((3,), True), "bits must be an integer from 1 to 32, not True"),
    (((3,), "4"), "bits must be an integer from 1 to 32, not '4'"),
    (((3,), 4, 1), "signed must be true or false, not 1"),
])
def test_tensor_type_refuses(arguments: Any, sentence: str) -> None:
    refused(lambda: TensorType(*arguments), sentence)


# --- codebooks


def random_codebook(seed: int) -> tuple[Codebook, TensorType]:
    rng = np.random.default_rng(seed)
    networks = (random_network(rng) for _ in range(100))
    network = next(network for network in networks if network.weighted)
    node = network.weighted[0]
    return node.weights, network.input_type(node)


@given(SEEDS)
def test_flat_codebook_has_the_same_products(seed: int) -> None:
    codebook, x = random_codebook(seed)
    flat = codebook.flat
    assert flat.groups == 1 and flat.assignments.shape == codebook.assignments.shape
    group = np.broadcast_to(codebook.subgroups, codebook.assignments.shape)
    before, after = codebook.products(x), flat.products(x)
    for row in range(len(x.levels)):
        np.testing.assert_array_equal(before[group, row, codebook.assignments], after[0, row, flat.assignments])
    assert len(np.unique(flat.assignments)) == flat.entries  # unused and repeated entries are gone
    if codebook.table is None:
        assert (np.diff(flat.dictionary[0]) > 0).all()
        np.testing.assert_array_equal(codebook.values, flat.values)


@given(SEEDS)
def test_sum_range_is_reached_and_never_left(seed: int) -> None:
    codebook, x = random_codebook(seed)
    index = codebook.assignments.reshape(len(codebook.assignments), -1)
    products = codebook.products(x)[codebook.subgroups.reshape(-1)[None], :, index]
    low, high = codebook.sum_range(x)
    np.testing.assert_array_equal(low, products.min(axis=-1).sum(axis=1))
    np.testing.assert_array_equal(high, products.max(axis=-1).sum(axis=1))


def test_sum_range_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    codebook = Codebook(rng.integers(0, 4, (7, 30)), rng.integers(-9, 9, (2, 4)), subgroups=rng.integers(0, 2, 30))
    whole = codebook.sum_range(TensorType((30,), 4))
    for block in (1, 7, 31, 100):
        monkeypatch.setattr("lutq_hw.network.codebook._BLOCK", block)
        for a, b in zip(codebook.sum_range(TensorType((30,), 4)), whole, strict=True):
            np.testing.assert_array_equal(a, b)


def test_usage_and_entropy() -> None:
    codebook = Codebook([[0, 0, 1, 2]], [5, 6, 7, 8])
    assert codebook.usage.tolist() == [2, 1, 1, 0] and codebook.entropy == 1.5
    assert Codebook([[0]], [1]).entropy == 0.0 and Codebook([[0]], [1]).index_bits == 1
    assert [Codebook([[0]], [0] * k).index_bits for k in (2, 3, 4, 5, 256)] == [1, 2, 2, 3, 8]


@pytest.mark.parametrize("arguments, sentence", [
    ({"assignments": [0], "dictionary": [1]}, "assignments must have 2 or 4 axes and no empty one, not shape (1,)"),
    ({"assignments": [[]], "dictionary": [1]}, "assignments must have 2 or 4 axes and no empty one, not shape (1, 0)"),
    ({"assignments": [[0]]}, "weights must have exactly one of dictionary and table"),
    ({"assignments": [[0]], "dictionary": [1], "table": [[1]]},
     "weights must have exactly one of dictionary and table"),
    ({"assignments": [[256]], "dictionary": [1]}, "assignments must fit uint8, not span 256 to 256"),
    ({"assignments": [[1]], "dictionary": [1]}, "assignments must be below K = 1, not 1"),
    ({"assignments": [[0]], "dictionary": 1}, "dictionary must have shape (K,) or (G, K), not ()"),
    ({"assignments": [[0]], "dictionary": []}, "dictionary must have 1 to 256 entries, not 0"),
    ({"assignments": [[0]], "dictionary": [[]] * 2}, "dictionary must have 1 to 256 entries, not 0"),
    ({"assignments": [[0]], "dictionary": [0] * 257}, "dictionary must have 1 to 256 entries, not 257"),
    ({"assignments": [[0]], "dictionary": [[0]] * 257}, "dictionary must have 1 to 256 subgroups, not 257"),
    ({"assignments": [[0]], "dictionary": [1.5]}, "dictionary must hold integers, not float64"),
    ({"assignments": [[0]], "dictionary": [(1 << 20) + 1]},
     "dictionary must hold values up to 1048576 in magnitude, not 1048577"),
    ({"assignments": [[0]], "dictionary": [-(1 << 63)]},
     "dictionary must hold values up to 1048576 in magnitude, not 9223372036854775808"),
    ({"assignments": [[0]], "table": [1]}, "table must have shape (L, K) or (G, L, K), not (1,)"),
    ({"assignments": [[0]], "table": np.zeros((1, 0, 1), int)}, "table must not be empty"),
    ({"assignments": [[0, 0]], "dictionary": [1], "subgroups": [0]},
     "subgroups must have the shape of one output's terms (2,), not (1,)"),
    ({"assignments": [[0, 0]], "dictionary": [1], "subgroups": [0, 1]}, "subgroups must be below G = 1, not 1"),
    ({"assignments": np.zeros((65537, 1), np.uint8), "dictionary": [1]},
     "assignments must have at most 65536 outputs, not 65537"),
])
def test_codebook_refuses(arguments: Any, sentence: str) -> None:
    refused(lambda: Codebook(**arguments), sentence)


def test_codebook_refuses_what_its_kind_does_not_have() -> None:
    table = Codebook([[0]], table=[[1], [2]])
    refused(lambda: table.values, "values exist for a dictionary only, not for a product table")
    refused(lambda: table.products(TensorType((1,), 2)),
            "table must have one row for each of the 4 activation levels, not 2")


# --- steps


@given(SEEDS)
def test_thresholds_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits, signed = int(rng.integers(1, 6)), bool(rng.integers(2))
    count = int(rng.integers(1, 1 << bits))
    step = Thresholds(np.sort(rng.integers(-9, 9, (3, count)), axis=1), bits, signed, rng.integers(0, 2, 3))
    acc = rng.integers(-12, 12, (4, 2, 3))
    code = step.apply(acc)
    low = -(1 << bits - 1) if signed else 0
    for o in range(3):
        past = step.values[o] >= acc[..., o, None] if step.descending[o] else step.values[o] <= acc[..., o, None]
        np.testing.assert_array_equal(code[..., o], low + past.sum(axis=-1))
    assert code.min() >= low and code.max() < low + (1 << bits)


@given(st.integers(-(1 << 31), 1 << 31), st.integers(0, 31), st.integers(1, 8), st.booleans())
def test_shift_is_its_formula(acc: int, shift: int, bits: int, signed: bool) -> None:
    low = -(1 << bits - 1) if signed else 0
    exact = (2 * acc + (1 << shift)) // (2 << shift)
    assert Shift(shift, bits, signed).apply(np.array([acc])).tolist() == [min(max(exact, low), low + (1 << bits) - 1)]


@pytest.mark.parametrize("arguments, sentence", [
    (([[1]], 0), "step bits must be an integer from 1 to 8, not 0"),
    (([[1]], True), "step bits must be an integer from 1 to 8, not True"),
    (([[1]], 2, 1), "step signed must be true or false, not 1"),
    (([1], 2), "thresholds must have shape (O, T), not (1,)"),
    (([[]], 2), "thresholds must have shape (O, T), not (1, 0)"),
    (([[1, 2, 3, 4]], 2), "thresholds must number at most 3 for 2 bits, not 4"),
    (([[1, 2], [2, 1]], 2), "thresholds must not decrease along a row"),
    (([[1 << 40]], 2), "thresholds must be below 2**40 in magnitude, not 1099511627776"),
    (([[-(1 << 63)]], 2), "thresholds must be below 2**40 in magnitude, not 9223372036854775808"),
    (([[1]], 2, False, [0, 0]), "descending must have shape (1,), not (2,)"),
    (([[1]], 2, False, [2]), "descending must hold 0 and 1 only"),
    (([[1]], 2, False, [True]), "descending must hold integers, not bool"),
])
def test_thresholds_refuse(arguments: Any, sentence: str) -> None:
    refused(lambda: Thresholds(*arguments), sentence)


@pytest.mark.parametrize("arguments, sentence", [
    ((-1, 4), "shift must be an integer from 0 to 31, not -1"),
    ((32, 4), "shift must be an integer from 0 to 31, not 32"),
    ((True, 4), "shift must be an integer from 0 to 31, not True"),
    ((1, 9), "step bits must be an integer from 1 to 8, not 9"),
    ((1, 4, None), "step signed must be true or false, not None"),
])
def test_shift_refuses(arguments: Any, sentence: str) -> None:
    refused(lambda: Shift(*arguments), sentence)


# --- nodes


WEIGHTS = Codebook(np.zeros((4, 3, 3, 1), int), [1])
MATRIX = Codebook(np.zeros((4, 3), int), [1])


@pytest.mark.parametrize("make, sentence", [
    (lambda: Flatten("1a", "x"), "node name must be a letter followed by letters, digits and underscores, not '1a'"),
    (lambda: Flatten("a\n", "x"), "node name must be a letter followed by letters, digits and underscores, not 'a\\n'"),
    (lambda: Flatten(3, "x"),  # type: ignore[arg-type]
     "node name must be a letter followed by letters, digits and underscores, not 3"),
    (lambda: Flatten("a", 3), "input must be the name of a node, not 3"),  # type: ignore[arg-type]
    (lambda: Flatten("a", ["x"]), "input must be the name of a node, not ['x']"),  # type: ignore[arg-type]
    (lambda: Input("a", (3,)), "type must be a TensorType, not tuple"),  # type: ignore[arg-type]
    (lambda: Input("a", TensorType((3,), 9)), "input must have at most 8 bits, not 9"),
    (lambda: Input("a", TensorType((3,), 4), [0]), "encode must have one entry for each of 256 pixels, not (1,)"),
    (lambda: Input("a", TensorType((3,), 4), range(256)), "encode must hold values of 3 u4, not 0 to 255"),
    (lambda: Dense("a", "x", [[1]]), "weights must be a Codebook, not list"),  # type: ignore[arg-type]
    (lambda: Dense("a", "x", MATRIX, step=4), "step must be Thresholds, Shift, ActivationTable or None, not int"),  # type: ignore[arg-type]
    (lambda: Dense("a", "x", MATRIX, [1]), "bias must have shape (4,), not (1,)"),
    (lambda: Dense("a", "x", MATRIX, [0, 0, 0, 1 << 31]), "bias must be below 2**31 in magnitude, not 2147483648"),
    (lambda: Dense("a", "x", MATRIX, step=Thresholds([[1]], 1)),
     "thresholds must have one row for each of 4 outputs, not 1"),
    (lambda: Conv2d("a", "x", MATRIX),
     "assignments of a convolution must have shape (O, kh, kw, C/groups), not (4, 3)"),
    (lambda: Conv2d("a", "x", Codebook(np.zeros((1, 65, 1, 1), int), [1])),
     "kernel must be at most 64 x 64, not 65 x 1"),
    (lambda: Conv2d("a", "x", WEIGHTS, stride=0), "stride must be two integers from 1 to 64, not 0"),  # type: ignore[arg-type]
    (lambda: Conv2d("a", "x", WEIGHTS, stride=True), "stride must be two integers from 1 to 64, not True"),  # type: ignore[arg-type]
    (lambda: Conv2d("a", "x", WEIGHTS, stride=(1,)), "stride must be two integers from 1 to 64, not (1,)"),  # type: ignore[arg-type]
    (lambda: Conv2d("a", "x", WEIGHTS, padding=(3, 0)), "padding must be smaller than the kernel (3, 3), not (3, 0)"),
    (lambda: Conv2d("a", "x", WEIGHTS, groups=3), "groups must divide the 4 output channels, not 3"),
    (lambda: Conv2d("a", "x", WEIGHTS, groups=True), "groups must be an integer from 1 to 4, not True"),
    (lambda: MaxPool2d("a", "x", 65), "kernel must be two integers from 1 to 64, not 65"),  # type: ignore[arg-type]
    (lambda: MaxPool2d("a", "x", (2, 2), padding=(2, 0)), "padding must be smaller than the kernel (2, 2), not (2, 0)"),
    (lambda: Output("a", "x", "top33"), "output kind must be scores, argmax or top1 to top32, not 'top33'"),
])
def test_nodes_refuse(make: Callable[[], Any], sentence: str) -> None:
    refused(make, sentence)


@pytest.mark.parametrize("node, x, sentence", [
    (Dense("a", "x", WEIGHTS), TensorType((9,), 4),
     "assignments of a dense layer must have shape (O, N), not (4, 3, 3, 1)"),
    (Dense("a", "x", MATRIX), TensorType((1, 1, 3), 4),
     "input of a dense layer must be a vector (put a flatten before it), not 1x1x3 u4"),
    (Dense("a", "x", MATRIX), TensorType((4,), 4), "assignments must have 4 terms like the input, not 3"),
    (Dense("a", "x", MATRIX), TensorType((3,), 9), "input must have at most 8 bits, not 9 (give x a step)"),
    (Conv2d("a", "x", WEIGHTS), TensorType((9,), 4), "input of a convolution must be a map (H, W, C), not 9 u4"),
    (Conv2d("a", "x", WEIGHTS), TensorType((9, 9, 2), 4),
     "assignments must cover the input's 2 channels, not 1 (1 groups)"),
    (Conv2d("a", "x", WEIGHTS), TensorType((9, 2, 1), 4), "kernel must be at most the padded input (W = 2), not 3"),
    (Dense("a", "x", Codebook(np.zeros((1, 65536), int), [1 << 20])), TensorType((65536,), 8),
     "accumulator must fit 32 bits, not 45"),
    (MaxPool2d("a", "x", (2, 2)), TensorType((9,), 4), "input of a max-pool must be a map (H, W, C), not 9 u4"),
    (Flatten("a", "x"), TensorType((4096, 17, 1), 4), "shape must have no extent above 65536, not (69632,)"),
    (Output("a", "x"), TensorType((2, 2, 2), 4),
     "input of an output must be a vector (put a flatten before it), not 2x2x2 u4"),
])
def test_nodes_refuse_inputs(node: Any, x: TensorType, sentence: str) -> None:
    refused(lambda: node.output(x), sentence)


def test_window_extents() -> None:
    conv = Conv2d("a", "x", WEIGHTS, stride=2, padding=1, step=Shift(0, 3))  # type: ignore[arg-type]
    assert conv.stride == (2, 2) and conv.output(TensorType((28, 27, 1), 4)) == TensorType((14, 14, 4), 3)
    assert MaxPool2d("a", "x", (3, 2)).stride == (3, 2)
    assert MaxPool2d("a", "x", (3, 2)).output(TensorType((7, 7, 5), 6, True)) == TensorType((2, 3, 5), 6, True)


# --- the graph


IMAGE = Input("image", TensorType((3,), 4))


@pytest.mark.parametrize("arguments, sentence", [
    (("", (IMAGE, Output("out", "image"))), "network name must be 1 to 200 printable characters"),
    (("a\x1b[31m", (IMAGE, Output("out", "image"))), "network name must be 1 to 200 printable characters"),
    (("a", IMAGE), "nodes must be a tuple of nodes"),
    (("a", ("image", "out")), "nodes must be a tuple of nodes"),
    (("a", (IMAGE,)), "network must have 2 to 1024 nodes, not 1"),
    (("a", (IMAGE, Flatten("f", "image"))), "network must have exactly one output node, not 0"),
    (("a", (IMAGE, Input("b", IMAGE.type), Output("out", "b"))), "network must have exactly one input node, not 2"),
    (("a", (IMAGE, Flatten("image", "image"), Output("out", "image"))), "image: node name must be unique"),
    (("a", (IMAGE, Flatten("f", "g"), Output("out", "f"))), "f: input must name an earlier node, not 'g'"),
    (("a", (IMAGE, Flatten("f", "f"), Output("out", "f"))), "f: input must name an earlier node, not 'f'"),
    (("a", (IMAGE, Flatten("f", "out"), Output("out", "f"))), "f: input must name an earlier node, not 'out'"),
    (("a", (IMAGE, Output("out", "image"), Flatten("f", "out"))), "f: input must not be the network's output"),
    (("a", (IMAGE, Flatten("f", "image"), Output("out", "image"))), "f: its result must be used by another node"),
    (("a", (IMAGE, Dense("fc", "image", Codebook([[0]], [1])), Output("out", "fc"))),
     "fc: assignments must have 3 terms like the input, not 1"),
    (("a", (IMAGE, Output("out", "image")), {"x": {1, 2}}),
     "info must be a dictionary of JSON values (Object of type set is not JSON serializable)"),
    (("a", (IMAGE, Output("out", "image")), {"x": float("nan")}),
     "info must be a dictionary of JSON values (Out of range float values are not JSON compliant)"),
    (("a", (IMAGE, Output("out", "image")), 3),
     "info must be a dictionary of JSON values ('int' object is not iterable)"),
])
def test_network_refuses(arguments: Any, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        Network(*arguments)
    # Python 3.12 and later name the value in the JSON library's sentence.
    assert re.sub(r"compliant: nan", "compliant", str(caught.value)) == sentence


@given(SEEDS)
def test_random_networks_are_consistent(seed: int) -> None:
    network = random_network(np.random.default_rng(seed))
    assert network.input is network.nodes[0] and network.output is network.nodes[-1]
    assert set(network.types) == {node.name for node in network.nodes}
    for node in network.nodes[1:]:
        assert node in network.consumers(node.inputs[0]) and network[node.name] is node
        assert network.types[node.name] == node.output(network.input_type(node))  # type: ignore[call-arg, arg-type]
    for node in network.weighted:
        assert network.macs(node) % node.terms == 0
        assert node.accumulator_bits(network.input_type(node)) <= 32


@given(SEEDS)
def test_digest_sees_hardware_and_nothing_else(seed: int) -> None:
    network = random_network(np.random.default_rng(seed))
    names = {node.name: f"n{i}" for i, node in enumerate(network.nodes)}
    renamed = [dataclasses.replace(node, name=names[node.name],
                                   **({} if isinstance(node, Input) else {"input": names[node.input]}))  # type: ignore[arg-type]
               for node in network.nodes]
    assert Network("other", tuple(renamed), {"note": "x"}).digest == network.digest
    out = network.output
    other = dataclasses.replace(out, kind="scores" if out.kind == "argmax" else "argmax")
    assert Network("random", (*network.nodes[:-1], other)).digest != network.digest
    for at, node in enumerate(network.nodes):
        if isinstance(node, Dense | Conv2d):
            bias = node.bias.copy()
            bias[0] += 1
            changed = (*network.nodes[:at], dataclasses.replace(node, bias=bias), *network.nodes[at + 1:])
            assert Network("random", changed).digest != network.digest


def test_digest_is_pinned() -> None:
    network = Network("tiny", (IMAGE, Dense("fc", "image", Codebook([[0, 1, 1]], [-1, 2]), step=Shift(1, 2)),
                               Output("out", "fc")))
    assert network.digest == "2250f1de83966cb1f62a3416f5cd3d158476c5ca6c06dbb0d84908852cefc3ee"


def test_objects_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        IMAGE.name = "x"  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"^assignment destination is read-only$"):
        MATRIX.assignments[0, 0] = 1
