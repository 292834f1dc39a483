"""Reads `.npz` archives and `.npy` arrays that nobody vouches for.

Every size is checked before memory is taken for it, decompression stops at the declared size, and nothing is evaluated
or unpickled. Only integer arrays are read. numpy's own reader is not used because it allocates what a header asks for.
"""

from __future__ import annotations

import math
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from .errors import LutqError

MAX_NPY_HEADER = 4096
PIECE = 1 << 18

_END = struct.Struct("<4sHHHHLLH")
_CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_DESCR = re.compile(
    rb"\{ *'descr': *'([<>|=][A-Za-z][0-9]{0,3})', *'fortran_order': *(True|False), *"
    rb"'shape': *\((|[0-9]{1,12},|[0-9]{1,12}(?:, *[0-9]{1,12}){1,7},?)\),? *\} *\n?")
_INTEGERS = re.compile(rb"[<>|=][iu][1248]")


class NpyHeader(NamedTuple):
    """What the header of a `.npy` array declares, checked against the size of the data behind it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class _Bad(Exception):
    """A clause that follows the name of the array or of the file."""


def _kind(code: bytes) -> str:
    try:
        return np.dtype(code.decode()).name
    except (TypeError, ValueError):
        return repr(code.decode())


def parse_npy_header(head: bytes, size: int) -> NpyHeader:
    """Header of a `.npy` of ``size`` bytes that begins with ``head`` (at least 4,108 bytes of it, or all)."""
    if len(head) < 12 or not head.startswith(b"\x93NUMPY") or head[6] not in (1, 2, 3):
        raise _Bad("must be an array as numpy writes it (.npy version 1 to 3)")
    length, = struct.unpack_from("<H" if head[6] == 1 else "<L", head, 8)
    start = (10 if head[6] == 1 else 12) + length
    if length > MAX_NPY_HEADER or start > len(head):
        raise _Bad(f"must have an array header of at most {MAX_NPY_HEADER} bytes inside the file, not {length}")
    match = _DESCR.fullmatch(head[start - length:start])
    if match is None:
        raise _Bad("must be a plain integer array (its header is not of that form)")
    if not _INTEGERS.fullmatch(match[1]):
        raise _Bad(f"must hold integers, not {_kind(match[1])}")
    shape = tuple(int(extent) for extent in match[3].split(b",") if extent)
    dtype = np.dtype(match[1].decode())
    expected = start + math.prod(shape) * dtype.itemsize
    if expected != size:
        raise _Bad(f"must take {expected} bytes for its shape {shape} and type {dtype.name}, not {size}")
    return NpyHeader(shape, dtype, match[2] == b"True", start)


def reserve(size: int) -> memoryview:
    """Writable memory of ``size`` bytes that is not touched, so that a lie about the size costs address space only."""
    return np.empty(size, np.uint8).data


def to_array(data: memoryview, header: NpyHeader) -> np.ndarray:
    """View of the elements in ``data``, the whole `.npy`; read-only."""
    flat = np.frombuffer(data, header.dtype, offset=header.start)
    array = flat.reshape(header.shape, order="F" if header.fortran else "C")
    array.setflags(write=False)
    return array


def open_regular(path: Path, error: type[LutqError], max_bytes: int) -> tuple[BufferedReader, int]:
    """``path`` opened for reading, and its size; refuses what could hang (pipes, devices) or is too large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{path}: must be a regular file")
        if status.st_size > max_bytes:
            raise error(f"{path}: must be at most {max_bytes} bytes, not {status.st_size}")
        return path.open("rb"), status.st_size
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem})") from None
    except ValueError:  # a zero byte in the path
        raise error(f"{path}: cannot be read (not a path)") from None


@dataclass(frozen=True)
class _Member:
    start: int
    packed: int
    size: int
    crc: int
    deflated: bool


