"""Canonical Huffman codes: lengths, codes, packing into bytes and unpacking, exactly.

A canonical code is given by its lengths alone: shorter codewords come first, and those of one length count upwards
with the symbol. Bits go into bytes from the most significant one on; the last byte is filled with zeros.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .errors import ModelError

MAX_SYMBOLS = 1 << 16
MAX_LENGTH = 24
"""Longest codeword: the decoding table has two to this power bytes at most."""

_BLOCK = 1 << 18  # bits read, or symbols written, at a time


def lengths(counts: Any, limit: int = MAX_LENGTH) -> np.ndarray:
    """Codeword lengths that make the sum of ``counts * lengths`` smallest, none longer than ``limit``.

    Parameters
    ----------
    counts
        How often each symbol occurs, ``(n,)`` integers, not negative. A symbol that never occurs gets length 0, no
        codeword; one that occurs alone still gets a bit.
    limit
        1 to 24.

    Returns
    -------
    ndarray
        ``(n,)`` uint8. Equal counts get lengths that do not depend on the platform.

    Raises
    ------
    ModelError
        If a count is negative or the limit has too few codewords for the symbols.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or len(counts) > MAX_SYMBOLS:
        raise ModelError(f"Huffman counts must be up to {MAX_SYMBOLS} integers, not shape {counts.shape} of "
                         f"{counts.dtype}")
    if len(counts) and counts.min() < 0:
        raise ModelError(f"Huffman counts must not be negative, but the smallest is {counts.min()}")
    used = np.flatnonzero(counts)
    if not 1 <= limit <= MAX_LENGTH or len(used) > 1 << limit:
        raise ModelError(f"the longest codeword must be from {max(1, (len(used) - 1).bit_length())} to {MAX_LENGTH} "
                         f"bits for {len(used)} symbols, not {limit}")
    result = np.zeros(len(counts), np.uint8)
    if len(used) == 1:
        result[used] = 1
    elif len(used):
        weights = [int(count) for count in counts[used]]
        found = _huffman(weights)
        result[used] = found if max(found) <= limit else _package_merge(weights, limit)
    return result


