"""Requests of the host: take frames apart, keep codes until they are known to be undamaged, feed them as words."""

from __future__ import annotations

from math import gcd

from amaranth import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..link.protocol import MAGIC, AnswerCode, Command, frame_bytes
from ..streams import StreamFormat
from .answer import HEAD
from .crc import ByteCrc

NAMES = ("write", "read", "next")


class FrameBuffer(wiring.Component):
    """Block RAM with room for ``slots`` frames of packed codes: bytes in, words out.

    Bytes go to the slot in hand while it is ``free``; the frame exists for the output only after ``commit``. A word
    leaves every ``width / gcd(width, 8)`` cycles, the first about that long after ``commit``; bits behind the last code
    are dropped.

    Attributes
    ----------
    i, put
        A byte of the frame, and when to take it. Has no effect on committed frames.
    rewind
        Starts the frame in hand from its first byte.
    last
        The next byte is the frame's last one.
    free
        There is a slot in hand.
    commit
        Hands the slot to the output; at least two cycles after its last byte.
    o
        Words of the input format.
    """

    def __init__(self, form: StreamFormat, *, slots: int):
        self.form, self.slots = form, slots
        self.size = frame_bytes(form.type)
        super().__init__({"i": In(8), "put": In(1), "rewind": In(1), "commit": In(1), "last": Out(1), "free": Out(1),
                          "o": Out(stream.Signature(unsigned(form.width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        pitch = 1 << max(1, (self.size - 1).bit_length())  # a power of two: the high address bits number the slot
        depth = pitch * self.slots
        m.submodules.memory = store = memory.Memory(shape=unsigned(8), depth=depth, init=[])
        write, read = store.write_port(), store.read_port()
        full = Signal(range(self.slots + 1))
        taken = Signal()  # the output is done with a slot
        write_index, read_index, next_index = (Signal(range(pitch), name=f"{who}_index") for who in NAMES)
        write_slot, read_slot, next_slot = (Signal(range(self.slots), name=f"{who}_slot") for who in NAMES)
        m.d.comb += [
            self.free.eq(full != self.slots),
            self.last.eq(write_index == self.size - 1),
            write.addr.eq(Cat(write_index, write_slot)),
            write.data.eq(self.i),
            write.en.eq(self.put & self.free),
            # Always one cycle ahead: what the port shows is the byte at read_index, or an old one before a commit.
            read.addr.eq(Cat(next_index, next_slot)),
            next_index.eq(read_index),
            next_slot.eq(read_slot),
        ]
        with m.If(self.rewind):
            m.d.sync += write_index.eq(0)
        with m.Elif(self.put):
            m.d.sync += write_index.eq(write_index + 1)
        with m.If(self.commit):
            m.d.sync += write_slot.eq(write_slot + 1)
        m.d.sync += [full.eq(full + self.commit - taken), read_index.eq(next_index), read_slot.eq(next_slot)]
        self._unpack(m, read.data, full != 0, read_index, next_index, taken)
        with m.If(taken):
            m.d.comb += [next_index.eq(0), next_slot.eq(read_slot + 1)]
        return m

    def _unpack(self, m: Module, byte: Signal, any_full, read_index: Signal, next_index: Signal, taken: Signal) -> None:
        """Shifts ``chunk`` bits a cycle out of ``byte`` into the word; asks for the next byte in time."""
        width = self.form.width
        chunk = gcd(width, 8)
        step = Signal(range(max(2, 8 // chunk)))
        part = Signal(range(max(2, width // chunk)))
        move, byte_end, word_end, frame_end = Signal(), Signal(), Signal(), Signal()
        final = (self.form.type.size * self.form.type.bits - 1) % 8 // chunk
        bits = byte.word_select(step, chunk) if chunk < 8 else byte
        m.d.comb += [
            move.eq(any_full & (self.o.ready | ~self.o.valid)),
            byte_end.eq(step == 8 // chunk - 1),
            word_end.eq(part == width // chunk - 1),
            frame_end.eq((read_index == self.size - 1) & (step == final)),
            taken.eq(move & frame_end),
        ]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += self.o.valid.eq(any_full & word_end)
        with m.If(move):
            m.d.sync += [
                self.o.payload.eq(Cat(self.o.payload, bits) >> chunk),
                step.eq(Mux(byte_end | frame_end, 0, step + 1)),
                part.eq(Mux(word_end, 0, part + 1)),
            ]
        with m.If(move & byte_end):
            m.d.comb += next_index.eq(read_index + 1)


class RequestParser(wiring.Component):
    """Finds requests in the received bytes and says how to answer them.

    Whatever arrives, it waits for the magic again after at most ``infer_bytes + 7`` bytes or ``timeout`` cycles of
    silence.

    Parameters
    ----------
    infer_bytes
        Payload of a request to infer; the other commands have none.
    timeout
        Cycles without a byte, a power of two, after which a request has stopped in its middle.

    Attributes
    ----------
    i, error
        As `UartReceiver` gives them: a byte's bits are those of ``i`` a cycle before it is valid, too, and bytes are at least
        ten cycles apart.
    put, rewind, commit, last, free
        To the `FrameBuffer`; its data is that of ``i``.
    room
        An answer to a result can be queued.
    answer
        Head byte of an answer to queue, for one cycle.
    clear
        High for one cycle, that of ``answer``, on a request to reset.
    """

    def __init__(self, infer_bytes: int, *, timeout: int):
        self.infer_bytes, self.timeout = infer_bytes, timeout
        super().__init__({"i": In(stream.Signature(unsigned(8), always_ready=True)), "error": In(1),
                          "put": Out(1), "rewind": Out(1), "commit": Out(1), "last": In(1), "free": In(1),
                          "room": In(1), "answer": Out(stream.Signature(HEAD, always_ready=True)), "clear": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        self.command, self.tag, self.code = Signal(4), Signal(4), Signal(4)
        self.length_low = Signal()  # the low byte was that of infer (or zero, for the others)
        self.magic, self.low, self.high = Signal(2), Signal(), Signal()  # what the byte is that comes
        self.refused, self.damaged = Signal(), Signal()
        self.quiet = Signal()  # bytes outside frames have been complained about
        self.silence = Signal(range(self.timeout + 1))
        self.known, self.infer = Signal(), Signal()
        # A byte is there before it is offered: what it is, is found meanwhile.
        byte, low, high = self.i.payload, self.infer_bytes & 0xFF, self.infer_bytes >> 8
        m.d.sync += [
            self.known.eq((self.command >= min(Command)) & (self.command <= max(Command))),
            self.infer.eq(self.command == Command.INFER),
            self.magic.eq(Cat(byte == value for value in MAGIC)),
            self.low.eq(byte == Mux(self.infer, low, 0)), self.high.eq(byte == Mux(self.infer, high, 0)),
        ]
        # Said in the cycle after a frame's end, when the tag is about to be forgotten.
        m.d.comb += self.answer.payload.eq(Cat(self.code, self.tag))
        m.submodules.crc = self.crc = ByteCrc()
        m.d.sync += self.answer.valid.eq(0)
        with m.If(self.i.valid):
            m.d.sync += self.silence.eq(0)
        with m.Elif(~self.silence[-1]):
            m.d.sync += self.silence.eq(self.silence + 1)
        m.d.comb += self.crc.data.eq(self.i.payload)
        m.d.sync += self.clear.eq(0)
        with m.FSM():
            self._find_magic(m)
            self._read_header(m)
            self._read_rest(m)
            self._check(m)
        return m

    def _say(self, m: Module, code: Value) -> None:
        m.d.sync += [self.answer.valid.eq(1), self.code.eq(code)]

    def _fail(self, m: Module, code: AnswerCode) -> None:
        """Complains and searches for the magic; the rest of the frame, if it comes, is worth no further complaint."""
        self._say(m, Const(code, 4))
        m.d.sync += self.quiet.eq(1)
        m.next = "MAGIC_0"

    def _guard(self, m: Module) -> None:
        """What may happen instead of a byte inside a frame."""
        with m.If(self.error):
            self._fail(m, AnswerCode.FRAMING)
        with m.Elif(self.silence[-1]):
            self._fail(m, AnswerCode.TIMEOUT)

    def _find_magic(self, m: Module) -> None:
        with m.State("MAGIC_0"):
            m.d.comb += [self.crc.start.eq(1), self.rewind.eq(1)]
            m.d.sync += self.tag.eq(0)
            with m.If(self.i.valid & self.magic[0]):
                m.next = "MAGIC_1"
            with m.Elif((self.i.valid | self.error) & ~self.quiet):
                self._fail(m, AnswerCode.OUT_OF_SYNC)
            with m.Elif(self.silence[-1]):
                m.d.sync += self.quiet.eq(0)
        with m.State("MAGIC_1"):
            m.d.comb += self.crc.start.eq(1)
            with m.If(self.i.valid):
                with m.If(self.magic[1]):
                    m.next = "HEAD"
                with m.Elif(~self.magic[0]):
                    with m.If(self.quiet):
                        m.next = "MAGIC_0"
                    with m.Else():
                        self._fail(m, AnswerCode.OUT_OF_SYNC)
            self._guard(m)

    def _read_header(self, m: Module) -> None:
        with m.State("HEAD"):
            with m.If(self.i.valid):
                m.d.comb += self.crc.valid.eq(1)
                m.d.sync += Cat(self.command, self.tag).eq(self.i.payload)
                m.next = "LENGTH_0"
            self._guard(m)
        with m.State("LENGTH_0"):
            m.d.sync += self.length_low.eq(self.low)
            with m.If(self.i.valid):
                m.d.comb += self.crc.valid.eq(1)
                m.next = "LENGTH_1"
            self._guard(m)
        with m.State("LENGTH_1"):
            m.d.sync += self.refused.eq(~self.free)
            with m.If(self.i.valid):
                m.d.comb += self.crc.valid.eq(1)
                with m.If(~self.known):
                    self._fail(m, AnswerCode.UNKNOWN_COMMAND)
                with m.Elif(~self.length_low | ~self.high):
                    self._fail(m, AnswerCode.BAD_LENGTH)
                with m.Elif(self.infer):
                    m.next = "PAYLOAD"
                with m.Else():
                    m.next = "CRC_0"
            self._guard(m)

    def _read_rest(self, m: Module) -> None:
        with m.State("PAYLOAD"):
            with m.If(self.i.valid):
                # A slot that became free meanwhile is of no use: it lacks the first bytes.
                m.d.comb += [self.crc.valid.eq(1), self.put.eq(1)]
                with m.If(self.last):
                    m.next = "CRC_0"
            self._guard(m)
        for state, following in (("CRC_0", "CRC_1"), ("CRC_1", "CHECK")):
            with m.State(state):
                with m.If(self.i.valid):
                    m.d.comb += self.crc.valid.eq(1)
                    m.next = following
                self._guard(m)

    def _check(self, m: Module) -> None:
        with m.State("CHECK"):
            m.d.sync += self.damaged.eq(self.crc.crc != 0)
            m.next = "DECIDE"
        with m.State("DECIDE"):
            m.next = "MAGIC_0"
            with m.If(self.damaged):
                self._fail(m, AnswerCode.BAD_CRC)
            with m.Else():
                m.d.sync += self.quiet.eq(0)
                with m.If(self.infer):
                    m.d.comb += self.commit.eq(~self.refused & self.room)
                    self._say(m, Mux(self.commit, Const(AnswerCode.RESULT, 4), Const(AnswerCode.BUSY, 4)))
                with m.Else():
                    reset = self.command == Command.RESET
                    m.d.sync += self.clear.eq(reset)
                    self._say(m, Mux(reset, Const(AnswerCode.DONE, 4), Const(AnswerCode.IDENTITY, 4)))

