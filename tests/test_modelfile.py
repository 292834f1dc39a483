"""Model files: what is written is read back, what is wrong is refused with one sentence, and the memory is bounded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import model_fuzz
import numpy as np
import pytest
from networks import Limits, random_network

from lutq_hw import golden, modelfile, npz
from lutq_hw.errors import ModelError
from lutq_hw.model_schema import ARRAYS, BYTE_ARRAYS, HEADER_KEYS, KINDS, NODE_KEYS, STEP_KEYS
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
from lutq_hw.network.codebook import MAX_ENTRIES, MAX_GROUPS, MAX_OUTPUTS, MAX_VALUE
from lutq_hw.network.graph import MAX_NODES
from lutq_hw.network.tensor import MAX_DIMENSION, MAX_ELEMENTS

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "model-format.md"


def small() -> Network:
    return Network("small", (
        Input("image", TensorType((4, 4, 1), 2), np.arange(256) >> 6),
        Conv2d("conv", "image", Codebook(np.arange(8).reshape(2, 2, 2, 1) % 3, [-1, 0, 2]), [1, -1],
               Thresholds([[0, 1, 2], [-3, 0, 3]], 2, descending=[0, 1])),
        Flatten("flat", "conv"),
        Dense("fc", "flat", Codebook(np.arange(36).reshape(2, 18) % 2, [[1, -1], [2, 5]], subgroups=np.arange(18) % 2),
              step=Shift(1, 4, signed=True)),
        Output("out", "fc"),
    ), {"b": 1.5, "a": ["x", None]})


class Edited:
    """The parts of a valid file, to be changed and written again with every checksum right."""

    def __init__(self, folder: Path):
        self.path = folder / "m.npz"
        self.header, self.arrays = model_fuzz.unpack(modelfile.to_bytes(small()))

    def node(self, name: str) -> dict[str, Any]:
        return next(node for node in self.header["nodes"] if node["name"] == name)

    def write(self, text: bytes | None = None) -> Path:
        text = json.dumps(self.header).encode() if text is None else text
        np.savez(self.path, header=np.frombuffer(text, np.uint8), **self.arrays)
        return self.path

    def refused(self, sentence: str, text: bytes | None = None) -> None:
        refused(self.write(text), sentence)


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(ModelError, match=f"^{re.escape(f'{path}: {sentence}')}$"):
        modelfile.load(path)


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    return Edited(tmp_path)


# --- what is written is read back


@pytest.mark.parametrize("seed", range(30))
def test_random_networks_survive(seed: int, tmp_path: Path) -> None:
    network = random_network(np.random.default_rng(seed), Limits(graph=seed % 2 == 0))
    modelfile.save(network, tmp_path / "m.npz")
    again = modelfile.load(str(tmp_path / "m.npz"))
    assert (again.digest, again.name, again.info) == (network.digest, network.name, network.info)
    assert [node.name for node in again.nodes] == [node.name for node in network.nodes]
    assert modelfile.to_bytes(again) == (tmp_path / "m.npz").read_bytes()


def test_numpy_can_read_and_write_it(tmp_path: Path) -> None:
    modelfile.save(small(), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    assert arrays["conv.assignments"].dtype == np.uint8
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    arrays["conv.bias"] = arrays["conv.bias"].astype(">i8")
    arrays["conv.assignments"] = np.asfortranarray(arrays["conv.assignments"].astype("<i4"))
    np.savez(tmp_path / "c.npz", **arrays)
    assert {modelfile.load(tmp_path / f"{name}.npz").digest for name in "abc"} == {small().digest}


def test_saving_replaces_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.npz"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ModelError, match=rf"^{re.escape(str(path))}: cannot be written \(No space left on device\)$"):
        modelfile.save(small(), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    modelfile.save(small(), path)
    assert list(tmp_path.iterdir()) == [path] and modelfile.load(path).digest == small().digest
    missing = tmp_path / "no" / "m.npz"
    sentence = f"{missing}: cannot be written (No such file or directory)"
    with pytest.raises(ModelError, match=f"^{re.escape(sentence)}$"):
        modelfile.save(small(), missing)


def test_saving_refuses_what_cannot_be_loaded(tmp_path: Path) -> None:
    big = Network("big", small().nodes, {"text": "x" * (1 << 20)})
    with pytest.raises(ModelError, match=r"^big: header must take at most 1048576 bytes, not \d+ \(shorten info\)$"):
        modelfile.save(big, tmp_path / "m.npz")
    rows = [Dense(f"fc{i}", "image" if i == 0 else f"fc{i - 1}",
                  Codebook(np.zeros((4096, 4096), np.uint8), [0]), step=Shift(0, 1)) for i in range(3)]
    wide = Network("wide", (Input("image", TensorType((4096,), 1)), *rows, Output("out", "fc2")))
    with pytest.raises(ModelError, match=r"^fc1: arrays must keep the model within 33554432 bytes, not 33619984$"):
        modelfile.save(wide, tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())


def test_the_first_file_of_version_1_stays_readable() -> None:
    network = modelfile.load(HERE / "data" / "model_v1_all.npz")
    assert network.digest == "3ba25b0921c66333430d6a3db0b1dc9d8b43bc275ce7fe3e718fd597fbde91de"
    assert network.info == {"recipe": "none", "accuracy": 0.125, "scales": [0.5, 0.25]}
    assert {type(node).__name__ for node in network.nodes} == {
        "Input", "Conv2d", "MaxPool2d", "Flatten", "Dense", "Output"}
    images = (np.arange(3 * 42).reshape(3, 7, 6, 1) * 37 % 256).astype(np.uint8)
    results = golden.run(network, golden.encode(network, images))
    assert results["scores"].tolist() == [[70597, -70296, 902], [70897, -70596, 901], [70597, -70597, 901]]
    assert results["class"].tolist() == [[0], [0], [0]]


def test_the_first_file_of_version_2_stays_readable() -> None:
    network = modelfile.load(HERE / "data" / "model_v2_all.npz")
    assert network.digest == "44ab33fbdd644f7bebcab7fc1637e49b976cebd86ec6f65f14e603ea82b8e8b6"
    assert {type(node).__name__ for node in network.nodes} == {
        "Input", "Conv2d", "Add", "AvgPool2d", "Requantize", "Flatten", "Dense", "Output"}
    codes = np.arange(2 * 60).reshape(2, 5, 6, 2)**2 * 7 // 5 % 16 - 8
    results = golden.run(network, codes)
    assert results["sum"][1, 0, 0].tolist() == [10, -2]
    assert results["out"].tolist() == [[550, -788, 60], [550, -788, 60]]
    assert modelfile.to_bytes(network) == (HERE / "data" / "model_v2_all.npz").read_bytes()


def test_the_lowest_version_that_can_express_the_network_is_written() -> None:
    def version(network: Network) -> int:
        return model_fuzz.unpack(modelfile.to_bytes(network))[0]["version"]

    chain = small().nodes
    table = replace(chain[3], step=ActivationTable([0, 1], 2, 1))  # type: ignore[type-var]
    assert version(small()) == 1
    assert version(Network("table", (*chain[:3], table, chain[4]))) == 2
    joins: tuple[Node, ...] = (
        Add("new", ("flat", "flat")), Requantize("new", "flat", Shift(0, 2)))
    for node in joins:
        wide = replace(chain[3], input="new", step=None)  # type: ignore[type-var]
        assert version(Network("join", (*chain[:3], node, wide, chain[4]))) == 2
    pool = AvgPool2d("new", "conv", (2, 2))
    dense = Dense("fc", "flat", Codebook(np.zeros((2, 2), int), [1]))
    assert version(Network("pool", (*chain[:2], pool, Flatten("flat", "new"), dense, chain[4]))) == 2


# --- the document says what the code does


def rows(title: str) -> list[list[str]]:
    """Cells of the table whose header row begins with ``title``."""
    lines = DOCUMENT.read_text().split(f"\n| {title} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def words(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`(\w+)`", cell))


def test_document_lists_the_kinds_keys_and_arrays() -> None:
    assert {words(kind)[0]: (words(keys), words(arrays)) for kind, keys, arrays in rows("kind")} == {
        name: (kind.keys, kind.arrays) for name, kind in KINDS.items()}
    assert {words(kind)[0]: words(keys) for kind, keys, _ in rows("kind of step")} == STEP_KEYS
    assert tuple(words(key)[0] for key, *_ in rows("array")) == ARRAYS
    text = DOCUMENT.read_text()
    keys = [words(line)[0] for line in text[text.index("## Header"):text.index("### Kinds")].splitlines()
            if line.startswith("| `")]
    assert tuple(keys) == HEADER_KEYS + NODE_KEYS


def test_document_lists_the_limits() -> None:
    values = [int(re.findall(r"\d+", cells[-1])[0]) for cells in rows("limit")]
    assert values == [
        modelfile.MAX_FILE_BYTES, modelfile.MAX_ARRAY_BYTES, modelfile.MAX_LOADED_BYTES, modelfile.MAX_HEADER_BYTES,
        MAX_NODES, MAX_ENTRIES, MAX_GROUPS, MAX_VALUE, MAX_DIMENSION, MAX_OUTPUTS, MAX_ELEMENTS]
    assert set(BYTE_ARRAYS) == set(words(rows("limit")[2][0]))


def test_document_example_is_a_model(tmp_path: Path) -> None:
    example = DOCUMENT.read_text().split("## Example", 1)[1]
    text = example.split("```json\n", 1)[1].split("```", 1)[0].encode()
    np.savez(tmp_path / "m.npz", **{
        "header": np.frombuffer(text, np.uint8), "image.encode": np.arange(256) >> 4, "fc.bias": np.zeros(2, np.int8),
        "fc.assignments": np.zeros((2, 16), np.uint8), "fc.dictionary": np.array([3])})
    assert modelfile.load(tmp_path / "m.npz").name == "tiny"


# --- refusals, exact sentences


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    refused(path, "cannot be read (No such file or directory)")
    refused(tmp_path, "must be a regular file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "must be a regular file")
    refused(Path("/dev/zero"), "must be a regular file")
    refused(Path("a\0b"), "cannot be read (not a path)")
    path.write_bytes(b"")
    refused(path, "must be a .npz archive")
    path.write_bytes(b"x" * 100)
    refused(path, "must be a .npz archive (its end is missing or damaged)")
    path.write_bytes(modelfile.to_bytes(small())[:-1])
    refused(path, "must be a .npz archive (its end is missing or damaged)")
    path.write_bytes(b"x" + modelfile.to_bytes(small()))
    refused(path, "must be a .npz archive (its directory is damaged)")
    with path.open("wb") as file:
        file.truncate(modelfile.MAX_FILE_BYTES + 1)
    refused(path, "must be at most 67108864 bytes, not 67108865")


def test_archives_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    ones = model_fuzz.npy(np.ones(9, np.uint8))
    good = model_fuzz.Member(b"header.npy", ones)
    deflated = model_fuzz.Member(b"header.npy", ones, True)

    def lies(sentence: str, *members: model_fuzz.Member, **fields: Any) -> None:
        path.write_bytes(model_fuzz.pack(list(members), **fields))
        refused(path, sentence)

    def change(member: model_fuzz.Member, **fields: Any) -> model_fuzz.Member:
        return model_fuzz.replace(member, **fields)

    damaged = "must be a .npz archive (its directory is damaged)"
    lies("must hold an array header (this is no model file)")
    lies("must be a .npz archive (its end is missing or damaged)", good, comment=b"hello")
    lies("must hold at most 10241 arrays, not 10300", good, count=10300)
    lies(damaged, good, count=2)
    lies("must not hold the array header twice", good, good)
    lies("must hold arrays that are stored or deflated, which header is not", change(good, flags=1))
    lies("must hold arrays that are stored or deflated, which header is not", change(good, method=12))
    lies("must hold all of array header (the file is damaged)", change(good, local_name=b"other1.npy"))
    lies("must hold all of array header (the file is damaged)", change(good, offset=1 << 30))
    lies("must store array header in 5 bytes, not 137", change(good, size=5))
    lies("must hold at most 67108864 bytes of arrays, not 67108865", change(deflated, size=(64 << 20) + 1))
    lies("array header must take 137 bytes for its shape (9,) and type uint8, not 140", change(deflated, size=140))
    lies("array header must match its checksum (the file is damaged)", change(good, crc=5))
    lies("array header must be intact deflated data (the file is damaged)", change(good, data=b"\xff" * 9, method=8))
    lies("array header must not be followed by other data", change(good, data=b"\x03\x00" + ones, method=8))
    lies("must hold arrays named by letters, digits, points and underscores, not b'../x.npy'",
         change(good, name=b"../x.npy"))


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    inner = model_fuzz.pack([model_fuzz.Member(b"inner.npy", b"x" * 20)])
    outer = model_fuzz.Member(b"outer.npy", inner)
    within = model_fuzz.Member(b"inner.npy", b"x" * 20, offset=30 + len(b"outer.npy"))
    path.write_bytes(model_fuzz.pack([outer, within]))
    refused(path, "must not hold arrays that overlap")


def test_bombs_are_refused_or_stopped(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    bomb = model_fuzz.Member(b"header.npy", model_fuzz.npy(np.zeros(3 << 20, np.uint8)), True)
    path.write_bytes(model_fuzz.pack([bomb]))
    refused(path, "array header must be uint8 of at most 1048576 elements, not uint8 of shape (3145728,)")
    start = model_fuzz.npy(np.zeros(1000, np.uint8))
    longer = model_fuzz.Member(b"header.npy", start + bytes(50 << 20), True, size=len(start))
    path.write_bytes(model_fuzz.pack([longer]))
    refused(path, f"array header must unpack to {len(start)} bytes, not more")
    short = model_fuzz.Member(b"header.npy", start[:-1], True, size=len(start))
    path.write_bytes(model_fuzz.pack([short]))
    refused(path, f"array header must unpack to {len(start)} bytes, not {len(start) - 1}")


def test_large_deflated_arrays_are_read_whole(tmp_path: Path) -> None:
    """Output beyond one piece, including what zlib holds back when its output limit is hit exactly."""
    for size in (npz.PIECE - 128, npz.PIECE - 127, 3 * npz.PIECE + 5):
        data = np.arange(size, dtype=np.uint8)
        np.savez_compressed(tmp_path / "a.npz", data=data, zeros=np.zeros(size, np.uint8))
        limits = {"max_file": 1 << 24, "max_total": 1 << 24, "max_members": 9}
        with npz.Archive(tmp_path / "a.npz", error=ModelError, **limits) as archive:
            np.testing.assert_array_equal(archive.array("data"), data)
            assert not archive.array("zeros").any()


@pytest.mark.parametrize("array, sentence", [
    (np.zeros(2), "must hold integers, not float64"),
    (np.zeros(2, bool), "must hold integers, not bool"),
    (np.zeros(2, "S3"), "must hold integers, not bytes24"),
    (np.zeros(2, [("a", "i4")]), "must be a plain integer array (its header is not of that form)"),
    (np.zeros(0, int), "must not be empty, not of shape (0,)"),
])
def test_arrays_that_are_no_integers(array: np.ndarray, sentence: str, edited: Edited) -> None:
    edited.arrays["conv.bias"] = array
    edited.refused(f"array conv.bias {sentence}")


def test_pickled_objects_are_not_touched(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", header=np.array([{"a": 1}], object))
    refused(tmp_path / "m.npz", "array header must hold integers, not object")


@pytest.mark.parametrize("text, sentence", [
    (b"", "header must be JSON (line 1, column 1: Expecting value)"),
    (b"[" * 33, "header must not nest deeper than 32 levels"),
    (b'{"a": NaN}', "header must hold finite numbers only, not NaN"),
    (b'{"a": 1e999}', "header must hold finite numbers only, not '1e999'"),
    (b'{"a": ' + b"9" * 5000 + b"}", "header must hold integers of at most 20 characters, not 5000"),
    (b'{"a": 1, "a": 2}', "header must not repeat the key 'a'"),
    (b'{"a": "\\ud800"}', "header must hold Unicode text without lone surrogates"),
    (b'{"a": "\xff"}', "header must be UTF-8 text (byte 7 is not)"),
    (b"[]", "header must be a JSON object, not []"),
    (b"{}", "header: key format must be present"),
    (b'{"format": "onnx"}', "header: format must be lutq, not 'onnx'"),
    (b'{"format": "lutq", "version": true}', "header: version must be an integer, not True"),
    (b'{"format": "lutq", "version": 0}', "header: version must be from 1 to 2, not 0"),
    (b'{"format": "lutq", "version": 3, "nodes": 7}',
     "was made by a newer lutq (format version 3, this one reads 2): update lutq to read it"),
    (b'{"format": "lutq", "version": 1, "name": "x", "info": {}, "nodes": 7}',
     "header: nodes must be a list of at most 1024 nodes"),
    (b'{"format": "lutq", "version": 1, "name": "x", "info": [], "nodes": []}',
     "header: info must be an object, not []"),
    (b'{"format": "lutq", "version": 1, "name": "x", "info": {}, "nodes": [], "x": 1}',
     "header: key 'x' must be one of format, version, name, nodes, info"),
    (b'{"format": "lutq", "version": 1, "name": "x", "info": {}, "nodes": [[]]}', "node 0: must be an object, not []"),
])
def test_headers_that_are_refused(text: bytes, sentence: str, edited: Edited) -> None:
    edited.refused(sentence, text)


@pytest.mark.parametrize("node, key, value, sentence", [
    ("conv", "kind", "conv3d",
     ("conv: kind must be one of input, dense, conv2d, max_pool2d, avg_pool2d, add, requantize, flatten, output, "
      "not 'conv3d'")),
    ("conv", "name", "a b", ("node 1: name must be a letter followed by up to 63 letters, digits and underscores, "
                             "not 'a b'")),
    ("conv", "extra", 1, "conv: key 'extra' must be one of kind, name, inputs, arrays, step, stride, padding, groups"),
    ("conv", "inputs", ["flat"], "conv: input must name an earlier node, not 'flat'"),
    ("conv", "inputs", ["conv"], "conv: input must name an earlier node, not 'conv'"),
    ("conv", "inputs", [], "conv: inputs must name one node, not 0"),
    ("conv", "inputs", ["image", "image"], "conv: inputs must be a list of distinct names, not ['image', 'image']"),
    ("image", "inputs", ["conv"], "image: inputs must be empty, not 1 nodes"),
    ("conv", "stride", [0, 1], "conv: stride must be two integers from 1 to 64, not (0, 1)"),
    ("conv", "stride", [1, 1, 1], "conv: stride must be two integers from 1 to 64, not (1, 1, 1)"),
    ("conv", "stride", 1, "conv: stride must be a list of 1 to 3 integers, not 1"),
    ("conv", "padding", [2, 0], "conv: padding must be smaller than the kernel (2, 2), not (2, 0)"),
    ("conv", "groups", True, "conv: groups must be an integer, not True"),
    ("conv", "groups", 2, "conv: assignments must cover the input's 1 channels, not 2 (2 groups)"),
    ("conv", "groups", 3, "conv: groups must be an integer from 1 to 2, not 3"),
    ("conv", "step", None, "conv: arrays must list thresholds only with a step of kind thresholds"),
    ("conv", "step", {"kind": "x"}, "conv: step: kind must be one of thresholds, shift, table, not 'x'"),
    ("conv", "step", {"kind": "thresholds", "bits": 1, "signed": False},
     "conv: thresholds must number at most 1 for 1 bits, not 3"),
    ("fc", "step", {"kind": "thresholds", "bits": 1, "signed": False}, "fc: arrays must list thresholds"),
    ("fc", "step", {"kind": "shift", "shift": 32, "bits": 4, "signed": False},
     "fc: shift must be an integer from 0 to 31, not 32"),
    ("fc", "step", {"kind": "shift", "bits": 4, "signed": False}, "fc: step: key shift must be present"),
    ("image", "shape", [4, 4], "image: shape must be (H, W, C) or (N,) with positive extents, not (4, 4)"),
    ("image", "shape", [4097, 1, 1], "image: shape must have no extent above 4096, not (4097, 1, 1)"),
    ("image", "shape", [4096, 4096, 2], "image: shape must have at most 16777216 elements, not (4096, 4096, 2)"),
    ("image", "shape", [1, 4, 1], "conv: kernel must be at most the padded input (H = 1), not 2"),
    ("image", "bits", 9, "image: input must have at most 8 bits, not 9"),
    ("image", "bits", 1, "image: encode must hold values of 4x4x1 u1, not 0 to 3"),
    ("image", "signed", 0, "image: signed must be true or false, not 0"),
    ("out", "result", "top0", "out: output kind must be scores, argmax or top1 to top32, not 'top0'"),
    ("fc", "arrays", ["dictionary"], "fc: arrays must list assignments"),
    ("fc", "arrays", ["assignments"], "fc: weights must have exactly one of dictionary and table"),
    ("fc", "arrays", ["weights"], ("fc: arrays of dense must be among assignments, coded, dictionary, table, subgroups, "
                                   "bias, thresholds, descending, activation, not 'weights'")),
    ("flat", "arrays", ["bias"], "flat: arrays of flatten must be among none, not 'bias'"),
    ("flat", "name", "conv", "conv: node name must be unique"),
])
def test_nodes_that_are_refused(node: str, key: str, value: Any, sentence: str, edited: Edited) -> None:
    edited.node(node)[key] = value
    if key == "arrays":
        for name in [name for name in edited.arrays if name.startswith(f"{node}.")]:
            if name.removeprefix(f"{node}.") not in value:
                del edited.arrays[name]
    if key == "name" and node == "flat":
        edited.node("fc")["inputs"] = ["conv"]
    edited.refused(sentence)


@pytest.mark.parametrize("name, array, sentence", [
    ("conv.assignments", np.full((2, 2, 2, 1), 3), "conv: assignments must be below K = 3, not 3"),
    ("conv.assignments", np.full((2, 2, 2, 1), -1), "conv: assignments must fit uint8, not span -1 to -1"),
    ("conv.assignments", np.zeros((2, 4), int),
     "conv: assignments of a convolution must have shape (O, kh, kw, C/groups), not (2, 4)"),
    ("conv.assignments", np.zeros((2, 5, 5, 1), int), "conv: kernel must be at most the padded input (H = 4), not 5"),
    ("conv.dictionary", np.array([1, 2, -(1 << 63)]),
     "conv: dictionary must hold values up to 1048576 in magnitude, not 9223372036854775808"),
    ("conv.dictionary", np.zeros((1, 257), int), "conv: dictionary must have 1 to 256 entries, not 257"),
    ("conv.bias", np.array([0, -(1 << 63)]), "conv: bias must be below 2**31 in magnitude, not 9223372036854775808"),
    ("conv.bias", np.array([0, 1, 2]), "conv: bias must have shape (2,), not (3,)"),
    ("conv.bias", np.array([0, (1 << 64) - 1], np.uint64),
     "conv: bias must fit int64, not span 0 to 18446744073709551615"),
    ("conv.thresholds", np.array([[0, 1, 0], [0, 0, 0]]), "conv: thresholds must not decrease along a row"),
    ("conv.thresholds", np.array([[0, 0, 0], [0, 0, -(1 << 63)]]), "conv: thresholds must not decrease along a row"),
    ("conv.thresholds", np.array([[-(1 << 63), 0], [0, 0]]),
     "conv: thresholds must be below 2**40 in magnitude, not 9223372036854775808"),
    ("conv.descending", np.array([0, 2]), "conv: descending must hold 0 and 1 only"),
    ("fc.subgroups", np.full(18, 2), "fc: subgroups must be below G = 2, not 2"),
    ("fc.subgroups", np.zeros(17, int), "fc: subgroups must have the shape of one output's terms (18,), not (17,)"),
    ("image.encode", np.arange(255), "image: encode must have one entry for each of 256 pixels, not (255,)"),
    ("extra", np.arange(3), "array extra must be listed by a node"),
])
def test_arrays_that_are_refused(name: str, array: np.ndarray, sentence: str, edited: Edited) -> None:
    edited.arrays[name] = array
    edited.refused(sentence)


def version_2() -> Network:
    return Network("two", (
        Input("image", TensorType((4, 4, 1), 2)),
        Add("sum", ("image", "image", "image"), (0, 1, 0), Thresholds([[1, 3, 5]], 2)),
        AvgPool2d("pool", "sum", (2, 2), padding=(1, 0)),
        Requantize("codes", "pool", ActivationTable([3, 0, 1], 1, 2)),
        Flatten("flat", "codes"),
        Output("out", "flat"),
    ))


@pytest.mark.parametrize("node, key, value, sentence", [
    ("sum", "inputs", ["image"] * 2, "sum: shifts must be one integer for each of 2 inputs, not (0, 1, 0)"),
    ("sum", "inputs", ["image"] * 9, "sum: inputs must name 2 to 8 nodes, not 9"),
    ("sum", "inputs", ["image", 1], "sum: inputs must be a list of names, not ['image', 1]"),
    ("sum", "inputs", ["image", "image", "pool"], "sum: input must name an earlier node, not 'pool'"),
    ("sum", "shifts", [0, 32, 0], "sum: shift must be an integer from 0 to 31, not 32"),
    ("sum", "shifts", [0, 31, 31], "sum: sum must fit 32 bits, not 34"),
    ("sum", "shifts", [0] * 9, "sum: shifts must be a list of 1 to 8 integers, not [0, 0, 0, 0, 0, 0, 0, 0, 0]"),
    ("sum", "step", None, "sum: arrays must list thresholds only with a step of kind thresholds"),
    ("sum", "arrays", [], "sum: arrays must list thresholds"),
    ("pool", "padding", [2, 0], "pool: padding must be smaller than the kernel (2, 2), not (2, 0)"),
    ("codes", "inputs", ["pool", "pool"], "codes: inputs must be a list of distinct names, not ['pool', 'pool']"),
    ("codes", "step", None, "codes: arrays must list activation only with a step of kind table"),
    ("codes", "arrays", [], "codes: arrays must list activation"),
    ("codes", "step", {"kind": "shift", "shift": 1, "bits": 2, "signed": False},
     "codes: arrays must list activation only with a step of kind table"),
    ("codes", "step", {"kind": "table", "shift": 1, "bits": 1, "signed": False},
     "codes: activation table must hold codes from 0 to 1, not 0 to 3"),
])
def test_nodes_of_version_2_that_are_refused(node: str, key: str, value: Any, sentence: str, edited: Edited) -> None:
    edited.header, edited.arrays = model_fuzz.unpack(modelfile.to_bytes(version_2()))
    edited.node(node)[key] = value
    if key == "arrays":
        edited.arrays = {name: array for name, array in edited.arrays.items() if not name.startswith(f"{node}.")}
    if sentence.startswith("sum: sum must"):
        edited.node(node)["step"], edited.node(node)["arrays"] = None, []
        del edited.arrays["sum.thresholds"]
    edited.refused(sentence)


def test_a_requantise_node_without_a_step(edited: Edited) -> None:
    edited.header, edited.arrays = model_fuzz.unpack(modelfile.to_bytes(version_2()))
    del edited.arrays["codes.activation"]
    edited.node("codes").update(step=None, arrays=[])
    edited.refused("codes: step must be an object, not None")


def test_version_1_does_not_have_what_came_later(edited: Edited) -> None:
    edited.header, edited.arrays = model_fuzz.unpack(modelfile.to_bytes(version_2()))
    edited.header["version"] = 1
    edited.refused("sum: kind add must be in a file of format version 2, not 1")
    edited.header, edited.arrays = model_fuzz.unpack(modelfile.to_bytes(small()))
    edited.node("fc").update(step={"kind": "table", "shift": 0, "bits": 1, "signed": False})
    edited.refused("fc: step: kind table must be in a file of format version 2, not 1")


def test_arrays_that_are_missing(edited: Edited) -> None:
    del edited.arrays["conv.bias"]
    edited.refused("conv: array conv.bias must be in the file")


def test_long_values_do_not_fill_the_screen(edited: Edited) -> None:
    edited.node("conv")["kind"] = "k" * 100000
    with pytest.raises(ModelError) as caught:
        modelfile.load(edited.write())
    assert len(str(caught.value)) < 300


# --- limits of memory and time


def python(*arguments: str, timeout: int) -> str:
    """Output of a Python process of its own, which may limit its own memory."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True,
                          timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


