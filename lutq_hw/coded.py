"""Assignments of a layer as Huffman codewords in a model file (``docs/model-format.md``, "Coded assignments").

Two codings: ``huffman`` has a codeword for every weight; ``sparse`` leaves out the weights of the most frequent index
(those pruned, after pruning) and has codewords for the others and for the gaps between these, as in "Deep Compression"
(arXiv 1510.00149) and "Towards the Limit of Network Quantization" (arXiv 1612.01543).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .errors import ModelError
from .huffman import Code, Reader
from .model_schema import Record
from .network.codebook import MAX_ENTRIES

CODINGS = ("none", "huffman")
"""What `modelfile.save` is asked for: indices as they are, or each layer in the smallest form."""

LONGEST = 16
"""Longest codeword in a file, bits."""

MAX_GAP_SYMBOLS = 1 << 12

KEYS = {
    "huffman": ("kind", "shape", "symbols"),
    "sparse": ("kind", "shape", "symbols", "rest", "kept", "gap_symbols", "gaps"),
}
"""Header keys of each kind of coding."""


@dataclass(frozen=True)
class Coding:
    """What the header says about coded assignments.

    Parameters
    ----------
    kind
        ``huffman`` or ``sparse``.
    shape
        Of the assignments.
    symbols
        Number of code lengths of the indices: 0 up to the highest coded one.
    rest
        Index of all weights that are not kept (this and what follows: ``sparse`` only).
    kept
        Number of weights with a codeword.
    gap_symbols
        Number of code lengths of the gaps; the last symbol stands for a gap that goes on.
    gaps
        Number of codewords of gaps.
    """

    kind: str
    shape: tuple[int, ...]
    symbols: int
    rest: int = 0
    kept: int = 0
    gap_symbols: int = 0
    gaps: int = 0

    @classmethod
    def read(cls, record: Record) -> Coding:
        """The coding in a header record, every number within its bounds.

        Raises
        ------
        ModelError
            If it breaks a rule of the format, with one sentence that begins with the record's place.
        """
        kind = record.text("kind")
        if kind not in KEYS:
            raise ModelError(f"{record.where}: kind must be one of {', '.join(KEYS)}, not {kind!r}")
        record.check_keys(KEYS[kind])
        shape = record.integers("shape", most=4)
        if len(shape) not in (2, 4) or min(shape) < 1:
            raise ModelError(f"{record.where}: shape must be 2 or 4 extents of at least 1, not {shape}")
        weights = math.prod(shape)

        def number(key: str, least: int, most: int) -> int:
            value = record.integer(key)
            if not least <= value <= most:
                raise ModelError(f"{record.where}: {key} must be from {least} to {most}, not {value}")
            return value

        symbols = number("symbols", 1, MAX_ENTRIES)
        if kind == "huffman":
            return cls(kind, shape, symbols)
        kept = number("kept", 1, weights)
        return cls(kind, shape, symbols, number("rest", 0, MAX_ENTRIES - 1), kept,
                   number("gap_symbols", 2, MAX_GAP_SYMBOLS), number("gaps", kept, weights))

    @property
    def fields(self) -> dict[str, Any]:
        """The header record."""
        return {key: value for key, value in asdict(self).items() if key in KEYS[self.kind]}

    @property
    def weights(self) -> int:
        """Number of weights, a byte each once decoded."""
        return math.prod(self.shape)

    @property
    def lengths(self) -> int:
        """Number of code lengths at the beginning of the array."""
        return self.symbols + self.gap_symbols

    def decode(self, data: np.ndarray) -> np.ndarray:
        """The assignments, uint8 of ``shape``, that ``data``, uint8 ``(bytes,)``, stands for.

        Takes ``weights + kept`` bytes and some blocks.

        Raises
        ------
        ModelError
            If ``data`` is not exactly one layer of this coding, with a clause that can follow the array's name.
        """
        indices = _code("index", data[:self.symbols])
        reader = Reader(data[self.lengths:])
        found = np.full(self.weights, self.rest, np.uint8)
        if self.kind == "huffman":
            _fill(found, reader, indices)
        else:
            gaps = _code("gap", data[self.symbols:self.lengths])
            kept = np.zeros(self.kept, np.uint8)
            _fill(kept, reader, indices)
            self._place(found, kept, reader, gaps)
        reader.finish()
        return found.reshape(self.shape)

    def _place(self, found: np.ndarray, kept: np.ndarray, reader: Reader, code: Code) -> None:
        """Put the kept indices where the gaps say."""
        last = self.gap_symbols - 1
        done = place = 0
        for gaps in reader.read(code, self.gaps):
            here = gaps < last
            ends = place + np.cumsum(gaps + here, dtype=np.int64)
            places = ends[here] - 1
            done, place = done + len(places), int(ends[-1])
            if done > self.kept or place > self.weights:
                break
            found[places] = kept[done - len(places):done]
        if done != self.kept or place > self.weights:
            raise ModelError(f"gaps must place {self.kept} kept weights among {self.weights}, not {done} among {place}")


def _code(what: str, lengths: np.ndarray) -> Code:
    longest = int(lengths.max())
    if longest > LONGEST:
        raise ModelError(f"{what} code lengths must be from 0 to {LONGEST}, not {longest}")
    try:
        return Code(lengths)
    except ModelError as error:
        raise ModelError(f"{what} {error}") from None


def _fill(array: np.ndarray, reader: Reader, code: Code) -> None:
    begin = 0
    for part in reader.read(code, len(array)):
        array[begin:begin + len(part)] = part
        begin += len(part)


@dataclass(frozen=True, eq=False)
class Coded:
    """Assignments in one coding: codes, and the symbols that are written with each."""

    coding: Coding
    streams: tuple[tuple[Code, np.ndarray], ...]

    @cached_property
    def size(self) -> int:
        """Bytes in the file: of the array's elements, and of what the header says about them."""
        bits = sum(code.bits(np.bincount(symbols, minlength=len(code.lengths))) for code, symbols in self.streams)
        return self.coding.lengths + (bits + 7) // 8 + len(json.dumps({"coding": self.coding.fields}))

    @property
    def array(self) -> np.ndarray:
        """Code lengths and codewords, ``(bytes,)`` uint8."""
        bits = np.concatenate([code.stream(symbols) for code, symbols in self.streams])
        return np.concatenate([*(code.lengths for code, _ in self.streams), np.packbits(bits)])


