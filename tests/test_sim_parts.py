# amaranth: UnusedElaboratable=no
"""MAC units and engines one by one in a simulator, all in one build: values and cycles equal golden, with pauses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import random_codes
from sim_cases import POWERS, SIMULATORS, case_of
from spaced import component

from lutq_hw.mac import MacUnit
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, MaxPool2d, Network, Output, Shift, TensorType, Thresholds
from lutq_hw.plan import LayerPlan, Plan, PoolPlan
from lutq_hw.sim.case import Case, Probe
from lutq_hw.sim.runner import Bench
from lutq_hw.sim.stalls import Stalls
from lutq_hw.streams import StreamFormat
from lutq_hw.units import UNITS

PE, SIMD = 2, 3
FOLDS = (1, 4, 2, 3)
"""Words of each sum that a unit is given."""

PAUSES = Stalls(0.4, 0.4, 9)


def unit_times(unit: MacUnit, lasts: list[bool], stalls: Stalls) -> tuple[list[int], list[int]]:
    """Cycles of input and output words: one pipeline of ``latency`` registers that moves as a whole, and its gaps."""
    pipe, rest = [False] * unit.latency, unit.startup + unit.gap
    taken: list[int] = []
    given: list[int] = []
    offered, cycle = False, 0
    while len(given) < sum(lasts):
        offered = offered or (len(taken) < len(lasts) and not stalls.source_idle(cycle))
        ready = not stalls.sink_stall(cycle)
        if pipe[-1] and ready:
            given.append(cycle)
        if ready or not pipe[-1]:
            takes = offered and not rest
            pipe = [takes and lasts[len(taken)], *pipe[:-1]]
            rest = unit.gap if pipe[0] else max(0, rest - 1)
            if takes:
                taken.append(cycle)
                offered = False
        cycle += 1
    return taken, given


def unit_case(name: str, rng: np.random.Generator) -> Case:
    """A unit by itself: its ports are the streams."""
    books = [Codebook(np.zeros((1, 1), int), dictionary=dictionary) for dictionary in (POWERS, (-5, 0, 5), (-5, 3))]
    book, x_bits = next((book, bits) for bits in (4, 1) for book in books if UNITS[name].reject(book, bits, False) is None)
    unit = UNITS[name](codebook=book, x_bits=x_bits, x_signed=False, pe=PE, simd=SIMD, acc_bits=12)
    entries = book.entries
    words, sums, lasts = [], [], []
    for fold in FOLDS * 3:
        x, index = rng.integers(0, 1 << x_bits, (fold, SIMD)), rng.integers(0, entries, (fold, PE, SIMD))
        sums.append(unit.reference(x, index))
        lasts += [False] * (fold - 1) + [True]
        for k in range(fold):
            fields = {"x": x[k].tolist(), "index": index[k].reshape(-1).tolist(), "last": lasts[len(words)]}
            words.append(unit.input_layout.const(fields).as_bits())
    taken, given = unit_times(unit, lasts, PAUSES)
    width = unit.input_layout.size
    terms = StreamFormat(TensorType((width,), 1), width)
    totals = StreamFormat(TensorType((PE,), unit.acc_bits, signed=True), PE)
    probes = (Probe("terms", "i__", terms, words, taken), Probe("sums", "o__", totals, totals.pack(np.array(sums)), given))
    return Case(f"unit_{name.replace('-', '_')}", probes, PAUSES, component(unit))


def engines() -> dict[str, tuple[Network, tuple[LayerPlan | PoolPlan, ...]]]:
    """Networks of one layer, each for another engine or another way through it."""
    rng = np.random.default_rng(31)

    def book(*shape: int) -> Codebook:
        return Codebook(rng.integers(0, len(POWERS), shape), dictionary=POWERS)

    def thresholds(count: int) -> Thresholds:
        return Thresholds(np.sort(rng.integers(-60, 60, (count, 7))), 3, descending=rng.integers(0, 2, count))

    def on_map(node: Conv2d | MaxPool2d) -> Network:
        return Network("map", (Input("image", TensorType((5, 6, 2), 3)), node, Flatten("flat", "x"), Output("out", "flat")))

    def on_vector(node: Dense, kind: str = "scores") -> Network:
        return Network("vector", (Input("image", TensorType((12,), 3)), node, Output("out", "x", kind)))

    def layer(**fields: object) -> tuple[LayerPlan, ...]:
        return (LayerPlan(**{"node": "x", "unit": "shift-add", "pe": 2, "channels": 1} | fields),)  # type: ignore[arg-type]

    return {
        "conv_row": (on_map(Conv2d("x", "image", book(4, 3, 2, 2), step=thresholds(4), padding=(1, 0))), layer()),
        "conv_rows": (on_map(Conv2d("x", "image", book(4, 3, 2, 2), step=thresholds(4), stride=(2, 1), padding=(2, 1))),
                      layer(rows=3, output_memory="bram")),
        "conv_groups": (on_map(Conv2d("x", "image", book(4, 2, 2, 1), step=Shift(2, 3), groups=2)), layer(output="shift")),
        "conv_bank": (on_map(Conv2d("x", "image", book(4, 3, 2, 2), [3, 0, -2, 1], thresholds(4))),
                      layer(output="threshold-bank", output_memory="bram")),
        "conv_depthwise": (on_map(Conv2d("x", "image", book(4, 3, 2, 1), step=thresholds(4), padding=(1, 1), groups=2)),
                           layer(pe=4, spread=2, rows=3, output_lanes=2)),
        "conv_far": (on_map(Conv2d("x", "image", book(2, 1, 1, 2), step=Shift(2, 3), stride=3)), layer(output="shift")),
        "pool": (on_map(MaxPool2d("x", "image", (3, 2), (2, 1), (1, 0))), (PoolPlan(node="x", channels=2),)),
        "dense": (on_vector(Dense("x", "image", book(4, 12), bias=[1, -2, 3, 0])),
                  layer(output="scores", channels=4, output_lanes=2, index_memory="luts")),
        "top": (on_vector(Dense("x", "image", book(6, 12)), "top3"),
                layer(output="scores", pe=6, channels=3, output_lanes=2)),
        "bucket": (on_map(Conv2d("x", "image", book(4, 3, 2, 2), step=thresholds(4), padding=(1, 0))),
                   layer(unit="bucket", output_lanes=2)),
        "argmax": (on_vector(Dense("x", "image", book(4, 12)), "argmax"), layer(output="scores", channels=3)),
    }


def engine_case(name: str, network: Network, layers: tuple[LayerPlan | PoolPlan, ...]) -> Case:
    codes = random_codes(np.random.default_rng(len(name)), network, 3)
    return case_of(f"engine_{name}", network, Plan(network.digest, layers), codes, PAUSES)


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_every_unit_and_engine_equals_golden(simulator: str, tmp_path: Path):
    rng = np.random.default_rng(30)
    cases = [unit_case(name, rng) for name in UNITS] + [engine_case(name, *parts) for name, parts in engines().items()]
    outcome = Bench(cases, tmp_path, simulator=simulator).run(cases)
    assert {name: verdict.differences for name, verdict in outcome.verdicts.items() if verdict.differences} == {}
    assert len(outcome.verdicts) == len(UNITS) + len(engines())
    for case in cases:
        assert outcome.verdicts[case.name].words == sum(len(probe.words) for probe in case.probes)
