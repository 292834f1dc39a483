"""The value specification: what every node computes, in integers, one short function per kind.

Arrays are channel last with the frames first: ``(N, H, W, C)`` for maps, ``(N, C)`` for vectors. Hardware, simulation
and training are compared with these functions by equality. `golden_fast` computes the same values many times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .errors import InputError
from .network import (
    Add,
    AvgPool2d,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Network,
    Node,
    Output,
    Requantize,
    TensorType,
    WeightNode,
)
from .network.tensor import Ints

BATCH = 64
"""Frames that the specification evaluates at a time."""


def weighted_sums(terms: Ints, node: WeightNode, x: TensorType, outputs: slice) -> Ints:
    """``acc[o] = bias[o] + Σ_j T_g(j)[a_j, w_oj]``: the one equation of every weight layer.

    Parameters
    ----------
    terms
        ``(..., J)`` activation codes of one dot product each.
    node, x
        The layer and the type of its input.
    outputs
        Which output channels.

    Returns
    -------
    ``(..., O)`` accumulators of those channels.
    """
    products = node.weights.products(x)
    index = node.weights.assignments[outputs].reshape(-1, node.terms)
    group = node.weights.subgroups.reshape(-1)
    acc = np.broadcast_to(node.bias[outputs], (*terms.shape[:-1], len(index))).copy()
    for j in range(node.terms):
        rows = products[group[j], terms[..., j] - x.min]
        acc += rows[..., index[:, j]]
    return acc


def stepped(node: WeightNode | Add | AvgPool2d | Requantize, acc: Ints) -> Ints:
    """The node's step function, or the accumulators themselves."""
    return acc if node.step is None else node.step.apply(acc)


def dense(node: Dense, codes: Ints, x: TensorType) -> Ints:
    """``(N, O)`` from ``(N, C)``."""
    return stepped(node, weighted_sums(codes, node, x, slice(None)))


