"""The values of `golden`, faster: sums through matrix multiplication, steps through look-up.

A matrix product of floats is exact as long as no partial sum can reach ``2**24`` (float32) or ``2**53`` (float64),
whatever the order of summation. The bound is Σ|largest product| of each output, computed from the weights; the limits
of the network types (values up to 2**20, codes of 8 bits, 2**24 terms) keep it below ``2**53`` always.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np

from . import golden
from .network import Add, AvgPool2d, Conv2d, Dense, Input, MaxPool2d, Network, Node, Requantize, TensorType, WeightNode
from .network.tensor import Ints
from .step_tables import StepFunction, code_type, step_function

BUDGET = 1 << 23
"""Elements that the largest array of a batch may hold."""

BLOCK = 1 << 18
"""Elements of the windows that are multiplied at a time: few enough to stay in a processor's cache."""


Plane = tuple[np.ndarray | None, np.ndarray]
"""A function of the activation as a table and a matrix; see `_Layer`."""


def batch_size(network: Network) -> int:
    """Frames per batch that keep every array near `BUDGET` elements, even if windows were held whole.

    They are not, but a batch of that size passes from layer to layer without leaving a large cache.
    """
    largest = 1
    for node in network.nodes:
        size = network.types[node.name].size
        if isinstance(node, Conv2d):
            size = max(size, size // node.outputs * node.terms * node.groups)
        elif isinstance(node, MaxPool2d | AvgPool2d):
            size *= 2
        largest = max(largest, size)
    return max(1, min(1024, BUDGET // largest))


class FastNetwork:
    """A network prepared for many frames.

    Raises
    ------
    InputError
        From `run` and `output`, as `golden.run` does.
    """

    def __init__(self, network: Network):
        self.network = network
        self._layers = {node.name: _Layer(node, network.input_type(node)) for node in network.weighted}
        self._steps = {node.name: _step_of(network, node) for node in network.nodes
                       if isinstance(node, Add | AvgPool2d | Requantize)}
        last = {name: node.name for node in network.nodes for name in node.inputs}
        self._spent = {node.name: [name for name in dict.fromkeys(node.inputs) if last[name] == node.name]
                       for node in network.nodes}

    def run(self, codes: Ints) -> dict[str, Ints]:
        """Result of every node, equal to ``golden.run(network, codes)``."""
        results = self._run(codes, keep=True)
        return {name: values.astype(np.int64, copy=False) for name, values in results.items()}

    def output(self, codes: Ints) -> Ints:
        """Result of the output node alone; other results are let go as soon as nothing reads them any more."""
        return self._run(codes, keep=False)[self.network.output.name].astype(np.int64, copy=False)

    def _run(self, codes: Ints, *, keep: bool) -> dict[str, Ints]:
        """Results in any integer type that holds them."""
        results: dict[str, Ints] = {self.network.input.name: golden.check_codes(self.network, codes)}
        for node in self.network.nodes:
            if not isinstance(node, Input):
                results[node.name] = self._compute(node, results)
                for name in [] if keep else self._spent[node.name]:
                    del results[name]
        return results

    def _compute(self, node: Node, results: dict[str, Ints]) -> Ints:
        first = results[node.inputs[0]]
        match node:
            case Dense() | Conv2d():
                return self._layers[node.name](first)
            case MaxPool2d():
                return _max_pool2d(node, first, self.network.input_type(node))
            case AvgPool2d():
                return self._steps[node.name](_window_sums(node, first))
            case Add():
                acc = first.astype(np.int64) << node.shifts[0]
                for name, shift in zip(node.inputs[1:], node.shifts[1:], strict=True):
                    acc += results[name].astype(np.int64) << shift if shift else results[name]
                return self._steps[node.name](acc)
            case Requantize():
                return self._steps[node.name](first.astype(np.int64))
            case _:
                return golden.compute(self.network, node, results)


def _step_of(network: Network, node: Add | AvgPool2d | Requantize) -> StepFunction:
    """The step of a node without weights, prepared for the range of its sums."""
    types = network.input_types(node)
    low, high = (types[0].min, types[0].max) if isinstance(node, Requantize) else node.sum_range(*types)
    channels = types[0].channels
    return step_function(node.step, np.full(channels, low), np.full(channels, high), np.zeros(channels, np.int64))


def _max_pool2d(node: MaxPool2d, codes: Ints, x: TensorType) -> Ints:
    """Maximum window position by window position, in memory order, instead of along two inner axes."""
    assert node.stride is not None
    view = golden.windows(codes, node.kernel, node.stride, node.padding, fill=x.min)
    result = view[..., 0, 0, :].copy()
    for y in range(node.kernel[0]):
        for column in range(node.kernel[1]):
            np.maximum(result, view[..., y, column, :], out=result)
    return result


def _window_sums(node: AvgPool2d, codes: Ints) -> Ints:
    """Sums in the same way."""
    assert node.stride is not None
    view = golden.windows(codes, node.kernel, node.stride, node.padding, fill=0)
    result = np.zeros(view[..., 0, 0, :].shape, np.int64)
    for y in range(node.kernel[0]):
        for column in range(node.kernel[1]):
            result += view[..., y, column, :]
    return result


def largest_sum(node: WeightNode, x: TensorType) -> int:
    """Largest magnitude that any partial sum of any output can reach, in any order of summation, without bias."""
    peaks = np.abs(node.weights.products(x)).max(axis=1)
    group = node.weights.subgroups.reshape(-1)
    return max(int(peaks[group, index.reshape(-1)].sum()) for index in node.weights.assignments)


class _Layer:
    """One weight layer: planes for the sums, a table for the step.

    A plane is a function of the activation (``None``: the code itself) and a matrix ``(groups, J, O / groups)``; the
    sums are those of all planes. A dictionary has one plane. A product table has one for each column that is neither zero
    nor another one's negative, ``acc = Σ_k T[a, k] @ (w == k)``, and those for each subgroup.
    """

    def __init__(self, node: WeightNode, x: TensorType):
        self._node, self._x = node, x
        self._groups = node.groups if isinstance(node, Conv2d) else 1
        bound = largest_sum(node, x)
        assert bound < 1 << 53, "the limits of the network types exclude this"
        self._dtype = np.float32 if bound < 1 << 24 else np.float64
        if node.weights.table is None:
            self._planes: list[Plane] = [(None, self._matrix(node.weights.values))]
        else:
            self._planes = self._table_planes(node.weights.assignments, node.weights.subgroups, node.weights.products(x))
        low, high = (bound + node.bias for bound in node.sum_range(x))
        self._step = step_function(node.step, low, high, node.bias)
        self._result_type = np.int64 if node.step is None else code_type(node.step)

    def _matrix(self, weights: np.ndarray) -> np.ndarray:
        """``(O, ...)`` as ``(groups, J, O / groups)``."""
        shape = self._groups, self._node.outputs // self._groups, self._node.terms
        return np.ascontiguousarray(weights.reshape(shape).transpose(0, 2, 1), dtype=self._dtype)

    def _table_planes(self, index: Ints, subgroups: Ints, products: Ints) -> list[Plane]:
        signs: dict[bytes, np.ndarray] = {}
        for group, table in enumerate(products):
            for k, column in enumerate(table.T):
                mine, flipped = column.tobytes(), (-column).tobytes()
                used = (index == k) & (subgroups == group)
                if column.any() and used.any():
                    key, sign = (flipped, -1) if flipped in signs else (mine, 1)
                    signs[key] = signs.get(key, np.zeros(index.shape, np.int8)) + np.int8(sign) * used
        planes: list[Plane] = [
            (np.frombuffer(key, np.int64).astype(self._dtype), self._matrix(sign)) for key, sign in signs.items()]
        return planes or [(None, self._matrix(np.zeros(index.shape)))]

    def __call__(self, codes: Ints) -> Ints:
        node = self._node
        if isinstance(node, Dense):
            return self._step(reduce(np.add, (x @ m[0] for x, m in self._activations(codes))).astype(np.int64))
        padded = np.pad(codes, ((0, 0), *((p, p) for p in node.padding), (0, 0)))
        (kernel, step), (height, width, _) = (node.kernel[0], node.stride[0]), node.output(self._x).shape
        result = np.empty((len(codes), height, width, node.outputs), self._result_type)
        frames = max(1, BLOCK // (height * width * node.terms * self._groups))
        rows = max(1, BLOCK // (min(frames, len(codes)) * width * node.terms * self._groups))
        for begin in range(0, len(codes), frames):
            for top in range(0, height, rows):
                end = min(top + rows, height)
                slab = padded[begin:begin + frames, top * step:(end - 1) * step + kernel]
                result[begin:begin + frames, top:end] = self._slab(slab)
        return result

    def _activations(self, codes: Ints) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What every plane makes of the codes, and its matrix."""
        rows = None
        for values, matrix in self._planes:
            if values is None:
                yield codes.astype(self._dtype), matrix
            else:
                rows = codes.astype(np.intp) - self._x.min if rows is None else rows
                yield values[rows], matrix

    def _slab(self, codes: Ints) -> Ints:
        """Result ``(N, H', W', O)`` of padded rows ``(N, rows, W, C)``."""
        node = self._node
        assert isinstance(node, Conv2d)
        total: np.ndarray | None = None
        for x, matrix in self._activations(codes):
            view = golden.windows(x, node.kernel, node.stride, (0, 0), fill=0)
            depthwise = matrix.shape[2] * self._x.channels == self._groups
            sums = _depthwise(view, matrix) if depthwise else _grouped(view, matrix)
            total = sums if total is None else np.add(total, sums, out=total)
        assert total is not None
        return self._step(total.astype(np.int64))


def _depthwise(view: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Sums of windows ``(N, H', W', kh, kw, C)``, one output for each channel, position by position."""
    total = np.zeros((*view.shape[:3], view.shape[-1]), view.dtype)
    weights = matrix[:, :, 0].T.reshape(*view.shape[3:])
    for y, column in np.ndindex(view.shape[3:5]):
        total += view[..., y, column, :] * weights[y, column]
    return total


def _grouped(view: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Sums ``(N, H', W', O)`` of windows, a matrix product for each group."""
    groups, terms, _ = matrix.shape
    channels = view.shape[-1] // groups
    parts = [view[..., group * channels:(group + 1) * channels].reshape(-1, terms) @ matrix[group]
             for group in range(groups)]
    return (parts[0] if groups == 1 else np.concatenate(parts, axis=1)).reshape(*view.shape[:3], -1)
