# amaranth: UnusedElaboratable=no
"""HostLink in the simulator, cycle-true, with stand-ins for the accelerator and every kind of damage on the line."""

import random

import numpy as np
import pytest
from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from lutq_hw.errors import PlanError
from lutq_hw.gateware.host import HostLink
from lutq_hw.link.protocol import (
    MAGIC,
    Answer,
    AnswerCode,
    AnswerParser,
    Command,
    Identity,
    encode_frame,
    encode_request,
    pack_frames,
    pack_result,
)
from lutq_hw.link.simulated import SimulatedBoard
from lutq_hw.network import TensorType
from lutq_hw.streams import StreamFormat

DIGEST = bytes(range(0x11, 0x31))
TIMEOUT = 512


class StandIn(wiring.Component):
    """Mixes each frame into a number and answers with numbers made from that.

    Parameters
    ----------
    stall
        Stalls on both sides in this many of 16 cycles.
    queued
        Words that fit in front and behind, so that frames overlap.
    pause
        Cycles that it thinks about a frame.
    stuck
        Takes frames and never answers.
    """

    def __init__(self, x: StreamFormat, y: StreamFormat, *, stall: int = 0, queued: int = 0, pause: int = 0,
                 stuck: bool = False):
        self.x, self.y, self.stall, self.queued, self.pause, self.stuck = x, y, stall, queued, pause, stuck
        super().__init__({"i": In(stream.Signature(unsigned(x.width))), "o": Out(stream.Signature(unsigned(y.width)))})

    def reference(self, codes: np.ndarray) -> np.ndarray:
        state = 0
        for word in self.x.pack(codes):
            state = (state * 5 + word + 1) % (1 << 32)
        bits = self.y.type.bits
        values = [(state >> 3) + 77 * n & ((1 << bits) - 1) for n in range(self.y.type.size)]
        half = 1 << (bits - 1) if self.y.type.signed else 0
        return np.array([(value ^ half) - half for value in values]).reshape(self.y.type.shape)

    def elaborate(self, platform):
        m = Module()
        source, sink = wiring.flipped(self.i), wiring.flipped(self.o)
        if self.queued:
            m.submodules.before = before = fifo.SyncFIFOBuffered(width=self.x.width, depth=self.queued)
            m.submodules.behind = behind = fifo.SyncFIFOBuffered(width=self.y.width, depth=self.queued)
            wiring.connect(m, source, before.w_stream)
            wiring.connect(m, behind.r_stream, sink)
            source, sink = before.r_stream, behind.w_stream
        noise = Signal(16, init=0xACE1)
        state, count, wait = Signal(32), Signal(16), Signal(range(self.pause + 1))
        m.d.sync += noise.eq(Cat(noise[1:], noise[0] ^ noise[2] ^ noise[3] ^ noise[5]))
        moving = noise[:4] >= self.stall
        offered = Signal()
        lanes, bits = self.y.lanes, self.y.type.bits
        result = Cat(((state >> 3) + 77 * (count * lanes + lane))[:bits] for lane in range(lanes))
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += source.ready.eq(moving)
                with m.If(source.valid & moving):
                    m.d.sync += [state.eq(state * 5 + source.payload + 1), count.eq(count + 1)]
                    with m.If(count == self.x.words - 1):
                        m.d.sync += [count.eq(0), wait.eq(self.pause)]
                        m.next = "THINK"
            with m.State("THINK"):
                m.d.sync += wait.eq(Mux(wait == 0, 0, wait - 1))
                if not self.stuck:
                    with m.If(wait == 0):
                        m.next = "GIVE"
            with m.State("GIVE"):
                m.d.comb += [sink.valid.eq(offered | moving), sink.payload.eq(result)]
                m.d.sync += offered.eq(sink.valid & ~sink.ready)
                with m.If(sink.valid & sink.ready):
                    m.d.sync += count.eq(count + 1)
                    with m.If(count == self.y.words - 1):
                        m.d.sync += [count.eq(0), state.eq(0)]
                        m.next = "TAKE"
        return m


