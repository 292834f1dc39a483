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
    ActivationTable,
    Add,
    AvgPool2d,
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Node,
    Output,
    Requantize,
    Shift,
    TensorType,
    Thresholds,
    WeightNode,
)
from .network.merge import MAX_INPUTS
from .network.steps import Step
from .strict_json import short

VERSION = 2
"""Highest version of the format that is read and written."""

ARRAYS = ("encode", "assignments", "coded", "dictionary", "table", "subgroups", "bias", "thresholds", "descending",
          "activation")
"""Every kind of array; array ``part`` of node ``name`` is stored as ``name.part``."""

BYTE_ARRAYS = ("assignments", "subgroups", "descending")
"""Arrays that stay one byte an element when loaded; the others become 64-bit integers."""

HEADER_KEYS = ("format", "version", "name", "nodes", "info")
NODE_KEYS = ("kind", "name", "inputs", "arrays")
CODING_KEY = "coding"
"""Key of a node whose assignments are coded; it goes with the array ``coded``."""

CODING_VERSION = 2
STEP_KEYS = {
    "thresholds": ("kind", "bits", "signed"), "shift": ("kind", "shift", "bits", "signed"),
    "table": ("kind", "shift", "bits", "signed"),
}
STEP_ARRAYS = {"thresholds": ("thresholds", "descending"), "shift": (), "table": ("activation",)}
"""Arrays of each kind of step; all but ``descending`` must be there."""

TOP_VERSION = 2
"""First version of the format that has outputs of the k largest scores."""

STEP_VERSIONS = {"table": 2}
"""Version of the format that a kind of step needs, if that is not 1."""


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

    def check_version(self, what: str, needed: int, version: int) -> None:
        """Refuse ``what`` in a file of a version that did not have it."""
        if version < needed:
            raise ModelError(f"{self.where}: {what} must be in a file of format version {needed}, not {version}")

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

    def integers(self, key: str, *, most: int = 3) -> tuple[int, ...]:
        """A list of one to ``most`` integers."""
        def good(value: Any) -> bool:
            return isinstance(value, list) and 1 <= len(value) <= most and all(map(_is_integer, value))
        return tuple(self._take(key, good, f"a list of 1 to {most} integers"))

    def texts(self, key: str, *, distinct: bool = True) -> tuple[str, ...]:
        """A short list of strings, ``distinct``: without repetition."""
        def good(value: Any) -> bool:
            return (isinstance(value, list) and len(value) <= 64
                    and all(isinstance(item, str) and len(item) <= 64 for item in value)
                    and (not distinct or len(set(value)) == len(value)))
        return tuple(self._take(key, good, "a list of distinct names" if distinct else "a list of names"))

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
    version: int

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
            self._refuse_arrays_of_others(None)
            return None
        record = Record(f"{self.record.where}: step", fields)
        kind = record.text("kind")
        if kind not in STEP_KEYS:
            raise ModelError(f"{record.where}: kind must be one of {', '.join(STEP_KEYS)}, not {short(kind)}")
        record.check_version(f"kind {kind}", STEP_VERSIONS.get(kind, 1), self.version)
        record.check_keys(STEP_KEYS[kind])
        self._refuse_arrays_of_others(kind)
        for part in STEP_ARRAYS[kind][:1]:
            if part not in self.arrays:
                raise ModelError(f"{self.record.where}: arrays must list {part}")
        bits, signed = record.integer("bits"), record.flag("signed")
        if kind == "shift":
            return Shift(record.integer("shift"), bits, signed)
        if kind == "table":
            return ActivationTable(self.arrays["activation"], record.integer("shift"), bits, signed)
        return Thresholds(self.arrays["thresholds"], bits, signed, self.arrays.get("descending"))

    @property
    def required_step(self) -> Step:
        step = self.step
        if step is None:
            raise ModelError(f"{self.record.where}: step must be an object, not None")
        return step

    def _refuse_arrays_of_others(self, mine: str | None) -> None:
        for kind, parts in STEP_ARRAYS.items():
            for part in parts:
                if part in self.arrays and kind != mine:
                    raise ModelError(f"{self.record.where}: arrays must list {part} only with a step of kind {kind}")


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


def _avg_pool2d(fields: Fields) -> Node:
    record = fields.record
    return AvgPool2d(fields.name, fields.input, record.integers("kernel"), record.integers("stride"),  # type: ignore[arg-type]
                     record.integers("padding"), fields.step)  # type: ignore[arg-type]


def _add(fields: Fields) -> Node:
    return Add(fields.name, fields.inputs, fields.record.integers("shifts", most=MAX_INPUTS), fields.step)


def _requantize(fields: Fields) -> Node:
    return Requantize(fields.name, fields.input, fields.required_step)


