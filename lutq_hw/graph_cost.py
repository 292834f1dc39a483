"""Structure of what lets streams part and meet, on which its price depends (`costing`)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from .cost import bits_for, bram_chunks, ram_brams
from .logic_estimate import select_luts
from .network import TensorType
from .network.tensor import signed_bits

Features = Mapping[str, float]


SHORT = 4
"""Bits of a counter up to which synthesis makes it of luts without a carry chain, where that costs more than a lut a bit."""


def long_bits(*counts: int) -> int:
    """Bits of those counters of ``counts`` states that have a carry chain."""
    return sum(bits_for(count) for count in counts if bits_for(count) > SHORT)


def fork_features(count: int) -> Features:
    """Structure of a `gateware.fork.StreamFork`; its words pass through, however wide."""
    return {"base": 1, "branches": count}


def fifo_features(width: int, depth: int, memory: str, lut_inputs: int) -> Features:
    """Structure of a `gateware.fifo.StreamFifo`."""
    if memory == "luts":
        return {"base": 1, "count": bits_for(depth + 1), "width": width, "words": width * depth,
                "select": width * select_luts(depth, lut_inputs)}
    return {"base": 1, "count": bits_for(depth + 1), "address": 2 * bits_for(depth),
            "long": long_bits(depth + 1, depth, depth),
            "select": width * (len(bram_chunks(depth)) - 1)}


def fifo_brams(width: int, depth: int, memory: str) -> int:
    """Blocks of a `gateware.fifo.StreamFifo`."""
    return ram_brams(width, max(2, depth), 1) if memory == "bram" else 0


def adder_features(types: Sequence[TensorType], shifts: Sequence[int], lanes: int) -> Features:
    """Structure of a `gateware.join.StreamAdder`: bits of its last adder, and what more than two operands need before it.

    Yosys (``maccmap``) makes two words of three by a full or half adder for each bit, two luts, and so on. What comes
    behind other full adders shares luts with them.
    """
    parts = [(x.min << s, x.max << s) for x, s in zip(types, shifts, strict=True)]
    low, high = sum(part[0] for part in parts), sum(part[1] for part in parts)
    width = signed_bits(low, high) if low < 0 else high.bit_length()
    # Of every bit of a word, what it is: an input's bit, a sum or a carry; sign bits are repeated, and made once.
    columns: list[list[Hashable]] = [
        [(n, min(bit - s, x.bits - 1)) for n, (x, s) in enumerate(zip(types, shifts, strict=True))
         if bit >= s and (bit - s < x.bits or x.signed)] for bit in range(width)]
    words = [[column[n] if n < len(column) else None for column in columns] for n in range(max(map(len, columns)))]
    made: list[int] = []
    while len(words) > 2:
        sums: list[Hashable] = []
        carries: list[Hashable] = [None]
        found: set[tuple[Hashable, ...]] = set()
        for bits in zip(*words[:3], strict=True):
            here = tuple(bit for bit in bits if bit is not None)
            added = len(here) > 1
            found |= {here} if added else set()
            sums.append(("sum", here) if added else next(iter(here), None))
            carries.append(("carry", here) if added else None)
        made.append(len(found))
        words = [*words[3:], sums, carries[:width]]
    filled = [sum(word[bit] is not None for word in words) for bit in range(width)]
    first = next((bit for bit, count in enumerate(filled) if count > 1), width)
    return {"base": 1, "inputs": len(types), "adders": lanes,
            "sum_bits": lanes * sum(count > 0 for count in filled[first:]),
            "pairs": lanes * sum(count > 1 for count in filled), "compress": 2 * lanes * sum(made[:1]),
            "again": 2 * lanes * sum(made[1:])}


def averager_features(x: TensorType, lanes: int, bits: int) -> Features:
    """Structure of a `gateware.average.WindowSums`: ``bits`` of a sum. The first element is taken as it is, which resets the
    bits above it."""
    return {"base": 1, "sum_bits": lanes * bits, "odd": lanes * (bits % 2), "first": lanes * (bits if x.signed else x.bits)}