class Bench:
    """A simulated board with a stand-in, and what should come back."""

    def __init__(self, x=((5,), 4, False, 1), y=((3,), 11, True, 1), *, seed=0, divisor=4, bit_cycles=None, slots=2,
                 **stand_in):
        self.x = StreamFormat(TensorType(*x[:3]), x[3])
        self.y = StreamFormat(TensorType(*y[:3]), y[3])
        self.link = HostLink(self.x, self.y, digest=DIGEST, divisor=divisor, slots=slots, timeout=TIMEOUT)
        self.stand_in = StandIn(self.x, self.y, **stand_in)
        self.board = SimulatedBoard(self.link, self.stand_in, bit_cycles=bit_cycles, patience=1000)
        self.rng, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.parser = AnswerParser(64)

    def infer(self, tag: int) -> tuple[bytes, Answer]:
        """A random frame's request and its answer."""
        kind = self.x.type
        codes = self.numbers.integers(kind.min, kind.max + 1, kind.shape)
        payload = pack_result(self.stand_in.reference(codes), self.y.type)
        return encode_request(Command.INFER, tag, pack_frames(codes, kind)[0]), Answer(tag, AnswerCode.RESULT, payload)

    def answers(self) -> list[Answer]:
        """All that come until the line is silent, and nothing between them."""
        found = []
        while data := self.board.read():
            found += self.parser.feed(data)
        assert self.parser.flush() == [] and self.parser.skipped == 0 and self.board.decoder.framing_errors == 0
        return found

    def ask(self, line: bytes) -> list[Answer]:
        self.board.write(line)
        return self.answers()

    def assert_sound(self) -> None:
        """A frame still gets its result."""
        request, answer = self.infer(9)
        assert self.ask(request) == [answer]


def error(code: AnswerCode, tag: int = 0) -> Answer:
    return Answer(tag, code)


def test_identify():
    bench = Bench(x=((2, 2, 3), 3, False, 3), y=((10,), 14, True, 2), divisor=5)
    (answer,) = bench.ask(encode_request(Command.IDENTIFY, 12))
    assert (answer.tag, answer.code) == (12, AnswerCode.IDENTITY)
    identity = Identity.decode(answer.payload)
    assert identity.digest == DIGEST[:8] and (identity.slots, identity.divisor) == (2, 5)
    assert (str(identity.input), identity.input.lanes) == ("12 x u3", 3)
    assert (str(identity.output), identity.output.lanes) == ("10 x s14", 2)


SHAPES = [(((5,), bits, False, 1), ((3,), 11, True, 1)) for bits in range(1, 9)] + [
    (((2, 2, 3), 3, False, 3), ((6,), 8, True, 3)),
    (((3, 3, 2), 4, True, 2), ((1,), 4, False, 1)),
    (((1,), 1, False, 1), ((4,), 24, True, 4)),
    (((1,), 8, True, 1), ((1,), 32, True, 1)),
    (((2, 2, 5), 8, False, 5), ((3,), 1, False, 3)),
    (((7,), 2, False, 7), ((2,), 17, False, 1)),
    (((65, 1, 1), 4, False, 1), ((2,), 9, True, 2)),
]


@pytest.mark.parametrize("x, y", SHAPES, ids=str)
def test_every_geometry(x, y):
    bench = Bench(x, y, stall=5, seed=len(str(x)))
    for tag in range(2):
        requests = [bench.infer(tag + 3 * n) for n in range(2)]
        assert bench.ask(b"".join(line for line, _ in requests)) == [answer for _, answer in requests]


@pytest.mark.parametrize("stand_in", [{}, {"stall": 8}, {"queued": 16}, {"queued": 30, "stall": 12}], ids=str)
def test_pipelined_frames(stand_in):
    bench = Bench(x=((4, 2, 2), 8, False, 1), **stand_in)  # requests are longer than answers: nothing can pile up
    requests = [bench.infer(n) for n in range(10)]
    assert bench.ask(b"".join(line for line, _ in requests)) == [answer for _, answer in requests]
    assert len(bench.board.shown) == 10


def test_the_line_never_rests_between_pipelined_frames():
    bench = Bench(x=((4, 2, 2), 8, False, 1))
    requests = [bench.infer(n) for n in range(8)]
    line = b"".join(line for line, _ in requests)
    bench.board.write(line)
    found = []
    while len(found) < 8:
        found += bench.parser.feed(bench.board.read())
    one = len(requests[0][0]) * 10 * 4
    assert bench.board.cycle < 8 * one + 2 * one


@pytest.mark.parametrize("slots", [1, 2])
def test_a_frame_that_finds_no_slot_is_refused(slots):
    bench = Bench(slots=slots, pause=3000)
    requests = [bench.infer(n) for n in range(6)]
    bench.board.patience = 5000
    answers = bench.ask(b"".join(line for line, _ in requests))
    # One is in the accelerator, `slots` wait in the buffer; five answers are kept at most, the sixth is lost.
    expected = [answer for _, answer in requests[:slots + 1]] + [error(AnswerCode.BUSY, n) for n in range(slots + 1, 5)]
    assert answers == expected
    assert bench.ask(requests[0][0]) == expected[:1]


