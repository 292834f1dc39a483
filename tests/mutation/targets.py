# amaranth: UnusedElaboratable=no
"""What is broken on purpose, and the check that must see it: every MAC unit, output stage and part of the gateware.

Units and stages are found in their folders, and so are the parts of engines: whatever file of ``gateware/`` takes part when
an engine is built.
"""

from __future__ import annotations

import copy
import functools
import math
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from random_cases import Drawn
from sim_cases import amaranth_verdict
from spaced import component
from test_outputs import expected as stage_words
from test_outputs import random_stage
from test_units import DICTIONARIES, accepts, codebook, make, random_table

from lutq_hw.gateware.accelerator import Accelerator
from lutq_hw.gateware.argmax import ArgmaxStage
from lutq_hw.gateware.gearbox import Collector, Splitter
from lutq_hw.gateware.skid import SkidBuffer
from lutq_hw.mac import MacUnit
from lutq_hw.network import Codebook, TensorType, Thresholds
from lutq_hw.network.tensor import signed_bits
from lutq_hw.output import OutputStage
from lutq_hw.outputs import OUTPUTS
from lutq_hw.sums import Sums
from lutq_hw.timing import ArgmaxTimer, CollectTimer, SplitTimer, output_timer
from lutq_hw.units import UNITS
from lutq_hw.units.bucket import Bucket

from .drive import PipelineTimer, Run, Wrong
from .memories import fifo_checks, ram_checks, rom_checks
from .stages import cheapest, drawn_networks, engine_runs, sparse_runs
from .windows import window_checks


class Check(Protocol):
    """One simulation; calling it raises if anything is wrong."""

    def build(self) -> wiring.Component:
        """The component that it simulates."""
        ...

    def __call__(self) -> None: ...


@dataclass(frozen=True)
class Target:
    """One thing to be broken.

    Parameters
    ----------
    name
        Name of the unit, stage or part.
    module
        Where its description is; functions in it that take part in building the hardware are changed.
    checks
        Makes the checks.
    """

    name: str
    module: ModuleType
    checks: Callable[[], Sequence[Check]] = field(repr=False)


def word_bits(unit: MacUnit, x: np.ndarray, index: np.ndarray, *, last: bool) -> int:
    """A word of ``unit.input_layout`` as bits."""
    return unit.input_layout.const({"x": x.tolist(), "index": index.reshape(-1).tolist(), "last": last}).as_bits()


class QueueTimer:
    """A queue of two words."""

    def __init__(self) -> None:
        self.words = 0

    @property
    def valid(self) -> bool:
        return self.words > 0

    def ready(self, o_ready: bool) -> bool:
        return self.words < 2

    def step(self, i_valid: bool, o_ready: bool) -> None:
        self.words += (i_valid and self.ready(o_ready)) - (self.valid and o_ready)


def packed(values: Sequence[int], bits: int) -> int:
    """Values side by side, the first in the low bits."""
    return sum((int(value) & (1 << bits) - 1) << bits * n for n, value in enumerate(values))


def unit_run(unit: MacUnit, seed: int, folds: Sequence[int]) -> Run:
    """Sums of ``folds`` words each, extreme ones among them."""
    rng = np.random.default_rng(seed)
    words, lasts, results = [], [], []
    for number, fold in enumerate(folds):
        x = rng.choice(unit.levels, (fold, unit.spread * unit.simd))
        index = rng.integers(0, unit.codebook.entries, (fold, unit.pe, unit.simd))
        if number % 3 == 1:
            x[:] = unit.levels[-(number & 1)]
        if number % 4 == 3:
            index[:] = rng.integers(unit.codebook.entries)
        results.append(packed(unit.reference(x, index), unit.acc_bits))
        for t in range(fold):
            lasts.append(t == fold - 1)
            words.append(word_bits(unit, x[t], index[t], last=lasts[-1]))

    def legal(m: Module, payload: Value, taken: Value) -> Value:
        word = unit.input_layout(payload)
        indices = [Mux(index < unit.codebook.entries, index, 0)[:unit.index_bits] for index in word.index]
        last: Value = word.last
        if unit.order is not None:  # all dot products have the layer's length
            place = Signal(range(len(unit.order)))
            last = place == len(unit.order) - 1
            with m.If(taken):
                m.d.sync += place.eq(Mux(last, 0, place + 1))
        return Cat(word.x.as_value(), *indices, last)

    # A copy for every build: what a unit has worked out once it remembers, and the change would not show. Its timing is what
    # the unit promises without the change.
    timer = PipelineTimer(unit.latency, lasts, unit.gap, unit.startup)
    return Run(lambda: component(replace(unit)), lambda: copy.copy(timer), [words], [results], seed,
               legal, warm=unit.startup + unit.gap)


BUCKET_BITS = 160
"""Of all running sums of a unit, at most."""

