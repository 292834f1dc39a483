"""Random small networks for tests of every stage; print the seed of the generator when a test fails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lutq_hw.network import (
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Network,
    Node,
    Output,
    Shift,
    TensorType,
    Thresholds,
)
from lutq_hw.network.steps import Step
from lutq_hw.network.tensor import Ints


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What `random_network` may use; the defaults reach every feature of the format."""

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


def random_network(rng: np.random.Generator, limits: Limits | None = None) -> Network:
    """A valid network: an input map or vector, up to a few layers of each kind, scores or argmax."""
    limits = Limits() if limits is None else limits
    nodes: list[Node] = []
    x = _input_type(rng, limits)
    encode = rng.integers(x.min, x.max + 1, 256) if rng.random() < 0.5 else None
    nodes.append(Input("image", x, encode))
    if len(x.shape) == 3:
        for number in range(int(rng.integers(1, limits.map_layers + 1))):
            node = _map_layer(rng, limits, x, nodes[-1].name, number)
            x = node.output(x)
            nodes.append(node)
        flat = Flatten("flat", nodes[-1].name)
        x = flat.output(x)
        nodes.append(flat)
    least = 0 if any(isinstance(node, Conv2d) for node in nodes) else 1
    count = int(rng.integers(least, limits.dense_layers + 1))
    for number in range(count):
        last = number == count - 1
        node = _dense(rng, limits, x, nodes[-1].name, f"dense{number}", raw=last and rng.random() < 0.7)
        x = node.output(x)
        nodes.append(node)
    nodes.append(Output("out", nodes[-1].name, "argmax" if rng.random() < 0.4 else "scores"))
    return Network("random", tuple(nodes), {"generated": True})


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


def random_step(rng: np.random.Generator, limits: Limits, codebook: Codebook, bias: Ints, x: TensorType) -> Step:
    """Thresholds (some descending, some out of reach) or a shift, spread over what the layer can produce."""
    bits, signed = int(rng.integers(1, limits.bits + 1)), bool(rng.random() < 0.3)
    low, high = (bound + bias for bound in codebook.sum_range(x))
    if rng.random() < 0.3:
        wide = int(max(abs(low.min()), abs(high.max()), 1)).bit_length()
        return Shift(int(np.clip(wide - bits + rng.integers(-2, 2), 0, 31)), bits, signed)
    full = (1 << bits) - 1
    count = full if rng.random() < 0.7 else int(rng.integers(1, full + 1))
    values = np.sort(rng.integers(low[:, None] - 2, high[:, None] + 3, (len(low), count)), axis=1)
    return Thresholds(values, bits, signed, rng.integers(0, 2, len(low)) if rng.random() < 0.5 else None)


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
    step = random_step(rng, limits, codebook, bias, x)
    return Conv2d(f"conv{number}", source, codebook, bias, step, stride=stride, padding=padding, groups=groups)


def _dense(rng: np.random.Generator, limits: Limits, x: TensorType, source: str, name: str, *, raw: bool) -> Dense:
    outputs = int(rng.integers(1, 2 * limits.channels + 1))
    codebook = random_codebook(rng, limits, (outputs, x.size), x)
    bias = rng.integers(-50, 51, outputs)
    return Dense(name, source, codebook, bias, None if raw else random_step(rng, limits, codebook, bias, x))
