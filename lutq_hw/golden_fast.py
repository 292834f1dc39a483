"""The values of `golden`, faster: sums through matrix multiplication, steps through look-up.

A matrix product of floats is exact as long as no partial sum can reach ``2**24`` (float32) or ``2**53`` (float64),
whatever the order of summation. The bound is Σ|largest product| of each output, computed from the weights; the limits
of the network types (values up to 2**20, codes of 8 bits, 2**24 terms) keep it below ``2**53`` always.
"""

from __future__ import annotations

import numpy as np

from . import golden
from .network import Conv2d, Dense, Input, MaxPool2d, Network, Node, TensorType, WeightNode
from .network.tensor import Ints

BUDGET = 1 << 23
"""Elements that the largest intermediate array of a batch may hold."""

MAX_STEP_TABLE = 1 << 22
"""Largest number of entries of a step function's look-up table."""


def batch_size(network: Network) -> int:
    """Frames per batch that keep every intermediate array near `BUDGET` elements."""
    largest = 1
    for node in network.nodes:
        size = network.types[node.name].size
        if isinstance(node, Conv2d):
            size = max(size, size // node.outputs * node.terms * node.groups)
        elif isinstance(node, MaxPool2d):
            size *= 2
        largest = max(largest, size)
    return max(1, min(1024, BUDGET // largest))


class FastNetwork:
    """A network prepared for many frames.

    Raises
    ------
    InputError
        From `run`, as `golden.run` does.
    """

    def __init__(self, network: Network):
        self.network = network
        self._layers = {node.name: _Layer(node, network.input_type(node)) for node in network.weighted}

    def run(self, codes: Ints) -> dict[str, Ints]:
        """Result of every node, equal to ``golden.run(network, codes)``."""
        results: dict[str, Ints] = {self.network.input.name: golden.check_codes(self.network, codes)}
        for node in self.network.nodes:
            if not isinstance(node, Input):
                results[node.name] = self._compute(node, results)
        return results

    def _compute(self, node: Node, results: dict[str, Ints]) -> Ints:
        if isinstance(node, Dense | Conv2d):
            return self._layers[node.name](results[node.inputs[0]])
        if isinstance(node, MaxPool2d):
            return _max_pool2d(node, results[node.inputs[0]], self.network.input_type(node))
        return golden.compute(self.network, node, results)


def _max_pool2d(node: MaxPool2d, codes: Ints, x: TensorType) -> Ints:
    """Maximum window position by window position, in memory order, instead of along two inner axes."""
    assert node.stride is not None
    view = golden.windows(codes, node.kernel, node.stride, node.padding, fill=x.min)
    result = view[..., 0, 0, :].copy()
    for y in range(node.kernel[0]):
        for column in range(node.kernel[1]):
            np.maximum(result, view[..., y, column, :], out=result)
    return result


def largest_sum(node: WeightNode, x: TensorType) -> int:
    """Largest magnitude that any partial sum of any output can reach, in any order of summation, without bias."""
    peaks = np.abs(node.weights.products(x)).max(axis=1)
    group = node.weights.subgroups.reshape(-1)
    return max(int(peaks[group, index.reshape(-1)].sum()) for index in node.weights.assignments)


class _Layer:
    """One weight layer: matrices for the sums, a table for the step."""

    def __init__(self, node: WeightNode, x: TensorType):
        self._node, self._x = node, x
        self._groups = node.groups if isinstance(node, Conv2d) else 1
        bound = largest_sum(node, x)
        assert bound < 1 << 53, "the limits of the network types exclude this"
        self._dtype = np.float32 if bound < 1 << 24 else np.float64
        outputs = node.outputs // self._groups
        if node.weights.table is None:
            values = node.weights.values.reshape(self._groups, outputs, node.terms).transpose(0, 2, 1)
            self._lookups: list[np.ndarray | None] = [None]
            self._matrices = [values.astype(self._dtype)]
        else:
            # acc = Σ_k T[:, k][codes] @ (w == k): one gather and one product for each dictionary index.
            index = node.weights.assignments.reshape(self._groups, outputs, node.terms).transpose(0, 2, 1)
            products = node.weights.products(x)[node.weights.subgroups.reshape(-1)].astype(self._dtype)
            entries = range(node.weights.entries)
            self._lookups = [np.ascontiguousarray(products[:, :, k]) for k in entries]
            self._matrices = [(index == k).astype(self._dtype) for k in entries]
        self._prepare_step()

    def _prepare_step(self) -> None:
        """Codes of every accumulator that the layer can produce, if their number is moderate."""
        low, high = (bound + self._node.bias for bound in self._node.sum_range(self._x))
        span = int((high - low).max()) + 1
        self._codes = None
        if self._node.step is not None and span * len(low) <= MAX_STEP_TABLE:
            self._codes = self._node.step.apply(low + np.arange(span)[:, None]).T.reshape(-1)
            self._offset = np.arange(len(low)) * span - low + self._node.bias

    def __call__(self, codes: Ints) -> Ints:
        node = self._node
        if isinstance(node, Dense):
            return self._finish(self._sums(codes, 0))
        codes = codes.astype(self._dtype if node.weights.table is None else np.int64)
        view = golden.windows(codes, node.kernel, node.stride, node.padding, fill=0)
        count, height, width = view.shape[:3]
        result = np.empty((count, height, width, node.outputs), np.int64)
        rows = max(1, BUDGET // (count * width * node.terms))
        channels = self._x.channels // self._groups
        for top in range(0, height, rows):
            block = view[:, top:top + rows]
            parts = [self._sums(block[..., group * channels:(group + 1) * channels].reshape(-1, node.terms), group)
                     for group in range(self._groups)]
            acc = parts[0] if self._groups == 1 else np.concatenate(parts, axis=1)
            result[:, top:top + rows] = self._finish(acc).reshape(*block.shape[:3], node.outputs)
        return result

    def _sums(self, terms: np.ndarray, group: int) -> np.ndarray:
        """``(M, O / groups)`` sums of ``terms (M, J)``, without bias."""
        total: np.ndarray | None = None
        for lookup, matrix in zip(self._lookups, self._matrices, strict=True):
            if lookup is None:
                x = terms.astype(self._dtype, copy=False)
            else:
                x = lookup[np.arange(terms.shape[1]), terms - self._x.min]
            total = x @ matrix[group] if total is None else total + x @ matrix[group]
        assert total is not None
        return total

    def _finish(self, sums: np.ndarray) -> Ints:
        """Bias and step of ``sums (M, O)``."""
        acc = sums.astype(np.int64)
        if self._codes is not None:
            acc += self._offset
            return self._codes[acc]
        acc += self._node.bias
        return golden.stepped(self._node, acc)
