"""Random small networks for tests of every stage; print the seed of the generator when a test fails."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lutq_hw.network import (
    ActivationTable,
    Add,
    AvgPool2d,
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Network,
    Node,
    Output,
    Requantize,
    Shift,
    TensorType,
    Thresholds,
)
from lutq_hw.network.steps import Step
from lutq_hw.network.tensor import Ints


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What `random_network` may use; the defaults reach every feature of version 1 of the format, all of hardware."""

    extent: int = 8
    """Largest height and width of the input map."""
    channels: int = 6
    """Largest number of channels of any map; vectors have up to twice as many."""
    map_layers: int = 3
    dense_layers: int = 2
    bits: int = 8
    """Widest activation code."""
    entries: int = 9
    """Largest dictionary."""
    value: int = 127
    """Largest magnitude of a dictionary value."""
    tables: bool = True
    """Layers with a product table instead of a dictionary."""
    subgroups: bool = True
    """Layers with several subgroups."""
    maps: bool = True
    """Networks that begin with a map; False: dense layers only."""
    activation_tables: str = ""
    """Steps that are activation tables: none, ``monotone`` ones or ``any``."""
    graph: bool = False
    """Residual adds, average pools and requantise nodes between the layers, activation tables."""


def random_network(rng: np.random.Generator, limits: Limits | None = None) -> Network:
    """A valid network: an input map or vector, up to a few layers of each kind, scores, argmax or top-k."""
    limits = Limits() if limits is None else limits
    if limits.graph and not limits.activation_tables:
        limits = replace(limits, activation_tables="any")
    x = _input_type(rng, limits)
    encode = rng.integers(x.min, x.max + 1, 256) if rng.random() < 0.5 else None
    graph = Graph(Input("image", x, encode))
    if len(x.shape) == 3:
        for number in range(int(rng.integers(1, limits.map_layers + 1))):
            graph.put(_map_layer(rng, limits, graph.type, graph.last, number))
            _joins(rng, limits, graph)
        graph.put(Flatten("flat", graph.last))
    least = 0 if any(isinstance(node, Conv2d) for node in graph.nodes) else 1
    count = int(rng.integers(least, limits.dense_layers + 1))
    for number in range(count):
        last = number == count - 1
        raw = last and rng.random() < 0.7
        graph.put(_dense(rng, limits, graph.type, graph.last, f"dense{number}", raw=raw))
        _joins(rng, limits, graph, raw=raw)
    top = f"top{rng.integers(1, min(graph.type.size, 4) + 1)}"
    graph.put(Output("out", graph.last, str(rng.choice(["argmax", top])) if rng.random() < 0.4 else "scores"))
    return Network("random", tuple(graph.nodes), {"generated": True})


class Graph:
    """Nodes put one behind the other, with the type of every result so far."""

    def __init__(self, first: Input):
        self.nodes: list[Node] = [first]
        self.types: dict[str, TensorType] = {first.name: first.type}

    @property
    def last(self) -> str:
        """Name of the last node."""
        return self.nodes[-1].name

    @property
    def type(self) -> TensorType:
        """Type of the last node's result."""
        return self.types[self.last]

    def put(self, node: Node) -> None:
        """Add ``node``."""
        self.types[node.name] = node.output(*(self.types[name] for name in node.inputs))
        self.nodes.append(node)


def random_codes(rng: np.random.Generator, network: Network, count: int) -> Ints:
    """``(count, *shape)`` input codes over the whole range of the input type."""
    x = network.input.type
    return rng.integers(x.min, x.max + 1, (count, *x.shape))


def random_codebook(rng: np.random.Generator, limits: Limits, shape: tuple[int, ...], x: TensorType) -> Codebook:
    """A codebook of assignments ``shape`` for activations ``x``: any K, subgroups and tables included."""
    entries = int(rng.integers(1, limits.entries + 1))
    groups = int(rng.integers(2, 5)) if limits.subgroups and rng.random() < 0.25 else 1
    assignments = rng.integers(0, entries, shape)
    subgroups = rng.integers(0, groups, shape[1:]) if groups > 1 else None
    if limits.tables and rng.random() < 0.2:
        table = rng.integers(-limits.value, limits.value + 1, (groups, len(x.levels), entries))
        return Codebook(assignments, table=table, subgroups=subgroups)
    style = rng.integers(3)
    if style == 0:  # powers of two with a zero
        dictionary = (1 << rng.integers(0, limits.value.bit_length(), (groups, entries))) * rng.choice((-1, 1), entries)
        dictionary[:, 0] = 0
    elif style == 1:  # small, so that zeros, ones and repeated values are common
        dictionary = rng.integers(-2, 3, (groups, entries))
    else:
        dictionary = rng.integers(-limits.value, limits.value + 1, (groups, entries))
    return Codebook(assignments, dictionary, subgroups=subgroups)


