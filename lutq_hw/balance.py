"""Output channels in another order, so that lanes which work side by side have about the same number of terms.

The order of a layer's channels means nothing to the hardware as long as whoever reads them knows it: the reader's weights
are put into the same order when the hardware is built. Results that leave the accelerator, or that nodes other than
weight layers combine, keep their order.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .network import Codebook, Conv2d, Dense, Flatten, MaxPool2d, Network, Node, TensorType, Thresholds, WeightNode
from .network.tensor import Ints


def free_order(network: Network, node: Node) -> bool:
    """Whether everybody who reads the result of ``node`` can take its channels in any order."""
    return all(_takes_any_order(network, reader) for reader in network.consumers(node.name))


def _takes_any_order(network: Network, reader: Node) -> bool:
    match reader:
        case Dense():
            return True
        case Conv2d():
            return reader.groups == 1
        case Flatten() | MaxPool2d():
            return free_order(network, reader)
        case _:
            return False


def by_length(lengths: Ints) -> Ints:
    """Order in which groups of neighbours have the least sum of their longest: longest first, ties as they were."""
    return np.argsort(-lengths, kind="stable")


def with_outputs(node: WeightNode, order: Ints) -> WeightNode:
    """``node`` with output channel ``order[i]`` in place ``i``."""
    step = node.step
    if isinstance(step, Thresholds):
        step = replace(step, values=step.values[order], descending=step.descending[order])
    weights = replace(node.weights, assignments=node.weights.assignments[order])
    return replace(node, weights=weights, bias=node.bias[order], step=step)


def with_inputs(node: WeightNode, order: Ints) -> WeightNode:
    """``node`` for an input whose channel ``order[i]`` has come to place ``i``."""
    book = node.weights
    weights = Codebook(book.assignments[..., order], book.dictionary, book.table, book.subgroups[..., order])
    return replace(node, weights=weights)


def flattened(order: Ints, x: TensorType) -> Ints:
    """Order of the elements of a vector that was a map of type ``x`` with channels in ``order``."""
    pixels = x.size // x.channels
    return (np.arange(pixels)[:, None] * x.channels + order[None, :]).reshape(-1)
