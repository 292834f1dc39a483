"""Structure of what lets streams part and meet, on which its price depends (`costing`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .cost import bits_for, bram_chunks, ram_brams
from .network import TensorType
from .network.tensor import signed_bits

Features = Mapping[str, float]


def fork_features(count: int) -> Features:
    """Structure of a `gateware.fork.StreamFork`; its words pass through, however wide."""
    return {"base": 1, "branches": count}


def fifo_features(width: int, depth: int, memory: str) -> Features:
    """Structure of a `gateware.fifo.StreamFifo`."""
    if memory == "luts":
        return {"base": 1, "count": bits_for(depth + 1), "width": width, "words": width * depth,
                "select": width * (depth - 1)}
    return {"base": 1, "count": bits_for(depth + 1), "address": 2 * bits_for(depth),
            "select": width * (len(bram_chunks(depth)) - 1)}


def fifo_brams(width: int, depth: int, memory: str) -> int:
    """Blocks of a `gateware.fifo.StreamFifo`."""
    return ram_brams(width, max(2, depth), 1) if memory == "bram" else 0


def adder_features(types: Sequence[TensorType], shifts: Sequence[int], lanes: int) -> Features:
    """Structure of a `gateware.join.StreamAdder`: bits of its adders, above those where one operand ends in zeros."""
    parts = [(x.min << s, x.max << s, s) for x, s in zip(types, shifts, strict=True)]
    bits = 0
    while len(parts) > 1:
        pairs = [parts[k:k + 2] for k in range(0, len(parts), 2)]
        parts = []
        for pair in pairs:
            low, high = sum(part[0] for part in pair), sum(part[1] for part in pair)
            zeros = [part[2] for part in pair]
            if len(pair) == 2:
                bits += (signed_bits(low, high) if low < 0 else high.bit_length()) - max(zeros)
            parts.append((low, high, min(zeros)))
    # Of more than two operands Yosys makes a tree of its own, with compressors.
    return {"base": 1, "inputs": len(types), "adders": (len(types) - 1) * lanes, "bits": bits * lanes,
            "tree": bits * lanes if len(types) > 2 else 0}


def averager_features(lanes: int, bits: int) -> Features:
    """Structure of a `gateware.average.WindowSums`: ``bits`` of a sum."""
    return {"base": 1, "bits": lanes * bits}