SPECIAL: dict[str, list[tuple[Any, int, bool, int, int]]] = {
    "add-subtract": [(codebook((-1, 1)), 1, False, 2, 4), (codebook((-1, 1)), 4, True, 2, 3)],
    "shared-products": [(codebook(table=[[0, 3, -1], [2, -2, 1], [1, 1, 0], [-3, 0, 2]]), 2, False, 2, 2)],
    "signed-digits": [(codebook((-2, 0, 1, 4)), 3, False, 1, 2)],
}
"""Units for which there are gates of their own that the dictionaries drawn may all miss; ``pe`` and ``simd`` come last."""


def unit_checks(name: str) -> list[Check]:
    """Dictionaries and tables of all kinds that the unit takes, in small arrays of many shapes."""
    rng = random.Random(name)
    shapes = [(1, 1), (2, 3), (1, 2), (2, 1), (1, 5), (2, 4), (3, 2), (1, 7)]
    kinds: list[tuple[Any, int, bool]] = [(codebook(values), bits, signed) for values in DICTIONARIES.values()
                                          for bits, signed in ((1, False), (2, True), (3, False), (4, True), (5, True))]
    kinds += [(random_table(rng, bits), bits, signed) for bits, signed in ((2, False), (3, True), (5, False))]
    kinds = [kind for kind in kinds if accepts(name, *kind)]
    kinds.sort(key=lambda kind: kind[1], reverse=True)  # wide ones first, but some of every width
    kinds = [kinds[n * len(kinds) // 12] for n in range(12)] if len(kinds) > 12 else kinds
    rng.shuffle(kinds)
    # A block RAM, and several of them: tables only, since nothing else grows with the address.
    big = [(random_table(rng, 8, entries), 8, False) for entries in (3, 12)] if name == "product-table" else []
    checks: list[Check] = []
    for number, (book, x_bits, x_signed) in enumerate(kinds + big):
        acc_bits = (16, 12, 20, 5)[number % 4]
        order = [shapes[n % len(shapes)] for n in range(number, number + len(shapes))]
        pe, simd = order[0] if len(book.assignments[0]) < 10 else (1, 2)
        if issubclass(UNITS[name], Bucket):  # proofs about memories take long
            acc_bits = min(acc_bits, BUCKET_BITS // book.entries)
            bits = book.entries * acc_bits
            pe, simd = next(shape for shape in order if math.prod(shape) * bits <= BUCKET_BITS)
        spread = pe if UNITS[name].spreads and number % 3 == 2 else 1
        unit = make(name, book, x_bits=x_bits, x_signed=x_signed, pe=pe, simd=simd, acc_bits=acc_bits, spread=spread,
                    offset=number % 2 == 1)
        checks.append(unit_run(unit, number, (2, 1, 1, 3, 1, 4, 1, 1, 2, 1, 5, 1, 2)))
    for seed, (book, x_bits, x_signed, pe, simd) in enumerate(SPECIAL.get(name, ())):
        unit = make(name, book, x_bits=x_bits, x_signed=x_signed, pe=pe, simd=simd, acc_bits=9)
        checks.append(unit_run(unit, seed, (2, 1, 1, 3, 1, 4)))
    if name == "subgroup-scale":
        checks += [scaled_check(scales, seed) for seed, scales in enumerate(([3, 5, 2], [7], [4, 12]))]
    checks += [layer_check(name, *kind, seed) for seed, kind in enumerate(kinds[:0 if UNITS[name].any_length else 4])]
    # What a unit does for those that are made of it.
    heirs = [heir for heir, unit in UNITS.items() if heir != name and issubclass(unit, UNITS[name])]
    return checks + [check for heir in heirs for check in unit_checks(heir)[-2:]]


def scaled_check(scales: Sequence[int], seed: int) -> Check:
    """A unit that knows a layer of several subgroups, each two words long."""
    terms = 4 * len(scales)
    ends = np.repeat([[2], [0]], terms, axis=1)  # largest and smallest sums: no other weights need more bits
    book = Codebook(ends, dictionary=np.outer(scales, [-1, 0, 1]), subgroups=np.repeat(np.arange(len(scales)), 4))
    x = TensorType((terms,), 2, signed=bool(seed % 2))
    low, high = book.sum_range(x)
    unit = UNITS["subgroup-scale"].for_layer(book, x, pe=2, simd=2, order=np.arange(terms).reshape(-1, 2),
                                             acc_bits=signed_bits(min(0, low.min()), max(0, high.max())))
    return unit_run(unit, seed, [terms // 2] * 5)


def layer_check(name: str, book: Codebook, x_bits: int, x_signed: bool, seed: int) -> Check:
    """A unit that knows the layer: its dot products are as long as those must be that need no more than the shortest gap."""
    # So narrow that nothing has bits to spare, which a change could add to and no proof find useless.
    simd = 2 + seed % 2
    alone = make(name, book, x_bits=x_bits, x_signed=x_signed, pe=1, simd=simd, acc_bits=6)
    fold = 1 + alone.gap
    # Outputs that have one entry only make room for the sums of any others.
    weights = Codebook(np.repeat(np.arange(book.entries)[:, None], simd * fold, axis=1), dictionary=book.dictionary)
    unit = replace(alone, codebook=UNITS[name].view(weights), order=np.arange(simd * fold).reshape(fold, simd))
    return unit_run(unit, seed, [fold] * 6)


def stage_checks(name: str) -> list[Check]:
    """Random stages as in test_outputs.py, sums at the ends of their range and around the thresholds."""
    checks: list[Check] = []
    for seed in range(12 + name.startswith("threshold")):
        rng = np.random.default_rng([seed, 77])
        stage = random_stage(rng, name) if seed < 12 else full_stage(name)
        while (seed % 3 == 2 and not biased(stage)) or (seed % 4 == 3 and name != "scores" and not stage.type.signed):
            stage = random_stage(rng, name)
        if name == "shift" and seed % 4 > 1 and stage.type.bits > 1:
            stage = replace(stage, sums=replace(stage.sums, step=evenly_spaced(rng, stage)))
        low, high = stage.sum_range
        sums = rng.integers(low, high + 1, (4 * stage.sums.outputs // stage.pe, stage.pe))
        sums[0], sums[-1] = low, high
        values = getattr(stage.sums.step, "values", None)
        if values is not None:
            near = rng.choice(values.reshape(-1), sums.shape) + rng.integers(-1, 2, sums.shape)
            near = near - np.resize(stage.sums.bias, sums.size).reshape(sums.shape)
            sums[1:-1] = np.where(rng.random(sums.shape) < 0.6, np.clip(near, low, high), sums)[1:-1]
        words = [packed(word, stage.acc_bits) for word in sums.tolist()]
        timer = output_timer(stage)  # what the stage promises without the change
        checks.append(Run(lambda stage=stage: replace(stage).create(), functools.partial(copy.copy, timer), [words],
                          [stage_words(stage, sums)], seed, functools.partial(in_range, stage)))
    return checks


def evenly_spaced(rng: np.random.Generator, stage: OutputStage) -> Thresholds:
    """Thresholds that a shift counts as well."""
    first, bits = rng.integers(-20, 9, (stage.sums.outputs, 1)), stage.type.bits
    return Thresholds(first + 4 * np.arange((1 << bits) - 1), bits, stage.type.signed)


def full_stage(name: str) -> OutputStage:
    """Sums that need all that their bits can hold, and thresholds that none or all of them reach."""
    step = Thresholds(np.tile([-20, 0, 9], (2, 1)), 2)
    sums = Sums("full", np.full(2, -8), np.full(2, 7), np.zeros(2, int), step, TensorType((2,), 2))
    return OUTPUTS[name](sums=sums, pe=2, lanes=1, memory="luts")


def biased(stage: OutputStage) -> bool:
    """Whether channels differ by their bias only, which some stages add and others fold into their tables."""
    values = getattr(stage.sums.step, "values", None)
    alike = values is None or values.ndim == 1 or bool((values == values[0]).all())
    return alike and int(np.ptp(stage.sums.bias)) > 2


def in_range(stage: OutputStage, m: Module, payload: Value, taken: Value) -> Value:
    """Sums that the layer can have."""
    low, high = stage.sum_range
    sums = [payload.word_select(n, stage.acc_bits).as_signed() for n in range(stage.pe)]
    return Cat(Mux(acc < low, low, Mux(acc > high, high, acc))[:stage.acc_bits] for acc in sums)


def skid_checks() -> list[Check]:
    return [Run(lambda: SkidBuffer(5), QueueTimer, [words], [words], seed) for seed in range(4)
            for words in [np.random.default_rng(seed).integers(0, 32, 20).tolist()]]


def gearbox_checks() -> list[Check]:
    checks: list[Check] = []
    for seed, (width, count) in enumerate([(3, 2), (2, 3), (1, 5), (4, 2), (3, 4), (2, 2), (5, 3), (1, 3)]):
        pieces = np.random.default_rng(seed).integers(0, 1 << width, 8 * count).tolist()
        wholes = [packed(pieces[n:n + count], width) for n in range(0, len(pieces), count)]
        checks.append(Run(functools.partial(Collector, width, count), functools.partial(CollectTimer, count), [pieces],
                          [wholes], seed))
        checks.append(Run(functools.partial(Splitter, width, count), functools.partial(SplitTimer, count), [wholes],
                          [pieces], seed))
    return checks


def argmax_checks() -> list[Check]:
    checks: list[Check] = []
    for seed, (bits, signed, lanes, words) in enumerate([(3, True, 1, 5), (2, False, 3, 2), (4, True, 2, 3), (3, False, 1, 1),
                                                         (2, True, 4, 1), (1, False, 2, 4)]):
        low = -(1 << bits - 1) if signed else 0
        frames = np.random.default_rng(seed).integers(low, low + (1 << bits), (10, words, lanes))
        make_stage = functools.partial(ArgmaxStage, bits=bits, is_signed=signed, lanes=lanes, words=words,
                                       index_bits=max(1, (words * lanes - 1).bit_length()))
        checks.append(Run(make_stage, functools.partial(ArgmaxTimer, words),
                          [[packed(word, bits) for word in frames.reshape(-1, lanes)]],
                          [frames.reshape(10, -1).argmax(axis=1).tolist()], seed))
    return checks


@dataclass(frozen=True)
class NetworkCheck:
    """A small network, with every stream watched."""

    drawn: Drawn

    def build(self) -> wiring.Component:
        return Accelerator(self.drawn.network, self.drawn.plan, taps=True)

    def __call__(self) -> None:
        dut: Any = self.build()
        taps = {f"tap_{stream.name}_{key}": bits for stream in dut.pipeline.streams[1:-1]
                for key, bits in (("valid", 1), ("ready", 1), ("payload", stream.format.width))}
        found = {name: len(getattr(dut, name)) for name in dut.signature.members if name not in ("i", "o")}
        if found != taps:
            raise Wrong(f"its taps are {found}, not {taps}")
        with tempfile.TemporaryDirectory() as folder:
            differences = amaranth_verdict(replace(self.drawn.case, component=dut), Path(folder)).differences
        if differences:
            raise Wrong(differences[0])


@functools.cache
def networks(count: int = 24) -> tuple[NetworkCheck, ...]:
    """Small random networks that reach everything."""
    pool = [(NetworkCheck(drawn), set(drawn.features()), 200 + drawn.case.cycles + 10 * sum(
        getattr(p, "pe", 1) * getattr(p, "simd", 1) for p in drawn.plan.layers)) for drawn in drawn_networks()]
    return tuple(cheapest(pool, count))


LANE_PARTS = ("lanes", "shifter")
"""Modules that describe no component, but what lanes are made of."""


def parts() -> dict[str, ModuleType]:
    """Modules of the gateware that describe components of an accelerator, by name of their file."""
    found: dict[str, ModuleType] = {}
    users = [Accelerator, *UNITS.values(), *OUTPUTS.values()]
    pending = [sys.modules[user.__module__] for user in users]
    while pending:
        module = pending.pop()
        name = module.__name__.rpartition(".")[2]
        if found.get(name) is not module:
            if ".gateware." in module.__name__:
                found[name] = module
            origins = {getattr(value, "__module__", "") or "" for value in vars(module).values()}
            pending += [sys.modules[origin] for origin in origins if ".gateware." in origin]
    pieces = {name: module for name, module in found.items() if any(
        isinstance(value, type) and issubclass(value, wiring.Component) and value.__module__ == module.__name__
        for value in vars(module).values())}
    return dict(sorted((pieces | {name: found[name] for name in LANE_PARTS}).items()))


def targets() -> dict[str, Target]:
    """All targets by name."""
    found = {f"unit {name}": Target(f"unit {name}", sys.modules[unit.__module__], functools.partial(unit_checks, name))
             for name, unit in UNITS.items()}
    found |= {f"output {name}": Target(f"output {name}", sys.modules[stage.__module__], functools.partial(stage_checks, name))
              for name, stage in OUTPUTS.items()}
    own: dict[str, Callable[[], Sequence[Check]]] = {
        "skid": skid_checks, "gearbox": gearbox_checks, "argmax": argmax_checks, "fifo": fifo_checks,
        "ram": ram_checks, "rom": rom_checks, "window": window_checks, "row_buffer": window_checks,
        "nonzero": sparse_runs,
        "serial": lambda: interleaved([stage_checks(name) for name in OUTPUTS]),
    }
    own |= dict.fromkeys(LANE_PARTS, lambda: interleaved([unit_checks(name) for name in UNITS]))
    own |= dict.fromkeys(("mac_array", "accumulate", "weighted_sum"),
                         lambda: interleaved([unit_checks(name)[:6] for name in UNITS]))  # proofs of all take long
    own["accelerator"] = networks
    return found | {f"part {name}": Target(f"part {name}", module, own.get(name, engine_runs))
                    for name, module in parts().items()}


def interleaved(lists: Sequence[Sequence[Check]]) -> list[Check]:
    """One of each list, then the next of each."""
    longest = max(map(len, lists))
    return [checks[n] for n in range(longest) for checks in lists if n < len(checks)]
