"""Answers to the host: a short queue, results cut into bytes, frames with their CRC."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..link.protocol import MAGIC, AnswerCode, result_bytes
from ..streams import StreamFormat
from .crc import ByteCrc

HEAD = unsigned(8)
"""Head byte of an answer: `AnswerCode` in the low half, the request's tag in the high one."""


class AnswerQueue(wiring.Component):
    """Heads of answers that wait to be sent, in order; what comes while it is full is lost.

    Attributes
    ----------
    i
        A head, for one cycle.
    clear
        Forgets all that wait, but not an ``i`` of the same cycle.
    room
        At least two places are left: one can be taken and still leave one for a complaint.
    o
        The oldest head.
    """

    def __init__(self, depth: int = 4):
        self.depth = depth
        super().__init__({"i": In(stream.Signature(HEAD, always_ready=True)), "clear": In(1), "room": Out(1),
                          "o": Out(stream.Signature(HEAD))})

    def elaborate(self, platform) -> Module:
        m = Module()
        # A shift register: the oldest head is at 0, `used` is a thermometer.
        heads = [Signal(HEAD, name=f"head{n}") for n in range(self.depth)]
        used = Signal(self.depth)
        shift = Signal()
        moved = Mux(shift, used >> 1, used)
        m.d.comb += [
            self.room.eq(~used[-2]),
            self.o.valid.eq(used[0]),
            self.o.payload.eq(heads[0]),
            shift.eq(used[0] & self.o.ready),
        ]
        with m.If(self.clear):
            m.d.sync += used.eq(self.i.valid)
        with m.Else():
            m.d.sync += used.eq(Mux(self.i.valid, moved << 1 | 1, moved))
        for n, head in enumerate(heads):
            after = heads[n + 1] if n + 1 < self.depth else self.i.payload
            with m.If(self.clear | (shift & ~used[n + 1] if n + 1 < self.depth else shift) | ~used[n]):
                # The new head always lies in the first free places; the thermometer says which one counts.
                m.d.sync += head.eq(self.i.payload)
            with m.Elif(shift):
                m.d.sync += head.eq(after)
        return m


class ResultBytes(wiring.Component):
    """Cuts result words into bytes: each element as little-endian two's complement in whole bytes, lane 0 first.

    A word is taken when the one before is gone; its first byte is offered the next cycle.
    """

    def __init__(self, form: StreamFormat):
        self.form = form
        super().__init__({"i": In(stream.Signature(unsigned(form.width))), "o": Out(stream.Signature(unsigned(8)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        kind = self.form.type
        width = 8 * -(-kind.bits // 8)
        elements = []
        for lane in range(self.form.lanes):
            element = self.i.payload.word_select(lane, kind.bits)
            sign = element[-1] if kind.signed else Const(0, 1)
            elements.append(Cat(element, sign.replicate(width - kind.bits)))
        held = Signal(width * self.form.lanes)
        count = len(held) // 8
        left = Signal(range(count + 1))
        some = Signal()  # of them: a register, for the sender decides by it what becomes of its CRC
        m.d.comb += [self.i.ready.eq(~some), self.o.valid.eq(some), self.o.payload.eq(held[:8])]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [held.eq(Cat(elements)), left.eq(count), some.eq(1)]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [held.eq(held >> 8), left.eq(left - 1), some.eq(left != 1)]
        return m


class AnswerSender(wiring.Component):
    """Sends the frame of each head: magic, head, length, payload, CRC.

    Parameters
    ----------
    form
        Of the results; decides their payload's length.
    identity
        Payload of the answer to identify.

    Attributes
    ----------
    i
        Heads.
    results
        Bytes of the results, as `ResultBytes` gives them.
    abort
        For one cycle: an answer in hand is completed with any bytes at once and its CRC spoiled. From the next cycle
        on, results must be empty.
    o
        Bytes of the frames.
    """

    def __init__(self, form: StreamFormat, *, identity: bytes):
        self.identity = identity
        self.result_bytes = result_bytes(form.type)
        super().__init__({"i": In(stream.Signature(HEAD)), "results": In(stream.Signature(unsigned(8))), "abort": In(1),
                          "o": Out(stream.Signature(unsigned(8)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.crc = crc = ByteCrc()
        head = Signal(HEAD)
        spoiled = Signal()
        left = Signal(range(max(self.result_bytes, len(self.identity)) + 1))  # bytes of the payload
        is_result, is_identity, sent = Signal(), Signal(), Signal()
        m.d.comb += [
            is_result.eq(head[:4] == AnswerCode.RESULT),
            is_identity.eq(head[:4] == AnswerCode.IDENTITY),
            sent.eq(self.o.valid & self.o.ready),
            self.o.valid.eq(1),
            crc.data.eq(self.o.payload),
        ]

        def state(name: str, byte, following: str, *, checked: bool = True) -> None:
            with m.State(name):
                m.d.comb += [self.o.payload.eq(byte), crc.valid.eq(sent & checked)]
                with m.If(sent):
                    m.next = following

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.o.valid.eq(0), self.i.ready.eq(1), crc.start.eq(1)]
                m.d.sync += [head.eq(self.i.payload), spoiled.eq(0)]
                with m.If(self.i.valid & ~self.abort):
                    m.next = "MAGIC_0"
            state("MAGIC_0", MAGIC[0], "MAGIC_1", checked=False)
            state("MAGIC_1", MAGIC[1], "HEAD", checked=False)
            with m.State("HEAD"):
                m.d.comb += [self.o.payload.eq(head), crc.valid.eq(sent)]
                m.d.sync += left.eq(Mux(is_result, self.result_bytes, Mux(is_identity, len(self.identity), 0)))
                with m.If(sent):
                    m.next = "LENGTH_0"
            state("LENGTH_0", left[:8], "LENGTH_1")
            with m.State("LENGTH_1"):
                m.d.comb += [self.o.payload.eq(left[8:]), crc.valid.eq(sent)]
                with m.If(sent):
                    m.next = "PAYLOAD"
                    with m.If(left == 0):
                        m.next = "CRC_1"
            with m.State("PAYLOAD"):
                # A column of bits each: as an array of bytes it takes twice the luts.
                constants = [0, *reversed(self.identity)]
                columns = [Const(sum((byte >> n & 1) << at for at, byte in enumerate(constants)), len(constants))
                           for n in range(8)]
                constant = Cat(column.bit_select(left[:len(self.identity).bit_length()], 1) for column in columns)
                m.d.comb += [
                    self.o.valid.eq(is_identity | self.results.valid | spoiled),
                    self.o.payload.eq(Mux(is_identity, constant, self.results.payload)),
                    self.results.ready.eq(is_result & self.o.ready & ~spoiled),
                    crc.valid.eq(sent),
                ]
                with m.If(sent):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "CRC_1"
            state("CRC_1", crc.crc[8:], "CRC_0", checked=False)
            state("CRC_0", crc.crc[:8] ^ spoiled, "IDLE", checked=False)
        with m.If(self.abort):
            m.d.sync += spoiled.eq(1)
        return m