class Archive:
    """The integer arrays of a `.npz` file, read one at a time.

    Parameters
    ----------
    path
        The file.
    error
        Class of what is raised; the sentence begins with the path.
    max_file, max_total, max_members
        Largest file, largest sum of the declared array sizes (both bytes), largest number of arrays.
    """

    def __init__(self, path: Path, *, error: type[LutqError], max_file: int, max_total: int, max_members: int):
        self.path, self._error = path, error
        self._file, self._size = open_regular(path, error, max_file)
        try:
            self._members = self._directory(max_members)
            total = sum(member.size for member in self._members.values())
            if total > max_total:
                raise _Bad(f"must hold at most {max_total} bytes of arrays, not {total}")
        except _Bad as bad:
            self._file.close()
            raise error(f"{path}: {bad}") from None
        except OSError as problem:
            self._file.close()
            raise error(f"{path}: cannot be read ({problem.strerror or problem})") from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, without `.npy`."""
        return tuple(self._members)

    def header(self, name: str) -> NpyHeader:
        """Shape and type of array ``name``, without reading its data."""
        member = self._members[name]
        try:
            return self._header(member)
        except (_Bad, OSError) as problem:
            raise self._named(name, problem) from None

    def array(self, name: str) -> np.ndarray:
        """The elements of array ``name``."""
        member = self._members[name]
        try:
            header = self._header(member)
            data, filled, crc = reserve(member.size), 0, 0
            for piece in self._pieces(member):
                data[filled:filled + len(piece)] = piece
                filled += len(piece)
                crc = zlib.crc32(piece, crc)
            if filled != member.size:
                raise _Bad(f"must unpack to {member.size} bytes, not {filled}")
            if crc != member.crc:
                raise _Bad("must match its checksum (the file is damaged)")
            return to_array(data, header)
        except (_Bad, OSError) as problem:
            raise self._named(name, problem) from None

    def _named(self, name: str, problem: Exception) -> LutqError:
        clause = f"cannot be read ({problem.strerror or problem})" if isinstance(problem, OSError) else str(problem)
        return self._error(f"{self.path}: array {name} {clause}")

    def _header(self, member: _Member) -> NpyHeader:
        head = b""
        for piece in self._pieces(member):
            head += piece
            if len(head) >= MAX_NPY_HEADER + 12:
                break
        return parse_npy_header(head, member.size)

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise _Bad("must not change while it is read")
        return data

    def _pieces(self, member: _Member) -> Iterator[bytes]:
        """Unpacked data in order; fails before yielding more than ``member.size`` bytes."""
        unpack = zlib.decompressobj(-zlib.MAX_WBITS) if member.deflated else None
        position, end, left = member.start, member.start + member.packed, member.size
        pending, more = b"", True
        while more:
            if not pending and position < end:
                pending = self._at(position, min(PIECE, end - position))
                position += len(pending)
            if unpack is None:
                piece, pending = pending, b""
                more = position < end
            else:
                try:
                    piece = unpack.decompress(pending, min(PIECE, left + 1))
                except zlib.error:
                    raise _Bad("must be intact deflated data (the file is damaged)") from None
                pending = unpack.unconsumed_tail
                if unpack.unused_data or (unpack.eof and (pending or position < end)):
                    raise _Bad("must not be followed by other data")
                # Without input left, zlib may still hold output that the limit of the last call kept back.
                more = not unpack.eof and bool(piece or pending or position < end)
            left -= len(piece)
            if left < 0:
                raise _Bad(f"must unpack to {member.size} bytes, not more")
            yield piece
        if unpack is not None and not unpack.eof:
            raise _Bad("must be intact deflated data (the file is damaged)")

    def _directory(self, max_members: int) -> dict[str, _Member]:
        """Members from the zip directory at the end of the file; overlapping or repeated ones are refused."""
        if self._size < _END.size:
            raise _Bad("must be a .npz archive")
        mark, *disks, count, total, size, offset, comment = _END.unpack(self._at(self._size - _END.size, _END.size))
        if mark != b"PK\x05\x06" or comment or any(disks):
            raise _Bad("must be a .npz archive (its end is missing or damaged)")
        if count != total or count > max_members:
            raise _Bad(f"must hold at most {max_members} arrays, not {total}")
        if offset + size != self._size - _END.size or size > count * (_CENTRAL.size + 512):
            raise _Bad("must be a .npz archive (its directory is damaged)")
        directory = self._at(offset, size)
        members: dict[str, _Member] = {}
        spans: list[tuple[int, int]] = []
        position = 0
        for _ in range(count):
            name, member, begin, position = self._central(directory, position, offset)
            if name in members:
                raise _Bad(f"must not hold the array {name} twice")
            members[name] = member
            spans.append((begin, member.start + member.packed))
        if position != size:
            raise _Bad("must be a .npz archive (its directory is damaged)")
        spans.sort()
        if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
            raise _Bad("must not hold arrays that overlap")
        return members

    def _central(self, directory: bytes, position: int, limit: int) -> tuple[str, _Member, int, int]:
        """One directory entry: name, member, offset of its local header, position of the next entry."""
        if position + _CENTRAL.size > len(directory):
            raise _Bad("must be a .npz archive (its directory is damaged)")
        (mark, _, _, flags, method, _, _, crc, packed, size, name_size, extra, comment, disk, _, _,
         begin) = _CENTRAL.unpack_from(directory, position)
        position += _CENTRAL.size
        raw = directory[position:position + name_size]
        position += name_size + extra + comment
        if mark != b"PK\x01\x02" or disk or position > len(directory):
            raise _Bad("must be a .npz archive (its directory is damaged)")
        if not re.fullmatch(rb"[A-Za-z0-9_.]{1,120}\.npy", raw):
            raise _Bad(f"must hold arrays named by letters, digits, points and underscores, not {raw[:60]!r}")
        name = raw[:-4].decode()
        if flags & ~0x080E or method not in (0, 8):
            raise _Bad(f"must hold arrays that are stored or deflated, which {name} is not")
        if begin + _LOCAL.size > limit:
            raise _Bad(f"must hold all of array {name} (the file is damaged)")
        local = _LOCAL.unpack(self._at(begin, _LOCAL.size))
        start = begin + _LOCAL.size + local[9] + local[10]
        if start + packed > limit or local[0] != b"PK\x03\x04" or local[3] != method or local[9] != name_size \
                or self._at(begin + _LOCAL.size, name_size) != raw:
            raise _Bad(f"must hold all of array {name} (the file is damaged)")
        if method == 0 and packed != size:
            raise _Bad(f"must store array {name} in {size} bytes, not {packed}")
        return name, _Member(start, packed, size, crc, method == 8), begin, position


def read_npy(path: Path, *, error: type[LutqError], max_bytes: int) -> np.ndarray:
    """The integers in the `.npy` file ``path`` of at most ``max_bytes``; ``error`` with one sentence otherwise."""
    file, size = open_regular(path, error, max_bytes)
    try:
        with file:
            header = parse_npy_header(file.read(MAX_NPY_HEADER + 12), size)
            data = reserve(size)
            file.seek(0)
            if file.readinto(data) != size:
                raise _Bad("must not change while it is read")
            return to_array(data, header)
    except _Bad as bad:
        raise error(f"{path}: {bad}") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem})") from None
