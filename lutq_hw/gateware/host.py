"""The host link: requests come in over a UART, answers go back; ``docs/host-protocol.md`` is its specification."""

from __future__ import annotations

from amaranth import Module, ResetInserter, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..errors import PlanError
from ..link.protocol import DIGEST_BYTES, MAX_PAYLOAD, Geometry, Identity, frame_bytes, result_bytes
from ..streams import StreamFormat
from .answer import AnswerQueue, AnswerSender, ResultBytes
from .argmax import ArgmaxStage
from .request import FrameBuffer, RequestParser
from .uart import UartReceiver, UartTransmitter, check_divisor


class HostLink(wiring.Component):
    """UART on one side, the accelerator's streams on the other.

    A frame reaches ``words`` only after its CRC was right; then one word leaves every ``width / gcd(width, 8)`` cycles.
    While the accelerator computes, further frames are received into the ``slots``; one that finds none free is refused
    with BUSY. Answers leave in the order in which their requests ended.

    Parameters
    ----------
    input_format, output_format
        Of the accelerator; see `StreamFormat`.
    digest
        ``bytes.fromhex(network.digest)``; the host is told its first eight bytes.
    divisor
        Clock cycles of a bit; see `lutq_hw.link.rate.pick_baud`.
    slots
        Frames that can be kept, 1 or 2. With one, the host waits for each result before it sends the next frame.
    timeout
        Cycles of silence, a power of two, after which a request that stopped in its middle is given up.

    Attributes
    ----------
    rx, tx
        The lines.
    words
        To the accelerator.
    results
        From the accelerator: ``output_format.words`` for each frame.
    reset_accelerator
        High for one cycle, a register: put ``ResetInserter(link.reset_accelerator)`` around the accelerator. From the
        next cycle on, the accelerator must neither offer nor remember anything of before.
    show
        ``number`` is the class of the last frame (argmax of its scores, or the one unsigned element if that is all),
        steady between results; ``valid`` is high in its first cycle.

    ranked
        Results are classes, the best first: ``show`` gives the first.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    PlanError
        If a frame or a result takes more than 65,535 bytes on the link.
    """

    def __init__(self, input_format: StreamFormat, output_format: StreamFormat, *, digest: bytes, divisor: int,
                 slots: int = 2, timeout: int = 1 << 20, ranked: bool = False):
        if len(digest) < DIGEST_BYTES:
            raise ValueError(f"Digest must have at least {DIGEST_BYTES} bytes, not {len(digest)}")
        if slots not in (1, 2):
            raise ValueError(f"Slots must be 1 or 2, not {slots!r}")
        if timeout < 2 or timeout & (timeout - 1):
            raise ValueError(f"Timeout must be a power of two of clock cycles, not {timeout!r}")
        check_divisor(divisor)
        for what, size in (("frames", frame_bytes(input_format.type)), ("results", result_bytes(output_format.type))):
            if size > MAX_PAYLOAD:
                raise PlanError(f"host link: {what} must take at most {MAX_PAYLOAD} bytes, not {size}; "
                                "use smaller images or fewer bits")
        self.input_format, self.output_format = input_format, output_format
        self.divisor, self.slots, self.timeout = divisor, slots, timeout
        x, y = (Geometry.of(form.type, form.lanes) for form in (input_format, output_format))
        self.identity = Identity(bytes(digest[:DIGEST_BYTES]), slots, x, y, divisor)
        kind = output_format.type
        self.is_class = ranked or (kind.size == 1 and not kind.signed)
        number_bits = kind.bits if self.is_class else max(1, (kind.size - 1).bit_length())
        super().__init__({
            "rx": In(1, init=1),
            "tx": Out(1, init=1),
            "words": Out(stream.Signature(unsigned(input_format.width))),
            "results": In(stream.Signature(unsigned(output_format.width))),
            "reset_accelerator": Out(1),
            "show": Out(wiring.Signature({"valid": Out(1), "number": Out(number_bits)})),
        })

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self.divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(self.divisor)
        m.submodules.parser = parser = RequestParser(frame_bytes(self.input_format.type), timeout=self.timeout)
        m.submodules.queue = queue = AnswerQueue()
        m.submodules.sender = sender = AnswerSender(self.output_format, identity=self.identity.encode())
        clear = parser.clear
        buffer, cutter = FrameBuffer(self.input_format, slots=self.slots), ResultBytes(self.output_format)
        m.submodules.buffer = ResetInserter(clear)(buffer)
        m.submodules.cutter = ResetInserter(clear)(cutter)

        wiring.connect(m, receiver.o, parser.i)
        wiring.connect(m, parser.answer, queue.i)
        wiring.connect(m, queue.o, sender.i)
        wiring.connect(m, sender.o, transmitter.i)
        wiring.connect(m, buffer.o, wiring.flipped(self.words))
        wiring.connect(m, wiring.flipped(self.results), cutter.i)
        wiring.connect(m, cutter.o, sender.results)
        m.d.comb += [
            receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx), parser.error.eq(receiver.error),
            buffer.i.eq(receiver.o.payload), buffer.put.eq(parser.put), buffer.rewind.eq(parser.rewind),
            buffer.commit.eq(parser.commit), parser.last.eq(buffer.last), parser.free.eq(buffer.free),
            parser.room.eq(queue.room), queue.clear.eq(clear), sender.abort.eq(clear), self.reset_accelerator.eq(clear),
        ]
        self._show(m, clear)
        return m

    def _show(self, m: Module, clear: Signal) -> None:
        """Looks over the shoulder of the results."""
        taken = Signal()
        m.d.comb += taken.eq(self.results.valid & self.results.ready)
        if self.is_class:
            m.d.sync += self.show.valid.eq(taken)
            with m.If(taken):
                m.d.sync += self.show.number.eq(self.results.payload[:len(self.show.number)])
            return
        form = self.output_format
        argmax = ArgmaxStage(bits=form.type.bits, is_signed=form.type.signed, lanes=form.lanes, words=form.words,
                             index_bits=len(self.show.number))
        m.submodules.argmax = ResetInserter(clear)(argmax)
        m.d.comb += [argmax.i.payload.eq(self.results.payload), argmax.i.valid.eq(taken), argmax.o.ready.eq(1)]
        m.d.sync += self.show.valid.eq(argmax.o.valid)
        with m.If(argmax.o.valid):
            m.d.sync += self.show.number.eq(argmax.o.payload)
