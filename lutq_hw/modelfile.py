"""Model files: a `Network` as a `.npz` archive, format version 1 (``docs/model-format.md``).

`save` writes the same bytes for the same network everywhere; `load` trusts nothing: whatever the file holds, it returns
a network that satisfies every rule of `lutq_hw.network` or raises `ModelError` with one sentence, within 256 MB.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
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
    Network,
    Node,
    Output,
    Shift,
    TensorType,
    Thresholds,
)
from .network.graph import MAX_NODES
from .network.nodes import NAME
from .network.steps import Step
from .npz import Archive
from .strict_json import parse, short

FORMAT = "lutq"
VERSION = 1

MAX_FILE_BYTES = 64 << 20
MAX_ARRAY_BYTES = 64 << 20
MAX_LOADED_BYTES = 32 << 20
MAX_HEADER_BYTES = 1 << 20

ARRAYS = ("encode", "assignments", "dictionary", "table", "subgroups", "bias", "thresholds", "descending")
"""Every kind of array; array ``part`` of node ``name`` is stored as ``name.part``."""

BYTE_ARRAYS = ("assignments", "subgroups", "descending")
"""Arrays that stay one byte an element when loaded; the others become 64-bit integers."""

HEADER_KEYS = ("format", "version", "name", "nodes", "info")
NODE_KEYS = ("kind", "name", "inputs", "arrays")
STEP_KEYS = {"thresholds": ("kind", "bits", "signed"), "shift": ("kind", "shift", "bits", "signed")}


class _Record:
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
        """A string."""
        return self._take(key, lambda value: isinstance(value, str), "a string")

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
class _Fields:
    """What the file says about one node, types checked: the header's record and the arrays it lists."""

    record: _Record
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
        record = _Record(f"{self.record.where}: step", fields)
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


def _input(fields: _Fields) -> Node:
    record = fields.record
    if fields.inputs:
        raise ModelError(f"{record.where}: inputs must be empty, not {len(fields.inputs)} nodes")
    type_ = TensorType(record.integers("shape"), record.integer("bits"), record.flag("signed"))
    return Input(fields.name, type_, fields.arrays.get("encode"))


def _dense(fields: _Fields) -> Node:
    return Dense(fields.name, fields.input, fields.weights, fields.arrays.get("bias"), fields.step)


def _conv2d(fields: _Fields) -> Node:
    record = fields.record
    return Conv2d(fields.name, fields.input, fields.weights, fields.arrays.get("bias"), fields.step,
                  stride=record.integers("stride"), padding=record.integers("padding"),  # type: ignore[arg-type]
                  groups=record.integer("groups"))


def _max_pool2d(fields: _Fields) -> Node:
    record = fields.record
    return MaxPool2d(fields.name, fields.input, record.integers("kernel"), record.integers("stride"),  # type: ignore[arg-type]
                     record.integers("padding"))  # type: ignore[arg-type]


def _flatten(fields: _Fields) -> Node:
    return Flatten(fields.name, fields.input)


def _output(fields: _Fields) -> Node:
    return Output(fields.name, fields.input, fields.record.text("result"))


@dataclass(frozen=True)
class Kind:
    """A kind of node: its own header keys, the arrays it may list, and how it is made."""

    keys: tuple[str, ...]
    arrays: tuple[str, ...]
    make: Callable[[_Fields], Node]


_WEIGHTS = ("assignments", "dictionary", "table", "subgroups", "bias", "thresholds", "descending")

KINDS: dict[str, Kind] = {
    "input": Kind(("shape", "bits", "signed"), ("encode",), _input),
    "dense": Kind(("step",), _WEIGHTS, _dense),
    "conv2d": Kind(("step", "stride", "padding", "groups"), _WEIGHTS, _conv2d),
    "max_pool2d": Kind(("kernel", "stride", "padding"), (), _max_pool2d),
    "flatten": Kind((), (), _flatten),
    "output": Kind(("result",), (), _output),
}


def load(path: str | Path) -> Network:
    """The network in the model file ``path``.

    Raises
    ------
    ModelError
        If the file cannot be read or breaks a rule of the format, with one sentence: file, layer, array, what was
        expected, what was found.
    """
    path = Path(path)
    with Archive(path, error=ModelError, max_file=MAX_FILE_BYTES, max_total=MAX_ARRAY_BYTES,
                 max_members=1 + MAX_NODES * len(ARRAYS)) as archive:
        header = _header(archive)
        nodes = [_fields(archive, path, number, item) for number, item in enumerate(header.pop("nodes"))]
        _check_arrays(archive, nodes)
        try:
            return Network(header["name"], tuple(_node(archive, *node) for node in nodes), header["info"])
        except ModelError as error:
            text = str(error)
            raise ModelError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from None


