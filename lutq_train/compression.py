"""Sizes as "Towards the Limit of Network Quantization" counts them (Choi, El-Khamy, Lee, ICLR 2017).

Of N parameters of b = 32 bits, k clusters C_i with codewords of b_i bits leave

    sum_i (|C_i| + 1) b_i + k b          with a variable-length code (equation 1): every codeword is stored once,
    sum_i |C_i| ceil(log2 k) + k b       with a fixed length (equation 2).

Pruned weights are left out of that sum; what tells where the others stand is added: differences of positions of a
limited width, Huffman coded, with the table of that code (codeword and difference of every symbol). A difference of
``2^w - 1`` or more takes one more symbol for each ``2^w - 1`` places, as Deep Compression's padding zeros do; but no
weight is spent on it.

Which parameters count: all of them do in N, as in the paper's 431,080 of LeNet-5 (580 biases among them) and 464,154
of ResNet-32 (2,272 of batch norm). Those that are not weights of a codebook stay numbers of 32 bits on both sides.
Activation functions count on neither side: the paper quantises none.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lutq_hw.errors import InputError
from lutq_hw.huffman import lengths
from lutq_hw.network import Network, Thresholds, WeightNode
from lutq_hw.table import table

FLOAT_BITS = 32
WIDTHS = range(1, 13)
"""Widths tried for differences of positions; Deep Compression takes 8 for convolutions and 5 for dense layers."""

CODES = ("huffman", "fixed")


@dataclass(frozen=True, eq=False)
class LayerCodes:
    """The weights of a layer as symbols of a codebook.

    Parameters
    ----------
    name
        For the table.
    symbols
        One integer for each weight, any shape: integer values, or indices.
    codebook
        Layers that name the same one share it: one code, every value stored once.
    zero
        The symbol of pruned weights; None where there is none.
    floats
        Parameters of the layer outside the codebook: biases, batch norm.
    extra
        Numbers needed to use the codebook that are no parameters of the original: scales.
    values
        Numbers that the codebook stores where it is not one for each symbol: with subgroups.
    """

    name: str
    symbols: Any
    codebook: Hashable = "network"
    zero: int | None = 0
    floats: int = 0
    extra: int = 0
    values: int | None = None

    def __post_init__(self) -> None:
        symbols = np.asarray(self.symbols)
        if symbols.dtype.kind not in "iu" or not symbols.size:
            raise InputError(f"{self.name}: symbols must be integers, at least one, not {symbols.size} of "
                             f"{symbols.dtype}")
        object.__setattr__(self, "symbols", symbols.reshape(-1))


@dataclass(frozen=True)
class LayerSize:
    """Bits of one layer, codebook and code tables not included.

    ``entropy`` is that of the symbols in ``values``, in bits for each; ``by_position`` tells whether pruned weights
    are left out of these.
    """

    name: str
    weights: int
    kept: int
    by_position: bool
    entropy: float
    values: int
    positions: int
    floats: int

    @property
    def bits(self) -> int:
        """All of it."""
        return self.values + self.positions + self.floats


@dataclass(frozen=True)
class Compression:
    """What a network takes, in bits. ``print`` it for a table.

    ``codebooks`` are the values, codewords and scales of all codebooks, ``tables`` those of the code for positions.
    """

    layers: tuple[LayerSize, ...]
    original: int
    codebooks: int
    tables: int
    code: str

    @property
    def total(self) -> int:
        """Everything."""
        return sum(layer.bits for layer in self.layers) + self.codebooks + self.tables

    @property
    def ratio(self) -> float:
        """Original over total: the paper's compression ratio."""
        return self.original / self.total

    @property
    def kept(self) -> float:
        """Share of weights that are not pruned."""
        return sum(layer.kept for layer in self.layers) / sum(layer.weights for layer in self.layers)

    @property
    def entropy(self) -> float:
        """Bits of entropy of a coded symbol, mean of all layers, each with its own statistics."""
        coded = [layer.kept if layer.by_position else layer.weights for layer in self.layers]
        return sum(n * layer.entropy for n, layer in zip(coded, self.layers, strict=True)) / max(1, sum(coded))

    def __str__(self) -> str:
        rows = [[layer.name, layer.weights, f"{100 * layer.kept / layer.weights:.1f} %", f"{layer.entropy:.2f}",
                 layer.values, layer.positions if layer.by_position else None, layer.floats or None, layer.bits,
                 f"{layer.bits / layer.weights:.2f}"] for layer in self.layers]
        rows.append(["codebooks", *[None] * 6, self.codebooks, None])
        if self.tables:
            rows.append(["position code", *[None] * 6, self.tables, None])
        weights = sum(layer.weights for layer in self.layers)
        footer = ["total", weights, f"{100 * self.kept:.1f} %", f"{self.entropy:.2f}",
                  *(sum(getattr(layer, part) for layer in self.layers) for part in ("values", "positions", "floats")),
                  self.total, f"{self.total / weights:.2f}"]
        header = ["layer", "weights", "kept", "entropy", "values", "positions", "floats", "bits", "bits/weight"]
        return (f"{table(header, rows, footer)}\n{self.original:,} bits of {FLOAT_BITS}-bit numbers to {self.total:,} "
                f"({self.total / 8000:,.1f} kB), {self.code} code: {self.ratio:.2f} x")