def _flatten(fields: Fields) -> Node:
    return Flatten(fields.name, fields.input)


def _output(fields: Fields) -> Node:
    node = Output(fields.name, fields.input, fields.record.text("result"))
    if node.top:
        fields.record.check_version(f"result {node.kind}", TOP_VERSION, fields.version)
    return node


@dataclass(frozen=True)
class Kind:
    """A kind of node: its own header keys, the arrays it may list, and how it is made.

    ``version`` is the first version of the format that has it; ``distinct`` says that no input may be named twice.
    """

    keys: tuple[str, ...]
    arrays: tuple[str, ...]
    make: Callable[[Fields], Node]
    version: int = 1
    distinct: bool = True


_STEP = ("thresholds", "descending", "activation")
_WEIGHTS = ("assignments", "coded", "dictionary", "table", "subgroups", "bias", *_STEP)

KINDS: dict[str, Kind] = {
    "input": Kind(("shape", "bits", "signed"), ("encode",), _input),
    "dense": Kind(("step",), _WEIGHTS, _dense),
    "conv2d": Kind(("step", "stride", "padding", "groups"), _WEIGHTS, _conv2d),
    "max_pool2d": Kind(("kernel", "stride", "padding"), (), _max_pool2d),
    "avg_pool2d": Kind(("kernel", "stride", "padding", "step"), _STEP, _avg_pool2d, version=2),
    "add": Kind(("shifts", "step"), _STEP, _add, version=2, distinct=False),
    "requantize": Kind(("step",), _STEP, _requantize, version=2),
    "flatten": Kind((), (), _flatten),
    "output": Kind(("result",), (), _output),
}


def version_of(record: Mapping[str, Any]) -> int:
    """Lowest version of the format that has everything in a node's header record."""
    step = record.get("step")
    return max(KINDS[record["kind"]].version, STEP_VERSIONS.get(step["kind"], 1) if step else 1,
               CODING_VERSION if CODING_KEY in record else 1,
               TOP_VERSION if str(record.get("result")).startswith("top") else 1)


def describe(node: Node) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header record and arrays of a node."""
    record: dict[str, Any] = {"name": node.name, "inputs": list(node.inputs)}
    match node:
        case Input():
            type_ = node.type
            record = {"kind": "input", **record, "shape": list(type_.shape), "bits": type_.bits, "signed": type_.signed}
            return record, {} if node.encode is None else {"encode": node.encode}
        case MaxPool2d():
            return {"kind": "max_pool2d", **record, **_describe_window(node)}, {}
        case AvgPool2d():
            record = {"kind": "avg_pool2d", **record, **_describe_window(node)}
            return _with_step(record, {}, node.step)
        case Add():
            return _with_step({"kind": "add", **record, "shifts": list(node.shifts)}, {}, node.step)
        case Requantize():
            return _with_step({"kind": "requantize", **record}, {}, node.step)
        case Flatten():
            return {"kind": "flatten", **record}, {}
        case Output():
            return {"kind": "output", **record, "result": node.kind}, {}
        case Dense():
            return _with_step({"kind": "dense", **record}, _weight_arrays(node), node.step)
        case Conv2d():
            record = {"kind": "conv2d", **record, "stride": list(node.stride), "padding": list(node.padding),
                      "groups": node.groups}
            return _with_step(record, _weight_arrays(node), node.step)


def _describe_window(node: MaxPool2d | AvgPool2d) -> dict[str, list[int]]:
    return {"kernel": list(node.kernel), "stride": list(node.stride or ()), "padding": list(node.padding)}


def _weight_arrays(node: WeightNode) -> dict[str, np.ndarray]:
    weights = node.weights
    arrays = {"assignments": weights.assignments}
    arrays |= {"dictionary": weights.dictionary} if weights.table is None else {"table": weights.table}
    if weights.groups > 1:
        arrays["subgroups"] = weights.subgroups
    return {**arrays, "bias": node.bias}


def _with_step(record: dict[str, Any], arrays: dict[str, np.ndarray],
               step: Step | None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Record and arrays with those of the step behind them."""
    match step:
        case None:
            return {**record, "step": None}, arrays
        case Thresholds():
            arrays = {**arrays, "thresholds": step.values}
            if step.descending.any():
                arrays["descending"] = step.descending
            fields: dict[str, Any] = {"kind": "thresholds", "bits": step.bits, "signed": step.signed}
        case Shift():
            fields = {"kind": "shift", "shift": step.shift, "bits": step.bits, "signed": step.signed}
        case ActivationTable():
            arrays = {**arrays, "activation": step.values}
            fields = {"kind": "table", "shift": step.shift, "bits": step.bits, "signed": step.signed}
    return {**record, "step": fields}, arrays
