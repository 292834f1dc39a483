"""Huffman codes: by hand, against the entropy, limited lengths against brute force, streams there and back."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lutq_hw.errors import ModelError
from lutq_hw.huffman import Code, lengths

COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=40).filter(any)


def test_a_code_by_hand():
    # 5 joins 9 (14); 12 joins 13 (25); 14 joins 16 (30); 25 joins 30 (55); with 45: the textbook's example.
    code = Code.of([45, 13, 12, 16, 9, 5])
    assert code.lengths.tolist() == [1, 3, 3, 3, 4, 4]
    assert [f"{word:0{size}b}" for word, size in zip(code.codes, code.lengths, strict=True)] == [
        "0", "100", "101", "110", "1110", "1111"]
    assert code.bits([45, 13, 12, 16, 9, 5]) == 224
    assert code.encode([0, 1, 5, 0]) == (bytes([0b01001111, 0]), 9)
    assert code.decode(bytes([0b01001111, 0]), 4).tolist() == [0, 1, 5, 0]


def test_absent_and_lone_symbols():
    assert lengths([0, 7, 0]).tolist() == [0, 1, 0]
    assert lengths([0, 0]).tolist() == [0, 0]
    lone = Code.of([0, 7])
    assert lone.encode([1, 1, 1]) == (b"\0", 3)
    assert lone.decode(b"\0", 3).tolist() == [1, 1, 1]


@given(COUNTS)
def test_codes_are_within_a_bit_of_the_entropy_and_prefix_free(counts):
    code = Code.of(counts)
    p = np.array([count for count in counts if count]) / sum(counts)
    rate = code.bits(counts) / sum(counts)
    assert rate >= float(-(p * np.log2(p)).sum()) - 1e-9
    assert rate <= float(-(p * np.log2(p)).sum()) + 1
    words = sorted(f"{word:0{size}b}" for word, size in zip(code.codes, code.lengths, strict=True) if size)
    assert not any(b.startswith(a) for a, b in itertools.pairwise(words))


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6), st.integers(3, 4))
def test_limited_lengths_are_the_best_of_all(counts, limit):
    best = min(sum(c * s for c, s in zip(counts, sizes, strict=True))
               for sizes in itertools.product(range(1, limit + 1), repeat=len(counts))
               if sum(2.0**-s for s in sizes) <= 1)
    found = lengths(counts, limit)
    assert found.max() <= limit
    assert int((found * np.array(counts)).sum()) == best


def test_a_steep_distribution_is_cut_at_the_limit():
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(sum(fibonacci[-2:]))
    assert lengths(fibonacci).max() == 24  # 29 without a limit
    assert lengths(fibonacci, 6).max() == 6
    Code(lengths(fibonacci, 5))


@given(st.data())
def test_streams_come_back(data):
    counts = data.draw(COUNTS)
    limit = data.draw(st.integers(math.ceil(math.log2(len(counts) + 1)), 24))
    code = Code.of(counts, limit)
    used = [symbol for symbol, count in enumerate(counts) if count]
    symbols = data.draw(st.lists(st.sampled_from(used), max_size=300))
    stream, bits = code.encode(symbols)
    assert len(stream) == (bits + 7) // 8
    assert code.decode(stream, len(symbols)).tolist() == symbols


def test_a_stream_longer_than_a_block():
    rng = np.random.default_rng(1)
    symbols = np.minimum(rng.geometric(0.3, 200_000) - 1, 30)
    code = Code.of(np.bincount(symbols, minlength=31))
    stream, bits = code.encode(symbols.reshape(200, 1000))
    assert bits == code.bits(np.bincount(symbols, minlength=31)) > 2 * (1 << 18)
    np.testing.assert_array_equal(code.decode(stream, symbols.size), symbols)


@given(st.binary(max_size=12), st.integers(0, 40), COUNTS)
def test_any_bytes_are_refused_or_are_the_only_encoding(data, count, counts):
    code = Code.of(counts)
    try:
        symbols = code.decode(data, count)
    except ModelError:
        return
    assert code.encode(symbols)[0] == data


@pytest.mark.parametrize("data, count, text", [
    (b"\x4f", 4, "Huffman stream must hold 4 symbols, but it ends after 3"),
    (b"\x47", 4, "Huffman stream must hold 4 symbols, but it ends after 3"),
    (b"", 1, "Huffman stream must hold 1 symbols, but it ends after 0"),
    (b"\x4f\0\0", 4, "Huffman stream must end at bit 9, with zeros up to the next byte, and not have 3 bytes"),
    (b"\x4f\1", 4, "Huffman stream must end at bit 9, with zeros up to the next byte, and not have 2 bytes"),
])
def test_wrong_streams(data, count, text):
    code = Code.of([45, 13, 12, 16, 9, 5])
    with pytest.raises(ModelError, match=f"^{text}$"):
        code.decode(data, count)


def test_a_bit_that_no_codeword_begins_with():
    with pytest.raises(ModelError, match=r"^Huffman stream holds no codeword at bit 2$"):
        Code([0, 1]).decode(b"\x20", 3)


@pytest.mark.parametrize("make, text", [
    (lambda: Code([1, 1, 1]), "code lengths must make a complete prefix code, but they have more codewords than fit"),
    (lambda: Code([2, 1]), "code lengths must make a complete prefix code, but they have fewer codewords than fit"),
    (lambda: Code([0, 0]), "code lengths must make a complete prefix code, but they have fewer codewords than fit"),
    (lambda: Code([1, 25]), "code lengths must be from 0 to 24, not 25"),
    (lambda: Code(np.ones((2, 2), int)), r"code lengths must be 1 to 65536 integers, not shape \(2, 2\) of int64"),
    (lambda: lengths([3, -1]), "Huffman counts must not be negative, but the smallest is -1"),
    (lambda: lengths([0.5]), r"Huffman counts must be up to 65536 integers, not shape \(1,\) of float64"),
    (lambda: lengths([1] * 5, 2), "the longest codeword must be from 3 to 24 bits for 5 symbols, not 2"),
    (lambda: Code([1, 1, 0]).encode([2]), "symbols must be integers that have a codeword"),
    (lambda: Code([1, 1]).encode([-1]), "symbols must be integers that have a codeword"),
])
def test_wrong_arguments(make, text):
    with pytest.raises(ModelError, match=f"^{text}$"):
        make()
