"""Line buffer and window reader: a stream of pixels in, the terms of every window out, one word a cycle."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Out

from ..geometry import WindowGeometry
from .ram import BankedRam
from .row_buffer import RowBuffer, lookup

LATENCY = 3
"""Cycles from the decision to read a word until it is at the output: address, memory, alignment."""


class WindowReader(RowBuffer):
    """Rows read window by window (order: `WindowGeometry`).

    Members
    -------
    i
        Input words, channel last.
    en
        The pipeline moves, bubbles included, exactly in cycles with ``en``.
    x, valid, last
        ``rows * channels`` activations (kernel row outermost), `LATENCY` enabled cycles after their window could be read;
        ``last`` ends a window.
    weight
        Address of the weights of the word that reaches ``x`` two enabled cycles later: counts 0 ... in reading order
        over one output pixel. In the gap, which also comes before the first word, it counts on from there.

    A word is read every enabled cycle as long as the rows it needs are there. ``pad`` is the code of padding.
    """

    def __init__(self, geometry: WindowGeometry, *, bits: int, pad: int = 0):
        g, self.pad = geometry, pad & ((1 << bits) - 1)
        self.weights = g.groups * g.repeat * g.fold
        super().__init__(geometry, bits, {
            "x": Out(g.rows * g.channels * bits),
            "valid": Out(1),
            "last": Out(1),
            "weight": Out(range(max(2, self.weights + g.gap))),
        })

    def elaborate(self, platform) -> Module:
        g = self.geometry
        m = Module()
        word = g.channels * self.bits
        banks = g.buffer_rows if g.rows > 1 else 1
        m.submodules.buffer = buffer = BankedRam(word, max(2, g.depth), banks)
        row_written = self._write_side(m, buffer, banks)

        # --- issue: which word to read next ------------------------------------------------------------------------
        advance, row_end = Signal(), Signal()
        loops, position = self._loops(m, advance)
        oy, ox = position["oy"], position["ox"]
        started, released = self._start(m, row_written, oy, row_end)
        count = Signal(range(max(2, self.weights)))
        reading, weight = self._gap(m, started, advance & loops["fold"], count)
        m.d.comb += [advance.eq(reading & self.en), row_end.eq(advance & loops["row"])]

        address, bank = self._address(m, advance, loops)
        row_mask = self._mask(m, 0, oy, "row_mask")
        col_mask = self._mask(m, 1, ox, "col_mask")
        inside = col_mask.bit_select(position["kx"], 1)
        if g.rows == 1:
            inside = inside & row_mask.bit_select(position["ky"], 1)

        # --- stage 1: address, and the rows that no pending read needs any more -----------------------------------
        a_valid, a_last, a_inside, a_release = Signal(), Signal(), Signal(), Signal(range(g.buffer_rows + 1))
        a_rows, a_bank = Signal(g.kernel[0]), Signal(range(max(2, banks)))
        a_addr = Signal(range(max(2, g.depth)))
        with m.If(self.en):
            m.d.sync += [
                a_valid.eq(reading), a_last.eq(loops["fold"]), a_inside.eq(inside), a_rows.eq(row_mask), a_bank.eq(bank),
                a_addr.eq(address), a_release.eq(released), self.weight.eq(weight),
            ]
        with m.If(advance):
            m.d.sync += count.eq(Mux(loops["pixel"], 0, count + 1))
        # Rows may be overwritten only once their last word has left the memory, not when its read was decided.
        m.d.comb += self._freed.eq(Mux(self.en, a_release, 0))

        # --- stage 2: memory ---------------------------------------------------------------------------------------
        b_valid, b_last, b_inside, b_rows, b_bank = (
            Signal(), Signal(), Signal(), Signal.like(a_rows), Signal.like(a_bank))
        m.d.comb += [buffer.read_addr.eq(a_addr), buffer.read_en.eq(self.en)]
        with m.If(self.en):
            m.d.sync += [b_valid.eq(a_valid), b_last.eq(a_last), b_inside.eq(a_inside), b_rows.eq(a_rows),
                         b_bank.eq(a_bank)]

        # --- stage 3: rows in kernel order, padding ----------------------------------------------------------------
        aligned = self._align(m, buffer.read_data, b_bank, b_inside, b_rows, banks)
        with m.If(self.en):
            m.d.sync += [self.x.eq(aligned), self.valid.eq(b_valid), self.last.eq(b_last)]
        return m

    def _gap(self, m: Module, started: Value, dot_end: Value, count: Value) -> tuple[Value, Value]:
        """Whether a word is read if the pipeline moves, and the address of its weights or of the step of the gap."""
        if not self.geometry.gap:
            return started, count
        last = self.weights + self.geometry.gap - 1
        step = Signal(range(last + 1), init=self.weights)
        pause = Signal(init=1)
        with m.If(self.en & pause):
            m.d.sync += [step.eq(Mux(step == last, self.weights, step + 1)), pause.eq(step != last)]
        with m.If(dot_end):
            m.d.sync += pause.eq(1)
        return started & ~pause, Mux(pause, step, count)

    def _loops(self, m: Module, advance: Value) -> tuple[dict[str, Value], dict[str, Value]]:
        """Nested counters. Result: for every loop whether this is its last word, and the counters by name."""
        g = self.geometry
        nest = [("cf", g.group_words), ("kx", g.kernel[1]), ("ky", g.kernel[0] // g.rows), ("of", g.repeat),
                ("g", g.groups), ("ox", g.out_shape[1]), ("oy", g.out_shape[0])]
        ends: dict[str, Value] = {}
        position: dict[str, Value] = {}
        inner: Value = Const(1)
        for name, size in nest:
            if size == 1:
                position[name] = Const(0)
            else:
                counter = position[name] = Signal(range(size), name=name)
                at_end, end = Signal(name=f"{name}_at_end"), Signal(name=f"{name}_end")
                with m.If(advance & inner):
                    m.d.sync += [counter.eq(Mux(at_end, 0, counter + 1)), at_end.eq(~at_end & (counter == size - 2))]
                m.d.comb += end.eq(inner & at_end)
                inner = end
            ends[name] = inner
        return {"word": ends["cf"], "column": ends["kx"], "fold": ends["ky"], "group": ends["of"], "pixel": ends["g"],
                "row": ends["ox"], "frame": ends["oy"]}, position

    def _address(self, m: Module, advance: Value, ends: dict[str, Value]) -> tuple[Value, Value]:
        """Memory address of the word to read, and the bank of the window's top row."""
        col = self._column(m, advance, ends)
        g = self.geometry
        top, next_top = self._top(m, advance, ends["row"], ends["frame"])
        if g.rows > 1:
            return col, top
        row = Signal.like(top, init=top.init)
        with m.If(advance):
            with m.If(ends["row"]):
                m.d.sync += row.eq(next_top)
            with m.Elif(ends["fold"]):
                m.d.sync += row.eq(top)
            with m.Elif(ends["column"]):
                m.d.sync += row.eq(self._later(m, row, 1, "next_row"))
        base = lookup(m, row, [bank * g.row_words for bank in range(g.buffer_rows)], (g.depth - 1).bit_length(), "base")
        return (base + col)[:(g.depth - 1).bit_length()], Const(0)

    def _column(self, m: Module, advance: Value, ends: dict[str, Value]) -> Value:
        """Position in the row of the word to read: negative in the padding on the left."""
        g = self.geometry
        start = -g.padding[1] * g.pixel_words
        limit = (g.shape[1] + g.padding[1] + g.stride[1] + g.kernel[1]) * g.pixel_words
        shape = signed(1 + max(-start, limit).bit_length())
        col = Signal(shape, init=start)
        first: Value = Const(start, shape)  # of this window
        following: Value = first  # of the next window
        if g.out_shape[1] > 1:
            pixel, next_pixel = Signal(shape, init=start), Signal(shape)
            m.d.comb += next_pixel.eq(Mux(ends["row"], start, pixel + g.stride[1] * g.pixel_words))
            with m.If(advance & ends["pixel"]):
                m.d.sync += pixel.eq(next_pixel)
            first, following = pixel, next_pixel
        if g.groups > 1:
            group, next_group = Signal(shape, init=start), Signal(shape)
            m.d.comb += next_group.eq(Mux(ends["pixel"], following, group + g.group_words))
            with m.If(advance & ends["group"]):
                m.d.sync += group.eq(next_group)
            first, following = group, next_group
        with m.If(advance):
            with m.If(ends["group"]):
                m.d.sync += col.eq(following)
            with m.Elif(ends["column"]):
                m.d.sync += col.eq(first)
            with m.Else():
                # From one kernel column to the next, the words of other channel groups are skipped.
                m.d.sync += col.eq(col + Mux(ends["word"], 1 + g.pixel_words - g.group_words, 1))
        return col

    def _align(self, m: Module, words: Value, bank: Value, inside: Value, rows: Value, banks: int) -> Value:
        g = self.geometry
        word = g.channels * self.bits
        pad = Cat(*[Const(self.pad, self.bits)] * g.channels)
        padded = any(g.padding)
        if g.rows == 1:
            return Mux(inside, words, pad) if padded else words
        rotated = Signal(g.rows * word)
        with m.Switch(bank):
            for first in range(banks):
                with m.Case(first):
                    m.d.comb += rotated.eq(Cat(*(words.word_select((first + k) % banks, word) for k in range(g.rows))))
        if not padded:
            return rotated
        return Cat(*(Mux(inside & rows[k], rotated.word_select(k, word), pad) for k in range(g.rows)))
