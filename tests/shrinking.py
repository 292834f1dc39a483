# amaranth: UnusedElaboratable=no
"""Makes a case that fails small: fewer frames and nodes, no pauses, smaller arrays, fewer channels, as long as it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from random_cases import Drawn

from lutq_hw import golden
from lutq_hw.errors import LutqError
from lutq_hw.flow import with_fifos
from lutq_hw.network import (
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
    Thresholds,
)
from lutq_hw.pipeline import pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.sim.stalls import Stalls

Fails = Callable[[Drawn], bool]


def kind(differences: list[str]) -> str:
    """What kind of failure it is, so that shrinking does not wander off to another bug."""
    if not differences:
        return ""
    first = differences[0]
    return first.split(":")[0] if first.startswith("raised") else "time" if "moved the word" in first else "value"


def shrink(drawn: Drawn, fails: Fails | None = None, budget: int = 300) -> Drawn:
    """The smallest case found that fails like ``drawn``.

    Parameters
    ----------
    fails
        Whether a case fails; by default, whether it fails in the same way as ``drawn`` does.
    budget
        How many cases may be tried.
    """
    if fails is None:
        same = kind(drawn.differences())

        def fails(case: Drawn) -> bool:
            return kind(case.differences()) == same
    position, since = 0, 0  # in the list of candidates, and since the last one that failed too
    choices = list(candidates(drawn))
    while since < len(choices) and budget > 0:
        position, since = position % len(choices), since + 1
        try:
            smaller = choices[position]()
            pipeline(smaller.network, smaller.plan)
        except LutqError:  # no valid network or plan
            position += 1
            continue
        budget -= 1
        if fails(smaller):
            # On from here, not from the start: what stands before was just tried on nearly the same case.
            drawn, since = smaller, 0
            choices = list(candidates(drawn))
        else:
            position += 1
    return drawn


def candidates(drawn: Drawn) -> Iterator[Callable[[], Drawn]]:
    """Ways to make a case smaller, the most promising first; each may raise `LutqError`."""
    frames = len(drawn.codes)
    for part in (slice(0, frames // 2), slice(frames // 2, frames)) if frames > 1 else ():
        yield lambda part=part: replace(drawn, codes=drawn.codes[part])
    nodes = drawn.network.nodes
    for node in nodes[1:-1]:
        if not isinstance(node, Flatten) and not set(drawn.network.output.inputs) & reached(drawn.network, node):
            yield lambda node=node: until(drawn, node)
    for node in reversed(nodes[1:-2]):
        yield lambda node=node: beginning_at(drawn, node)
    for node in nodes[1:-1]:
        for source in dict.fromkeys(node.inputs if isinstance(node, Add | AvgPool2d | MaxPool2d | Requantize) else ()):
            if drawn.network.types[source].shape == drawn.network.types[node.name].shape:
                yield lambda node=node, source=source: without(drawn, node, source)
    if drawn.stalls.idle or drawn.stalls.stall:
        yield lambda: replace(drawn, stalls=Stalls())
    for number, layer in enumerate(drawn.plan.layers):
        for change in simpler(layer):
            layers = (*drawn.plan.layers[:number], replace(layer, **change), *drawn.plan.layers[number + 1:])
            plan = replace(drawn.plan, layers=layers)
            yield lambda plan=plan: replace(drawn, plan=with_fifos(drawn.network, plan))
    for node in nodes:
        yield from ((lambda node=node, change=change: changed(drawn, node, change)) for change in plainer(node))
    for axis in range(len(drawn.network.input.type.shape)):
        yield lambda axis=axis: cropped(drawn, axis)
    if len(nodes) > 3:
        for node in drawn.network.weighted:
            if drawn.network.consumers(node.name) == (nodes[-1],) and node.outputs > 1:
                for count in (1, node.outputs // 2, node.outputs - 1):
                    yield lambda node=node, count=count: changed(drawn, node, fewer_outputs(node, count))


def rebuilt(drawn: Drawn, nodes: list[Node], codes: Any) -> Drawn:
    """``drawn`` with other nodes; plans of nodes that are gone are dropped, the pauses stay."""
    network = Network(drawn.network.name, tuple(nodes))
    names = set(network.types) - {network.input.name}
    layers = tuple(layer for layer in drawn.plan.layers if getattr(layer, "node", None) in names)
    return Drawn(network, with_fifos(network, Plan(network.digest, layers)), codes, drawn.stalls)


def reached(network: Network, node: Node) -> set[str]:
    """``node`` and the flattens behind it."""
    return {node.name, *(other.name for other in network.consumers(node.name) if isinstance(other, Flatten))}


def until(drawn: Drawn, last: Node) -> Drawn:
    """The network up to ``last``, whose result comes out; what does not lead there is dropped."""
    needed = {last.name}
    for node in reversed(drawn.network.nodes):
        if node.name in needed:
            needed |= set(node.inputs)
    nodes = [node for node in drawn.network.nodes if node.name in needed]
    end = last.name
    if len(drawn.network.types[end].shape) == 3:
        end = "shrunk_flat"
        nodes.append(Flatten(end, last.name))
    return rebuilt(drawn, [*nodes, Output("shrunk_out", end)], drawn.codes)


def without(drawn: Drawn, node: Node, source: str) -> Drawn:
    """The network with the result of ``source`` in place of that of ``node``."""
    nodes: list[Node] = []
    for other in drawn.network.nodes:
        names = tuple(source if name == node.name else name for name in other.inputs)
        if names != other.inputs:
            other = replace(other, inputs=names) if isinstance(other, Add) else replace(other, input=names[0])
        nodes.append(other)
    needed = {drawn.network.output.name}
    for other in reversed(nodes):
        if other.name in needed:
            needed |= set(other.inputs)
    return rebuilt(drawn, [other for other in nodes if other.name in needed], drawn.codes)


def beginning_at(drawn: Drawn, first: Node) -> Drawn:
    """The network behind ``first``, fed with its golden results."""
    codes = golden.run(drawn.network, drawn.codes)[first.name]
    nodes: list[Node] = [Input(first.name, drawn.network.types[first.name])]
    known = {first.name}
    for node in drawn.network.nodes:
        if node.name not in known and set(node.inputs) & known:
            nodes.append(node)
            known.add(node.name)
    return rebuilt(drawn, nodes, codes)


def simpler(layer: Any) -> Iterator[dict[str, Any]]:
    """Changes of a plan's entry."""
    plainest = {"output_lanes": 1, "rows": 1, "pe": 1, "channels": 1, "index_memory": "luts", "output_memory": "luts"}
    for key, value in plainest.items():
        if getattr(layer, key, value) != value:
            if key == "pe" and isinstance(layer, LayerPlan):
                yield {"pe": 1, "output_lanes": 1}
            else:
                yield {key: value}


