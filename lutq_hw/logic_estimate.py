"""How many luts random logic takes, without synthesising it: a small symbolic network and a greedy packing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import log2

import numpy as np

from .network.tensor import Ints
from .paths import Path, counting, note_paths

CUTS = 4
"""Ways to make a node that are remembered for those that read it."""


class Logic:
    """Network of two-way multiplexers, ANDs and XORs, every distinct one once. A bit is an integer: 0, 1, or a node.

    A complement is a node of its own, which costs nothing where a lut reads it.

    Parameters
    ----------
    lut_inputs
        Inputs of a lut; `family.Family.lut_inputs`.
    """

    def __init__(self, lut_inputs: int = 4) -> None:
        self.lut_inputs = lut_inputs
        self._nodes: list[frozenset[int]] = [frozenset()] * 2  # fan-in of every node; none for constants and inputs
        self._support: list[frozenset[int]] = [frozenset()] * 2  # the inputs that a node depends on
        self._known: dict[tuple, int] = {}
        self._names: dict[object, int] = {}

    def input(self, name: object) -> int:
        """The input bit of this name."""
        if name not in self._names:
            self._names[name] = len(self._nodes)
            self._nodes.append(frozenset())
            self._support.append(frozenset([self._names[name]]))
        return self._names[name]

    def _node(self, kind: str, *bits: int) -> int:
        key = (kind, *bits)
        if key not in self._known:
            self._known[key] = len(self._nodes)
            support = frozenset().union(*(self._support[bit] for bit in bits))
            self._nodes.append(support if len(support) <= self.lut_inputs else frozenset(bit for bit in bits if bit > 1))
            self._support.append(support)
        return self._known[key]

    def support(self, bit: int) -> frozenset[int]:
        """The inputs that a bit depends on."""
        return self._support[bit]

    def xor(self, a: int, b: int) -> int:
        """``a ^ b``."""
        low, high = sorted((a, b))
        if low == 0 or low == high:
            return high if low == 0 else 0
        return self.mux(high, 0, 1) if low == 1 else self._node("xor", low, high)

    def mux(self, select: int, high: int, low: int) -> int:
        """``high`` where ``select``, else ``low``."""
        if high == low or select <= 1:
            return high if select == 1 else low
        if (high, low) in ((1, 0), (0, 1)):
            return select if high else self._node("not", select)
        return self._node("mux", select, high, low)

    def table(self, entries: Sequence[int], index: Sequence[int]) -> int:
        """The bit of ``entries`` that the bits ``index`` address, lowest first; any bits may be entries."""
        level = list(entries)
        for bit in index:
            level = [self.mux(bit, high, low) for low, high in zip(level[::2], level[1::2], strict=True)]
        return level[0]

    def tree(self, entries: Sequence[int], index: Sequence[int]) -> int:
        """As `table`, where the entries are 0 and 1 and as many address bits as a lut has inputs need one lut."""
        if len(index) > self.lut_inputs:
            half = len(entries) // 2
            return self.mux(index[-1], self.tree(entries[half:], index[:-1]), self.tree(entries[:half], index[:-1]))
        needed = [bit for n, bit in enumerate(index)
                  if any(entries[k] != entries[k ^ 1 << n] for k in range(len(entries)))]
        if not needed:
            return entries[0]
        if len(needed) == 1:
            return self.mux(needed[0], 0, 1) if entries[0] else needed[0]
        return self._node("tree", *needed, *(1 if entry else 0 for entry in entries))

    def luts(self, outputs: Sequence[int]) -> int:
        """Luts that compute ``outputs``: a node goes into all those that read it where each has inputs to spare.

        The bits of a number come lowest first: on the paths that are noted, an adder behind carries from there on.
        """
        packed = self._packed(outputs)
        if counting():
            note_paths(self._paths(outputs, len(packed)))
        return len(packed)

    def _paths(self, outputs: Sequence[int], cells: int) -> list[Path]:
        """The longest way to each output that is deeper than all lower ones."""
        depth = self._depths(outputs)
        fanout = log2(max(1, cells))
        found = [Path(levels=depth.get(outputs[0], 0) if outputs else 0, fanout=fanout)]
        for entry, bit in enumerate(outputs):
            if depth.get(bit, 0) > found[-1].levels:
                found.append(Path(levels=depth[bit], fanout=fanout, entry=entry))
        return found

    def _depths(self, outputs: Sequence[int]) -> dict[int, int]:
        """Fewest luts one behind the other, of every node: synthesis spends luts on what is slow.

        A cut is a set of nodes from which a lut makes another one, with the depth of the deepest; the best `CUTS` of each
        node are tried where it is read (FlowMap, J. Cong and Y. Ding, IEEE TCAD 1994; few cuts, A. Mishchenko et al.,
        "Combinational and sequential mapping with priority cuts", ICCAD 2007).
        """
        needed, stack = set(), [bit for bit in outputs if self._nodes[bit]]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack += [bit for bit in self._nodes[node] if self._nodes[bit]]
        depth: dict[int, int] = {}
        known: dict[int, list[tuple[int, int]]] = {}
        for node in sorted(needed):  # a node's number is larger than those it reads
            cuts = [(0, 0)]
            for bit in self._nodes[node]:
                theirs = known.get(bit) or [(0, 1 << bit)]
                merged = {mask | other: max(deepest, most) for deepest, mask in cuts for most, other in theirs}
                cuts = [(deepest, mask) for mask, deepest in merged.items() if mask.bit_count() <= self.lut_inputs]
            cuts = sorted(cuts, key=lambda cut: (cut[0], cut[1].bit_count()))[:CUTS]
            depth[node] = 1 + cuts[0][0]
            known[node] = [(depth[node], 1 << node), *cuts]
        return depth

    def _packed(self, outputs: Sequence[int]) -> dict[int, frozenset[int]]:
        """Inputs of every lut, by the node that it computes."""
        fanin: dict[int, frozenset[int]] = {}
        stack = [bit for bit in outputs if self._nodes[bit]]
        while stack:
            node = stack.pop()
            if node not in fanin:
                fanin[node] = self._nodes[node]
                stack += [bit for bit in self._nodes[node] if self._nodes[bit]]
        readers: dict[int, set[int]] = {node: set() for node in fanin}
        for node, inputs in fanin.items():
            for bit in inputs & fanin.keys():
                readers[bit].add(node)
        for node in sorted(fanin):  # a node's number is larger than those it reads
            merged = {reader: fanin[reader] - {node} | fanin[node] for reader in readers[node]}
            if node in outputs or any(len(inputs) > self.lut_inputs for inputs in merged.values()):
                continue
            fanin.update(merged)
            for bit in fanin.pop(node) & fanin.keys():
                readers[bit] = readers[bit] - {node} | readers[node]
        return fanin


@cache
def select_luts(entries: int, lut_inputs: int = 4) -> int:
    """Luts for each bit of a choice among ``entries`` by their number; one that never occurs is the last."""
    logic = Logic(lut_inputs)
    index = [logic.input(("index", bit)) for bit in range((entries - 1).bit_length())]
    words = [logic.input(min(n, entries - 1)) for n in range(1 << len(index))]
    return logic.luts([logic.table(words, index)])


def filled(words: Ints, depth: int) -> Ints:
    """``words (..., n)`` up to ``depth``, a power of two, where nothing is ever read behind the last.

    As synthesis does it: a multiplexer one of whose halves is never read is no multiplexer, so that the other half stands
    there too.
    """
    known, place = words.shape[-1], np.arange(depth)
    block, half = np.zeros(depth, int), depth // 2
    while half:
        high = place >= block + half
        unread = high & (block + half >= known)
        place = np.where(unread, place - half, place)
        block = np.where(high & ~unread, block + half, block)
        half //= 2
    return words[..., place]


def rom_logic(words: Ints, width: int, lut_inputs: int = 4, *, shared: bool = False) -> tuple[int, int]:
    """Luts and selectors of ROMs in logic, by their content: what of `Logic` is quick enough for deep ones.

    Parameters
    ----------
    words
        ``(tables, depth)`` words, each table with an address of its own unless it is ``shared``.
    width
        Bits of a word.

    Returns
    -------
    tuple
        Distinct functions of as many address bits as a lut has inputs, but constants, those of one bit, and those that
        leave room for them in the selector behind; and distinct two-way multiplexers behind them.
    """
    chunk = 1 << lut_inputs
    depth = max(chunk, 1 << (words.shape[1] - 1).bit_length())
    bits = filled(words, depth)[:, None, :].astype(np.uint64) >> np.arange(width, dtype=np.uint64)[:, None]
    bits &= np.uint64(1)
    if shared:
        bits = bits.reshape(1, -1, depth)
    places = np.uint64(1) << np.arange(chunk, dtype=np.uint64)
    functions = (bits.reshape(*bits.shape[:2], -1, chunk) * places).sum(axis=-1, dtype=np.uint64)
    found, nodes = np.unique(functions, return_inverse=True)
    nodes: np.ndarray = nodes.reshape(functions.shape)
    room = lut_inputs - 2 if depth > chunk else 1
    costs = _inputs_of(found, lut_inputs) > room
    table = np.arange(len(bits))[:, None, None]
    luts = int(costs[np.unique(table * len(found) + nodes) % len(found)].sum())
    selectors, names = 0, len(found)
    while nodes.shape[2] > 1:
        low, high = nodes[:, :, ::2], nodes[:, :, 1::2]
        pairs, place = np.unique((table * names + low) * names + high, return_inverse=True)
        low_name, high_name = pairs // names % names, pairs % names
        selectors += int((low_name != high_name).sum())
        nodes = np.where(low_name == high_name, low_name, names + np.arange(len(pairs)))[place].reshape(low.shape)
        names += len(pairs)
    return luts, selectors


def _inputs_of(functions: np.ndarray, lut_inputs: int) -> np.ndarray:
    """How many of ``lut_inputs`` address bits functions depend on; each is a number whose bits are its values."""
    count = np.zeros(len(functions), int)
    for bit in range(lut_inputs):
        low = sum(1 << place for place in range(1 << lut_inputs) if not place >> bit & 1)
        count += (functions ^ functions >> np.uint64(1 << bit)) & np.uint64(low) != 0
    return count