def account(layers: Sequence[LayerCodes], code: str = "huffman") -> Compression:
    """Count the bits of ``layers`` with the better of both ways for pruned weights, layer by layer.

    Either they are left out and positions are coded, or zero is a symbol like the others: that is the better one
    where few are pruned. Layers are turned from the first to the second as long as the total falls.

    Raises
    ------
    InputError
        If there are no layers, or ``code`` is none of ``CODES``.
    """
    if code not in CODES:
        raise InputError(f"code must be one of {', '.join(CODES)}, not {code!r}")
    if not layers:
        raise InputError("a compression ratio needs at least one layer with a codebook")
    counted = [_Counted.of(layer) for layer in layers]
    sparse = [bool(layer.pruned) for layer in counted]
    best = _total(counted, sparse, code)
    for n, layer in enumerate(counted):
        if layer.pruned:
            trial = [*sparse[:n], False, *sparse[n + 1:]]
            found = _total(counted, trial, code)
            if found.total < best.total:
                sparse, best = trial, found
    return best


def of_network(network: Network, *, floats: Mapping[str, int] | None = None,
               codebooks: Mapping[str, Hashable] | None = None, code: str = "huffman") -> Compression:
    """The compression of an exported network.

    Parameters
    ----------
    network
        Any; a layer with a product table counts the values that its table is made from.
    floats
        Parameters outside the codebook of each layer, by node name. By default as the network's ``info`` has it from
        `lutq_train.export`; of other networks, layers count one bias for each output where the outputs differ in bias
        or thresholds, and nothing otherwise.
    codebooks
        Which codebook each layer uses, by node name. By default layers of the same weight scale (the network's
        ``info``) or with equal dictionaries share one wherever that is smaller, and a 32-bit scale is added for every
        layer where scales differ within a codebook.
    """
    known = _known(network)
    floats = {name: entry["floats"] for name, entry in known.items() if "floats" in entry} if floats is None else floats
    nodes = [node for node in network.weighted if not known or "weights" in known.get(node.name, {})]
    layers = [_codes(network, node, floats.get(node.name)) for node in nodes]
    scales = {node.name: _scale(network, node.name) for node in nodes}
    if codebooks is not None:
        layers = [replace(layer, codebook=codebooks.get(layer.name, ("own", layer.name))) for layer in layers]
        return account(_with_scales(layers, scales), code)
    layers = _join(layers, scales, lambda group: scales[group[0].name], code)
    layers = _join(layers, scales, lambda group: tuple(np.unique(np.concatenate([x.symbols for x in group]))), code)
    return account(_with_scales(layers, scales), code)


