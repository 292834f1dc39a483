"""Model files: a `Network` as a `.npz` archive, format version 1 (``docs/model-format.md``).

`save` writes the same bytes for the same network everywhere; `load` trusts nothing: whatever the file holds, it returns
a network that satisfies every rule of `lutq_hw.network` or raises `ModelError` with one sentence, within 256 MB.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelError
from .model_schema import ARRAYS, BYTE_ARRAYS, HEADER_KEYS, KINDS, NODE_KEYS, Fields, Kind, Record, describe
from .network import Network, Node
from .network.graph import MAX_NODES
from .network.nodes import NAME
from .npz import Archive
from .strict_json import parse, short

FORMAT = "lutq"
VERSION = 1

MAX_FILE_BYTES = 64 << 20
MAX_ARRAY_BYTES = 64 << 20
MAX_LOADED_BYTES = 32 << 20
MAX_HEADER_BYTES = 1 << 20


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
    record = Record(f"{path}: header", fields)
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


def _fields(archive: Archive, path: Path, number: int, item: Any) -> tuple[Kind, Record, tuple[str, ...]]:
    """Kind, record and stored array names of node ``number``, keys checked."""
    if not isinstance(item, dict):
        raise ModelError(f"{path}: node {number}: must be an object, not {short(item)}")
    record = Record(f"{path}: node {number}", item)
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


def _check_arrays(archive: Archive, nodes: list[tuple[Kind, Record, tuple[str, ...]]]) -> None:
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
            total += header.elements * _loaded_bytes(part)
            if total > MAX_LOADED_BYTES:
                raise ModelError(f"{archive.path}: array {stored} must keep all loaded arrays within "
                                 f"{MAX_LOADED_BYTES} bytes, not {total}")
    for stored in archive.names:
        if stored not in listed:
            raise ModelError(f"{archive.path}: array {stored} must be listed by a node")


def _loaded_bytes(part: str) -> int:
    """Bytes of an element once loaded."""
    return 1 if part in BYTE_ARRAYS else 8


def _node(archive: Archive, kind: Kind, record: Record, parts: tuple[str, ...]) -> Node:
    name = record.text("name")
    arrays = {part: archive.array(f"{name}.{part}") for part in parts}
    try:
        return kind.make(Fields(record, name, record.texts("inputs"), arrays))
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
    nodes, loaded = [], 0
    for node in network.nodes:
        record, parts = describe(node)
        nodes.append({**record, "arrays": list(parts)})
        arrays |= {f"{node.name}.{part}": _smallest(value) for part, value in parts.items()}
        loaded += sum(value.size * _loaded_bytes(part) for part, value in parts.items())
        if loaded > MAX_LOADED_BYTES:
            raise ModelError(f"{node.name}: arrays must keep the model within {MAX_LOADED_BYTES} bytes, not {loaded}")
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
