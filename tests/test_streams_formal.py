# amaranth: UnusedElaboratable=no
"""Buffers, gearboxes, argmax and the window reader are proved, for all words and all pauses.

For ever, not up to some cycle: each is the same as a description of what it should do that is written another way, in every
cycle, whatever comes in and whenever it is reset. From this follows that no word is lost, doubled or changed; that an
offered word stays until it is taken is proved besides. The window reader is proved for the first frames after a reset.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from amaranth import Cat, Const, Module, Mux, ResetSignal, Signal, Value, signed, unsigned
from amaranth.back import rtlil
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from mutation.proof import Observed, proved

from lutq_hw.gateware.argmax import ArgmaxStage
from lutq_hw.gateware.gearbox import Collector, Splitter
from lutq_hw.gateware.skid import SkidBuffer
from lutq_hw.gateware.window import WindowReader
from lutq_hw.geometry import WindowGeometry


class Queue(wiring.Component):
    """Words in numbered places: what a stream component should do, given how many words it holds and when it takes one.

    ``count`` words of ``i`` fill one word of ``o``, or one word of ``i`` gives ``count`` of ``o``, in order.
    """

    def __init__(self, width_in: int, width_out: int, *, places: int, takes: Callable[[Value, Value], Value]):
        self.places, self.takes = places, takes
        super().__init__({"i": In(stream.Signature(unsigned(width_in))), "o": Out(stream.Signature(unsigned(width_out)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        width_in, width_out = len(self.i.payload), len(self.o.payload)
        piece = min(width_in, width_out)
        arriving, leaving = width_in // piece, width_out // piece
        places = [Signal(piece, name=f"place{n}") for n in range(self.places)]
        held = Signal(range(self.places + 1))
        left, after = Signal(range(self.places + 1)), Signal(range(self.places + 1))
        given, taken = Signal(), Signal()
        m.d.comb += [
            self.o.valid.eq(held >= leaving), self.o.payload.eq(Cat(places[:leaving])), given.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(self.takes(held, self.o.ready)), taken.eq(self.i.valid & self.i.ready),
            left.eq(held - Mux(given, leaving, 0)), after.eq(left + Mux(taken, arriving, 0)),
        ]
        m.d.sync += held.eq(after)
        moved = [Mux(given, place, places[n]) for n, place in enumerate([*places[leaving:], *[Const(0, piece)] * leaving])]
        for n, place in enumerate(places):
            m.d.sync += place.eq(moved[n])
            for k in range(arriving):
                with m.If(taken & (left + k == n)):
                    m.d.sync += place.eq(self.i.payload.word_select(k, piece))
        return m


class FrameArgmax(wiring.Component):
    """Keeps a whole frame, and compares every element with every other."""

    def __init__(self, *, bits: int, is_signed: bool, lanes: int, words: int, index_bits: int):
        self.shape, self.lanes, self.words = signed(bits) if is_signed else unsigned(bits), lanes, words
        super().__init__({"i": In(stream.Signature(unsigned(bits * lanes))),
                          "o": Out(stream.Signature(unsigned(index_bits)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        words = [Signal(len(self.i.payload), name=f"word{n}") for n in range(self.words)]
        number = Signal(range(self.words + 1))
        full = Signal()
        m.d.comb += [full.eq(number == self.words), self.o.valid.eq(full), self.i.ready.eq(self.o.ready | ~full)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += number.eq(Mux(full, 1, number + 1))
            for n, word in enumerate(words):
                with m.If(Mux(full, 0, number) == n):
                    m.d.sync += word.eq(self.i.payload)
        with m.Elif(self.o.ready & full):
            m.d.sync += number.eq(0)
        elements = []
        for n, (word, lane) in enumerate(itertools.product(words, range(self.lanes))):
            element = Signal(self.shape, name=f"element{n}")
            m.d.comb += element.eq(word.word_select(lane, self.shape.width))
            elements.append(element)
        for n, one in reversed(list(enumerate(elements))):
            wins = Cat(one >= other if n < k else one > other for k, other in enumerate(elements) if k != n)
            with m.If(wins.all()):
                m.d.comb += self.o.payload.eq(n)
        return m


class Rules(wiring.Component):
    """``broken`` when an offered word is withdrawn or changed before it is taken."""

    def __init__(self, dut: wiring.Component | None, width_in: int):
        self.dut = dut
        super().__init__({"offer": In(1), "data": In(width_in), "take": In(1), "broken": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        if self.dut is not None:
            m.submodules.seen = seen = Observed(self.dut, None)
            waited, held = Signal(), Signal.like(seen.result0)
            m.d.comb += [seen.offer0.eq(self.offer), seen.data0.eq(self.data), seen.take0.eq(self.take),
                         self.broken.eq(waited & ~(seen.valid0 & (seen.result0 == held)))]
            m.d.sync += [waited.eq(seen.valid0 & ~self.take & ~ResetSignal()), held.eq(seen.result0)]
        else:
            m.d.sync += Signal(name="clocked").eq(1)  # so that it has a clock and a reset like the other
        return m


ARGMAX = {"bits": 2, "is_signed": True, "lanes": 2, "words": 2, "index_bits": 2}

SAME: dict[str, tuple[Callable[[], wiring.Component], Callable[[], wiring.Component]]] = {
    "skid": (lambda: SkidBuffer(2), lambda: Queue(2, 2, places=2, takes=lambda held, ready: held < 2)),
    "collector": (lambda: Collector(2, 3), lambda: Queue(2, 6, places=3, takes=lambda held, ready: (held < 3) | ready)),
    "splitter": (lambda: Splitter(2, 3),
                 lambda: Queue(6, 2, places=3, takes=lambda held, ready: (held == 0) | ((held == 1) & ready))),
    "argmax": (lambda: ArgmaxStage(**ARGMAX), lambda: FrameArgmax(**ARGMAX)),
    "argmax unsigned": (lambda: ArgmaxStage(**ARGMAX | {"is_signed": False, "lanes": 1, "words": 4}),
                        lambda: FrameArgmax(**ARGMAX | {"is_signed": False, "lanes": 1, "words": 4})),
}
"""What is built, and what it should do."""


def text(component: wiring.Component, name: str) -> str:
    return rtlil.convert(component, name=name, emit_src=False)


@pytest.mark.parametrize("name", SAME)
def test_always_the_same_as_its_description(name: str, tmp_path: Path):
    built, meant = SAME[name]
    assert proved(text(Observed(meant(), None), "gold"), text(Observed(built(), None), "gate"), tmp_path)


@pytest.mark.parametrize("name", SAME)
def test_what_is_offered_stays(name: str, tmp_path: Path):
    dut = SAME[name][0]()
    width = len(dut.i.payload)
    assert proved(text(Rules(None, width), "gold"), text(Rules(dut, width), "gate"), tmp_path)


def test_wrong_components_are_refuted(tmp_path: Path):
    """The proofs can fail: a queue of another size, an order of words, an output that changes while it waits."""
    for n, (one, other) in enumerate([
        (Queue(2, 2, places=3, takes=lambda held, ready: held < 3), SkidBuffer(2)),
        (Splitter(2, 3), Queue(6, 2, places=3, takes=lambda held, ready: held == 0)),
        (FrameArgmax(**ARGMAX), ArgmaxStage(**ARGMAX | {"is_signed": False}))]):
        folder = tmp_path / str(n)
        folder.mkdir()
        assert not proved(text(Observed(one, None), "gold"), text(Observed(other, None), "gate"), folder)

    class Restless(Queue):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += self.o.payload.eq(self.i.payload)
            return m

    (tmp_path / "restless").mkdir()
    restless = Restless(2, 2, places=2, takes=lambda held, ready: held < 2)
    assert not proved(text(Rules(None, 2), "gold"), text(Rules(restless, 2), "gate"), tmp_path / "restless")


class WindowProof(wiring.Component):
    """A window reader beside the frames that went in: every word that comes out is looked up there, in reading order.

    ``broken`` if a word is wrong, comes before the pixels it is made of or one too often, or changes while nothing moves.
    Without a reader (the description to compare with) it is never high.
    """

    def __init__(self, geometry: WindowGeometry, *, bits: int, frames: int, built: bool = True):
        self.geometry, self.bits, self.frames, self.built = geometry, bits, frames, built
        super().__init__({"payload": In(geometry.channels * bits), "valid": In(1), "en": In(1), "broken": Out(1)})

    def order(self) -> list[tuple[list[int | None], bool]]:
        """Of every word of a frame: the input words that it is made of (None: padding), and whether it ends a window."""
        g = self.geometry
        found = []
        height, width, _ = g.shape
        loops = [range(n) for n in (*g.out_shape, g.groups, g.repeat, g.kernel[0] // g.rows, g.kernel[1], g.group_words)]
        for oy, ox, group, _, step, kx, word in itertools.product(*loops):
            parts: list[int | None] = []
            for row in range(g.rows):
                y = oy * g.stride[0] - g.padding[0] + step * g.rows + row
                x = ox * g.stride[1] - g.padding[1] + kx
                inside = 0 <= y < height and 0 <= x < width
                parts.append((y * width + x) * g.pixel_words + group * g.group_words + word if inside else None)
            found.append((parts, len(found) % g.fold == g.fold - 1))
        return found

    def elaborate(self, platform) -> Module:
        m = Module()
        if not self.built:
            m.d.sync += Signal(name="clocked").eq(1)  # so that it has a clock and a reset like the other
            return m
        g = self.geometry
        m.submodules.reader = dut = WindowReader(g, bits=self.bits)
        per_frame = g.shape[0] * g.row_words
        seen = [Signal(len(self.payload), name=f"seen{n}") for n in range(per_frame * self.frames)]
        sent = Signal(range(len(seen) + 1))
        m.d.comb += [dut.i.payload.eq(self.payload), dut.i.valid.eq(self.valid & (sent < len(seen))), dut.en.eq(self.en)]
        with m.If(dut.i.valid & dut.i.ready):
            m.d.sync += sent.eq(sent + 1)
            for n, kept in enumerate(seen):
                with m.If(sent == n):
                    m.d.sync += kept.eq(self.payload)

        words = [([None if part is None else part + frame * per_frame for part in parts], last)
                 for frame in range(self.frames) for parts, last in self.order()]
        number = Signal(range(len(words) + 1))
        wrong = Signal()
        with m.Switch(number):
            for n, (parts, last) in enumerate(words):
                with m.Case(n):
                    expected = Cat(Const(0, len(self.payload)) if part is None else seen[part] for part in parts)
                    needed = max((part for part in parts if part is not None), default=-1)
                    m.d.comb += wrong.eq((dut.x != expected) | (dut.last != last) | (sent <= needed))
            with m.Default():
                m.d.comb += wrong.eq(1)
        with m.If(dut.valid & self.en):
            m.d.sync += number.eq(number + 1)
        waited, before = Signal(), Signal(len(dut.x) + 2)
        now = Cat(dut.x, dut.valid, dut.last)
        m.d.sync += [waited.eq(~self.en), before.eq(now)]
        m.d.comb += self.broken.eq((dut.valid & wrong) | (waited & (now != before)))
        return m


WINDOWS = {
    "dense": (WindowGeometry((1, 1, 4), channels=2, repeat=2), 2),
    "padded": (WindowGeometry((2, 2, 1), kernel=(2, 1), padding=(1, 0)), 2),
    "rows": (WindowGeometry((3, 2, 1), kernel=(2, 2), padding=(0, 1), rows=2), 2),
    "stride and groups": (WindowGeometry((3, 1, 2), kernel=(2, 1), stride=(2, 1), groups=2), 2),
}


def windows_proved(proof: WindowProof, folder: Path) -> bool:
    meant = WindowProof(proof.geometry, bits=proof.bits, frames=proof.frames, built=False)
    return proved(text(meant, "gold"), text(proof, "gate"), folder)


@pytest.mark.parametrize("name", ["dense", *(pytest.param(name, marks=pytest.mark.slow) for name in list(WINDOWS)[1:])])
def test_windows_hold_what_went_in(name: str, tmp_path: Path):
    geometry, frames = WINDOWS[name]
    assert windows_proved(WindowProof(geometry, bits=1, frames=frames), tmp_path)


def test_a_wrong_order_of_words_is_refuted(tmp_path: Path):
    class Swapped(WindowProof):
        def order(self):
            first, second, *rest = super().order()
            return [(second[0], first[1]), (first[0], second[1]), *rest]

    assert not windows_proved(Swapped(WINDOWS["dense"][0], bits=1, frames=1), tmp_path)
