# amaranth: UnusedElaboratable=no
"""Every MAC unit against its reference, in value and in time. A new file in units/ is tested here by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spaced import component
from stream_helpers import bursts, never, stalls, transfer

import lutq_hw.units
from lutq_hw.mac import MacUnit
from lutq_hw.network import Codebook, TensorType
from lutq_hw.network.tensor import signed_bits
from lutq_hw.units import UNITS

DICTIONARIES = {
    "powers of two": (-16, -8, -4, -1, 0, 2, 4, 16),
    "positive powers of two": (1, 2, 8),
    "sums of two powers": (-20, -7, -3, 0, 5, 12),
    "even": (-8, -4, 0, 4, 8, 24),
    "free": (-43, -11, -2, 0, 1, 19, 21, 53),
    "many": tuple(range(-37, 38, 4)),
    "negative": (-9, -5, -1),
    "binary": (-1, 1),
    "ternary": (-3, 0, 3),
    "two": (0, 1),
    "one": (-6,),
    "zero": (0,),
}


def codebook(dictionary=None, table=None) -> Codebook:
    """A codebook that is all dictionary."""
    entries = len(dictionary) if table is None else len(table[0])
    return Codebook(assignments=np.arange(entries)[None, :], dictionary=dictionary, table=table)


def random_table(rng: random.Random, x_bits: int, entries: int | None = None) -> Codebook:
    """A product table without any structure."""
    entries, scale = entries or rng.randint(1, 9), rng.choice([1, 3, 100, 1000])
    return codebook(table=[[rng.randint(-scale, scale) for _ in range(entries)] for _ in range(1 << x_bits)])


def make(name: str, book: Codebook, *, x_bits=4, x_signed=False, pe=2, simd=3, acc_bits=14, spread=1,
         offset=False) -> MacUnit:
    """The unit ``name``."""
    return UNITS[name](codebook=book, x_bits=x_bits, x_signed=x_signed, pe=pe, simd=simd, acc_bits=acc_bits,
                       spread=spread, offset=offset)


def stimulus(unit: MacUnit, folds: list[int], rng: random.Random) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Random words that make ``len(folds)`` sums of ``folds[n]`` words, and the sums."""
    draw = np.random.default_rng(rng.randrange(1 << 32))
    words, sums = [], []
    for fold in folds:
        x = draw.choice(unit.levels, (fold, unit.spread * unit.simd))
        if rng.random() < 0.2:  # extreme sums
            x = np.full_like(x, draw.choice(unit.levels[[0, -1]]))
        index = draw.integers(0, unit.codebook.entries, (fold, unit.pe, unit.simd))
        if rng.random() < 0.2:
            index[:] = draw.integers(0, unit.codebook.entries)
        for t in range(fold):
            words.append({"x": x[t].tolist(), "index": index[t].reshape(-1).tolist(), "last": int(t == fold - 1)})
        sums.append(wrapped(unit, unit.reference(x, index)))
    return words, sums


def wrapped(unit: MacUnit, sums: np.ndarray) -> list[int]:
    """Sums modulo ``2**acc_bits``, signed."""
    half = 1 << unit.acc_bits - 1
    return ((sums + half & 2 * half - 1) - half).tolist()


def garbage(unit: MacUnit, seed: int) -> Iterator[dict[str, Any]]:
    """What stands on the wires while nothing is offered."""
    rng = random.Random(seed)
    while True:
        index = [rng.randrange(1 << unit.index_bits) for _ in range(unit.pe * unit.simd)]
        x = [int(rng.choice(unit.levels)) for _ in range(unit.spread * unit.simd)]
        yield {"x": x, "index": index, "last": rng.randrange(2)}