def smallest(assignments: np.ndarray) -> Coded | None:
    """``assignments`` in the smaller coding, or None where one byte for each weight is no larger."""
    best = min(dense(assignments), sparse(assignments), key=lambda coded: coded.size)
    return best if best.size < assignments.size else None


def dense(assignments: np.ndarray) -> Coded:
    """A codeword for every weight."""
    flat = assignments.reshape(-1)
    code = Code.of(np.bincount(flat), LONGEST)
    return Coded(Coding("huffman", assignments.shape, len(code.lengths)), ((code, flat),))


def sparse(assignments: np.ndarray) -> Coded:
    """Codewords for the weights that do not have the most frequent index, and for the gaps between them.

    Where all weights have the same index, the first is kept, so that no stream is empty.
    """
    flat = assignments.reshape(-1)
    rest = int(np.bincount(flat).argmax())
    places = np.flatnonzero(flat != rest)
    places = places if len(places) else np.zeros(1, np.int64)
    kept = flat[places]
    gaps = np.diff(places, prepend=-1) - 1
    indices, code = Code.of(np.bincount(kept), LONGEST), _gap_code(gaps)
    last = len(code.lengths) - 1
    skips, short = np.divmod(gaps, last)
    ends = np.cumsum(skips + 1)
    symbols = np.full(int(ends[-1]), last, np.uint16)
    symbols[ends - 1] = short
    coding = Coding("sparse", assignments.shape, len(indices.lengths), rest, len(kept), last + 1, len(symbols))
    return Coded(coding, ((indices, kept), (code, symbols)))


def _gap_code(gaps: np.ndarray) -> Code:
    """The code for gaps with the number of symbols for which codewords and code lengths are smallest."""
    values, counts = np.unique(gaps, return_counts=True)
    largest = int(values[-1])
    best: tuple[float, Code] = (math.inf, Code([1]))
    width = 2
    while width <= MAX_GAP_SYMBOLS:
        symbols = min(width, largest + 2)
        skips, short = np.divmod(values, symbols - 1)
        histogram = np.bincount(short, counts, symbols).astype(np.int64)
        histogram[-1] = int((skips * counts).sum())
        code = Code.of(histogram, LONGEST)
        best = min(best, (code.bits(histogram) + 8 * symbols, code), key=lambda found: found[0])
        if symbols < width:
            break
        width *= 2
    return best[1]
