# amaranth: UnusedElaboratable=no
"""Residual networks in hardware: branches part and meet, FIFOs are as deep as needed, a plan that would stop is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import random_codes, residual_network
from sim_cases import amaranth_verdict, case_of

from lutq_hw import cli, flow, modelfile
from lutq_hw.clock import promise, stage_periods
from lutq_hw.cost import Cost
from lutq_hw.errors import PlanError
from lutq_hw.families import ICE40
from lutq_hw.gateware.accelerator import Accelerator
from lutq_hw.joins import Fifo, Fork
from lutq_hw.network import (
    Add,
    AvgPool2d,
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    Network,
    Output,
    Requantize,
    Shift,
    TensorType,
)
from lutq_hw.performance import Performance
from lutq_hw.pipeline import pipeline
from lutq_hw.plan import FifoPlan, LayerPlan, Plan, PoolPlan, SumPlan
from lutq_hw.planner import find_plan
from lutq_hw.planning.budget import shortage
from lutq_hw.sim.runner import Bench
from lutq_hw.sim.stalls import Stalls
from lutq_hw.timing import schedule


def block() -> Network:
    """An image, a convolution over it, their sum."""
    rng = np.random.default_rng(4)
    conv = Conv2d("conv", "image", Codebook(rng.integers(0, 3, (2, 3, 3, 2)), dictionary=(-1, 0, 2)), step=Shift(2, 3),
                  padding=(1, 1))
    return Network("block", (
        Input("image", TensorType((5, 4, 2), 3)), conv, Add("add", ("conv", "image"), (1, 0), Shift(1, 3)),
        Requantize("code", "add", Shift(1, 2)), AvgPool2d("pool", "code", (5, 4)), Flatten("flat", "pool"),
        Dense("fc", "flat", Codebook(rng.integers(0, 3, (3, 2)), dictionary=(-1, 0, 2))), Output("out", "fc")))


def block_plan(network: Network, *fifos: FifoPlan) -> Plan:
    return Plan(network.digest, (
        LayerPlan(node="conv", unit="shift-add", pe=1, channels=2, rows=3, output="shift"),
        SumPlan(node="add", channels=1, output="shift"), SumPlan(node="code", channels=2, output="shift", output_lanes=2),
        SumPlan(node="pool", channels=1, output="scores"),
        LayerPlan(node="fc", unit="shift-add", pe=1, channels=1, output="scores")), fifos=fifos)


def test_fifos_are_exactly_as_deep_as_nobody_waits_for():
    network = block()
    plan = flow.with_fifos(network, block_plan(network))
    (fifo,) = plan.fifos  # none where the slow branch comes in
    assert (fifo.node, fifo.input) == ("add", 1) and fifo.depth > 8
    assert flow.with_fifos(network, plan) == plan

    def run(depth: int) -> list[list[int]]:
        return schedule(pipeline(network, replace(plan, fifos=(replace(fifo, depth=depth),))), flow.FRAMES).times

    assert run(fifo.depth) == run(flow.UNLIMITED)
    assert run(fifo.depth - 1) != run(fifo.depth)


@pytest.mark.parametrize("stalls", [pytest.param(Stalls(), id="freely", marks=pytest.mark.slow),
                                    pytest.param(Stalls(0.6, 0.3, 5), id="with pauses")])
@pytest.mark.parametrize("memory", ["bram", "luts"])
def test_a_residual_block_equals_golden(stalls: Stalls, memory: str, tmp_path: Path):
    network = block()
    plan = flow.with_fifos(network, block_plan(network))
    plan = replace(plan, fifos=tuple(replace(fifo, memory=memory) for fifo in plan.fifos))
    codes = random_codes(np.random.default_rng(6), network, 3)
    case = case_of("block", network, plan, codes, stalls)
    assert {"image", "image_fork0", "image_fork1", "conv", "add_fifo1", "add", "pool"} <= {p.name for p in case.probes}
    verdict = amaranth_verdict(case, tmp_path)
    assert verdict.differences == [] and verdict.words == sum(len(probe.words) for probe in case.probes)


DEADLOCK = (r"layer add: the FIFO at its input 1 must hold more than {} words, or no word moves any more after cycle \d+ "
            r"\(deadlock\); make the plan again")


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_a_plan_that_would_stop_is_refused(depth: int):
    network = block()
    fifos = (FifoPlan(node="add", input=1, depth=depth, memory="luts"),) if depth else ()
    plan = block_plan(network, *fifos)
    for use in (lambda: Accelerator(network, plan), lambda: Performance(network, plan).latency):
        with pytest.raises(PlanError, match=f"^{DEADLOCK.format(depth)}$"):
            use()


def test_the_least_depth_that_does_not_stop_runs_with_pauses(tmp_path: Path):
    """Slower, but it goes on, whatever the pauses: the sizes between are allowed."""
    network = block()
    deep = flow.with_fifos(network, block_plan(network)).fifos[0].depth
    for depth in range(6, deep):
        plan = block_plan(network, FifoPlan(node="add", input=1, depth=depth))
        try:
            flow.check_flow(network, plan)
        except PlanError:
            continue
        codes = random_codes(np.random.default_rng(7), network, 3)
        assert amaranth_verdict(case_of("tight", network, plan, codes, Stalls(0.5, 0.5, 3)), tmp_path).differences == []
        return
    raise AssertionError("every depth below the recommended one stops the pipeline")


def test_commands_refuse_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    network = block()
    modelfile.save(network, tmp_path / "m.npz")
    (tmp_path / "plan.json").write_text(block_plan(network).to_json())
    np.save(tmp_path / "images.npy", np.zeros((1, 5, 4, 2), np.uint8))
    output = ["--output", str(tmp_path / "output")]
    for command, options in {"plan": [], "simulate": ["--images", str(tmp_path / "images.npy")],
                             "verilog": output, "build": output}.items():
        arguments = [command, "--model", str(tmp_path / "m.npz"), "--plan", str(tmp_path / "plan.json"), *options]
        assert cli.main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("lutq: layer add: the FIFO at its input 1 must hold more than 0 words")
        assert len(err.splitlines()) == 1


def test_plans_are_kept_as_json():
    network = block()
    plan = flow.with_fifos(network, block_plan(network))
    assert Plan.from_json(plan.to_json()) == plan
    old = Plan(network.digest, (PoolPlan(node="p", channels=2),))
    assert "fifos" not in old.to_json() and Plan.from_json(old.to_json()) == old


@pytest.mark.parametrize(("change", "sentence"), [
    ({"fifos": 3}, "plan must have fifos that are a list, or none"),
    ({"fifos": [3]}, 'fifos[0] must be an object with a "node"'),
    ({"fifos": [{"node": "add", "depth": 3}]}, "layer add: field input must be given"),
    ({"fifos": [{"node": "add", "input": -1, "depth": 3}]}, "layer add: input must be an integer from 0, not -1"),
    ({"fifos": [{"node": "add", "input": 0, "depth": 0}]}, "layer add: depth must be a positive integer, not 0"),
    ({"fifos": [{"node": "add", "input": 0, "depth": 1 << 21}]}, "layer add: depth must be at most 1048576, not 2097152"),
    ({"fifos": [{"node": "add", "input": 0, "depth": 1, "memory": "disk"}]},
     "layer add: memory must be bram or luts, not 'disk'"),
    ({"fifos": [{"node": "add", "input": 2, "depth": 1}]},
     "layer add: input of a FIFO must be 0 to 1, each once, not 2"),
    ({"fifos": [{"node": "add", "input": 1, "depth": 1}] * 2},
     "layer add: input of a FIFO must be 0 to 1, each once, not 1"),
    ({"fifos": [{"node": "conv", "input": 0, "depth": 1}]},
     "layer conv: a FIFO must be for an add of the network; make the plan again"),
])
def test_wrong_fifos(change: dict[str, object], sentence: str):
    network = block()
    text = json.dumps(json.loads(block_plan(network).to_json()) | change)
    with pytest.raises(PlanError) as error:
        pipeline(network, Plan.from_json(text))
    assert str(error.value) == sentence


@pytest.mark.parametrize(("change", "sentence"), [
    ({"channels": 3}, "layer add: channels must divide the 2 channels, not 3"),
    ({"output_lanes": 2}, "layer add: output_lanes must divide the 1 sums of a word (channels), not 2"),
    ({"output": "magic"}, "layer add: output must be one of "),
    ({"output": "scores"}, "layer add: output scores cannot be used: add has a step"),
])
def test_edited_plans_are_checked(change: dict[str, object], sentence: str):
    network = block()
    plan = block_plan(network)
    with pytest.raises(PlanError) as error:
        pipeline(network, replace(plan, layers=tuple(
            replace(entry, **change) if entry.node == "add" else entry for entry in plan.layers)))  # type: ignore[arg-type]
    assert str(error.value).startswith(sentence)
    with pytest.raises(PlanError, match=r"^layer add: plan must have the fields channels and output, and no unit; make "
                                        r"the plan again$"):
        pipeline(network, replace(plan, layers=(PoolPlan(node="add"), *(e for e in plan.layers if e.node != "add"))))


def test_names_do_not_clash():
    """A node called like a stage that the pipeline adds."""
    x = TensorType((4,), 3)
    network = Network("names", (
        Input("image", x), Requantize("image_fork", "image", Shift(0, 3)), Requantize("image_fork0", "image", Shift(1, 3)),
        Add("sum", ("image_fork", "image_fork0")), Output("out", "sum")))
    plan = Plan(network.digest, tuple(SumPlan(node=name, output=output) for name, output in
                                      (("image_fork", "shift"), ("image_fork0", "shift"), ("sum", "scores"))))
    parts = pipeline(network, plan)
    assert len({stream.name for stream in parts.streams}) == len(parts.streams) == 6
    assert len({stage.name for stage in parts.stages}) == len(parts.stages) == 4


def test_the_clock_knows_stages_without_weights():
    network = block()
    stages = {stage.name: stage for stage in pipeline(network, flow.with_fifos(network, block_plan(network))).stages}
    assert set(stage_periods(stages["add"])) == {"shift", "adder"}
    assert set(stage_periods(stages["code"])) == {"shift"} and set(stage_periods(stages["pool"])) == {"scores", "window"}
    assert not stage_periods(stages["image_fork"])
    found = promise([stages["add"]], ICE40, 0.0)
    assert found is not None and found.stage == "add" and "adder" in found.unmeasured


class Roomy:
    """Enough for a small residual network."""

    name, title, family, plan_clock_hz = "roomy", "Roomy", "ice40", 20e6
    available = Cost(luts=60_000, brams=800, dsps=100)


def test_a_resnet20_in_small_is_planned():
    """20 layers with weights, 9 adds, two of them behind 1 x 1 convolutions."""
    network = residual_network(np.random.default_rng(1), blocks=3, width=2, extent=4)
    plan = find_plan(network, Roomy()).plan
    performance = Performance(network, plan)
    kinds = [type(stage) for stage in performance.stages]
    assert kinds.count(Fork) == 9 and 9 <= kinds.count(Fifo) <= 18
    assert not shortage(performance.cost, Roomy.available)
    assert performance.cycles_per_frame <= 1.05 * max(getattr(s, "interval", 0) for s in performance.stages)
    assert {fifo.node for fifo in plan.fifos} == {node.name for node in network.nodes if isinstance(node, Add)}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_resnet20_in_small_in_verilator(tmp_path: Path):
    network = residual_network(np.random.default_rng(1), blocks=3, width=2, extent=8)
    plan = find_plan(network, Roomy()).plan
    codes = random_codes(np.random.default_rng(2), network, 2)
    case = case_of("resnet", network, plan, codes, Stalls(0.2, 0.2, 2))
    outcome = Bench([case], tmp_path).run([case])
    assert outcome.verdicts["resnet"].differences == []
    assert outcome.verdicts["resnet"].streams > 60