def expected_cycles(unit: MacUnit, lasts: list[int], offered: Iterator[bool],
                    ready: Iterator[bool]) -> tuple[list[int], list[int]]:
    """The rule of the pipeline in software: cycles in which words are taken, and in which sums are handed over.

    ``offered`` asks the source's stall pattern, ``ready`` the sink's. In the gap, and in the startup, nothing is taken.
    """
    rest = unit.startup + unit.gap
    stages = [False] * unit.latency  # a stage holds the end of a sum
    taken: list[int] = []
    given: list[int] = []
    waiting = False
    cycle = 0
    while len(given) < sum(lasts):
        if not waiting and len(taken) < len(lasts):
            waiting = not next(offered)
        sink = not next(ready)
        if sink and stages[-1]:
            given.append(cycle)
        if sink or not stages[-1]:
            takes = waiting and not rest
            stages = [takes and bool(lasts[len(taken)]), *stages[:-1]]
            rest = unit.gap if stages[0] else max(0, rest - 1)
            if takes:
                taken.append(cycle)
                waiting = False
        cycle += 1
    return taken, given


def layer_stimulus(unit: MacUnit, count: int, rng: random.Random) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Words of ``count`` dot products with the weights of the unit's codebook, in its order, and the sums."""
    draw = np.random.default_rng(rng.randrange(1 << 32))
    assert unit.order is not None
    outputs = unit.codebook.assignments.reshape(-1, unit.pe, unit.order.size)
    words, sums = [], []
    for n in range(count):
        x = draw.choice(unit.levels, unit.order.shape)
        if n % 3 == 0:  # extreme sums
            x = np.full_like(x, unit.levels[-1 if n % 2 else 0])
        index = outputs[n % len(outputs)][:, unit.order].transpose(1, 0, 2)
        for t, (values, which) in enumerate(zip(x, index, strict=True)):
            words.append({"x": values.tolist(), "index": which.reshape(-1).tolist(), "last": int(t == len(x) - 1)})
        sums.append(unit.reference(x, index).tolist())
    return words, sums


def conform(unit: MacUnit, folds: list[int], seed: int, put: str = "never", get: str = "never") -> None:
    """Runs a unit with dot products of any length and compares values and cycles."""
    run(unit, *stimulus(unit, folds, random.Random(seed)), seed, put, get)


def run(unit: MacUnit, words: list[dict[str, Any]], sums: list[list[int]], seed: int, put: str, get: str) -> None:
    """Sends the words through a unit and compares values and cycles."""
    patterns = {"never": lambda n: never(), "rare": lambda n: stalls(0.1, n), "often": lambda n: stalls(0.6, n),
                "bursts": lambda n: bursts(7, n)}
    sent, received = transfer(component(unit), words, len(sums), put_stalls=patterns[put](seed),
                              get_stalls=patterns[get](seed + 1), garbage=garbage(unit, seed),
                              drain=unit.latency + unit.gap + 3)
    assert [list(payload) for payload in received.payloads] == sums
    lasts = [word["last"] for word in words]
    taken, given = expected_cycles(unit, lasts, patterns[put](seed), patterns[get](seed + 1))
    assert sent.cycles == taken
    assert received.cycles == given
    for cycle, (sink_ready, offered, ready) in enumerate(zip(received.ready, received.offered, sent.ready, strict=False)):
        moves = (sink_ready or not offered) and cycle >= unit.startup
        assert ready == moves or (unit.gap and not ready), "i.ready must be o.ready | ~o.valid"


@pytest.mark.parametrize("name", [name for name, unit in UNITS.items() if not unit.any_length])
@pytest.mark.parametrize("seed", range(6))
def test_layer(name, seed):
    """A unit that is told the weights and their order, and may be no wider than these need: random layers and stalls."""
    rng = random.Random(f"{name} {seed}")
    pe, simd, fold, x = rng.choice([1, 2, 3]), rng.randint(1, 6), rng.choice([1, 2, 5, 12]), rng.choice([1, 3, 4])
    x = TensorType((fold * simd,), x, signed=bool(rng.randrange(2)))
    draw = np.random.default_rng(seed)
    books = [Codebook(draw.integers(0, len(values), (2 * pe, fold * simd)), dictionary=values)
             for values in DICTIONARIES.values()]
    book = rng.choice([book for book in books if UNITS[name].refusal(book, x) is None])
    low, high = book.sum_range(x)
    unit = UNITS[name].for_layer(book, x, pe=pe, simd=simd, acc_bits=signed_bits(min(0, low.min()), max(0, high.max())),
                                 order=draw.permutation(fold * simd).reshape(fold, simd))
    run(unit, *layer_stimulus(unit, 8, rng), seed, rng.choice(["never", "often"]), rng.choice(["never", "bursts"]))


