"""Frames of the host link, without input or output; ``docs/host-protocol.md`` is the specification.

Gateware, driver and simulations take their constants from here.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np

from ..errors import LinkError
from ..network import TensorType
from ..network.tensor import Ints

VERSION = 1
MAGIC = b"LQ"
CRC_START = 0xFFFF
OVERHEAD = 7
"""Bytes of a frame besides its payload: magic, head, length, CRC."""

MAX_PAYLOAD = 0xFFFF
TAGS = 16
DIGEST_BYTES = 8


class Command(IntEnum):
    """Low half of a request's head byte."""

    IDENTIFY = 1
    INFER = 2
    RESET = 3


class AnswerCode(IntEnum):
    """Low half of an answer's head byte; from 8 on they are errors."""

    RESULT = 0
    IDENTITY = 1
    DONE = 2
    BAD_CRC = 8
    BAD_LENGTH = 9
    UNKNOWN_COMMAND = 10
    BUSY = 11
    FRAMING = 12
    TIMEOUT = 13
    OUT_OF_SYNC = 14

    @property
    def is_error(self) -> bool:
        """True if the request, or whatever the bytes were, was refused."""
        return self >= AnswerCode.BAD_CRC

    @property
    def sentence(self) -> str:
        """What the device complains about."""
        return {
            AnswerCode.BAD_CRC: "the CRC of a request was wrong",
            AnswerCode.BAD_LENGTH: "the length of a request did not fit its command",
            AnswerCode.UNKNOWN_COMMAND: "the command of a request is unknown",
            AnswerCode.BUSY: "it had no room for another frame",
            AnswerCode.FRAMING: "a byte had no stop bit",
            AnswerCode.TIMEOUT: "a request stopped in its middle",
            AnswerCode.OUT_OF_SYNC: "bytes arrived that begin no request",
        }.get(self, "nothing is wrong")


ANSWER_CODES = frozenset(int(code) for code in AnswerCode)


def crc(message: bytes) -> int:
    """CRC-16/IBM-3740 (also called CCITT-FALSE): polynomial 0x1021, start 0xFFFF, not reflected."""
    return binascii.crc_hqx(message, CRC_START)


def encode_frame(head: int, payload: bytes = b"") -> bytes:
    """A whole frame of either direction."""
    body = struct.pack("<BH", head, len(payload)) + payload
    return MAGIC + body + struct.pack(">H", crc(body))


def encode_request(command: Command, tag: int, payload: bytes = b"") -> bytes:
    """The request ``command``; its answer will carry ``tag`` (0 to 15)."""
    return encode_frame(tag << 4 | command, payload)


@dataclass(frozen=True)
class Answer:
    """A frame from the device whose CRC was right."""

    tag: int
    code: AnswerCode
    payload: bytes = b""


class FrameParser:
    """Finds frames in bytes, however they are cut into pieces and whatever stands between them.

    A frame that turns out wrong costs its magic only: the search goes on right behind that.

    Parameters
    ----------
    max_payload
        Longest payload that a frame can have; a length above it is taken for damage at once.

    Attributes
    ----------
    skipped
        Bytes so far that belonged to no frame.
    """

    def __init__(self, max_payload: int = MAX_PAYLOAD):
        self.max_payload = max_payload
        self.skipped = 0
        self._bytes = bytearray()

    def frames(self, data: bytes = b"", *, flush: bool = False) -> Iterator[tuple[int, bytes]]:
        """Head and payload of every frame that ends within ``data``.

        With ``flush``, the rest of an unfinished frame is not waited for any longer: what hides behind its damaged
        beginning comes too.
        """
        self._bytes += data
        while True:
            start = self._bytes.find(MAGIC)
            if start < 0:  # the last byte may be the first half of the magic
                start = len(self._bytes) - (not flush and self._bytes.endswith(MAGIC[:1]))
            self._skip(start)
            if len(self._bytes) < len(MAGIC):
                return
            frame = self._first()
            if frame is not None:
                del self._bytes[: OVERHEAD + len(frame[1])]
                yield frame
            elif self._incomplete() and not flush:
                return
            else:
                self._skip(len(MAGIC))

    def _skip(self, count: int) -> None:
        del self._bytes[:count]
        self.skipped += count

    def _size(self) -> int | None:
        """Bytes of the frame at the start of the buffer, as far as can be told."""
        if len(self._bytes) < 5:
            return None
        return OVERHEAD + int.from_bytes(self._bytes[3:5], "little")

    def _incomplete(self) -> bool:
        size = self._size()
        return size is None or (len(self._bytes) < size <= OVERHEAD + self.max_payload)

    def _first(self) -> tuple[int, bytes] | None:
        size = self._size()
        if size is None or len(self._bytes) < size or size > OVERHEAD + self.max_payload:
            return None
        frame = bytes(self._bytes[:size])
        if crc(frame[2:]) or not self.known(frame[2]):
            return None
        return frame[2], frame[5:-2]

    def known(self, head: int) -> bool:
        """True if a frame with this head byte can be meant."""
        return True