def _known(network: Network) -> dict[str, dict[str, Any]]:
    """What the network's ``info`` says of its layers; those that export adds, like shortcuts, have no weight scale."""
    known = network.info.get("scales")
    return {name: entry for name, entry in known.items() if isinstance(entry, dict)} if isinstance(known, dict) else {}


def _codes(network: Network, node: WeightNode, floats: int | None) -> LayerCodes:
    book = node.weights
    if floats is None:
        bias = np.asarray(node.bias)
        differ = isinstance(node.step, Thresholds) and bool((node.step.values != node.step.values[:1]).any())
        floats = node.outputs if differ or bias.any() else 0
    if book.table is None and book.groups == 1:
        return LayerCodes(node.name, book.values, node.name, 0, floats)
    entries = book.table if book.dictionary is None else book.dictionary[:, None, :]
    group = np.broadcast_to(book.subgroups, book.assignments.shape).astype(np.int64)
    used = len(np.unique(group * book.entries + book.assignments))
    zeros = np.flatnonzero((np.asarray(entries) == 0).all(axis=(0, 1)))
    zero = int(zeros[0]) if len(zeros) else None
    return LayerCodes(node.name, book.assignments, node.name, zero, floats, values=used)


def _scale(network: Network, name: str) -> str | None:
    """The weight scale of a layer as text; None where the network does not tell."""
    scales = network.info.get("scales")
    layer = scales.get(name) if isinstance(scales, Mapping) else None
    found = layer.get("weights") if isinstance(layer, Mapping) else None
    return None if found is None else json.dumps(found)


def _join(layers: list[LayerCodes], scales: Mapping[str, str | None],
          key: Callable[[list[LayerCodes]], Hashable | None], code: str) -> list[LayerCodes]:
    """Let codebooks of equal keys be one where that is smaller; those with a number of values of their own never."""
    books: dict[Hashable, list[LayerCodes]] = {}
    for layer in layers:
        books.setdefault(layer.codebook, []).append(layer)
    alike: dict[Hashable, list[LayerCodes]] = {}
    for group in books.values():
        found = key(group) if group[0].values is None else None
        if found is not None:
            alike.setdefault(found, []).extend(group)
    joined: dict[str, Hashable] = {}
    for group in alike.values():
        together = [replace(layer, codebook=group[0].codebook) for layer in group]
        if account(_with_scales(together, scales), code).total < account(_with_scales(group, scales), code).total:
            joined.update({layer.name: group[0].codebook for layer in group})
    return [replace(layer, codebook=joined.get(layer.name, layer.codebook)) for layer in layers]


def _with_scales(layers: Sequence[LayerCodes], scales: Mapping[str, str | None]) -> list[LayerCodes]:
    """Scales that the 32-bit values of the codebooks cannot hold: of layers that differ, or of every channel."""
    different: dict[Hashable, set[str | None]] = {}
    members = Counter(layer.codebook for layer in layers)
    for layer in layers:
        different.setdefault(layer.codebook, set()).add(scales[layer.name])
    result = []
    for layer in layers:
        scale = json.loads(scales[layer.name] or "0")
        shared = members[layer.codebook] > 1 and (len(different[layer.codebook]) > 1 or scales[layer.name] is None)
        result.append(replace(layer, extra=len(scale) if isinstance(scale, list) else int(shared)))
    return result


class _Counted(NamedTuple):
    """Statistics of a layer; everything else follows from them."""

    layer: LayerCodes
    counts: dict[int, int]
    pruned: int
    gaps: np.ndarray

    @classmethod
    def of(cls, layer: LayerCodes) -> _Counted:
        symbols, counts = np.unique(layer.symbols, return_counts=True)
        found = dict(zip(symbols.tolist(), counts.tolist(), strict=True))
        pruned = 0 if layer.zero is None else found.get(layer.zero, 0)
        kept = np.flatnonzero(layer.symbols != layer.zero) if pruned else np.zeros(0, np.int64)
        return cls(layer, found, pruned, np.diff(kept, prepend=-1))

    def coded(self, sparse: bool) -> dict[int, int]:
        """How often each symbol is in the stream of values."""
        return {symbol: n for symbol, n in self.counts.items() if not (sparse and symbol == self.layer.zero)}