def _huffman(weights: list[int]) -> list[int]:
    """Lengths without a limit; among equal weights, leaves and older nodes are joined first."""
    heap = [(weight, node) for node, weight in enumerate(weights)]
    heapq.heapify(heap)
    parent = [0] * (2 * len(weights) - 1)
    for node in range(len(weights), len(parent)):
        (a, left), (b, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[left] = parent[right] = node
        heapq.heappush(heap, (a + b, node))
    depth = [0] * len(parent)
    for node in range(len(parent) - 2, -1, -1):
        depth[node] = depth[parent[node]] + 1
    return depth[:len(weights)]


def _package_merge(weights: list[int], limit: int) -> list[int]:
    """Lengths up to ``limit`` (Larmore and Hirschberg, 1990).

    Level by level, the symbols are merged with pairs of the level before, by weight. Of the last level the first
    2 n - 2 are bought; every symbol is as long as the number of times that it is bought. A level buys its lightest
    symbols, so it is enough to count them.
    """
    order = sorted(range(len(weights)), key=lambda symbol: (weights[symbol], symbol))
    singles = [(weights[symbol], 0) for symbol in order]
    levels, packages = [], []
    for _ in range(limit):
        level = sorted(singles + packages)
        levels.append(level)
        packages = [(a[0] + b[0], 1) for a, b in zip(level[::2], level[1::2], strict=False)]
    found = [0] * len(weights)
    bought = 2 * len(weights) - 2
    for level in reversed(levels):
        pairs = sum(package for _, package in level[:bought])
        for symbol in order[:bought - pairs]:
            found[symbol] += 1
        bought = 2 * pairs
    return found


@dataclass(frozen=True, eq=False)
class Code:
    """A canonical code.

    Parameters
    ----------
    lengths
        ``(n,)`` codeword length of every symbol, 0 to 24; 0 means that the symbol has none.

    Raises
    ------
    ModelError
        If the lengths are not those of a complete prefix code (or of a single symbol of one bit).
    """

    lengths: Any

    def __post_init__(self) -> None:
        found = np.asarray(self.lengths)
        if found.ndim != 1 or found.dtype.kind not in "iu" or not 1 <= len(found) <= MAX_SYMBOLS:
            raise ModelError(f"code lengths must be 1 to {MAX_SYMBOLS} integers, not shape {found.shape} of "
                             f"{found.dtype}")
        if found.min() < 0 or found.max() > MAX_LENGTH:
            wrong = found[(found < 0) | (found > MAX_LENGTH)][0]
            raise ModelError(f"code lengths must be from 0 to {MAX_LENGTH}, not {wrong}")
        used = found[found > 0].astype(np.int64)
        room = int((1 << (MAX_LENGTH - used)).sum())
        full = 1 << MAX_LENGTH
        if room != full and not (len(used) == 1 and used[0] == 1):
            much = "more" if room > full else "fewer"
            raise ModelError(f"code lengths must make a complete prefix code, but they have {much} codewords than fit")
        object.__setattr__(self, "lengths", found.astype(np.uint8))

    @classmethod
    def of(cls, counts: Any, limit: int = MAX_LENGTH) -> Code:
        """The best code for symbols that occur ``counts`` times; see `lengths`."""
        return cls(lengths(counts, limit))

    @cached_property
    def _order(self) -> np.ndarray:
        """Symbols with a codeword, in the order of the codewords."""
        order = np.argsort(self.lengths, kind="stable")
        return order[np.count_nonzero(self.lengths == 0):]

    @cached_property
    def codes(self) -> np.ndarray:
        """``(n,)`` uint32 codewords, right-aligned; 0 for a symbol without."""
        found = np.zeros(len(self.lengths), np.uint32)
        size = self.lengths[self._order].astype(np.int64)
        share = 1 << (self.longest - size)
        found[self._order] = (np.cumsum(share) - share) >> (self.longest - size)
        return found

    @property
    def longest(self) -> int:
        """Bits of the longest codeword."""
        return int(self.lengths.max())

    def bits(self, counts: Any) -> int:
        """Bits of a stream in which every symbol occurs ``counts`` times."""
        return int((np.asarray(counts, np.int64) * self.lengths).sum())

    def encode(self, symbols: Any) -> tuple[bytes, int]:
        """Packed codewords of ``symbols`` (flattened in C order) and how many bits these are.

        Raises
        ------
        ModelError
            If a symbol has no codeword.
        """
        bits = self.stream(symbols)
        return np.packbits(bits).tobytes(), len(bits)

    def stream(self, symbols: Any) -> np.ndarray:
        """``(bits,)`` uint8, 0 and 1: the codewords of ``symbols`` one behind the other; raises as `encode` does."""
        symbols = np.asarray(symbols).reshape(-1)
        if symbols.size and (symbols.dtype.kind not in "iu" or symbols.min() < 0
                             or symbols.max() >= len(self.lengths) or not self.lengths[symbols].all()):
            raise ModelError("symbols must be integers that have a codeword")
        found = [np.zeros(0, np.uint8)]
        for first in range(0, symbols.size, _BLOCK):
            part = symbols[first:first + _BLOCK]
            size = self.lengths[part].astype(np.int64)
            begin = np.cumsum(size) - size
            bits = np.zeros(int(begin[-1] + size[-1]), np.uint8)
            words = self.codes[part]
            for place in range(self.longest):
                there = size > place
                bits[begin[there] + place] = (words[there] >> (size[there] - 1 - place).astype(np.uint32)) & 1
            found.append(bits)
        return np.concatenate(found)

    def decode(self, data: bytes, count: int) -> np.ndarray:
        """``(count,)`` int64: the symbols of ``data``, which must hold exactly these.

        Raises
        ------
        ModelError
            If the stream is too short, too long, not filled up with zeros or holds what is no codeword.
        """
        reader = Reader(data)
        found = [part.astype(np.int64) for part in reader.read(self, count)]
        reader.finish()
        return np.concatenate([np.zeros(0, np.int64), *found])

    @cached_property
    def sizes(self) -> np.ndarray:
        """``(2**longest,)`` uint8: length of the codeword that each window of ``longest`` bits begins with, or 0."""
        size = self.lengths[self._order]
        found = np.repeat(size, 1 << (self.longest - size.astype(np.int64)))
        return np.pad(found, (0, (1 << self.longest) - len(found)))

    def symbols(self, words: np.ndarray) -> np.ndarray:
        """``(n,)`` uint16: the symbols whose codewords the windows ``words`` of ``longest`` bits begin with."""
        first, rank = self._first
        size = self.sizes[words]
        behind = (words >> (self.longest - size).astype(np.uint32)) - first[size]
        return self._order[rank[size] + behind].astype(np.uint16)

    @cached_property
    def _first(self) -> tuple[np.ndarray, np.ndarray]:
        """First codeword of each length, and how many codewords are shorter."""
        rank = np.searchsorted(self.lengths[self._order], np.arange(self.longest + 1))
        return np.append(self.codes[self._order], np.uint32(0))[rank], rank


class Reader:
    """Codewords in a stream of bits, of one code or of several behind each other.

    ``data`` are bytes or a uint8 array. Memory for some blocks of 32 kB is taken, whatever the size of the stream.
    """

    def __init__(self, data: Any):
        self._raw = np.frombuffer(data, np.uint8)
        self._position = 0

    def read(self, code: Code, count: int) -> Iterator[np.ndarray]:
        """The next ``count`` symbols of ``code``, block by block, each ``(n,)`` uint16.

        Raises
        ------
        ModelError
            If the stream is too short or holds what is no codeword.
        """
        found = 0
        while found < count:
            places, words = self._block(code, count - found)
            found += len(places)
            if self._position > 8 * len(self._raw) or not len(places):
                complete = found - (self._position > 8 * len(self._raw))
                raise ModelError(f"Huffman stream must hold {count} symbols, but it ends after {complete}")
            yield code.symbols(words[places])

    def finish(self) -> None:
        """Refuse a stream that does not end here.

        Raises
        ------
        ModelError
            If bytes are left, or the rest of the last one is not zero.
        """
        position, raw = self._position, self._raw
        if len(raw) != (position + 7) // 8 or (position % 8 and raw[-1] & ((1 << (-position % 8)) - 1)):
            raise ModelError(f"Huffman stream must end at bit {position}, with zeros up to the next byte, and not have "
                             f"{len(raw)} bytes")

    def _block(self, code: Code, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Where up to ``count`` codewords begin in the block that begins here, and the windows at all its bits.

        Where the codeword at each bit ends is looked up for all bits at once; eight of such steps, one after the other,
        are joined to one, so that only every eighth codeword is met in a loop.
        """
        first = self._position // 8
        words = _windows(self._raw[first:], min(_BLOCK // 8, count * code.longest // 8 + 2), code.longest)
        usable = len(words)
        if not usable:
            return np.zeros(0, np.int64), words
        ends = np.arange(usable + code.longest, dtype=np.int32)
        size = code.sizes[words]
        ends[:usable] += size  # what ends behind the block, or is no codeword, goes nowhere
        jumps = ends
        for _ in range(3):
            jumps = jumps[jumps]
        chain, place = jumps.data, self._position - 8 * first
        anchors = [place]
        while len(anchors) < 1 + count // 8 and (target := chain[place]) < usable and target != place:
            place = target
            anchors.append(place)
        rows = [np.array(anchors, np.int32)]
        for _ in range(7):
            rows.append(ends[rows[-1]])
        places = np.stack(rows, axis=1).reshape(-1)
        places = places[places < usable][:count]
        wrong = np.flatnonzero(size[places] == 0)
        if len(wrong):
            raise ModelError(f"Huffman stream holds no codeword at bit {8 * first + int(places[wrong[0]])}")
        self._position = 8 * first + int(ends[places[-1]])
        return places, words


def _windows(raw: np.ndarray, count: int, width: int) -> np.ndarray:
    """``(8 n,)`` uint32: the ``width`` bits (up to 25) from each bit of the first ``count`` bytes on, zeros behind."""
    head = np.pad(raw[:count + 3], (0, 3)).astype(np.uint32)
    count = min(count, len(raw))
    quads = head[:count] << 24 | head[1:count + 1] << 16 | head[2:count + 2] << 8 | head[3:count + 3]
    shifts = (32 - width - np.arange(8)).astype(np.uint32)
    return (quads[:, None] >> shifts & np.uint32((1 << width) - 1)).reshape(-1)