def windows(codes: Ints, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], fill: int) -> Ints:
    """``(N, H', W', kh, kw, C)`` windows of ``(N, H, W, C)``, a read-only view of the padded map."""
    (pad_h, pad_w), (step_h, step_w) = padding, stride
    padded = np.pad(codes, ((0, 0), (pad_h, pad_h), (pad_w, pad_w), (0, 0)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
    return np.moveaxis(view[:, ::step_h, ::step_w], 3, -1)


def conv2d(node: Conv2d, codes: Ints, x: TensorType) -> Ints:
    """``(N, H', W', O)`` from ``(N, H, W, C)``; padding supplies code 0, and term order is ``(ky, kx, c)``."""
    view = windows(codes, node.kernel, node.stride, node.padding, fill=0)
    channels, outputs = x.channels // node.groups, node.outputs // node.groups
    parts = []
    for group in range(node.groups):
        mine = view[..., group * channels:(group + 1) * channels]
        terms = mine.reshape(*mine.shape[:3], node.terms)
        parts.append(weighted_sums(terms, node, x, slice(group * outputs, (group + 1) * outputs)))
    return stepped(node, np.concatenate(parts, axis=-1))


def max_pool2d(node: MaxPool2d, codes: Ints, x: TensorType) -> Ints:
    """Largest code of every window, channel by channel; padding holds the smallest code, so it never wins."""
    assert node.stride is not None
    return windows(codes, node.kernel, node.stride, node.padding, fill=x.min).max(axis=(3, 4))


def avg_pool2d(node: AvgPool2d, codes: Ints, x: TensorType) -> Ints:
    """Sum of every window, channel by channel; padding adds code 0, and nothing is divided."""
    assert node.stride is not None
    return stepped(node, windows(codes, node.kernel, node.stride, node.padding, fill=0).sum(axis=(3, 4)))


def add(node: Add, inputs: Sequence[Ints]) -> Ints:
    """``Σ_i code_i << shifts_i`` of results of one shape."""
    acc = np.zeros_like(inputs[0])
    for codes, shift in zip(inputs, node.shifts, strict=True):
        acc += codes << shift
    return stepped(node, acc)


def requantize(node: Requantize, codes: Ints, x: TensorType) -> Ints:
    """The step function of every code."""
    return stepped(node, codes)


def flatten(node: Flatten, codes: Ints, x: TensorType) -> Ints:
    """``(N, H * W * C)``, channel last."""
    return codes.reshape(len(codes), x.size)


def output(node: Output, codes: Ints, x: TensorType) -> Ints:
    """The scores ``(N, C)``, or the index of the largest ``(N, 1)`` or of the k largest ``(N, k)``, the largest first.

    The lower index comes first on a tie.
    """
    if node.kind == "scores":
        return codes
    if node.kind == "argmax":
        return codes.argmax(axis=1)[:, None].astype(np.int64)
    # int64 before the sign is turned: the fast path may hold narrower codes.
    return np.argsort(-codes.astype(np.int64), axis=1, kind="stable")[:, :node.top].astype(np.int64)


NODES: dict[type, Callable[..., Ints]] = {
    Dense: dense, Conv2d: conv2d, MaxPool2d: max_pool2d, AvgPool2d: avg_pool2d, Requantize: requantize,
    Flatten: flatten, Output: output,
}
"""The function of every kind of node with one input; `add` has several."""


def check_codes(network: Network, codes: Ints) -> Ints:
    """``codes`` as int64 if they are frames ``(N, *shape)`` of the network's input type; else `InputError`."""
    x = network.input.type
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise InputError(f"codes must be integers, not {codes.dtype}")
    if codes.shape[1:] != x.shape or codes.ndim != len(x.shape) + 1:
        raise InputError(f"codes must have shape (N, {', '.join(map(str, x.shape))}), not {codes.shape}")
    if codes.size and not (x.min <= int(codes.min()) and int(codes.max()) <= x.max):
        raise InputError(f"codes must be from {x.min} to {x.max}, not {codes.min()} to {codes.max()}")
    return codes.astype(np.int64)


def run(network: Network, codes: Ints) -> dict[str, Ints]:
    """Result of every node for the frames ``codes (N, *input shape)``.

    Returns
    -------
    Node name to ``(N, *shape)`` int64.

    Raises
    ------
    InputError
        If the codes do not have the input's shape or range.
    """
    results: dict[str, Ints] = {network.input.name: check_codes(network, codes)}
    for node in network.nodes:
        if not isinstance(node, Input):
            results[node.name] = compute(network, node, results)
    return results


def compute(network: Network, node: Node, results: dict[str, Ints]) -> Ints:
    """Result of one node from the results of the nodes before it."""
    inputs = [results[name] for name in node.inputs]
    return add(node, inputs) if isinstance(node, Add) else NODES[type(node)](node, *inputs, *network.input_types(node))


def encode(network: Network, images: Ints) -> Ints:
    """Input codes of ``images``.

    Parameters
    ----------
    images
        ``(N, H, W, C)`` uint8 pixels for a network whose input has an ``encode`` table; the codes themselves for one
        without. A network whose input is a vector takes images of as many elements, in channel-last order.

    Raises
    ------
    InputError
        If shape, type or range do not fit the network.
    """
    x, images = network.input.type, np.asarray(images)
    if images.dtype.kind not in "iu":
        raise InputError(f"images must hold integers, not {images.dtype}")
    fits = images.shape[1:] == x.shape or (len(x.shape) == 1 and images[:1].size in (x.size, 0))
    if images.ndim < 2 or not fits:
        shape = "x".join(map(str, images.shape[1:]))
        raise InputError(f"images must be {'x'.join(map(str, x.shape))} like the input of the network, not {shape}")
    images = images.reshape(len(images), *x.shape)
    if network.input.encode is None:
        return check_codes(network, images)
    if images.dtype != np.uint8:
        raise InputError(f"images must hold uint8 pixels, not {images.dtype}")
    return network.input.encode[images]


def evaluate(network: Network, images: Ints, *, fast: bool = True,
             progress: Callable[[int], object] | None = None) -> Ints:
    """Output of the network for ``images`` (see `encode`), a batch at a time so that memory stays bounded.

    Parameters
    ----------
    fast
        False: with the functions of this module instead of `golden_fast`; same values.
    progress
        Called with the number of frames done after every batch.

    Returns
    -------
    ``(N, *output shape)`` int64: scores, or the index of the largest, or those of the k largest.
    """
    from . import golden_fast  # it imports this module

    batch = golden_fast.batch_size(network) if fast else BATCH
    engine = golden_fast.FastNetwork(network).output if fast else lambda codes: run(network, codes)[network.output.name]
    results = np.empty((len(images), *network.types[network.output.name].shape), np.int64)
    for begin in range(0, len(images), batch):
        codes = encode(network, images[begin:begin + batch])
        results[begin:begin + batch] = engine(codes)
        if progress is not None:
            progress(min(begin + batch, len(images)))
    return results


def predictions(network: Network, results: Ints) -> Ints:
    """``(N,)`` class of every frame from the network's output ``results``; the lowest index wins a tie."""
    return results.argmax(axis=1) if network.output.kind == "scores" else results[:, 0]


def accuracy(network: Network, results: Ints, labels: Ints) -> float:
    """Share of the frames whose prediction equals their label, 0 to 1."""
    if len(labels) != len(results) or not len(labels):
        raise InputError(f"labels must be one for each of {len(results)} images, not {len(labels)}")
    return float((predictions(network, results) == labels).mean())