def _total(counted: Sequence[_Counted], sparse: Sequence[bool], code: str) -> Compression:
    streams = [layer.coded(skip) for layer, skip in zip(counted, sparse, strict=True)]
    books: dict[Hashable, list[int]] = {}
    for n, layer in enumerate(counted):
        books.setdefault(layer.layer.codebook, []).append(n)
    values, codebooks = [0] * len(counted), 0
    for members in books.values():
        together = Counter[int]()
        for n in members:
            together.update(streams[n])
        sizes = _lengths(together, code)
        for n in members:
            values[n] = sum(count * sizes[symbol] for symbol, count in streams[n].items())
        own = counted[members[0]].layer.values
        codebooks += FLOAT_BITS * (len(together) if own is None else own)
        codebooks += FLOAT_BITS * sum(counted[n].layer.extra for n in members)
        codebooks += sum(sizes.values()) if code == "huffman" else 0
    gaps = [layer.gaps if skip else None for layer, skip in zip(counted, sparse, strict=True)]
    positions, tables = _positions(gaps)
    sizes = tuple(LayerSize(layer.layer.name, len(layer.layer.symbols), len(layer.layer.symbols) - layer.pruned, skip,
                            _entropy(stream.values()), bits, places, FLOAT_BITS * layer.layer.floats)
                  for layer, skip, stream, bits, places
                  in zip(counted, sparse, streams, values, positions, strict=True))
    original = FLOAT_BITS * sum(len(layer.layer.symbols) + layer.layer.floats for layer in counted)
    return Compression(sizes, original, codebooks, tables, code)


def _lengths(counts: Mapping[int, int], code: str) -> dict[int, int]:
    """Bits of the codeword of every symbol."""
    symbols = sorted(counts)
    if code == "fixed":
        return dict.fromkeys(symbols, math.ceil(math.log2(len(symbols))) if symbols else 0)
    found = lengths(np.array([counts[symbol] for symbol in symbols], np.int64))
    return dict(zip(symbols, found.tolist(), strict=True))


def _positions(gaps: Sequence[np.ndarray | None]) -> tuple[list[int], int]:
    """Bits of the positions of every layer, and of the code tables: one code for all layers, or one for each."""
    present = [gap for gap in gaps if gap is not None]
    if not present:
        return [0] * len(gaps), 0
    common = min((_coded(present, width) for width in WIDTHS), key=lambda found: sum(found[0]) + found[1])
    single = [min((_coded([gap], width) for width in WIDTHS), key=lambda found: found[0][0] + found[1])
              for gap in present]
    apart = [bits[0] for bits, _ in single], sum(size for _, size in single)
    streams, tables = min(common, apart, key=lambda found: sum(found[0]) + found[1])
    each = iter(streams)
    return [0 if gap is None else next(each) for gap in gaps], tables


def _coded(gaps: Sequence[np.ndarray], width: int) -> tuple[list[int], int]:
    """Bits of each layer's differences, and of the table, with one code for symbols of ``width`` bits.

    Symbol d - 1 is a difference of d places, 1 to 2^width - 1; the last symbol skips that many without a weight.
    """
    reach = (1 << width) - 1
    histograms = []
    for gap in gaps:
        skips, rest = np.divmod(gap - 1, reach)
        histogram = np.bincount(rest, minlength=reach + 1)
        histogram[reach] = skips.sum()
        histograms.append(histogram)
    together = np.sum(histograms, axis=0)
    sizes = lengths(together).astype(np.int64)
    table_bits = int((sizes + width)[together > 0].sum())
    return [int((histogram * sizes).sum()) for histogram in histograms], table_bits


def _entropy(counts: Iterable[int]) -> float:
    p = np.array([n for n in counts if n], np.float64)
    p /= max(1.0, p.sum())
    return float(-(p * np.log2(p)).sum()) + 0.0
