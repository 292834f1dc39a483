# amaranth: UnusedElaboratable=no
"""Every output stage by itself: values equal the step's, cycles the rule of `OutputStage`, whatever stalls."""

from __future__ import annotations

import numpy as np
import pytest
from stream_helpers import stalls, transfer

from lutq_hw.network import ActivationTable, Codebook, Dense, Shift, TensorType, Thresholds
from lutq_hw.network.steps import Step
from lutq_hw.output import OutputStage
from lutq_hw.outputs import OUTPUTS
from lutq_hw.sums import sums_of
from lutq_hw.timing import output_timer

X = TensorType((4,), 3)


def random_step(rng: np.random.Generator, name: str, outputs: int) -> Step | None:
    """A step that the stage ``name`` takes."""
    bits, signed = int(rng.integers(1, 4)), bool(rng.random() < 0.3)
    if name == "thresholds-pipelined":
        bits = max(2, bits)
    if name == "scores":
        return None
    if name == "shift":
        return Shift(int(rng.integers(0, 4)), bits, signed)
    if name == "activation-table":
        low = -(1 << bits - 1) if signed else 0
        values = rng.integers(low, low + (1 << bits), int(rng.integers(1, 20)))
        return ActivationTable(values, int(rng.integers(0, 4)), bits, signed)
    count = int(rng.integers(1, 1 << bits))
    rows = 1 if rng.random() < 0.4 else outputs
    values = np.sort(rng.integers(-50, 51, (rows, count)))
    down = rng.integers(0, 2, rows)
    return Thresholds(np.tile(values, (outputs // rows, 1)), bits, signed, np.tile(down, outputs // rows))


def random_stage(rng: np.random.Generator, name: str) -> OutputStage:
    """A stage of any size, biases equal or not."""
    sizes = ((6, 3, 1), (6, 6, 2), (4, 2, 2), (4, 4, 4), (3, 1, 1))
    if name == "thresholds-pipelined":  # one slice or an even or odd number of them, several words to a pixel or one
        sizes = ((6, 3, 1), (6, 6, 2), (4, 4, 2), (3, 3, 3), (3, 1, 1), (8, 4, 1), (6, 2, 1), (4, 2, 2))
    outputs, pe, lanes = sizes[int(rng.integers(len(sizes)))]
    bias = rng.integers(-9, 10, outputs) * int(rng.integers(2)) + int(rng.integers(-3, 4))
    weights = Codebook(rng.integers(0, 4, (outputs, X.size)), dictionary=[-3, -1, 0, 2])
    node = Dense("layer", "x", weights, bias, random_step(rng, name, outputs))
    return OUTPUTS[name](sums=sums_of(node, X), pe=pe, lanes=lanes, memory=str(rng.choice(["bram", "luts"])))


def expected(stage: OutputStage, sums: np.ndarray) -> list[int]:
    """Words of codes for ``sums (words, pe)``."""
    totals = sums.reshape(-1, stage.sums.outputs) + stage.sums.bias
    codes = totals if stage.sums.step is None else stage.sums.step.apply(totals)
    bits = stage.type.bits
    return [sum((int(c) & (1 << bits) - 1) << bits * n for n, c in enumerate(word))
            for word in codes.reshape(-1, stage.lanes)]


def output_cycles(stage: OutputStage, taken: list[int], ready: list[bool]) -> list[int]:
    """Cycles in which words leave, from those in which words of sums came in, for a sink that is ``ready`` so."""
    timer, cycles, arrivals = output_timer(stage), [], set(taken)
    for cycle, o_ready in enumerate(ready):
        if timer.valid and o_ready:
            cycles.append(cycle)
        assert cycle not in arrivals or timer.ready(o_ready), f"cycle {cycle}: a word was taken while another was worked on"
        timer.step(cycle in arrivals, o_ready)
    return cycles


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name in OUTPUTS
                                            for seed in range(12 if name == "thresholds-pipelined" else 6)])
def test_stage_equals_its_step(name: str, seed: int):
    rng = np.random.default_rng([seed, len(name)])
    stage = random_stage(rng, name)
    assert stage.reject(stage.sums) is None
    low, high = stage.sum_range
    sums = rng.integers(low, high + 1, (4 * stage.sums.outputs // stage.pe, stage.pe))
    sums[0], sums[-1] = low, high
    words = expected(stage, sums)
    pauses = [{}, {"put_stalls": stalls(0.5, seed)}, {"get_stalls": stalls(0.7, seed)},
              {"put_stalls": stalls(0.3, seed), "get_stalls": stalls(0.3, seed + 1)}][seed % 4]
    sent, received = transfer(stage.create(), sums.tolist(), len(words), **pauses)
    assert received.payloads == words
    assert received.cycles == output_cycles(stage, sent.cycles, received.ready)
    if not pauses:
        assert received.cycles[0] == sent.cycles[0] + stage.latency
        spread = sent.cycles[-1] - sent.cycles[0]
        assert abs(spread - (len(sent.cycles) - 1) * stage.interval) <= stage.at_once - 1


def layer(step: Step | None) -> Dense:
    return Dense("conv", "x", Codebook(np.zeros((3, 4), int), dictionary=[1, 2]), step=step)


def rows(count: int, shared: bool) -> Thresholds:
    values = np.tile(np.arange(count), (3, 1)) + (0 if shared else np.arange(3)[:, None])
    return Thresholds(values, count.bit_length())


LIMITS = "a bank compares with at most 7 of a channel, or 63 shared by all, at once"


@pytest.mark.parametrize(("name", "step", "sentence"), [
    ("threshold-bank", rows(7, False), None),
    ("threshold-bank", rows(63, True), None),
    ("threshold-bank", rows(8, False), f"conv has 8 thresholds in each channel; {LIMITS}"),
    ("threshold-bank", rows(64, True), f"conv has 64 thresholds shared by all channels; {LIMITS}"),
    ("activation-table", ActivationTable(np.arange(2048) % 3, 2, 2), None),
    ("activation-table", ActivationTable(np.arange(2049) % 3, 2, 2),
     "the activation table of conv has 2049 entries, at most 2048 can be looked up"),
    ("activation-table", rows(3, False), "conv has no activation table"),
    ("threshold-bank", None, "conv has no thresholds"),
    ("thresholds", Shift(1, 2), "conv has no thresholds"),
    ("thresholds-pipelined", rows(2, False), None),
    ("thresholds-pipelined", rows(1, False), "conv has one threshold for each channel: no loop to cut"),
    ("thresholds-pipelined", None, "conv has no thresholds"),
    ("shift", None, "conv has neither a shift nor thresholds"),
    ("shift", rows(3, False), None),
    ("scores", Shift(1, 2), "conv has a step"),
])
def test_what_stages_take(name: str, step: Step | None, sentence: str | None):
    assert OUTPUTS[name].reject(sums_of(layer(step), X)) == sentence