def accepts(name: str, book: Codebook, x_bits: int, x_signed: bool = False) -> bool:
    return UNITS[name].reject(book, x_bits, x_signed) is None


def suited(name: str, x_bits: int = 4, x_signed: bool = False) -> list[Codebook]:
    """Dictionaries that a unit accepts."""
    books = map(codebook, DICTIONARIES.values())
    return [book for book in books if accepts(name, book, x_bits, x_signed)]


@pytest.mark.parametrize("x_signed", [False, True])
@pytest.mark.parametrize(("name", "kind", "x_bits"), [
    (name, kind, x_bits) for name in UNITS for kind, values in DICTIONARIES.items() for x_bits in (4, 2)
    if accepts(name, codebook(values), x_bits) and (x_bits == 4 or not accepts(name, codebook(values), 4))])
def test_every_dictionary(name, kind, x_bits, x_signed):
    """Values of each dictionary, with activations of 4 bits or else of 2, without stalls."""
    conform(make(name, codebook(DICTIONARIES[kind]), x_bits=x_bits, x_signed=x_signed), [3, 1, 1, 4, 2, 3], seed=len(kind))


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("seed", range(14))
def test_random_unit(name, seed):
    """Random geometry, dictionary or table, and stalls on both sides."""
    rng = random.Random(f"{name} {seed}")
    x_signed = bool(rng.randrange(2))
    x_bits = rng.choice([bits for bits in (1, 2, 3, 4, 5, 8) if suited(name, bits, x_signed)])
    books = [codebook(dictionary) for dictionary in DICTIONARIES.values()]
    books = [book for book in books if accepts(name, book, x_bits, x_signed)]
    table = random_table(rng, x_bits)
    book = table if accepts(name, table, x_bits, x_signed) and rng.random() < 0.5 else rng.choice(books)
    pe, simd, acc_bits = rng.choice([1, 2, 3]), rng.randint(1, 9), rng.randint(2, 24)
    spread = rng.choice([1, pe]) if UNITS[name].spreads else 1
    unit = make(name, book, x_bits=x_bits, x_signed=x_signed, pe=pe, simd=simd, acc_bits=acc_bits, spread=spread)
    kinds = ["never", "rare", "often", "bursts"]
    conform(unit, [rng.choice([1, 1, 2, 3, 7]) for _ in range(12)], seed, rng.choice(kinds), rng.choice(kinds))


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("pe, simd", [(1, 1), (1, 2), (3, 1), (1, 5), (2, 8)])
@pytest.mark.parametrize("put, get", [("never", "never"), ("often", "never"), ("never", "often"), ("often", "bursts")])
def test_timing(name, pe, simd, put, get):
    """Latency, interval 1, the ready rule and frozen bubbles; sums of one word among them."""
    x_bits = next(bits for bits in (4, 2, 1) if suited(name, bits))
    unit = make(name, suited(name, x_bits)[0], x_bits=x_bits, pe=pe, simd=simd)
    conform(unit, [1, 1, 1, 2, 5, 1, 3, 1, 1], seed=pe * 100 + simd, put=put, get=get)


@pytest.mark.parametrize("name", UNITS)
def test_sums_wrap_on_the_way(name):
    """A sum that leaves the accumulator's range and comes back is right."""
    values, x_bits = next((values, bits) for bits in (4, 2, 1) for values in ((-16, 0, 16), (-16, 16))
                          if accepts(name, codebook(values), bits, False))
    acc_bits = x_bits + 6
    unit = make(name, codebook(values), x_bits=x_bits, pe=1, simd=2, acc_bits=acc_bits)
    index = np.array([len(values) - 1] * 31 + [0] * 32)[:, None, None].repeat(2, axis=2)
    x = np.full((63, 2), unit.levels[-1])
    assert unit.reference(x[:31], index[:31])[0] >= 1 << acc_bits - 1
    assert signed_bits(int(unit.reference(x, index)[0]), 0) <= acc_bits
    words = [{"x": row.tolist(), "index": which.reshape(-1).tolist(), "last": int(n == 62)}
             for n, (row, which) in enumerate(zip(x, index, strict=True))]
    _, received = transfer(component(unit), words, 1)
    assert [list(payload) for payload in received.payloads] == [unit.reference(x, index).tolist()]