def test_requests_of_all_kinds_back_to_back_are_answered_in_order():
    bench = Bench(pause=300)
    (one, first), (two, second) = bench.infer(1), bench.infer(3)
    answers = bench.ask(one + encode_request(Command.IDENTIFY, 2) + two)
    assert [answers[0], answers[1].code, answers[2]] == [first, AnswerCode.IDENTITY, second]


@pytest.mark.parametrize("off", [0.98, 1.02])
def test_a_host_whose_rate_is_off(off):
    bench = Bench(x=((4, 2, 2), 8, False, 1), bit_cycles=4 * off)
    requests = [bench.infer(n) for n in range(5)]
    assert bench.ask(b"".join(line for line, _ in requests)) == [answer for _, answer in requests]


@pytest.mark.parametrize("moment", [0, 15, 60, 200, 500, 700, 900, 1100, 1300])
def test_reset_in_the_middle(moment):
    bench = Bench(y=((20,), 16, True, 1), pause=100, queued=8)
    bench.board.write(bench.infer(1)[0] + bench.infer(2)[0])
    bench.board.run(40 * 20 + moment)
    bench.board.write(encode_request(Command.RESET, 7))
    found = []
    while data := bench.board.read():
        found += bench.parser.feed(data)
    found += bench.parser.flush()
    assert found[-1] == Answer(7, AnswerCode.DONE)
    assert len(found) <= 2  # an answer cut short carries a wrong CRC, one that had ended stays right
    assert bench.board.decoder.framing_errors == 0
    bench.parser = AnswerParser(64)
    bench.assert_sound()


def test_reset_frees_a_stuck_accelerator():
    bench = Bench(y=((20,), 16, True, 1), stuck=True)
    bench.board.write(bench.infer(1)[0] + bench.infer(2)[0])
    assert bench.parser.feed(bench.board.read() + bench.board.read()) == []
    bench.board.write(encode_request(Command.RESET, 3))
    answers = []
    while data := bench.board.read():
        answers += bench.parser.feed(data)
    assert answers == [Answer(3, AnswerCode.DONE)]
    assert bench.parser.skipped == 47  # the result that had been promised, with a wrong CRC


@pytest.mark.parametrize("damage, code, tag", [
    (lambda line: line[:-1] + bytes([line[-1] ^ 1]), AnswerCode.BAD_CRC, 5),
    (lambda line: line[:6] + bytes([line[6] ^ 0x10]) + line[7:], AnswerCode.BAD_CRC, 5),
    (lambda line: encode_request(Command.INFER, 5, line[5:-3]), AnswerCode.BAD_LENGTH, 5),
    (lambda line: encode_request(Command.INFER, 5, line[5:-2] + b"\0"), AnswerCode.BAD_LENGTH, 5),
    (lambda line: encode_request(Command.INFER, 5, bytes(300)), AnswerCode.BAD_LENGTH, 5),
    (lambda line: encode_request(Command.INFER, 5), AnswerCode.BAD_LENGTH, 5),
    (lambda line: encode_request(Command.IDENTIFY, 5, b"\0"), AnswerCode.BAD_LENGTH, 5),
    (lambda line: encode_request(Command.RESET, 5, bytes(256)), AnswerCode.BAD_LENGTH, 5),
    (lambda line: encode_frame(0x50), AnswerCode.UNKNOWN_COMMAND, 5),
    (lambda line: encode_frame(0x54, b"abc"), AnswerCode.UNKNOWN_COMMAND, 5),
    (lambda line: encode_frame(0x5F), AnswerCode.UNKNOWN_COMMAND, 5),
    (lambda line: line[:6], AnswerCode.TIMEOUT, 5),
    (lambda line: line[:2], AnswerCode.TIMEOUT, 0),
    (lambda line: line[:1], AnswerCode.TIMEOUT, 0),
    (lambda line: line[1:], AnswerCode.OUT_OF_SYNC, 0),
    (lambda line: b"L" + line[2:], AnswerCode.OUT_OF_SYNC, 0),
    (lambda line: b"hello?", AnswerCode.OUT_OF_SYNC, 0),
], ids=lambda value: value.name if isinstance(value, AnswerCode) else "")
def test_each_kind_of_damage_has_its_code(damage, code, tag):
    bench = Bench()
    request, _ = bench.infer(5)
    assert bench.ask(damage(request)) == [error(code, tag)]
    bench.assert_sound()


@pytest.mark.parametrize("place", range(10))
def test_a_byte_without_stop_bit(place):
    bench = Bench()
    request, _ = bench.infer(5)
    bench.board.write(request[:place])
    bench.board.encoder.send(request[place:place + 1], stop=0)
    bench.board.encoder.pause(2)
    bench.board.write(request[place + 1:])
    assert bench.answers() == [error(AnswerCode.FRAMING if place else AnswerCode.OUT_OF_SYNC, 5 if place > 2 else 0)]
    bench.assert_sound()


