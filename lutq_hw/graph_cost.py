"""Structure of what lets streams part and meet, on which its price depends (`costing`)."""

from __future__ import annotations

from collections.abc import Mapping

from .cost import bits_for, bram_chunks, ram_brams

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


def adder_features(inputs: int, lanes: int, bits: int) -> Features:
    """Structure of a `gateware.join.StreamAdder`: ``bits`` of a sum."""
    return {"base": 1, "inputs": inputs, "adders": (inputs - 1) * lanes, "bits": (inputs - 1) * lanes * bits}


def averager_features(lanes: int, bits: int) -> Features:
    """Structure of a `gateware.average.WindowSums`: ``bits`` of a sum."""
    return {"base": 1, "bits": lanes * bits}