def test_deep_product_table():
    """A table of several banks of block RAM."""
    table = random_table(random.Random(1), 8, entries=20)
    unit = make("product-table", table, x_bits=8, pe=2, simd=2, acc_bits=20)
    conform(unit, [2, 1, 5], seed=1, put="rare", get="often")


@pytest.mark.parametrize("name, dictionary, x_bits, x_signed", [
    ("add-subtract", (-1, 1), 1, False), ("add-subtract", (-1, 1), 1, True), ("add-subtract", (-3, 3), 2, True),
    ("add-subtract", (-44, 44), 4, False), ("add-subtract", (-1, 1), 5, True), ("add-subtract", (-91, 0, 91), 8, True),
    ("add-subtract", (-2, 0, 2), 3, True), ("add-subtract", (-7, 7), 4, False), ("add-subtract", (1, 0, -1, -1), 4, False),
    ("signed-digits", (-88, -44, 0, 11), 4, False), ("signed-digits", (-88, 0, 11, 22), 8, True),
    ("signed-digits", (1, 2, 4, 8, 0, -2, -4, -8), 4, True), ("signed-digits", (-43, -21, 0, 11), 5, False),
    ("merged-tables", (-7, 11), 1, False), ("merged-tables", (-7, -2, 3, 11), 1, True), ("merged-tables", (-8, 24), 2, True),
    ("merged-tables", (1, 3), 2, False), ("merged-triples", (-7, 11), 1, False), ("merged-triples", (-1, 1), 1, True),
    ("split-tables", (-107, -29, 38, 115), 4, False),
    ("split-tables", (-107, -29, 38, 115), 8, True),
    ("split-tables", (-43, -22, -11, 0, 7, 19, 29), 5, False), ("split-tables", (-1, 0), 8, False),
    ("split-tables", (-24, 40), 5, True), ("split-tables", (-3, -2, -1), 3, True),
    ("soft-multiplier", tuple(range(-113, 127, 16)), 8, False), ("soft-multiplier", (-107, -29, 38, 115), 8, True),
    ("soft-multiplier", (0, 3, 5, 14), 4, False), ("soft-multiplier", (0, 3, 5, 14), 4, True),
    ("soft-multiplier", (-9, -5, -2), 5, True), ("soft-multiplier", (-9, -5, -2), 3, False),
    ("soft-multiplier", (-3, 0, 5), 1, True), ("soft-multiplier", (-1, 0), 2, True),
])
@pytest.mark.parametrize("pe, simd", [(1, 1), (1, 4), (2, 3), (3, 8)])
def test_structure_that_a_unit_looks_for(name, dictionary, x_bits, x_signed, pe, simd):
    """Every way in which the units for few values and narrow activations are built."""
    book = codebook(dictionary)
    assert accepts(name, book, x_bits, x_signed)
    unit = make(name, book, x_bits=x_bits, x_signed=x_signed, pe=pe, simd=simd, acc_bits=17)
    conform(unit, [3, 1, 1, 2], seed=pe * 10 + simd, put="rare", get="often")


@pytest.mark.parametrize("name, dictionary, x_bits", [
    ("signed-digits", (1, 2, 4, 8, 0, -2, -4, -8), 4), ("signed-digits", (-88, -44, 0, 11), 4),
    ("signed-digits", (-9, -5, -1), 3),
    ("signed-digits", (-3, 0, 3), 2), ("signed-digits", (-43, -21, 0, 11), 5), ("signed-digits", (-6,), 1),
])
@pytest.mark.parametrize("pe, simd", [(1, 4), (2, 3), (3, 1)])
def test_sums_that_are_off_by_a_constant(name, dictionary, x_bits, pe, simd):
    book = UNITS[name].view(codebook(dictionary))
    unit = make(name, book, x_bits=x_bits, pe=pe, simd=simd, acc_bits=17, offset=True)
    assert unit.excess.any() and (unit.summed - unit.products == unit.excess).all()
    assert unit.latency == make(name, book, x_bits=x_bits, pe=pe, simd=simd, acc_bits=17).latency
    conform(unit, [3, 1, 1, 2], seed=pe * 10 + simd, put="rare", get="often")