def test_a_line_held_low_is_one_complaint():
    bench = Bench()
    bench.board.encoder.pause(3)
    bench.board.encoder._bits.extend([0] * 500)
    assert bench.answers() == [error(AnswerCode.OUT_OF_SYNC)]
    bench.assert_sound()


def test_complaints_about_garbage_come_once_until_the_line_was_silent():
    bench = Bench()
    request, answer = bench.infer(2)
    complaint = error(AnswerCode.OUT_OF_SYNC)
    assert bench.ask(b"abc" + request + b"def") == [complaint, answer, complaint]
    assert bench.ask(b"abcLLL" + MAGIC[:1] + request) == [complaint, answer]


def damaged(bench: Bench, request: bytes) -> bytes:
    """Something that went wrong on the line, and never contains a whole request."""
    rng, line = bench.rng, bytearray(request)
    match rng.randrange(7):
        case 0:
            line[rng.randrange(len(line))] ^= 1 << rng.randrange(8)
        case 1:
            del line[rng.randrange(1, len(line)):]
        case 2:
            del line[rng.randrange(len(line))]
        case 3:
            line.insert(rng.randrange(2, len(line) - 1), rng.randrange(256))
        case 4:
            line = bytearray(rng.randbytes(rng.randrange(1, 20)))
        case 5:
            line = bytearray(encode_frame(rng.randrange(256), rng.randbytes(rng.randrange(9)))[:-1])
        case 6:
            line = bytearray(MAGIC * rng.randrange(1, 4) + bytes([0x52, 3, 0]) + rng.randbytes(rng.randrange(6)))
    return bytes(line)


@pytest.mark.parametrize("seed", range(5))
def test_no_damage_wedges_the_link_or_makes_a_result(seed):
    bench = Bench(stall=4, queued=4, seed=seed)
    for round in range(10):
        tag = round % 16
        request, answer = bench.infer(tag)
        for _ in range(bench.rng.randrange(1, 3)):
            bench.board.write(damaged(bench, bench.infer(bench.rng.randrange(16))[0]))
        gap = bench.rng.choice([0, 0, 5, TIMEOUT // 4 + 5])  # in bits: the last one lets the request time out
        bench.board.encoder.pause(gap)
        answers = bench.ask(request)
        results = [found for found in answers if not found.code.is_error]
        assert answers, f"seed {seed} round {round}: no answer at all"
        # Damage may swallow the good request behind it, but only while no silence separates them.
        assert results in ([[answer], []] if gap < 6 else [[answer]]), f"seed {seed} round {round}: {answers}"
        assert results or any(found.code.is_error for found in answers)
    bench.assert_sound()


def test_class_is_shown():
    bench = Bench(y=((6,), 9, True, 2), stall=3)
    expected = []
    for tag in range(6):
        request, answer = bench.infer(tag)
        assert bench.ask(request) == [answer]
        scores = np.frombuffer(answer.payload, "<i2")
        expected.append(int(scores.argmax()))
    assert bench.board.shown == expected
    single = Bench(y=((1,), 4, False, 1))
    request, answer = single.infer(1)
    assert single.ask(request) == [answer]
    assert single.board.shown == [answer.payload[0]]


def test_wrong_parameters():
    x, y = StreamFormat(TensorType((4,), 4), 1), StreamFormat(TensorType((4,), 8, True), 1)
    with pytest.raises(ValueError, match=r"^Digest must have at least 8 bytes, not 3$"):
        HostLink(x, y, digest=b"abc", divisor=8)
    with pytest.raises(ValueError, match=r"^Slots must be 1 or 2, not 3$"):
        HostLink(x, y, digest=DIGEST, divisor=8, slots=3)
    with pytest.raises(ValueError, match=r"^Timeout must be a power of two of clock cycles, not 1000$"):
        HostLink(x, y, digest=DIGEST, divisor=8, timeout=1000)
    with pytest.raises(ValueError, match=r"^Divisor must be 4 to 65535 clock cycles of a bit, not 3$"):
        HostLink(x, y, digest=DIGEST, divisor=3)
    large = StreamFormat(TensorType((300, 300, 1), 8), 1)
    with pytest.raises(PlanError, match=r"^host link: frames must take at most 65535 bytes, not 90000; "
                                        r"use smaller images or fewer bits$"):
        HostLink(large, y, digest=DIGEST, divisor=8)
    with pytest.raises(PlanError, match=r"^host link: results must take at most 65535 bytes, not 80000; "
                                        r"use smaller images or fewer bits$"):
        HostLink(x, StreamFormat(TensorType((40_000,), 9), 1), digest=DIGEST, divisor=8)