def _header(archive: Archive) -> dict[str, Any]:
    """The header object, its top level checked."""
    path = archive.path
    if "header" not in archive.names:
        raise ModelError(f"{path}: must hold an array header (this is no model file)")
    shape = archive.header("header")
    if shape.dtype != np.uint8 or len(shape.shape) != 1 or shape.elements > MAX_HEADER_BYTES:
        raise ModelError(f"{path}: array header must be uint8 of at most {MAX_HEADER_BYTES} elements, "
                         f"not {shape.dtype.name} of shape {shape.shape}")
    try:
        fields = parse(archive.array("header").tobytes())
    except ValueError as error:
        raise ModelError(f"{path}: header {error}") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{path}: header must be a JSON object, not {short(fields)}")
    record = _Record(f"{path}: header", fields)
    if record.text("format") != FORMAT:
        raise ModelError(f"{path}: header: format must be {FORMAT}, not {short(fields['format'])}")
    version = record.integer("version")
    if version > VERSION:
        raise ModelError(f"{path}: was made by a newer lutq (format version {version}, this one reads {VERSION}): "
                         f"update lutq to read it")
    if version < 1:
        raise ModelError(f"{path}: header: version must be from 1 to {VERSION}, not {version}")
    record.check_keys(HEADER_KEYS)
    record.text("name")
    record.record("info")
    if not isinstance(fields["nodes"], list) or len(fields["nodes"]) > MAX_NODES:
        raise ModelError(f"{path}: header: nodes must be a list of at most {MAX_NODES} nodes")
    return fields


def _fields(archive: Archive, path: Path, number: int, item: Any) -> tuple[Kind, _Record, tuple[str, ...]]:
    """Kind, record and stored array names of node ``number``, keys checked."""
    if not isinstance(item, dict):
        raise ModelError(f"{path}: node {number}: must be an object, not {short(item)}")
    record = _Record(f"{path}: node {number}", item)
    name = record.text("name")
    if not NAME.match(name):
        raise ModelError(f"{record.where}: name must be a letter followed by up to 63 letters, digits and underscores, "
                         f"not {short(name)}")
    record.where = f"{path}: {name}"
    kind = KINDS.get(record.text("kind"))
    if kind is None:
        raise ModelError(f"{record.where}: kind must be one of {', '.join(KINDS)}, not {short(item['kind'])}")
    record.check_keys(NODE_KEYS + kind.keys)
    parts = record.texts("arrays")
    for part in parts:
        if part not in kind.arrays:
            raise ModelError(f"{record.where}: arrays of {item['kind']} must be among "
                             f"{', '.join(kind.arrays) or 'none'}, not {short(part)}")
        if f"{name}.{part}" not in archive.names:
            raise ModelError(f"{record.where}: array {name}.{part} must be in the file")
    return kind, record, parts


def _check_arrays(archive: Archive, nodes: list[tuple[Kind, _Record, tuple[str, ...]]]) -> None:
    """Every array must be listed by one node, and all must fit the memory limit once loaded."""
    listed, total = {"header"}, 0
    for _, record, parts in nodes:
        name = record.text("name")
        for part in parts:
            stored = f"{name}.{part}"
            if stored in listed:
                raise ModelError(f"{record.where}: node name must be unique")
            listed.add(stored)
            header = archive.header(stored)
            if header.elements == 0:
                raise ModelError(f"{archive.path}: array {stored} must not be empty, not of shape {header.shape}")
            total += header.elements * (1 if part in BYTE_ARRAYS else 8)
            if total > MAX_LOADED_BYTES:
                raise ModelError(f"{archive.path}: array {stored} must keep all loaded arrays within "
                                 f"{MAX_LOADED_BYTES} bytes, not {total}")
    for stored in archive.names:
        if stored not in listed:
            raise ModelError(f"{archive.path}: array {stored} must be listed by a node")


def _node(archive: Archive, kind: Kind, record: _Record, parts: tuple[str, ...]) -> Node:
    name = record.text("name")
    arrays = {part: archive.array(f"{name}.{part}") for part in parts}
    try:
        return kind.make(_Fields(record, name, record.texts("inputs"), arrays))
    except ModelError as error:
        text = str(error)
        raise ModelError(text if text.startswith(record.where) else f"{record.where}: {text}") from None


def save(network: Network, path: str | Path) -> None:
    """Write ``network`` to ``path``: to a file beside it first, then renamed over it, so no reader sees half a file.

    Raises
    ------
    ModelError
        If the file cannot be written, or the network exceeds the limits that `load` has.
    """
    path = Path(path)
    data = to_bytes(network)
    if len(data) > MAX_FILE_BYTES:
        raise ModelError(f"{path}: model must take at most {MAX_FILE_BYTES} bytes, not {len(data)}")
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with fresh.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from None


def to_bytes(network: Network) -> bytes:
    """The model file of ``network``: arrays stored, not deflated, so that the bytes do not depend on a zlib version."""
    arrays: dict[str, np.ndarray] = {}
    nodes = []
    for node in network.nodes:
        record, parts = _describe(node)
        nodes.append({**record, "arrays": list(parts)})
        arrays |= {f"{node.name}.{part}": _smallest(value) for part, value in parts.items()}
    header = {"format": FORMAT, "version": VERSION, "name": network.name, "nodes": nodes, "info": dict(network.info)}
    text = json.dumps(header, allow_nan=False).encode()
    if len(text) > MAX_HEADER_BYTES:
        raise ModelError(f"{network.name}: header must take at most {MAX_HEADER_BYTES} bytes, not {len(text)} "
                         f"(shorten info)")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {"header": np.frombuffer(text, np.uint8), **arrays}.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    return buffer.getvalue()


def _smallest(array: np.ndarray) -> np.ndarray:
    """``array`` in the smallest little-endian integer type that holds it."""
    low, high = int(array.min()), int(array.max())
    for code in ("u1", "i1", "<u2", "<i2", "<u4", "<i4"):
        info = np.iinfo(code)
        if info.min <= low and high <= info.max:
            return array.astype(code)
    return array.astype("<i8")


def _describe(node: Node) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
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
