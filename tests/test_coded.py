"""Coded assignments: by hand, there and back for any indices, in files, and refused with one sentence where wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_fuzz
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Limits, random_codes, random_network

from lutq_hw import cli, golden, modelfile
from lutq_hw.coded import KEYS, LONGEST, MAX_GAP_SYMBOLS, Coded, Coding, dense, smallest, sparse
from lutq_hw.errors import ModelError
from lutq_hw.model_schema import Record
from lutq_hw.network import Codebook, Dense, Input, Network, Output, Shift, TensorType
from lutq_hw.network.codebook import MAX_ENTRIES

HERE = Path(__file__).parent
DOCUMENT = (HERE.parent / "docs" / "model-format.md").read_text()


def decoded(coded: Coded) -> np.ndarray:
    return coded.coding.decode(coded.array)


# --- by hand; docs/model-format.md works the second example out


def test_a_codeword_for_each_weight_by_hand() -> None:
    coded = dense(np.array([[0, 0, 2], [0, 1, 0]], np.uint8))
    assert coded.coding.fields == {"kind": "huffman", "shape": (2, 3), "symbols": 3}
    # 0 is 0, 1 is 10, 2 is 11: 0 0 11 0 10 0
    assert coded.array.tolist() == [1, 2, 2, 0b00110100]


def test_kept_weights_and_gaps_by_hand() -> None:
    assignments = np.array([[1, 1, 0, 1, 1, 1, 1, 1], [2, 2, 1, 1, 2, 1, 1, 1]], np.uint8)
    coded = sparse(assignments)
    assert coded.coding.fields == {"kind": "sparse", "shape": (2, 8), "symbols": 3, "rest": 1, "kept": 4,
                                   "gap_symbols": 2, "gaps": 13}
    # Indices 0 2 2 2 as 0 1 1 1; gaps 2, 5, 0, 2 in unary: 11 0, 11111 0, 0, 11 0.
    assert coded.array.tolist() == [1, 0, 1, 1, 1, 0b01111101, 0b11110011, 0]
    np.testing.assert_array_equal(decoded(coded), assignments)


def example() -> tuple[dict[str, Any], list[int]]:
    """Coding and array of the example in the document."""
    text = DOCUMENT.split("## Coded assignments", 1)[1]
    coding = json.loads(re.findall(r"```json\n(.*?)```", text, re.DOTALL)[0])["coding"]
    return coding, [int(number, 0) for number in re.findall(r"0x[0-9a-f]{2}", text.split("## Limits", 1)[0])]


def test_the_example_of_the_document() -> None:
    fields, data = example()
    coding = Coding.read(Record("fc: coding", fields))
    assert coding.kind == "sparse"
    assert coding.decode(np.array(data, np.uint8)).tolist() == [[1, 1, 0, 1, 1, 1, 1, 1], [2, 2, 1, 1, 2, 1, 1, 1]]


def test_document_lists_the_keys_and_limits() -> None:
    text = DOCUMENT.split("## Coded assignments", 1)[1]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE)
    assert {key: tuple(kind for kind in KEYS if key in KEYS[kind]) for key in KEYS["sparse"]} == {
        key: tuple(re.findall(r"`(\w+)`", kinds)) for key, kinds in rows}
    assert f"{LONGEST} bits" in text and f"to {MAX_GAP_SYMBOLS}" in text


# --- there and back


@st.composite
def indices(draw: st.DrawFn) -> np.ndarray:
    """Assignments of any K, with any share of them at one index."""
    shape = draw(st.one_of(st.tuples(st.integers(1, 12), st.integers(1, 60)),
                           st.tuples(*[st.integers(1, 6)] * 4)))
    entries = draw(st.integers(1, MAX_ENTRIES))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    found = rng.integers(0, entries, shape)
    rest = draw(st.integers(0, entries - 1))
    return np.where(rng.random(shape) < draw(st.floats(0, 1)), rest, found).astype(np.uint8)


@given(indices())
def test_any_indices_come_back(assignments: np.ndarray) -> None:
    sizes = []
    for make in (dense, sparse):
        coded = make(assignments)
        assert Coding.read(Record("fc", json.loads(json.dumps(coded.coding.fields)))) == coded.coding
        np.testing.assert_array_equal(decoded(coded), assignments)
        assert coded.size == len(coded.array) + len(json.dumps({"coding": coded.coding.fields}))
        sizes.append(coded.size)
    best = smallest(assignments)
    assert (assignments.size if best is None else best.size) == min(assignments.size, *sizes)


@pytest.mark.parametrize("assignments", [np.zeros((1, 1), np.uint8), np.full((3, 5), 255, np.uint8),
                                         np.eye(300, 7, dtype=np.uint8)[::-1], np.zeros((2, 1, 1, 1), np.uint8)])
def test_few_different_indices(assignments: np.ndarray) -> None:
    np.testing.assert_array_equal(decoded(dense(assignments)), assignments)
    np.testing.assert_array_equal(decoded(sparse(assignments)), assignments)


def test_gaps_beyond_any_symbol() -> None:
    assignments = np.zeros((1, 60_000), np.uint8)
    assignments[0, [0, 1, 50_000, 59_999]] = [3, 1, 2, 9]
    coded = sparse(assignments)
    np.testing.assert_array_equal(decoded(coded), assignments)
    assert coded.coding.gap_symbols <= MAX_GAP_SYMBOLS and coded.size < 600


def test_a_pruned_layer_takes_what_its_entropy_says() -> None:
    rng = np.random.default_rng(1)
    kept = rng.random((500, 800)) < 0.04
    assignments = np.where(kept, rng.integers(1, 17, kept.shape), 0).astype(np.uint8)
    p = kept.mean()
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p) + 4 * p
    coded = smallest(assignments)
    assert coded is not None and coded.coding.kind == "sparse"
    assert entropy * kept.size / 8 < coded.size < 1.03 * entropy * kept.size / 8 + 200


# --- files


def recoded(network: Network, choose: Callable[[], str], path: Path) -> Path:
    """A file of ``network`` with codings as chosen, smaller or not."""
    header, arrays = model_fuzz.with_codings(*model_fuzz.unpack(modelfile.to_bytes(network)), choose)
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    return path


@pytest.mark.parametrize("seed", range(24))
def test_random_networks_give_the_same_results(seed: int, tmp_path: Path) -> None:
    """Subgroups, product tables, any K, convolutions with groups: whatever `random_network` makes."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, Limits(graph=seed % 2 == 0, entries=[9, 200][seed % 3 == 0]))
    codes = random_codes(rng, network, 3)
    expected = golden.run(network, codes)
    for kind in ("huffman", "sparse"):
        again = modelfile.load(recoded(network, lambda kind=kind: kind, tmp_path / "m.npz"))
        assert (again.digest, again.name, again.info) == (network.digest, network.name, network.info)
        assert modelfile.to_bytes(again) == modelfile.to_bytes(network)
        results = golden.run(again, codes)
        assert all(np.array_equal(results[name], expected[name]) for name in expected)
    path = tmp_path / "h.npz"
    modelfile.save(network, path, coding="huffman")
    assert modelfile.load(path).digest == network.digest
    assert path.stat().st_size <= len(modelfile.to_bytes(network))


