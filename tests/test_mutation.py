# amaranth: UnusedElaboratable=no
"""Whatever is broken in a unit, an output stage or a part of the engines, the checks see it: mutants, and the tool itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation.campaign import EQUIVALENT, KILLED, SURVIVED, Campaign, append, load
from mutation.operators import mutants
from mutation.targets import Target, skid_checks, targets

from lutq_hw.gateware import skid
from lutq_hw.gateware.skid import SkidBuffer

EFFECTIVE = 10
"""Mutants of each target whose hardware works otherwise."""

SHORT = 40
"""Changes that a file has at most of which fewer than `EFFECTIVE` work otherwise."""

TARGETS = targets()


def chosen(campaign: Campaign, text: str):
    """The one mutant that is described so."""
    (mutant,) = (mutant for mutant in campaign.mutants if text in mutant.name)
    return mutant


def test_operators_change_one_thing_each():
    source = "def f(m, a, n):\n    '''1 + 1'''\n    m.d.sync += a.eq(Mux(n < 3, a[:n], ~a))\n"
    found = [mutant.what for mutant in mutants(source)]
    assert found == ["sync: a.eq(Mux(n < 3, a[:n], ~a)) dropped", "Mux(n < 3, a[:n], ~a): choices swapped", "< becomes <=",
                     "< becomes >=", "3 becomes 4", "3 becomes 2", "slice to n - 1", "~a becomes a"]


def test_changes_that_read_alike_have_names_of_their_own():
    found = [mutant.name for mutant in mutants("def f(a):\n    return a + 1, a - 1\n")]
    assert found == ["2: + becomes -", "2: 1 becomes 2", "2: 1 becomes 0", "2: - becomes +", "2: 1 becomes 2 (2)",
                     "2: 1 becomes 0 (2)"]


def test_what_a_register_need_not_do_is_no_fault():
    assert not list(mutants("def f():\n    Signal(reset_less=True, name='a1')\n"))
    assert [mutant.what for mutant in mutants("def f():\n    Signal(reset_less=False)\n")] == ["reset dropped"]


@pytest.mark.parametrize("name", ["part skid", "part gearbox"])
def test_a_few_mutants(name: str):
    """All targets: the slow test below and ``python benchmarks/mutate.py``."""
    campaign = Campaign(TARGETS[name])
    assert campaign.unreached == []
    fates = campaign.run(campaign.sample(EFFECTIVE, seed=1))
    assert [fate for fate in fates if fate.verdict == SURVIVED] == []
    assert sum(fate.verdict == KILLED for fate in fates) >= EFFECTIVE // 2


@pytest.mark.parametrize("name", ["unit add-subtract", "unit bucket-ram", "output shift", "part fifo", "part ram", "part rom",
                                  "part window", "part nonzero"])
def test_what_is_not_broken_passes(name: str):
    for check in TARGETS[name].checks()[:3]:
        check()


def test_verdicts(tmp_path: Path):
    """One that changes the hardware and is proved to behave the same; its fate is kept in a file and not sought again."""
    campaign = Campaign(TARGETS["part gearbox"])
    wider = next(mutant for mutant in campaign.mutants if mutant.function == "Splitter.elaborate"
                 and mutant.what == "1 becomes 2")
    (fate,) = campaign.run([wider], lambda key, fate: append(tmp_path / "state.jsonl", key, fate))
    assert fate.verdict == EQUIVALENT
    known = load(tmp_path / "state.jsonl")
    assert known == {campaign.key(wider): fate}
    assert Campaign(TARGETS["part gearbox"], known).run([wider]) == [fate]


def test_a_mutant_that_no_check_sees_survives():
    """Checks that never pause do not notice that a skid buffer loses words."""
    campaign = Campaign(Target("skid", skid, lambda: [run for run in skid_checks() if run.seed == 0]))
    before = SkidBuffer.elaborate.__code__
    (fate,) = campaign.run([chosen(campaign, "waiting.eq(self.i.payload) dropped")])
    assert fate.verdict == SURVIVED
    assert SkidBuffer.elaborate.__code__ is before


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_every_mutant_is_seen(name: str):
    campaign = Campaign(TARGETS[name])
    effective, fates = 0, []
    for mutant in campaign.sample(len(campaign.mutants), seed=2):
        fates += campaign.run([mutant])
        effective += fates[-1].verdict == KILLED
        if effective == EFFECTIVE:
            break
    assert [fate for fate in fates if fate.verdict == SURVIVED] == []
    # A few files are so short that every change was tried before ten worked otherwise.
    assert effective == EFFECTIVE or len(fates) == len(campaign.mutants) <= SHORT
