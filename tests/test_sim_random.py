# amaranth: UnusedElaboratable=no
"""Random networks under random plans with random pauses: every word and every cycle of every stream equals golden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from random_cases import Drawn, check, draw
from shrinking import described, kind, shrink
from sim_cases import random_case

from lutq_hw import golden
from lutq_hw.network import Add, Network
from lutq_hw.network.tensor import Ints
from lutq_hw.plan import LayerPlan, SumPlan
from lutq_hw.sim.runner import Bench

QUICK = 25
"""Seeds of the default suite, in Amaranth's simulator."""

MANY = 104
BATCH = 13
"""Seeds of the slow suite, and designs that one build of Verilator holds. A thousand in Amaranth's simulator:
``python benchmarks/random_networks.py``."""


@pytest.mark.parametrize("seed", range(QUICK))
def test_a_random_network_equals_golden(seed: int):
    _, differences, features = check(seed)
    assert differences == [], f"again: python benchmarks/random_networks.py --seed {seed} --count 1"
    assert features["stage Layer"] and features["node Output"]


def first(condition: Callable[[Drawn], bool]) -> Drawn:
    """The first case that is so."""
    return next(filter(condition, map(draw, range(300))))


def outputs(drawn: Drawn) -> list[str]:
    """Output stages in order."""
    return [layer.output for layer in drawn.plan.layers if isinstance(layer, LayerPlan)]


def test_a_failing_seed_is_made_small():
    """Down to one layer; what fails is made up here, since a simulation of every try takes long."""
    drawn = first(lambda case: "shift" in outputs(case)[1:] and len(case.codes) > 1 and case.stalls.stall > 0
                  and not any(isinstance(layer, SumPlan) for layer in case.plan.layers))
    small = shrink(drawn, lambda case: "shift" in outputs(case) and case.codes.any())
    (layer,) = small.plan.layers
    assert outputs(small) == ["shift"] and layer.pe == layer.simd == 1
    assert len(small.network.nodes) <= 4 and len(small.codes) == 1 and small.stalls.stall == 0
    assert "output='shift'" in described(small)
    assert small.differences() == []


def test_a_residual_network_is_made_small():
    """Adds, pools and requantise nodes go where the failing layer does not need them."""
    def fails(case: Drawn) -> bool:
        return any(layer.output_memory == "bram" for layer in case.plan.layers if isinstance(layer, LayerPlan))

    drawn = first(lambda case: fails(case) and any(isinstance(node, Add) for node in case.network.nodes))
    small = shrink(drawn, fails)
    assert not any(isinstance(layer, SumPlan) for layer in small.plan.layers)
    assert len([layer for layer in small.plan.layers if isinstance(layer, LayerPlan)]) == 1
    assert small.differences() == []


def test_a_difference_is_found_and_told(monkeypatch: pytest.MonkeyPatch):
    drawn = draw(0)
    node = drawn.network.weighted[-1].name
    run = golden.run

    def wrong(network: Network, codes: Ints) -> dict[str, Ints]:
        results = run(network, codes)
        return {name: codes ^ (name == node) for name, codes in results.items()}

    monkeypatch.setattr("sim_cases.golden", SimpleNamespace(run=wrong))
    differences = replace(drawn).differences()
    assert kind(differences) == "value"
    assert differences[0].startswith(f"layer {node}, frame 0,") and "golden says" in differences[0]


def test_what_raises_is_a_difference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("random_cases.amaranth_verdict", lambda *_: 1 // 0)
    differences = draw(0).differences()
    assert differences == ["raised ZeroDivisionError: integer division or modulo by zero"]
    assert kind(differences) == "raised ZeroDivisionError"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", range(1000, 1000 + MANY, BATCH))
def test_random_networks_in_verilator(first: int, tmp_path: Path):
    seeds = range(first, first + BATCH)
    print(f"seeds {first} to {first + BATCH - 1}")
    cases = [random_case(seed, frames=3) for seed in seeds]
    outcome = Bench(cases, tmp_path).run(cases)
    assert {name: verdict.differences for name, verdict in outcome.verdicts.items() if verdict.differences} == {}
    assert len(outcome.verdicts) == BATCH