def test_the_first_coded_file_stays_readable() -> None:
    path = HERE / "data" / "model_v2_coded.npz"
    network = modelfile.load(path)
    assert network.digest == "fe0918c81c96f8fe3ff1a2c916f0d0125747f02ec19d500d48dad92bb065088e"
    results = golden.run(network, np.arange(2 * 36).reshape(2, 6, 6, 1)**2 * 7 // 5 % 16)
    assert results["out"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [-4, -3, -2, -1, 0, 1, 2, 3, 4, 5]]
    assert results["rare"][1].tolist() == [-1, -1, -1, 0, -1, -1, 0, 0, 0, 0, 0, -1, 2, 0, 1, 1, 1, 1, 1, 1]
    assert modelfile.contents(path) == (7483, 2, {
        "raw": ("raw", 36), "each": ("huffman", 209), "groups": ("sparse", 53), "rare": ("sparse", 68),
        "table": ("sparse", 36), "constant": ("huffman", 53)})
    assert modelfile.to_bytes(network, coding="huffman") == path.read_bytes()


def test_files_without_coding_stay_as_they_were() -> None:
    for name in ("model_v1_all", "model_v2_all"):
        path = HERE / "data" / f"{name}.npz"
        network = modelfile.load(path)
        assert modelfile.to_bytes(network, coding="none") == path.read_bytes()
        assert {layer.coding for layer in modelfile.contents(path).layers.values()} == {"raw"}


# --- refusals, exact sentences


@pytest.fixture
def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and arrays of one dense layer, sparse: lengths [2, 1, 2] of indices, [1, 1] of gaps, 22 bits."""
    assignments = np.array([[1, 1, 0, 1, 1, 1, 1, 1], [2, 2, 1, 1, 2, 1, 1, 0]])
    network = Network("small", (Input("image", TensorType((8,), 2)), Dense("fc", "image", Codebook(
        assignments, [-1, 0, 1]), step=Shift(1, 4)), Output("out", "fc")))
    return model_fuzz.with_codings(*model_fuzz.unpack(modelfile.to_bytes(network)), lambda: "sparse")


def refused(parts: tuple[dict[str, Any], dict[str, Any]], sentence: str, tmp_path: Path) -> None:
    header, arrays = parts
    path = tmp_path / "m.npz"
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    with pytest.raises(ModelError, match=f"^{re.escape(f'{path}: {sentence}')}$"):
        modelfile.load(path)


@pytest.mark.parametrize("key, value, sentence", [
    ("kind", "lzma", "fc: coding: kind must be one of huffman, sparse, not 'lzma'"),
    ("kind", "huffman", "fc: coding: key 'rest' must be one of kind, shape, symbols"),
    ("extra", 1, "fc: coding: key 'extra' must be one of kind, shape, symbols, rest, kept, gap_symbols, gaps"),
    ("shape", [16], "fc: coding: shape must be 2 or 4 extents of at least 1, not (16,)"),
    ("shape", [0, 8], "fc: coding: shape must be 2 or 4 extents of at least 1, not (0, 8)"),
    ("shape", [2, 8, 1, 1, 1], "fc: coding: shape must be a list of 1 to 4 integers, not [2, 8, 1, 1, 1]"),
    ("shape", [1 << 40, 1 << 40], ("array fc.coded must keep all loaded arrays within 33554432 bytes, "
                                   "not 1208925819614629174706176")),
    ("shape", [4, 4], "fc: bias must have shape (4,), not (2,)"),
    ("shape", [2, 2, 2, 2], "fc: assignments of a dense layer must have shape (O, N), not (2, 2, 2, 2)"),
    ("shape", [1, 8], "fc: coding: gaps must be from 5 to 8, not 16"),
    ("symbols", 0, "fc: coding: symbols must be from 1 to 256, not 0"),
    ("symbols", 257, "fc: coding: symbols must be from 1 to 256, not 257"),
    ("symbols", True, "fc: coding: symbols must be an integer, not True"),
    ("rest", 256, "fc: coding: rest must be from 0 to 255, not 256"),
    ("rest", 3, "fc: assignments must be below K = 3, not 3"),
    ("kept", 0, "fc: coding: kept must be from 1 to 16, not 0"),
    ("kept", 17, "fc: coding: kept must be from 1 to 16, not 17"),
    ("gap_symbols", 1, "fc: coding: gap_symbols must be from 2 to 4096, not 1"),
    ("gap_symbols", 4097, "fc: coding: gap_symbols must be from 2 to 4096, not 4097"),
    ("gap_symbols", 4096,
     "array fc.coded must be uint8 of at least 4100 elements in one axis, not uint8 of shape (8,)"),
    ("gaps", 4, "fc: coding: gaps must be from 5 to 16, not 4"),
    ("gaps", 17, "fc: coding: gaps must be from 5 to 16, not 17"),
])
def test_codings_that_are_refused(key: str, value: Any, sentence: str, parts: Any, tmp_path: Path) -> None:
    parts[0]["nodes"][1]["coding"][key] = value
    refused(parts, sentence, tmp_path)


LENGTHS = [1, 0, 1, 1, 1]


@pytest.mark.parametrize("data, sentence", [
    (np.zeros((1, 9), np.uint8),
     "array fc.coded must be uint8 of at least 6 elements in one axis, not uint8 of shape (1, 9)"),
    (np.zeros(9, int), "array fc.coded must be uint8 of at least 6 elements in one axis, not int64 of shape (9,)"),
    (np.zeros(5, np.uint8), "array fc.coded must be uint8 of at least 6 elements in one axis, not uint8 of shape (5,)"),
    ([17, 0, 1, 1, 1, 0, 0], "fc: array fc.coded: index code lengths must be from 0 to 16, not 17"),
    ([1, 1, 1, 1, 1, 0, 0], ("fc: array fc.coded: index code lengths must make a complete prefix code, but they have "
                             "more codewords than fit")),
    ([1, 0, 2, 1, 1, 0, 0], ("fc: array fc.coded: index code lengths must make a complete prefix code, but they have "
                             "fewer codewords than fit")),
    ([1, 0, 1, 1, 200, 0, 0], "fc: array fc.coded: gap code lengths must be from 0 to 16, not 200"),
    ([1, 0, 1, 0, 0, 0, 0], ("fc: array fc.coded: gap code lengths must make a complete prefix code, but they have "
                             "fewer codewords than fit")),
    ([1, 0, 0, 1, 1, 0x80, 0], "fc: array fc.coded: Huffman stream holds no codeword at bit 0"),
    ([*LENGTHS, 0], "fc: array fc.coded: Huffman stream must hold 16 symbols, but it ends after 3"),
    ([*LENGTHS, 0x76, 0xF9, 0xB0, 0],
     "fc: array fc.coded: Huffman stream must end at bit 21, with zeros up to the next byte, and not have 4 bytes"),
    ([*LENGTHS, 0x76, 0xF9, 0xB1],
     "fc: array fc.coded: Huffman stream must end at bit 21, with zeros up to the next byte, and not have 3 bytes"),
    ([*LENGTHS, 0x76, 0xF9, 0xB8], "fc: array fc.coded: gaps must place 5 kept weights among 16, not 4 among 16"),
    ([*LENGTHS, 0x76, 0xF9, 0], "fc: array fc.coded: gaps must place 5 kept weights among 16, not 8 among 16"),
])
def test_arrays_that_are_refused(data: Any, sentence: str, parts: Any, tmp_path: Path) -> None:
    parts[1]["fc.coded"] = np.array(data, np.uint8) if isinstance(data, list) else data
    refused(parts, sentence, tmp_path)


def test_gaps_that_go_beyond_the_weights() -> None:
    coding = Coding("sparse", (1, 3), 1, rest=0, kept=2, gap_symbols=3, gaps=2)
    assert coding.decode(np.array([1, 1, 1, 0, 0b00100000], np.uint8)).tolist() == [[0, 0, 0]]
    with pytest.raises(ModelError, match=r"^gaps must place 2 kept weights among 3, not 2 among 4$"):
        coding.decode(np.array([1, 1, 1, 0, 0b00110000], np.uint8))


def test_nodes_that_mix_or_lack_codings(parts: Any, tmp_path: Path) -> None:
    header, arrays = parts
    node = header["nodes"][1]
    coding = node.pop("coding")
    refused(parts, "fc: key coding must be present", tmp_path)
    node["coding"] = 3
    refused(parts, "fc: coding must be an object, not 3", tmp_path)
    node["coding"] = coding
    header["version"] = 1
    refused(parts, "fc: array coded must be in a file of format version 2, not 1", tmp_path)
    header["version"] = 2
    node["arrays"].append("assignments")
    arrays["fc.assignments"] = np.zeros((2, 8), np.uint8)
    refused(parts, "fc: arrays must list assignments or coded, not both", tmp_path)
    node["arrays"].remove("coded")
    refused(parts, "fc: key 'coding' must be one of kind, name, inputs, arrays, step", tmp_path)


def test_a_coding_that_does_not_exist(tmp_path: Path) -> None:
    network = random_network(np.random.default_rng(1))
    with pytest.raises(ModelError, match=r"^coding must be one of none, huffman, not 'zip'$"):
        modelfile.save(network, tmp_path / "m.npz", coding="zip")
    assert not list(tmp_path.iterdir())


# --- pack


def test_pack_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, path = tmp_path / "plain.npz", tmp_path / "m.npz"
    modelfile.save(modelfile.load(HERE / "data" / "model_v2_coded.npz"), plain)
    before = plain.stat().st_size
    assert cli.main(["pack", "--model", str(plain), "--output", str(path)]) == 0
    assert capsys.readouterr() == (f"{path}: {before:,} bytes before, 7,483 now; 5 of 6 layers coded\n", "")
    assert path.read_bytes() == (HERE / "data" / "model_v2_coded.npz").read_bytes()
    assert cli.main(["pack", "--model", str(path), "--output", str(path), "--coding", "none", "--json"]) == 0
    assert path.read_bytes() == plain.read_bytes() and len(list(tmp_path.iterdir())) == 2
    shown = json.loads(capsys.readouterr().out)
    assert (shown["bytes_before"], shown["bytes_after"]) == (7483, before)
    assert shown["layers"]["each"] == {"coding": "raw", "index_bytes": 576}


# --- time and memory


def test_reading_is_fast() -> None:
    rng = np.random.default_rng(1)
    kept = rng.random((500, 862)) < 0.04  # as many weights as LeNet-5
    for assignments in (np.where(kept, rng.integers(1, 17, kept.shape), 0), rng.integers(0, 16, kept.shape)):
        coded = smallest(assignments.astype(np.uint8))
        assert coded is not None
        data, begin = coded.array, time.process_time()
        coded.coding.decode(data)
        assert time.process_time() - begin < 0.5


def test_the_largest_layer_stays_within_the_memory_limit(tmp_path: Path) -> None:
    """As many weights as a file may have, all kept, so that indices and gaps are both as many."""
    weights = 8000 * 4096
    fields = {"kind": "sparse", "shape": [8000, 4096], "symbols": 1, "rest": 0, "kept": weights, "gap_symbols": 2,
              "gaps": weights}
    header = {"format": "lutq", "version": 2, "name": "big", "info": {}, "nodes": [
        {"kind": "input", "name": "image", "inputs": [], "shape": [4096], "bits": 1, "signed": False, "arrays": []},
        {"kind": "dense", "name": "fc", "inputs": ["image"], "step": None, "coding": fields,
         "arrays": ["coded", "dictionary"]},
        {"kind": "output", "name": "out", "inputs": ["fc"], "result": "argmax", "arrays": []}]}
    data = np.zeros(3 + 2 * weights // 8, np.uint8)
    data[:2] = 1
    path = tmp_path / "m.npz"
    np.savez(path, **{"header": np.frombuffer(json.dumps(header).encode(), np.uint8), "fc.coded": data,
                      "fc.dictionary": np.array([0], np.int8)})
    code = ("import sys; from model_fuzz import limit_memory; from lutq_hw import modelfile; limit_memory(256); "
            "print(modelfile.load(sys.argv[1]).name)")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.stdout == "big\n", done.stderr
