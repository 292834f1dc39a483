# amaranth: UnusedElaboratable=no
"""Random networks under random plans with random pauses: every word and every cycle of every stream equals golden."""

from __future__ import annotations

from pathlib import Path

import pytest
from sim_cases import amaranth_verdict, random_case

from lutq_hw.sim.runner import Bench

QUICK = 25
"""Seeds of the default suite, in Amaranth's simulator."""

MANY = 104
BATCH = 13
"""Seeds of the slow suite, and designs that one build of Verilator holds."""


@pytest.mark.parametrize("seed", range(QUICK))
def test_a_random_network_equals_golden(seed: int, tmp_path: Path):
    verdict = amaranth_verdict(random_case(seed), tmp_path)
    assert verdict.differences == [], f"seed {seed}"
    assert verdict.words > 0


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