def random_step(rng: np.random.Generator, limits: Limits, low: Ints, high: Ints) -> Step:
    """Thresholds (some descending, some out of reach), a shift or a table, over sums from ``low`` to ``high (C,)``."""
    bits, signed = int(rng.integers(1, limits.bits + 1)), bool(rng.random() < 0.3)
    wide = int(max(abs(low.min()), abs(high.max()), 1)).bit_length()
    if limits.activation_tables and rng.random() < 0.3:
        return random_table(rng, wide, bits, signed, monotone=limits.activation_tables == "monotone")
    if rng.random() < 0.3:
        return Shift(int(np.clip(wide - bits + rng.integers(-2, 2), 0, 31)), bits, signed)
    full = (1 << bits) - 1
    count = full if rng.random() < 0.7 else int(rng.integers(1, full + 1))
    values = np.sort(rng.integers(low[:, None] - 2, high[:, None] + 3, (len(low), count)), axis=1)
    return Thresholds(values, bits, signed, rng.integers(0, 2, len(low)) if rng.random() < 0.5 else None)


def random_table(rng: np.random.Generator, wide: int, bits: int, signed: bool, *, monotone: bool) -> ActivationTable:
    """An activation table for sums of about ``wide`` bits: rising, falling, constant or of any form."""
    least = -(1 << bits - 1) if signed else 0
    values = rng.integers(least, least + (1 << bits), int(rng.integers(1, 70)))
    form = rng.integers(3 if monotone else 4)
    values = [np.sort(values), np.sort(values)[::-1], np.full_like(values, values[0]), values][form]
    shift = wide - len(values).bit_length() + rng.integers(-2, 2)
    return ActivationTable(values, int(np.clip(shift, 0, 31)), bits, signed)


def _node_step(rng: np.random.Generator, limits: Limits, node: Add | AvgPool2d, types: list[TensorType]) -> Step | None:
    if rng.random() < 0.4:
        return None
    low, high = (np.full(types[0].channels, bound) for bound in node.sum_range(*types))
    return random_step(rng, limits, low, high)


def _joins(rng: np.random.Generator, limits: Limits, graph: Graph, *, raw: bool = False) -> None:
    """Up to two nodes without weights behind the last one; codes narrow enough for a layer unless ``raw``."""
    for _ in range(2 if limits.graph else 0):
        x, source, name = graph.type, graph.last, f"n{len(graph.nodes)}"
        match rng.integers(6):
            case 0 if len(x.shape) == 3:
                pool = AvgPool2d(name, source, *_window(rng, x))
                graph.put(replace(pool, step=_node_step(rng, limits, pool, [x])))
            case 1 | 2:
                alike = [other for other, t in graph.types.items() if t.shape == x.shape and t.bits <= 16]
                others = [str(other) for other in rng.choice(alike or [source], int(rng.integers(1, 4)))]
                shifts = tuple(int(s) for s in rng.integers(0, 4, len(others) + 1)) if rng.random() < 0.5 else ()
                add = Add(name, (source, *others), shifts)
                graph.put(replace(add, step=_node_step(rng, limits, add, [graph.types[n] for n in add.inputs])))
            case 3:
                graph.put(_requantize(rng, limits, graph))
            case _:
                continue
    if limits.graph and not raw and graph.type.bits > limits.bits:
        graph.put(_requantize(rng, limits, graph))


def _requantize(rng: np.random.Generator, limits: Limits, graph: Graph) -> Requantize:
    x = graph.type
    low, high = (np.full(x.channels, bound) for bound in (x.min, x.max))
    return Requantize(f"n{len(graph.nodes)}", graph.last, random_step(rng, limits, low, high))


