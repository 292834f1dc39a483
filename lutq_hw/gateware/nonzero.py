"""A layer that reads only terms whose weight is not zero: every lane walks its own list of positions."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..network import TensorType
from ..nonzero import NonzeroReads
from ..pipeline import Layer
from .ram import BankedRam
from .rom import Rom
from .row_buffer import RowBuffer, lookup


class NonzeroReader(RowBuffer):
    """Buffered rows with a read port for each of ``pe`` lanes, and the index memory that says what each reads.

    Members
    -------
    i
        Input words of one activation, channel last. Ready while a row of the buffer is free, whatever happens at the output.
    en
        The pipeline moves, bubbles included, exactly in cycles with ``en``.
    x, index, valid, last
        ``pe`` activations and the indices of their weights, ``NonzeroReads.read_latency`` enabled cycles after their window
        could be read; ``last`` ends a group of sums.
    """

    def __init__(self, reads: NonzeroReads, x: TensorType, *, style: str):
        self.reads, self.style = reads, style
        self.pe, self.index_bits = reads.pe, reads.codebook.index_bits
        super().__init__(reads.window, x.bits, {
            "x": Out(reads.pe * x.bits), "index": Out(reads.pe * self.index_bits), "valid": Out(1), "last": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        g, reads, pe = self.geometry, self.reads, self.pe
        lanes = range(pe)
        copies = [BankedRam(self.bits, max(2, g.depth), 1) for _ in lanes]
        for lane, copy in enumerate(copies):
            m.submodules[f"buffer{lane}"] = copy
        row_written = self._write_side(m, copies[0], 1)
        for copy in copies[1:]:
            m.d.comb += [getattr(copy, port).eq(getattr(copies[0], port))
                         for port in ("write_addr", "write_data", "write_en")]

        # --- issue: which entry of the index memory comes next, and where the window is -----------------------------------
        advance = Signal()
        count, pixel_end = self._counter(m, "step", reads.words, advance)
        _, row_end = self._counter(m, "ox", g.out_shape[1], advance, pixel_end)
        oy, frame_end = self._counter(m, "oy", g.out_shape[0], advance, row_end)
        started, released = self._start(m, row_written, oy, advance & row_end)
        m.d.comb += advance.eq(started & self.en)
        # Less 1, for a lane knows the position behind the one that it reads.
        reach = (g.shape[1] + g.padding[1] + g.stride[1] + g.kernel[1]) * g.pixel_words
        start = -g.padding[1] * g.pixel_words - 1
        pixel = Signal(signed(1 + max(-start, reach).bit_length()), init=start)
        moves = g.out_shape[1] > 1
        if moves:
            with m.If(advance & pixel_end):
                m.d.sync += pixel.eq(Mux(row_end, start, pixel + g.stride[1] * g.pixel_words))
        top, _ = self._top(m, advance, row_end, frame_end)

        # --- a: index memory ----------------------------------------------------------------------------------------------
        m.submodules.index_rom = rom = Rom(reads.packed(), width=reads.memory[0], style=self.style)
        m.d.comb += [rom.addr.eq(count), rom.en.eq(self.en)]
        a_valid = self._stage(m, started, "a_valid", init=0)
        # A register behind a constant would be none to synthesis only if it began with it.
        a_pixel, a_top = self._stage(m, pixel, "a_pixel") if moves else pixel, self._stage(m, top, "a_top")
        a_mask = self._stage(m, self._mask(m, 0, oy, "row_mask"), "a_mask")
        a_released = self._stage(m, released, "a_released", init=0)

        # --- b: position of every lane in the window ----------------------------------------------------------------------
        last, entries = rom.data[0], rom.data[1:]
        first = Signal(init=1)
        with m.If(self.en & a_valid):
            m.d.sync += first.eq(last)
        b_valid, b_last = self._stage(m, a_valid, "b_valid", init=0), self._stage(m, last, "b_last")
        b_pixel, b_mask = self._stage(m, a_pixel, "b_pixel") if moves else a_pixel, self._stage(m, a_mask, "b_mask")
        b_released = self._stage(m, a_released, "b_released", init=0)
        # Where each row of the window begins in the memory, less 1.
        width, bases = max(1, (g.depth - 1).bit_length()), []
        for k in range(g.kernel[0]):
            table = [(bank + k) % g.buffer_rows * g.row_words for bank in range(g.buffer_rows)]
            start_of_row = (lookup(m, a_top, table, width, f"base{k}") + a_pixel)[:width]
            bases.append(self._stage(m, start_of_row, f"b_base{k}"))
        run_bits, row_bits = reads.run_bits, reads.row_bits
        positions, rows, indices = [], [], []
        for lane in lanes:
            token = entries[lane * reads.token_bits:(lane + 1) * reads.token_bits]
            index, run = token[:self.index_bits], token[self.index_bits:self.index_bits + run_bits]
            down = token[self.index_bits + run_bits:] if row_bits else Const(0, 1)
            position = Signal(range(g.kernel[1] * g.pixel_words + 1), name=f"position{lane}")
            row = Signal(range(max(2, g.kernel[0])), name=f"row{lane}")
            with m.If(self.en & a_valid):
                # One adder, whose carry input is the step to the next position.
                begin = Mux(first | down.any(), 0, position)
                m.d.sync += [position.eq((Cat(Const(1, 1), begin) + Cat(Const(1, 1), run))[1:]),
                             row.eq(Mux(first, 0, row) + down)]
            positions.append(position)
            rows.append(row)
            indices.append(self._stage(m, index, f"b_index{lane}"))

        # --- c: address, and whether it lies in the padding ---------------------------------------------------------------
        c_valid, c_last = self._stage(m, b_valid, "c_valid", init=0), self._stage(m, b_last, "c_last")
        c_released = self._stage(m, b_released, "c_released", init=0)
        # Rows may be overwritten only once their last word has left the memory, not when its read was decided.
        m.d.comb += self._freed.eq(Mux(self.en, c_released, 0))
        addresses, insides = [], []
        for lane, (position, row) in enumerate(zip(positions, rows, strict=True)):
            base: Value = bases[0]
            for k in range(1, g.kernel[0]):
                base = Mux(row == k, bases[k], base)
            addresses.append(self._stage(m, (base + position)[:width], f"c_address{lane}"))
            inside: Value = Const(1, 1)
            if any(g.padding):
                column = Signal(signed(len(pixel) + 1), name=f"column{lane}")
                m.d.comb += column.eq(b_pixel + position)
                inside = b_mask.bit_select(row, 1) & (column >= 0) & (column < g.row_words)
            insides.append(self._stage(m, inside, f"c_inside{lane}"))
        indices = [self._stage(m, index, f"c_index{lane}") for lane, index in enumerate(indices)]

        # --- d: memory; e: padding ----------------------------------------------------------------------------------------
        d_valid, d_last = self._stage(m, c_valid, "d_valid", init=0), self._stage(m, c_last, "d_last")
        words = []
        for lane, copy in enumerate(copies):
            m.d.comb += [copy.read_addr.eq(addresses[lane]), copy.read_en.eq(self.en)]
            inside = self._stage(m, insides[lane], f"d_inside{lane}")
            words.append(Mux(inside, copy.read_data, 0) if any(g.padding) else copy.read_data)
        indices = [self._stage(m, index, f"d_index{lane}") for lane, index in enumerate(indices)]
        with m.If(self.en):
            m.d.sync += [self.x.eq(Cat(words)), self.index.eq(Cat(indices)), self.valid.eq(d_valid), self.last.eq(d_last)]
        return m

    def _stage(self, m: Module, value: Value, name: str, init: int | None = None) -> Signal:
        """A pipeline register; one with ``init`` is reset."""
        kept = Signal(value.shape(), name=name, init=init or 0, reset_less=init is None)
        with m.If(self.en):
            m.d.sync += kept.eq(value)
        return kept

    def _counter(self, m: Module, name: str, size: int, advance: Value, inner: Value | None = None) -> tuple[Value, Value]:
        """A counter that moves with ``advance & inner``, and whether it and all inner ones are in their last state."""
        inner = Const(1, 1) if inner is None else inner
        if size == 1:
            return Const(0, 1), inner
        counter, at_end, end = Signal(range(size), name=name), Signal(name=f"{name}_at_end"), Signal(name=f"{name}_end")
        with m.If(advance & inner):
            m.d.sync += [counter.eq(Mux(at_end, 0, counter + 1)), at_end.eq(~at_end & (counter == size - 2))]
        m.d.comb += end.eq(inner & at_end)
        return counter, end


class NonzeroEngine(wiring.Component):
    """Stream of input words in, stream of output words out, timing as in `timing.LayerTimer`: ``pe`` units of one lane."""

    def __init__(self, layer: Layer):
        self.layer = layer
        super().__init__({"i": In(stream.Signature(unsigned(layer.input.width))),
                          "o": Out(stream.Signature(unsigned(layer.output.width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        layer, reads = self.layer, self.layer.nonzero
        assert reads is not None
        m.submodules.reader = reader = NonzeroReader(reads, layer.x, style=layer.plan.index_memory)
        m.submodules.output = output = layer.stage.create()
        wiring.connect(m, wiring.flipped(self.i), reader.i)
        # The units are alike and move together, so the first one speaks for all.
        for lane in range(reads.pe):
            m.submodules[f"unit{lane}"] = mac = layer.unit.create()
            m.d.comb += [
                mac.i.valid.eq(reader.valid),
                mac.i.payload.x.as_value().eq(reader.x.word_select(lane, layer.x.bits)),
                mac.i.payload.index.as_value().eq(reader.index.word_select(lane, reads.codebook.index_bits)),
                mac.i.payload.last.eq(reader.last),
                output.i.payload[lane].eq(mac.o.payload[0]),
                mac.o.ready.eq(output.i.ready),
            ]
            if lane == 0:
                m.d.comb += [reader.en.eq(mac.i.ready), output.i.valid.eq(mac.o.valid)]
        wiring.connect(m, output.o, wiring.flipped(self.o))
        return m