def plainer(node: Node) -> Iterator[dict[str, Any]]:
    """Changes of a node that leave the types of its inputs alone."""
    if getattr(node, "padding", (0, 0)) != (0, 0):
        yield {"padding": (0, 0)}
    if getattr(node, "stride", (1, 1)) not in ((1, 1), None):
        yield {"stride": (1, 1)}
    if isinstance(node, Output) and node.kind != "scores":
        yield {"kind": "scores"}
    if isinstance(node, Dense | Conv2d) and node.bias.any():
        yield {"bias": np.zeros_like(node.bias)}


def fewer_outputs(node: Dense | Conv2d, count: int) -> dict[str, Any]:
    """The change that leaves ``count`` output channels."""
    groups = min(getattr(node, "groups", 1), count)
    weights = node.weights
    change: dict[str, Any] = {
        "weights": Codebook(weights.assignments[:count], weights.dictionary, weights.table, weights.subgroups),
        "bias": node.bias[:count]}
    if isinstance(node.step, Thresholds):
        change["step"] = replace(node.step, values=node.step.values[:count], descending=node.step.descending[:count])
    return change | ({"groups": groups} if isinstance(node, Conv2d) else {})


def changed(drawn: Drawn, node: Node, change: dict[str, Any]) -> Drawn:
    """``drawn`` with one node changed."""
    nodes = [replace(other, **change) if other is node else other for other in drawn.network.nodes]
    return rebuilt(drawn, nodes, drawn.codes)


def cropped(drawn: Drawn, axis: int) -> Drawn:
    """One row, column or channel less at the input; layers that read it lose the weights of that channel."""
    x = drawn.network.input
    shape = tuple(size - (n == axis) for n, size in enumerate(x.type.shape))
    nodes: list[Node] = []
    for node in drawn.network.nodes:
        if node is x:
            node = replace(x, type=replace(x.type, shape=shape))
        elif isinstance(node, Dense | Conv2d) and node.input == x.name and axis == len(shape) - 1:
            w = node.weights
            fewer = Codebook(w.assignments[..., :-1], w.dictionary, w.table, w.subgroups[..., :-1])
            node = replace(node, weights=fewer)
        nodes.append(node)
    return rebuilt(drawn, nodes, np.delete(drawn.codes, -1, axis=axis + 1))


def described(drawn: Drawn) -> str:
    """The case in lines."""
    lines = [f"{len(drawn.codes)} frames, pauses {drawn.stalls.idle:g} {drawn.stalls.stall:g} (seed {drawn.stalls.seed})"]
    for node in drawn.network.nodes:
        about = {key: getattr(node, key) for key in ("stride", "padding", "groups", "kind", "shifts") if hasattr(node, key)}
        step = getattr(node, "step", None)
        lines.append(f"  {node.name}: {type(node).__name__}({', '.join(node.inputs)}) -> {drawn.network.types[node.name]}"
                     + "".join(f", {key} {value}" for key, value in about.items())
                     + (f", {type(step).__name__}" if step is not None else ""))
    return "\n".join([*lines, *(f"  {layer}" for layer in drawn.plan.layers)])