class AnswerParser(FrameParser):
    """Finds answers in the bytes from the device."""

    def known(self, head: int) -> bool:
        return head & 0xF in ANSWER_CODES

    def feed(self, data: bytes) -> list[Answer]:
        """The answers that end within ``data``."""
        return [Answer(head >> 4, AnswerCode(head & 0xF), payload) for head, payload in self.frames(data)]

    def flush(self) -> list[Answer]:
        """Gives up waiting for the rest of a frame: the answers that hide behind its damaged beginning."""
        return [Answer(head >> 4, AnswerCode(head & 0xF), payload) for head, payload in self.frames(flush=True)]


@dataclass(frozen=True)
class Geometry:
    """How tensors of one end look on the link and inside the device."""

    bits: int
    signed: bool
    lanes: int
    elements: int

    @classmethod
    def of(cls, type: TensorType, lanes: int = 1) -> Geometry:
        """The geometry of ``type``, ``lanes`` elements to a word."""
        return cls(type.bits, type.signed, lanes, type.size)

    def matches(self, type: TensorType) -> bool:
        """True if tensors of ``type`` have this geometry; lanes do not show on the link."""
        return (self.bits, self.signed, self.elements) == (type.bits, type.signed, type.size)

    def __str__(self) -> str:
        return f"{self.elements} x {'s' if self.signed else 'u'}{self.bits}"


@dataclass(frozen=True)
class Identity:
    """Payload of the answer to identify.

    Parameters
    ----------
    digest
        First `DIGEST_BYTES` of the network's digest.
    slots
        Requests to infer that may be under way without one ever being refused as busy.
    input, output
        What frames and results look like.
    divisor
        Clock cycles of a bit: the device's clock is ``divisor`` times the baud rate.
    version
        Of the protocol.
    """

    digest: bytes
    slots: int
    input: Geometry
    output: Geometry
    divisor: int
    version: int = VERSION

    FORMAT: ClassVar = "<BB8sBHIBHIH"
    SIZE: ClassVar = struct.calcsize(FORMAT)

    def encode(self) -> bytes:
        """The payload."""
        ends = [(g.bits | g.signed << 7, g.lanes, g.elements) for g in (self.input, self.output)]
        return struct.pack(self.FORMAT, self.version, self.slots, self.digest, *ends[0], *ends[1], self.divisor)

    @classmethod
    def decode(cls, payload: bytes) -> Identity:
        """The identity in ``payload``.

        Raises
        ------
        LinkError
            If its version or its length is not this one's.
        """
        if payload[:1] != bytes([VERSION]) or len(payload) != cls.SIZE:
            found = f"version {payload[0]} with {len(payload)} bytes" if payload else "nothing"
            raise LinkError(f"the board must identify itself by protocol version {VERSION} with "
                            f"{cls.SIZE} bytes, not {found}; "
                            "build and program it with this release of lutq")
        version, slots, digest, *ends, divisor = struct.unpack(cls.FORMAT, payload)
        x, y = (Geometry(bits & 0x7F, bool(bits >> 7), lanes, size) for bits, lanes, size in (ends[:3], ends[3:]))
        return cls(digest, slots, x, y, divisor, version)


def frame_bytes(x: TensorType) -> int:
    """Payload bytes of a request to infer: codes packed densely."""
    return -(-x.size * x.bits // 8)


def result_bytes(y: TensorType) -> int:
    """Payload bytes of a result: whole bytes for each element."""
    return y.size * -(-y.bits // 8)


def pack_frames(codes: Any, x: TensorType) -> list[bytes]:
    """One payload for each frame of ``codes (N, *shape)``: ``bits`` each, LSB first, no gaps, zeros at the end."""
    frames = np.asarray(codes, np.int64).reshape(-1, x.size)
    bits = (frames[:, :, None] >> np.arange(x.bits) & 1).astype(np.uint8)
    return [row.tobytes() for row in np.packbits(bits.reshape(len(frames), x.size * x.bits), axis=1, bitorder="little")]


def unpack_frame(payload: bytes, x: TensorType) -> Ints:
    """The codes in one payload of a request to infer, ``shape`` of ``x``; inverse of `pack_frames`."""
    bits = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little", count=x.size * x.bits)
    codes = bits.reshape(x.size, x.bits).astype(np.int64) @ (1 << np.arange(x.bits, dtype=np.int64))
    return _signed(codes, x.bits, x.signed).reshape(x.shape)


def pack_result(values: Any, y: TensorType) -> bytes:
    """Payload of a result: every element as little-endian two's complement in whole bytes."""
    width = -(-y.bits // 8)
    return b"".join(int(v).to_bytes(width, "little", signed=y.signed) for v in np.asarray(values).reshape(-1))


def unpack_result(payload: bytes, y: TensorType) -> Ints:
    """The elements in the payload of a result, ``shape`` of ``y``."""
    width = -(-y.bits // 8)
    columns = np.frombuffer(payload, np.uint8).reshape(y.size, width).astype(np.int64)
    codes = columns @ (1 << 8 * np.arange(width, dtype=np.int64))
    return _signed(codes, 8 * width, y.signed).reshape(y.shape)


def _signed(codes: Ints, bits: int, signed: bool) -> Ints:
    half = 1 << (bits - 1)
    return (codes ^ half) - half if signed else codes
