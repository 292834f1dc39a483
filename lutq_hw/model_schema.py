"""What a model file says about each kind of node: header keys, arrays, and how they become a node and back.

A new kind of node is one entry of `KINDS` and one case of `describe`; ``docs/model-format.md`` lists the same keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ModelError
from .network import (
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Node,
    Output,
    Shift,
    TensorType,
    Thresholds,
)
from .network.steps import Step
from .strict_json import short

ARRAYS = ("encode", "assignments", "dictionary", "table", "subgroups", "bias", "thresholds", "descending")
"""Every kind of array; array ``part`` of node ``name`` is stored as ``name.part``."""

BYTE_ARRAYS = ("assignments", "subgroups", "descending")
"""Arrays that stay one byte an element when loaded; the others become 64-bit integers."""

HEADER_KEYS = ("format", "version", "name", "nodes", "info")
NODE_KEYS = ("kind", "name", "inputs", "arrays")
STEP_KEYS = {"thresholds": ("kind", "bits", "signed"), "shift": ("kind", "shift", "bits", "signed")}


class Record:
    """A JSON object of the header whose fields are taken out with their type checked."""

    def __init__(self, where: str, fields: Mapping[str, Any]):
        self.where, self._fields = where, fields

    def check_keys(self, keys: tuple[str, ...]) -> None:
        """Refuse missing and unknown keys."""
        for key in keys:
            if key not in self._fields:
                raise ModelError(f"{self.where}: key {key} must be present")
        for key in self._fields:
            if key not in keys:
                raise ModelError(f"{self.where}: key {short(key)} must be one of {', '.join(keys)}")

    def _take(self, key: str, good: Callable[[Any], bool], what: str) -> Any:
        if key not in self._fields:
            raise ModelError(f"{self.where}: key {key} must be present")
        value = self._fields[key]
        if not good(value):
            raise ModelError(f"{self.where}: {key} must be {what}, not {short(value)}")
        return value

    def text(self, key: str) -> str:
        """A string, short enough to be quoted."""
        def good(value: Any) -> bool:
            return isinstance(value, str) and len(value) <= 200
        return self._take(key, good, "a string of at most 200 characters")

    def integer(self, key: str) -> int:
        """An integer."""
        return self._take(key, _is_integer, "an integer")

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._take(key, lambda value: isinstance(value, bool), "true or false")

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of one to three integers."""
        def good(value: Any) -> bool:
            return isinstance(value, list) and 1 <= len(value) <= 3 and all(map(_is_integer, value))
        return tuple(self._take(key, good, "a list of one to three integers"))

    def texts(self, key: str) -> tuple[str, ...]:
        """A short list of strings without repetition."""
        def good(value: Any) -> bool:
            return (isinstance(value, list) and len(value) <= 64
                    and all(isinstance(item, str) and len(item) <= 64 for item in value)
                    and len(set(value)) == len(value))
        return tuple(self._take(key, good, "a list of distinct names"))

    def record(self, key: str) -> dict[str, Any]:
        """A JSON object."""
        return self._take(key, lambda value: isinstance(value, dict), "an object")

    def optional(self, key: str) -> dict[str, Any] | None:
        """A JSON object or null."""
        return self._take(key, lambda value: value is None or isinstance(value, dict), "an object or null")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Fields:
    """What the file says about one node, types checked: the header's record and the arrays it lists."""

    record: Record
    name: str
    inputs: tuple[str, ...]
    arrays: dict[str, np.ndarray]

    @property
    def input(self) -> str:
        if len(self.inputs) != 1:
            raise ModelError(f"{self.record.where}: inputs must name one node, not {len(self.inputs)}")
        return self.inputs[0]

    @property
    def weights(self) -> Codebook:
        arrays = self.arrays
        if "assignments" not in arrays:
            raise ModelError(f"{self.record.where}: arrays must list assignments")
        return Codebook(arrays["assignments"], arrays.get("dictionary"), arrays.get("table"), arrays.get("subgroups"))

    @property
    def step(self) -> Step | None:
        fields = self.record.optional("step")
        if fields is None:
            self._refuse_thresholds()
            return None
        record = Record(f"{self.record.where}: step", fields)
        kind = record.text("kind")
        if kind not in STEP_KEYS:
            raise ModelError(f"{record.where}: kind must be {' or '.join(STEP_KEYS)}, not {short(kind)}")
        record.check_keys(STEP_KEYS[kind])
        bits, signed = record.integer("bits"), record.flag("signed")
        if kind == "shift":
            self._refuse_thresholds()
            return Shift(record.integer("shift"), bits, signed)
        if "thresholds" not in self.arrays:
            raise ModelError(f"{self.record.where}: arrays must list thresholds")
        return Thresholds(self.arrays["thresholds"], bits, signed, self.arrays.get("descending"))

    def _refuse_thresholds(self) -> None:
        for part in ("thresholds", "descending"):
            if part in self.arrays:
                raise ModelError(f"{self.record.where}: arrays must list {part} only with a step of kind thresholds")