REJECTED = [
    ("add-subtract", {"table": [[0, 1], [3, -4]]}, "add-subtract needs a dictionary, not a product table"),
    ("add-subtract", {"dictionary": [-2, 0, 1]},
     "add-subtract needs dictionary values -a and a, with or without 0, not [-2, 0, 1]"),
    ("add-subtract", {"dictionary": [-3, 0]},
     "add-subtract needs dictionary values -a and a, with or without 0, not [-3, 0]"),
    ("signed-digits", {"table": [[0, 1], [3, -4]]}, "signed-digits needs a dictionary, not a product table"),
    ("signed-digits", {"dictionary": [0]}, "signed-digits needs a dictionary value other than 0"),
    ("signed-digits", {"dictionary": [0, 1, 341 * 4 + 1]},
     "signed-digits needs dictionary values of at most 4 signed digits, not 1365"),
    ("signed-digits", {"dictionary": [1, 3, 5, 7, 9, 11, 13, 15, 17]},
     "signed-digits needs at most 8 different odd multiples, not 9"),
    ("merged-tables", {"table": [[0, 1], [3, -4]]}, "merged-tables needs a dictionary, not a product table"),
    ("merged-tables", {"dictionary": range(5)},
     "merged-tables needs an activation and an index of at most 3 bits together, not 1 and 3"),
    ("merged-triples", {"dictionary": range(3)},
     "merged-triples needs an activation and an index of at most 2 bits together, not 1 and 2"),
    ("split-tables", {"table": [[0, 1], [3, -4]]}, "split-tables needs a dictionary, not a product table"),
    ("split-tables", {"dictionary": range(9)}, "split-tables needs a dictionary of at most 8 values, not 9"),
    ("split-tables", {"dictionary": [0, 1, 5]},
     "split-tables needs something to split: 1 bits of an activation and 2 of an index fit one table"),
    ("soft-multiplier", {"table": [[0, 1], [3, -4]]}, "soft-multiplier needs a dictionary, not a product table"),
    ("soft-multiplier", {"dictionary": [0]}, "soft-multiplier needs a dictionary value other than 0"),
    ("shift-add", {"table": [[0, 1], [3, -4]]}, "shift-add needs a dictionary, not a product table"),
    ("shift-add", {"dictionary": [-16, 0, 11, 13]},
     "shift-add needs dictionary values 0, ±2^s or ±2^s ± 2^t, not 11"),
    ("multiplier", {"table": [[0, 1], [3, -4]]}, "multiplier needs a dictionary, not a product table"),
    ("multiplier", {"dictionary": [-1, 0, 32768]},
     "multiplier needs dictionary values of at most 16 bits, not 32768"),
    ("multiplier", {"dictionary": [-6]}, "multiplier needs a dictionary that leaves something to multiply, not [-6]"),
    ("multiplier", {"dictionary": [-4, 0]},
     "multiplier needs a dictionary that leaves something to multiply, not [-4, 0]"),
]


@pytest.mark.parametrize("name, entries, sentence", REJECTED)
def test_reject_sentences(name, entries, sentence):
    assert UNITS[name].reject(codebook(**entries), 1, False) == sentence


def test_what_is_not_rejected():
    assert UNITS["shift-add"].reject(codebook((-24, -1, 0, 7, 12)), 4, False) is None
    assert UNITS["multiplier"].reject(codebook((-32768, 32767)), 8, True) is None
    for name in ("shared-products", "product-table"):
        for entries in ({"table": [[0, 1], [3, -4]]}, {"dictionary": [-1, 0, 32768]}):
            assert UNITS[name].reject(codebook(**entries), 1, True) is None


def test_units_are_found():
    files = (Path(lutq_hw.units.__file__).parent).glob("[!_]*.py")
    assert {file.stem for file in files} == {unit.__module__.rpartition(".")[2] for unit in UNITS.values()}
    assert all(unit.name == name for name, unit in UNITS.items())