LARGEST = """
import sys
import numpy as np
from model_fuzz import limit_memory
from lutq_hw import modelfile
limit_memory(256)
try:
    network = modelfile.load(sys.argv[1])
    print(network.digest, network.name)
except modelfile.ModelError as error:
    print(error)
"""


@pytest.mark.parametrize("shape", ["weights", "thresholds", "table", "wide types"])
def test_the_largest_files_stay_within_the_memory_limit(shape: str, tmp_path: Path) -> None:
    path, million = tmp_path / "m.npz", 1 << 20
    bits = {"kind": "input", "name": "image", "inputs": [], "shape": [4096], "bits": 1, "signed": False, "arrays": []}
    arrays: dict[str, Any] = {"fc.dictionary": np.array([0], np.int8)}
    listed = ["assignments", "dictionary"]
    outputs, step = 8000, None
    if shape == "weights":
        arrays["fc.assignments"] = np.zeros((outputs, 4096), np.uint8)
    elif shape == "wide types":  # 8 bytes an element in the file: its size is the limit
        outputs = 2000
        arrays["fc.assignments"] = np.zeros((outputs, 4096), np.int64)
    elif shape == "thresholds":
        outputs, step = 15000, {"kind": "thresholds", "bits": 8, "signed": False}
        bits["shape"] = [1]
        arrays["fc.assignments"] = np.zeros((outputs, 1), np.uint8)
        arrays["fc.thresholds"] = np.zeros((outputs, 255), np.int64)
        listed.append("thresholds")
    else:
        outputs, bits["bits"], bits["shape"] = 1, 8, [62]
        arrays = {"fc.assignments": np.zeros((1, 62), np.uint8), "fc.table": np.zeros((62, 256, 255), np.int64)}
        arrays["fc.subgroups"] = np.arange(62)
        listed = ["assignments", "table", "subgroups"]
    header = {"format": "lutq", "version": 1, "name": "big", "info": {}, "nodes": [
        bits, {"kind": "dense", "name": "fc", "inputs": ["image"], "step": step, "arrays": listed},
        {"kind": "output", "name": "out", "inputs": ["fc"], "result": "argmax", "arrays": []}]}
    np.savez_compressed(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    sizes = sum(array.size * (1 if name.split(".")[1] in BYTE_ARRAYS else 8) for name, array in arrays.items())
    assert modelfile.MAX_LOADED_BYTES - 4 * million < sizes <= modelfile.MAX_LOADED_BYTES or shape == "wide types"
    assert python("-c", LARGEST, str(path), timeout=60).endswith(" big\n")


def test_mutated_files_are_accepted_or_refused(tmp_path: Path) -> None:
    output = python(str(HERE / "model_fuzz.py"), "--count", "2000", "--seed", "1", "--keep", str(tmp_path), timeout=200)
    assert re.search(r"^2,000 files in .* s, peak \d+ MB$", output, re.MULTILINE)
    for name in model_fuzz.MUTATIONS:
        assert f"  {name} refused" in output
    accepted = sum(int(count.replace(",", "")) for count in re.findall(r"([\d,]+)  \w+ accepted", output))
    assert 30 < accepted < 1000  # mutations that reach the last check, and not only those


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_hundreds_of_thousands_of_mutated_files(tmp_path: Path) -> None:
    count = ["--count", "200000", "--seed", "2", "--keep", str(tmp_path)]
    output = python(str(HERE / "model_fuzz.py"), *count, timeout=7000)
    assert "200,000 files" in output
