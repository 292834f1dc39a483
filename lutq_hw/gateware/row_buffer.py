"""A circular buffer of rows, filled while it is read: what all readers of windows have."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from ..geometry import WindowGeometry
from .ram import BankedRam


def lookup(m: Module, select: Value, table: Sequence[int], width: int, name: str) -> Value:
    """``table[select]`` as a few compares: the most frequent value is the default."""
    if len(set(table)) == 1:
        return Const(table[0], width)
    result = Signal(unsigned(max(1, width)), name=name)
    default = max(set(table), key=table.count)  # type: ignore[arg-type]
    with m.Switch(select):
        for value in sorted(set(table) - {default}):
            with m.Case(*(i for i, entry in enumerate(table) if entry == value)):
                m.d.comb += result.eq(value)
        with m.Default():
            m.d.comb += result.eq(default)
    return result


class RowBuffer(wiring.Component):
    """Rows of a map and which of them may be read or overwritten; a reader derives from it and says what is read.

    ``members`` are those of the reader besides the input stream ``i`` and the enable ``en`` of its pipeline. ``i`` is ready
    while a row of the buffer is free, whatever happens at the output.
    """

    def __init__(self, geometry: WindowGeometry, bits: int, members: dict[str, wiring.Member]):
        self.geometry, self.bits = geometry, bits
        super().__init__({"i": In(stream.Signature(unsigned(geometry.channels * bits))), "en": In(1), **members})

    def _write_side(self, m: Module, buffer: BankedRam, banks: int) -> Value:
        """Fill the buffer; the result is high in the cycle that completes a row."""
        g = self.geometry
        filled = Signal(range(g.buffer_rows + 1))  # complete rows that may not be overwritten
        self._freed = Signal.like(filled)
        col = Signal(range(max(2, g.row_words)))
        row = Signal(range(max(2, g.buffer_rows)))
        base = Signal(range(max(2, g.depth)))
        next_filled = Signal.like(filled)
        full, take, row_written = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~full),
            take.eq(self.i.valid & self.i.ready),
            row_written.eq(take & (col == g.row_words - 1)),
            next_filled.eq(filled + row_written - self._freed),
            buffer.write_data.eq(self.i.payload),
        ]
        m.d.sync += [filled.eq(next_filled), full.eq(next_filled == g.buffer_rows)]
        last_row = row == g.buffer_rows - 1
        with m.If(take):
            m.d.sync += col.eq(Mux(row_written, 0, col + 1))
            with m.If(row_written):
                m.d.sync += row.eq(Mux(last_row, 0, row + 1))
        if banks > 1:
            m.d.comb += [buffer.write_addr.eq(col), buffer.write_en.eq(Mux(take, 1 << row, 0))]
        else:
            m.d.comb += [buffer.write_addr.eq(base), buffer.write_en.eq(take)]
            with m.If(take):
                m.d.sync += base.eq(Mux(row_written & last_row, 0, base + 1))
        return row_written

    def _start(self, m: Module, row_written: Value, oy: Value, row_end: Value) -> tuple[Signal, Value]:
        """Whether the words of the output row may be read, and the rows that are given up in this cycle.

        ``row_end`` is high in the cycle that decides on the last word of output row ``oy``.
        """
        g = self.geometry
        available = Signal(range(g.buffer_rows + 1))  # complete rows that the reader has not given up yet
        started = Signal()
        width = g.buffer_rows.bit_length()
        need = lookup(m, oy, g.need, width, "need")
        release = lookup(m, oy, g.release, width, "release")
        need_next = lookup(m, oy, g.need_next, width, "need_next")
        m.d.sync += available.eq(available + row_written - Mux(row_end, release, 0))
        # Whether the next row may follow at once is decided in the last cycle of this one, so that `started` is a register
        # and the path to all the counters stays short.
        with m.If(row_end | ~started):
            m.d.sync += started.eq(available >= Mux(started, need_next, need))
        return started, Mux(row_end, release, 0)

    def _later(self, m: Module, value: Value, rows: int, name: str) -> Value:
        """Bank ``rows`` rows below the one in ``value``. Steps are tables of a few entries: modulo without adders."""
        banks = self.geometry.buffer_rows
        return lookup(m, value, [(bank + rows) % banks for bank in range(banks)], len(value), name)

    def _top(self, m: Module, advance: Value, row_end: Value, frame_end: Value) -> tuple[Signal, Value]:
        """Bank of the window's top row, and that of the output row behind this one."""
        g = self.geometry
        top = Signal(range(max(2, g.buffer_rows)), init=-g.padding[0] % g.buffer_rows)
        rest = g.shape[0] - (g.out_shape[0] - 1) * g.stride[0]
        next_top = self._later(m, top, rest, "next_frame")
        if g.out_shape[0] > 1:
            next_top = Mux(frame_end, next_top, self._later(m, top, g.stride[0], "next_window"))
        with m.If(advance & row_end):
            m.d.sync += top.eq(next_top)
        return top, next_top

    def _mask(self, m: Module, axis: int, out: Value, name: str) -> Value:
        g = self.geometry
        table = [g.mask(axis, i) for i in range(g.out_shape[axis])]
        if set(table) == {(1 << g.kernel[axis]) - 1}:
            # Not Const(-1): it would be signed, and Yosys 0.70 turns a bit selected from a signed constant into 0 or 1.
            return Const((1 << g.kernel[axis]) - 1, g.kernel[axis])
        return lookup(m, out, table, g.kernel[axis], name)