def _input(fields: Fields) -> Node:
    record = fields.record
    if fields.inputs:
        raise ModelError(f"{record.where}: inputs must be empty, not {len(fields.inputs)} nodes")
    type_ = TensorType(record.integers("shape"), record.integer("bits"), record.flag("signed"))
    return Input(fields.name, type_, fields.arrays.get("encode"))


def _dense(fields: Fields) -> Node:
    return Dense(fields.name, fields.input, fields.weights, fields.arrays.get("bias"), fields.step)


def _conv2d(fields: Fields) -> Node:
    record = fields.record
    return Conv2d(fields.name, fields.input, fields.weights, fields.arrays.get("bias"), fields.step,
                  stride=record.integers("stride"), padding=record.integers("padding"),  # type: ignore[arg-type]
                  groups=record.integer("groups"))


def _max_pool2d(fields: Fields) -> Node:
    record = fields.record
    return MaxPool2d(fields.name, fields.input, record.integers("kernel"), record.integers("stride"),  # type: ignore[arg-type]
                     record.integers("padding"))  # type: ignore[arg-type]


def _flatten(fields: Fields) -> Node:
    return Flatten(fields.name, fields.input)


def _output(fields: Fields) -> Node:
    return Output(fields.name, fields.input, fields.record.text("result"))


@dataclass(frozen=True)
class Kind:
    """A kind of node: its own header keys, the arrays it may list, and how it is made."""

    keys: tuple[str, ...]
    arrays: tuple[str, ...]
    make: Callable[[Fields], Node]


_WEIGHTS = ("assignments", "dictionary", "table", "subgroups", "bias", "thresholds", "descending")

KINDS: dict[str, Kind] = {
    "input": Kind(("shape", "bits", "signed"), ("encode",), _input),
    "dense": Kind(("step",), _WEIGHTS, _dense),
    "conv2d": Kind(("step", "stride", "padding", "groups"), _WEIGHTS, _conv2d),
    "max_pool2d": Kind(("kernel", "stride", "padding"), (), _max_pool2d),
    "flatten": Kind((), (), _flatten),
    "output": Kind(("result",), (), _output),
}


def describe(node: Node) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header record and arrays of a node."""
    record: dict[str, Any] = {"name": node.name, "inputs": list(node.inputs)}
    match node:
        case Input():
            type_ = node.type
            record = {"kind": "input", **record, "shape": list(type_.shape), "bits": type_.bits, "signed": type_.signed}
            return record, {} if node.encode is None else {"encode": node.encode}
        case MaxPool2d():
            return {"kind": "max_pool2d", **record, "kernel": list(node.kernel), "stride": list(node.stride or ()),
                    "padding": list(node.padding)}, {}
        case Flatten():
            return {"kind": "flatten", **record}, {}
        case Output():
            return {"kind": "output", **record, "result": node.kind}, {}
        case Dense():
            record = {"kind": "dense", **record}
        case Conv2d():
            record = {"kind": "conv2d", **record, "stride": list(node.stride), "padding": list(node.padding),
                      "groups": node.groups}
    weights, step = node.weights, node.step
    arrays = {"assignments": weights.assignments}
    arrays |= {"dictionary": weights.dictionary} if weights.table is None else {"table": weights.table}
    if weights.groups > 1:
        arrays["subgroups"] = weights.subgroups
    arrays["bias"] = node.bias
    if isinstance(step, Thresholds):
        arrays["thresholds"] = step.values
        if step.descending.any():
            arrays["descending"] = step.descending
    return {**record, "step": _describe_step(step)}, arrays


def _describe_step(step: Step | None) -> dict[str, Any] | None:
    match step:
        case None:
            return None
        case Thresholds():
            return {"kind": "thresholds", "bits": step.bits, "signed": step.signed}
        case Shift():
            return {"kind": "shift", "shift": step.shift, "bits": step.bits, "signed": step.signed}
