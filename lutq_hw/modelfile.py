"""Model files: a `Network` as a `.npz` archive, format versions 1 and 2 (``docs/model-format.md``).

`save` writes the same bytes for the same network everywhere, in the lowest version that can express it, and with
``coding="huffman"`` the assignments as Huffman codewords where these are smaller. `load` trusts nothing: whatever the
file holds, it returns a network that satisfies every rule of `lutq_hw.network` or raises `ModelError` with one
sentence, within 256 MB.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .atomic import write_bytes
from .coded import CODINGS, Coding, smallest
from .errors import ModelError
from .model_schema import (
    ARRAYS,
    BYTE_ARRAYS,
    CODING_KEY,
    CODING_VERSION,
    HEADER_KEYS,
    KINDS,
    NODE_KEYS,
    VERSION,
    Fields,
    Kind,
    Record,
    describe,
    version_of,
)
from .network import Network, Node
from .network.checks import NAME
from .network.graph import MAX_NODES
from .npz import Archive
from .strict_json import parse, short

FORMAT = "lutq"

MAX_FILE_BYTES = 64 << 20
MAX_ARRAY_BYTES = 64 << 20
MAX_LOADED_BYTES = 32 << 20
MAX_HEADER_BYTES = 1 << 20


class _Stored(NamedTuple):
    """A node as the file has it, its keys and the names of its arrays checked."""

    kind: Kind
    record: Record
    arrays: tuple[str, ...]
    coding: Coding | None

    @property
    def name(self) -> str:
        return self.record.text("name")


class LayerBytes(NamedTuple):
    """How a file has the assignments of a layer: ``raw``, ``huffman`` or ``sparse``, and in how many bytes."""

    coding: str
    size: int


class Contents(NamedTuple):
    """What `contents` says about a file."""

    size: int
    version: int
    layers: Mapping[str, LayerBytes]


def load(path: str | Path) -> Network:
    """The network in the model file ``path``.

    Raises
    ------
    ModelError
        If the file cannot be read or breaks a rule of the format, with one sentence: file, layer, array, what was
        expected, what was found.
    """
    path = Path(path)
    with _opened(path) as (archive, header, nodes):
        try:
            return Network(header["name"], tuple(_node(archive, header["version"], node) for node in nodes),
                           header["info"])
        except ModelError as error:
            text = str(error)
            raise ModelError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from None


def contents(path: str | Path) -> Contents:
    """Bytes of the model file ``path``, its version, and how it has the assignments of each layer.

    Raises
    ------
    ModelError
        As `load` does, but no array is looked into.
    """
    path, layers = Path(path), {}
    with _opened(path) as (archive, header, nodes):
        for node in nodes:
            for part in node.arrays:
                if part in ("assignments", "coded"):
                    shape = archive.header(f"{node.name}.{part}")
                    kind = "raw" if node.coding is None else node.coding.kind
                    layers[node.name] = LayerBytes(kind, shape.elements * shape.dtype.itemsize)
        return Contents(path.stat().st_size, header["version"], layers)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Archive, dict[str, Any], list[_Stored]]]:
    """Archive, header and nodes, with all that can be checked without the elements of the arrays."""
    with Archive(path, error=ModelError, max_file=MAX_FILE_BYTES, max_total=MAX_ARRAY_BYTES,
                 max_members=1 + MAX_NODES * len(ARRAYS)) as archive:
        header = _header(archive)
        nodes = [_stored(archive, path, header["version"], number, item)
                 for number, item in enumerate(header.pop("nodes"))]
        _check_arrays(archive, nodes)
        yield archive, header, nodes


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


def _stored(archive: Archive, path: Path, version: int, number: int, item: Any) -> _Stored:
    """Node ``number``, keys checked."""
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
    record.check_version(f"kind {item['kind']}", kind.version, version)
    parts = record.texts("arrays")
    record.check_keys(NODE_KEYS + kind.keys + ((CODING_KEY,) if "coded" in parts else ()))
    for part in parts:
        if part not in kind.arrays:
            raise ModelError(f"{record.where}: arrays of {item['kind']} must be among "
                             f"{', '.join(kind.arrays) or 'none'}, not {short(part)}")
        if f"{name}.{part}" not in archive.names:
            raise ModelError(f"{record.where}: array {name}.{part} must be in the file")
    return _Stored(kind, record, parts, _coding(record, version) if "coded" in parts else None)


def _coding(record: Record, version: int) -> Coding:
    record.check_version("array coded", CODING_VERSION, version)
    if "assignments" in record.texts("arrays"):
        raise ModelError(f"{record.where}: arrays must list assignments or coded, not both")
    return Coding.read(Record(f"{record.where}: coding", record.record(CODING_KEY)))


def _check_arrays(archive: Archive, nodes: list[_Stored]) -> None:
    """Every array must be listed by one node, and all must fit the memory limit once loaded."""
    listed, total = {"header"}, 0
    for node in nodes:
        for part in node.arrays:
            stored = f"{node.name}.{part}"
            if stored in listed:
                raise ModelError(f"{node.record.where}: node name must be unique")
            listed.add(stored)
            header = archive.header(stored)
            if header.elements == 0:
                raise ModelError(f"{archive.path}: array {stored} must not be empty, not of shape {header.shape}")
            if part == "coded" and node.coding is not None:
                least = node.coding.lengths + 1
                if header.dtype != np.uint8 or len(header.shape) != 1 or header.elements < least:
                    raise ModelError(f"{archive.path}: array {stored} must be uint8 of at least {least} elements in "
                                     f"one axis, not {header.dtype.name} of shape {header.shape}")
                total += node.coding.weights
            else:
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


def _node(archive: Archive, version: int, node: _Stored) -> Node:
    record, name = node.record, node.name
    arrays = {part: archive.array(f"{name}.{part}") for part in node.arrays}
    try:
        if node.coding is not None:
            arrays["assignments"] = _decoded(node.coding, name, arrays.pop("coded"))
        return node.kind.make(Fields(record, name, record.texts("inputs", distinct=node.kind.distinct), arrays,
                                     version))
    except ModelError as error:
        text = str(error)
        raise ModelError(text if text.startswith(record.where) else f"{record.where}: {text}") from None


def _decoded(coding: Coding, name: str, data: np.ndarray) -> np.ndarray:
    try:
        return coding.decode(data)
    except ModelError as error:
        raise ModelError(f"array {name}.coded: {error}") from None


def save(network: Network, path: str | Path, *, coding: str = "none") -> None:
    """Write ``network`` to ``path``, whole or not at all.

    Parameters
    ----------
    network, path
        What and where to.
    coding
        ``none``: a byte for each index; ``huffman``: the indices of each layer in the smallest of that, a codeword for
        each, or codewords for those that differ from the most frequent one and for the gaps between them.

    Raises
    ------
    ModelError
        If the file cannot be written, the network exceeds the limits that `load` has, or there is no such coding.
    """
    write_bytes(Path(path), to_bytes(network, coding=coding), error=ModelError)


def to_bytes(network: Network, *, coding: str = "none") -> bytes:
    """What `save` writes: arrays stored, not deflated, so that the bytes do not depend on a zlib version."""
    if coding not in CODINGS:
        raise ModelError(f"coding must be one of {', '.join(CODINGS)}, not {coding!r}")
    arrays: dict[str, np.ndarray] = {}
    nodes, loaded = [], 0
    for node in network.nodes:
        record, parts = describe(node)
        loaded += sum(value.size * _loaded_bytes(part) for part, value in parts.items())
        if loaded > MAX_LOADED_BYTES:
            raise ModelError(f"{node.name}: arrays must keep the model within {MAX_LOADED_BYTES} bytes, not {loaded}")
        if coding == "huffman" and (coded := smallest(parts["assignments"]) if "assignments" in parts else None):
            record[CODING_KEY] = coded.coding.fields
            parts = {"coded": coded.array, **{part: value for part, value in parts.items() if part != "assignments"}}
        nodes.append({**record, "arrays": list(parts)})
        arrays |= {f"{node.name}.{part}": _smallest(value) for part, value in parts.items()}
    return _archived(network, nodes, arrays)


def _archived(network: Network, nodes: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> bytes:
    version = max(version_of(record) for record in nodes)
    header = {"format": FORMAT, "version": version, "name": network.name, "nodes": nodes, "info": dict(network.info)}
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
