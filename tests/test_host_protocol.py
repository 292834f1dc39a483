# amaranth: UnusedElaboratable=no
"""The frame codec, without a device."""

import random

import numpy as np
import pytest
from amaranth.lib.crc.catalog import CRC16_IBM_3740
from hypothesis import given, settings
from hypothesis import strategies as st

from lutq_hw.errors import LinkError
from lutq_hw.link.protocol import (
    MAGIC,
    Answer,
    AnswerCode,
    AnswerParser,
    Command,
    Geometry,
    Identity,
    crc,
    encode_frame,
    encode_request,
    frame_bytes,
    pack_frames,
    pack_result,
    result_bytes,
    unpack_frame,
    unpack_result,
)
from lutq_hw.link.rate import STANDARD, pick_baud
from lutq_hw.network import TensorType

SHAPES = st.sampled_from([(1,), (5,), (8,), (3, 2, 3), (1, 4, 2)])
TYPES = st.builds(TensorType, SHAPES, st.integers(1, 8), st.booleans())
WIDE = st.builds(TensorType, st.sampled_from([(1,), (3,), (10,)]), st.integers(1, 32), st.booleans())
ANSWERS = st.builds(Answer, st.integers(0, 15), st.sampled_from(AnswerCode), st.binary(max_size=40))


def encode(answer: Answer) -> bytes:
    return encode_frame(answer.tag << 4 | answer.code, answer.payload)


def test_crc_of_the_published_check_message():
    assert crc(b"123456789") == 0x29B1  # CRC catalogue, CRC-16/IBM-3740


@given(st.binary(max_size=60))
def test_crc_equals_that_of_amaranth(message):
    assert crc(message) == CRC16_IBM_3740(8).compute(message)


def test_a_request_byte_by_byte():
    assert encode_request(Command.IDENTIFY, 5).hex(" ") == "4c 51 51 00 00 a5 62"
    body = bytes([0xA2, 3, 0, 1, 2, 3])
    assert encode_request(Command.INFER, 10, b"\1\2\3") == MAGIC + body + crc(body).to_bytes(2, "big")


@given(TYPES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_frames_are_packed_without_gaps(x, count, rng):
    codes = np.array([rng.randint(x.min, x.max) for _ in range(count * x.size)], np.int64).reshape(count, *x.shape)
    payloads = pack_frames(codes, x)
    assert len(payloads) == count
    for payload, frame in zip(payloads, codes, strict=True):
        assert len(payload) == frame_bytes(x)
        mask = (1 << x.bits) - 1
        number = sum((int(code) & mask) << n * x.bits for n, code in enumerate(frame.reshape(-1)))
        assert payload == number.to_bytes(frame_bytes(x), "little")
        np.testing.assert_array_equal(unpack_frame(payload, x), frame)


@given(WIDE, st.randoms(use_true_random=False))
def test_results_are_whole_bytes(y, rng):
    values = np.array([rng.randint(y.min, y.max) for _ in range(y.size)], np.int64).reshape(y.shape)
    payload = pack_result(values, y)
    assert len(payload) == result_bytes(y)
    np.testing.assert_array_equal(unpack_result(payload, y), values)


@given(st.lists(st.one_of(ANSWERS, st.binary(max_size=12).filter(lambda data: b"L" not in data)), max_size=8),
       st.randoms(use_true_random=False))
def test_answers_between_garbage_in_any_pieces(parts, rng):
    line = b"".join(part if isinstance(part, bytes) else encode(part) for part in parts)
    parser, found = AnswerParser(), []
    while line:
        cut = rng.randint(1, len(line))
        found += parser.feed(line[:cut])
        line = line[cut:]
    assert found + parser.flush() == [part for part in parts if isinstance(part, Answer)]
    assert parser.skipped == sum(len(part) for part in parts if isinstance(part, bytes))


@given(ANSWERS, ANSWERS, st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_a_damaged_answer_costs_no_other(first, second, rng):
    damaged = bytearray(encode(first))
    match rng.randrange(3):
        case 0:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        case 1:
            del damaged[rng.randrange(len(damaged)):]
        case 2:
            del damaged[rng.randrange(len(damaged))]
    parser = AnswerParser(40)
    found = parser.feed(bytes(damaged) + encode(second)) + parser.flush()
    assert found[-1:] == [second]
    assert len(found) <= 1 + first.payload.count(MAGIC)


def test_random_bytes_never_upset_the_parser():
    rng = random.Random(1)
    parser = AnswerParser(100)
    for _ in range(2000):
        parser.feed(rng.choice([rng.randbytes(rng.randrange(20)), MAGIC, b"LQ\x00\x05\x00", b"L"]))
        assert len(parser._bytes) <= 200
    parser.flush()
    assert parser.feed(encode(Answer(3, AnswerCode.DONE))) == [Answer(3, AnswerCode.DONE)]


def test_identity_survives_the_link():
    identity = Identity(bytes(range(8)), 2, Geometry(4, False, 1, 784), Geometry(14, True, 2, 10), 10)
    assert Identity.decode(identity.encode()) == identity
    assert len(identity.encode()) == Identity.SIZE == 26


@pytest.mark.parametrize("payload, found", [(b"", "nothing"), (b"\x07abc", "version 7 with 4 bytes")])
def test_an_identity_of_another_version_is_refused(payload, found):
    with pytest.raises(LinkError, match="^the board must identify itself by protocol version 1 with 26 bytes, "
                                        f"not {found}; build and program it with this release of lutq$"):
        Identity.decode(payload)


@pytest.mark.parametrize("mhz, baud, divisor", [(12, 3_000_000, 4), (24, 3_000_000, 8), (30, 3_000_000, 10),
                                                (36, 3_000_000, 12), (36.5, 3_000_000, 12), (25, 2_742_857, 9)])
def test_the_fastest_rate_for_a_clock(mhz, baud, divisor):
    picked = pick_baud(mhz * 1e6)
    assert (picked.baud, picked.divisor) == (baud, divisor)


@given(st.floats(1e6, 100e6), st.booleans())
def test_every_rate_is_close_enough(clock_hz, ftdi):
    picked = pick_baud(clock_hz, ftdi=ftdi)
    assert abs(picked.error) <= 0.015 and picked.divisor >= 4 and picked.baud <= STANDARD[0]
    assert picked.error == pytest.approx(clock_hz / picked.divisor / picked.baud - 1)


def test_a_clock_too_slow_for_any_rate():
    with pytest.raises(LinkError,
                       match=r"^clock must be at least 4 times the slowest baud rate \(9600\), not 20000 Hz$"):
        pick_baud(20_000)
