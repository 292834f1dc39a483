"""The network: nodes in topological order, every edge typed when the object is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import ModelError
from .nodes import Conv2d, Dense, Input, Node, Output, WeightNode
from .tensor import TensorType, require

MAX_NODES = 1024


def _json_object(value: Any) -> dict[str, Any]:
    """``value`` as what a JSON file would give back for it, keys sorted."""
    try:
        result = json.loads(json.dumps(dict(value), allow_nan=False, sort_keys=True))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"info must be a dictionary of JSON values ({error})") from None
    return result


@dataclass(frozen=True, eq=False)
class Network:
    """A directed acyclic graph with one `Input` and one `Output`.

    Nodes stand in topological order: an input must be the name of an earlier node, so a cycle cannot be written down.

    Parameters
    ----------
    name
        Name of the model.
    nodes
        The nodes; each but the output feeds at least one other.
    info
        What a reader may want to know and hardware never sees: recipe, data set, accuracy, float scales; JSON values.

    Raises
    ------
    ModelError
        With the name of the node at fault in front of the sentence.
    """

    name: str
    nodes: tuple[Node, ...]
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        good = isinstance(self.name, str) and 0 < len(self.name) <= 200 and self.name.isprintable()
        require(good, "network name must be 1 to 200 printable characters")
        require(isinstance(self.nodes, list | tuple) and all(isinstance(node, Node) for node in self.nodes),
                "nodes must be a tuple of nodes")
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "info", _json_object(self.info))
        require(2 <= len(self.nodes) <= MAX_NODES, f"network must have 2 to {MAX_NODES} nodes, not {len(self.nodes)}")
        for kind in (Input, Output):
            count = sum(isinstance(node, kind) for node in self.nodes)
            require(count == 1, f"network must have exactly one {kind.__name__.lower()} node, not {count}")
        _ = self.types
        used = {name for node in self.nodes for name in node.inputs}
        for node in self.nodes:
            if not isinstance(node, Output):
                require(node.name in used, f"{node.name}: its result must be used by another node")

    @cached_property
    def types(self) -> dict[str, TensorType]:
        """Output type of every node."""
        types: dict[str, TensorType] = {}
        for node in self.nodes:
            require(node.name not in types, f"{node.name}: node name must be unique")
            for name in node.inputs:
                require(name in types, f"{node.name}: input must name an earlier node, not {name!r}")
            require(not any(isinstance(self[name], Output) for name in node.inputs),
                    f"{node.name}: input must not be the network's output")
            try:
                types[node.name] = node.output(*(types[name] for name in node.inputs))
            except ModelError as error:
                raise ModelError(f"{node.name}: {error}") from None
        return types

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in reversed(self.nodes)}

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    def input_type(self, node: Node) -> TensorType:
        """Type of the first input of ``node``."""
        return self.types[node.inputs[0]]

    def input_types(self, node: Node) -> tuple[TensorType, ...]:
        """Types of the inputs of ``node``, in order."""
        return tuple(self.types[name] for name in node.inputs)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Nodes that read the result of node ``name``, in order."""
        return tuple(node for node in self.nodes if name in node.inputs)

    @property
    def input(self) -> Input:
        """The input node."""
        return next(node for node in self.nodes if isinstance(node, Input))

    @property
    def output(self) -> Output:
        """The output node."""
        return next(node for node in self.nodes if isinstance(node, Output))

    @property
    def weighted(self) -> tuple[WeightNode, ...]:
        """Layers with weights, in order."""
        return tuple(node for node in self.nodes if isinstance(node, Dense | Conv2d))

    def macs(self, node: WeightNode) -> int:
        """Multiply-accumulates (terms summed) of ``node`` for one frame."""
        return self.types[node.name].size * node.terms

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that hardware sees (``info`` and the names are not part of it)."""
        names = {node.name: str(i) for i, node in enumerate(self.nodes)}
        sha = hashlib.sha256(b"lutq network 1\n")

        def update(value: Any) -> None:
            if isinstance(value, np.ndarray):
                sha.update(f"{value.shape}".encode())
                flat = value.reshape(-1)
                for begin in range(0, flat.size, 1 << 16):
                    sha.update(flat[begin:begin + (1 << 16)].astype("<i8").tobytes())
            elif hasattr(value, "__dataclass_fields__"):
                sha.update(type(value).__name__.encode())
                for key in value.__dataclass_fields__:
                    sha.update(key.encode())
                    update(getattr(value, key))
            else:
                sha.update(json.dumps(value).encode())
            sha.update(b";")

        for node in self.nodes:
            sha.update(type(node).__name__.encode())
            for key in node.__dataclass_fields__:
                value = getattr(node, key)
                if key in ("input", "inputs"):
                    value = names[value] if isinstance(value, str) else [names[name] for name in value]
                update("" if key == "name" else value)
        return sha.hexdigest()