def residual_network(rng: np.random.Generator, *, blocks: int = 3, width: int = 16, extent: int = 32) -> Network:
    """A ResNet of ``6 * blocks + 2`` layers for ``extent`` x ``extent`` x 3 pixels: 4-bit codebooks, 8-bit residuals.

    Every convolution reads 4-bit codes; what the adds join has 8 bits, reached by 255 thresholds for each channel.
    """
    graph = Graph(Input("image", TensorType((extent, extent, 3), 8), np.arange(256)))

    def thresholds(low: Ints, high: Ints, bits: int) -> Thresholds:
        middle, half = (low + high) // 2, np.maximum((high - low) // 6, 1)
        values = rng.integers((middle - half)[:, None], (middle + half)[:, None], (len(low), (1 << bits) - 1))
        return Thresholds(np.sort(values, axis=1), bits)

    def conv(name: str, source: str, outputs: int, kernel: int, stride: int, bits: int) -> None:
        x = graph.types[source]
        weights = Codebook(rng.integers(0, 16, (outputs, kernel, kernel, x.channels)), np.arange(-8, 8))
        bias = rng.integers(-50, 51, outputs)
        low, high = (bound + bias for bound in weights.sum_range(x))
        graph.put(Conv2d(name, source, weights, bias, thresholds(low, high, bits), stride=(stride, stride),
                         padding=(kernel // 2, kernel // 2)))

    def requantize(name: str) -> None:
        x = graph.type
        bounds = np.full(x.channels, x.min), np.full(x.channels, x.max)
        graph.put(Requantize(name, graph.last, thresholds(*bounds, 4)))

    conv("conv", "image", width, 3, 1, 8)
    for stage in range(3):
        for block in range(blocks):
            name, shortcut = f"s{stage}b{block}", graph.last
            stride, channels = 2 if stage and not block else 1, width << stage
            requantize(f"{name}_in")
            entry = graph.last
            if stride == 2:
                conv(f"{name}_short", entry, channels, 1, stride, 8)
                shortcut = graph.last
            conv(f"{name}_1", entry, channels, 3, stride, 4)
            conv(f"{name}_2", graph.last, channels, 3, 1, 8)
            low, high = np.zeros(channels, np.int64), np.full(channels, 3 * 255)
            graph.put(Add(f"{name}_add", (graph.last, shortcut), (1, 0), thresholds(low, high, 8)))
    height, width, channels = graph.type.map_shape
    graph.put(AvgPool2d("pool", graph.last, (height, width), step=Shift(6, 8)))
    graph.put(Flatten("flat", graph.last))
    weights = Codebook(rng.integers(0, 16, (10, channels)), np.arange(-8, 8))
    graph.put(Dense("scores", "flat", weights, rng.integers(-50, 51, 10)))
    graph.put(Output("out", "scores"))
    return Network("residual", tuple(graph.nodes))


def _input_type(rng: np.random.Generator, limits: Limits) -> TensorType:
    bits, signed = int(rng.integers(1, limits.bits + 1)), bool(rng.random() < 0.3)
    if not limits.maps or rng.random() < 0.2:
        return TensorType((int(rng.integers(1, 2 * limits.channels + 1)),), bits, signed)
    height, width = (int(n) for n in rng.integers(2, limits.extent + 1, 2))
    return TensorType((height, width, int(rng.integers(1, limits.channels // 2 + 1))), bits, signed)


def _window(rng: np.random.Generator, x: TensorType) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Kernel, stride and padding that fit ``x``, each axis on its own half of the time."""
    square = rng.random() < 0.5
    axes = []
    for size in x.map_shape[:2]:
        padding = int(rng.integers(0, 3))
        kernel = int(rng.integers(padding + 1, max(padding + 1, min(5, size + 2 * padding)) + 1))
        axes.append((kernel, int(rng.integers(1, 4)), padding) if kernel <= size + 2 * padding else (1, 1, 0))
    if square:
        fits = all(axes[0][0] <= size + 2 * axes[0][2] for size in x.map_shape[:2])
        axes = [axes[0], axes[0]] if fits else axes
    (kh, sh, ph), (kw, sw, pw) = axes
    return (kh, kw), (sh, sw), (ph, pw)


def _map_layer(rng: np.random.Generator, limits: Limits, x: TensorType, source: str, number: int) -> Conv2d | MaxPool2d:
    kernel, stride, padding = _window(rng, x)
    if rng.random() < 0.25:
        return MaxPool2d(f"pool{number}", source, kernel, stride, padding)
    divisors = [n for n in range(1, x.channels + 1) if x.channels % n == 0]
    groups = int(rng.choice(divisors)) if rng.random() < 0.4 else 1
    outputs = groups * int(rng.integers(1, max(1, limits.channels // groups) + 1))
    codebook = random_codebook(rng, limits, (outputs, *kernel, x.channels // groups), x)
    bias = rng.integers(-50, 51, outputs)
    step = random_step(rng, limits, *(bound + bias for bound in codebook.sum_range(x)))
    return Conv2d(f"conv{number}", source, codebook, bias, step, stride=stride, padding=padding, groups=groups)


def _dense(rng: np.random.Generator, limits: Limits, x: TensorType, source: str, name: str, *, raw: bool) -> Dense:
    outputs = int(rng.integers(1, 2 * limits.channels + 1))
    codebook = random_codebook(rng, limits, (outputs, x.size), x)
    bias = rng.integers(-50, 51, outputs)
    step = None if raw else random_step(rng, limits, *(bound + bias for bound in codebook.sum_range(x)))
    return Dense(name, source, codebook, bias, step)
