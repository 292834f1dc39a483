# amaranth: UnusedElaboratable=no
"""Buckets in two banks: no gap behind long dot products, the same sums after a reset at any time, engines to the cycle."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from mutation.drive import PipelineTimer, Run
from mutation.targets import packed, word_bits
from networks import random_codes
from sim_cases import amaranth_verdict, case_of
from spaced import component
from test_units import layer_stimulus

from lutq_hw.mac import MacUnit
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, Network, Output, Shift, TensorType
from lutq_hw.network.tensor import signed_bits
from lutq_hw.pipeline import Layer, pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.sim.stalls import Stalls
from lutq_hw.units import UNITS

NAMES = ("bucket-overlap", "bucket-ram-overlap")

FREE16 = (-97, -71, -53, -41, -29, -19, -11, -5, 0, 7, 13, 23, 37, 52, 73, 101)
FREE5 = (-3, 0, 5, -1, 2)


def layer_unit(name: str, dictionary, *, fold: int, pe: int = 2, simd: int = 2, seed: int = 0) -> MacUnit:
    """The unit for random weights that are read in random order."""
    rng = np.random.default_rng(seed)
    book = Codebook(rng.integers(0, len(dictionary), (2 * pe, fold * simd)), dictionary=dictionary)
    low, high = book.sum_range(TensorType((fold * simd,), 4))
    return UNITS[name].for_layer(book, TensorType((fold * simd,), 4), pe=pe, simd=simd,
                                 acc_bits=signed_bits(min(0, int(low.min())), max(0, int(high.max()))),
                                 order=rng.permutation(fold * simd).reshape(fold, simd))


@pytest.mark.parametrize("name", NAMES)
def test_no_gap_behind_a_long_dot_product(name):
    """The example of docs/costs.md: 64 words of 16 values."""
    assert layer_unit("bucket", FREE16, fold=64).gap == 15
    unit = layer_unit(name, FREE16, fold=64)
    assert (unit.gap, unit.startup) == (0, {"bucket-overlap": 2, "bucket-ram-overlap": 3}[name] * 15)
    assert unit.latency == layer_unit("bucket", FREE16, fold=64).latency


@pytest.mark.parametrize("name", NAMES)
def test_gap_behind_a_short_dot_product_is_what_its_product_lacks(name):
    for fold in range(1, 20):
        emptied, overlapped = layer_unit("bucket", FREE5, fold=fold), layer_unit(name, FREE5, fold=fold)
        period = max(fold, overlapped.fold + overlapped.gap)
        assert period == max(fold, emptied.period)  # type: ignore[attr-defined]
        assert fold + emptied.gap == max(period, fold + 4)


@pytest.mark.parametrize("name", [name for name, unit in UNITS.items() if issubclass(unit, UNITS["bucket"])])
@pytest.mark.parametrize("seed", range(4))
def test_sums_after_a_reset_owe_nothing_to_those_before(name, seed):
    """Whatever the banks hold when a reset of one cycle comes."""
    unit = layer_unit(name, (FREE5, (1, -2))[seed % 2], fold=(3, 17, 9, 5)[seed], simd=1 + seed, seed=seed)
    words, sums = layer_stimulus(unit, 6, random.Random(seed))
    bits = [word_bits(unit, np.array(word["x"]), np.array(word["index"]), last=bool(word["last"])) for word in words]
    lasts = [bool(word["last"]) for word in words]
    Run(lambda: component(unit), lambda: PipelineTimer(unit.latency, lasts, unit.gap, unit.startup), [bits],
        [[packed(row, unit.acc_bits) for row in sums]], seed, warm=unit.startup + unit.gap)()


def network(rng: np.random.Generator) -> Network:
    def book(*shape: int) -> Codebook:
        return Codebook(rng.integers(0, 5, shape), dictionary=FREE5)

    return Network("overlap", (
        Input("image", TensorType((5, 4, 2), 3)),
        Conv2d("conv", "image", book(4, 3, 2, 2), step=Shift(3, 3), padding=(1, 0)),
        Flatten("flat", "conv"),
        Dense("fc", "flat", book(4, 60), step=Shift(4, 3)),
        Dense("scores", "fc", book(4, 4)),
        Output("out", "scores")))


def plan(net: Network, name: str, **conv: int) -> Plan:
    return Plan(net.digest, (
        LayerPlan(node="conv", unit=name, pe=2, output="shift", output_lanes=2, **{"channels": 1, **conv}),
        LayerPlan(node="fc", unit=name, pe=2, channels=1, output="shift", index_memory="luts"),
        LayerPlan(node="scores", unit=name, pe=4, channels=4, output="scores")))


def layers(net: Network, made: Plan) -> list[Layer]:
    return [stage for stage in pipeline(net, made).stages if isinstance(stage, Layer)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("conv, pauses", [({}, (0.0, 0.0)), ({"rows": 3}, (0.3, 0.3))])
def test_engines_keep_the_cycles(name, conv, pauses, tmp_path: Path):
    """Dot products that are long enough (``fc``), and of one word (``scores``)."""
    rng = np.random.default_rng(5)
    net = network(rng)
    made = plan(net, name, **conv)
    _, fc, scores = layers(net, made)
    assert (fc.window.gap, fc.interval) == (0, 2 * 60)
    assert scores.window.fold == 1 and scores.window.gap > 0
    assert layers(net, plan(net, "bucket", **conv))[1].interval == 2 * (60 + 4)
    verdict = amaranth_verdict(case_of("overlap", net, made, random_codes(rng, net, 3), Stalls(*pauses, 5)), tmp_path)
    assert verdict.differences == []


@pytest.mark.parametrize("name", NAMES)
def test_engine_waits_for_its_unit_after_reset(name, tmp_path: Path):
    """Words are there long before the banks are empty."""
    rng = np.random.default_rng(6)
    weights = Codebook(rng.integers(0, 16, (2, 4)), dictionary=FREE16)
    net = Network("early", (Input("image", TensorType((4,), 3)), Dense("fc", "image", weights), Output("out", "fc")))
    made = Plan(net.digest, (LayerPlan(node="fc", unit=name, pe=2, channels=4, output="scores"),))
    case = case_of("early", net, made, random_codes(rng, net, 2), Stalls(0, 0, 1))
    assert case.probes[-1].cycles[0] > 30
    assert amaranth_verdict(case, tmp_path).differences == []
