"""A queue between two stages."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .lanes import select
from .ram import BankedRam


class StreamFifo(wiring.Component):
    """Keeps ``depth`` words of ``width`` bits in order, and offers one more.

    Latency 2: a word that comes into the empty queue is read from memory in the next cycle and valid in the one behind
    it. A word comes in and one goes out in every cycle. ``i.ready`` and ``o`` come from registers.

    Parameters
    ----------
    memory
        ``bram``, or ``luts`` for registers that shift: no pointers, good for a few words.
    """

    def __init__(self, width: int, depth: int, memory: str):
        self.width, self.depth, self.memory = width, depth, memory
        super().__init__({"i": In(stream.Signature(unsigned(width))), "o": Out(stream.Signature(unsigned(width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        stored = Signal(range(self.depth + 1))
        full, filled = Signal(), Signal()  # stored == depth, stored > 0: registers, so that readiness is one
        push, pull = Signal(), Signal()
        following = Signal.like(stored)
        m.d.comb += [
            self.i.ready.eq(~full),
            push.eq(self.i.valid & ~full),
            pull.eq(filled & (self.o.ready | ~self.o.valid)),
            following.eq(stored + push - pull),
        ]
        m.d.sync += [stored.eq(following), full.eq(following == self.depth), filled.eq(following != 0)]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += self.o.valid.eq(filled)
        if self.memory == "luts":
            self._registers(m, push, pull, stored)
        else:
            self._ram(m, push, pull)
        return m

    def _registers(self, m: Module, push: Value, pull: Value, stored: Value) -> None:
        """New words shift in at the front; the oldest one stands where ``stored`` says."""
        words = [Signal(self.width, name=f"word{k}", reset_less=True) for k in range(self.depth)]
        oldest = select(stored, [words[0], *words], range(self.depth + 1))
        with m.If(push):
            m.d.sync += [word.eq(before) for word, before in zip(words, [self.i.payload, *words], strict=False)]
        with m.If(pull):
            m.d.sync += self.o.payload.eq(oldest)

    def _ram(self, m: Module, push: Value, pull: Value) -> None:
        """A ring. A word is read at the earliest in the cycle behind the one that writes it."""
        m.submodules.ram = ram = BankedRam(self.width, self.depth, 1)
        m.d.comb += [ram.write_data.eq(self.i.payload), ram.write_en.eq(push), ram.read_en.eq(pull),
                     self.o.payload.eq(ram.read_data)]
        for address, moves in ((ram.write_addr, push), (ram.read_addr, pull)):
            place = Signal.like(address, name=f"{address.name}_place")
            m.d.comb += address.eq(place)
            with m.If(moves):
                m.d.sync += place.eq(Mux(place == self.depth - 1, 0, place + 1))
