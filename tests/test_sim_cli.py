# amaranth: UnusedElaboratable=no
"""The command simulate, from model file to exit status, through the stream port and through the UART."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from networks import random_codes
from sim_cases import SIMULATORS, small_network, small_plan

from lutq_hw import golden, modelfile
from lutq_hw.cli import main

FASTEST = SIMULATORS[-1]
"""Icarus where it is installed: these designs are small, and it builds in a second."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a model, a plan and images with labels, of which the last is wrong."""
    rng = np.random.default_rng(11)
    network = small_network(rng)
    modelfile.save(network, tmp_path / "model.npz")
    (tmp_path / "plan.json").write_text(small_plan(network).to_json())
    images = random_codes(rng, network, 4).astype(np.uint8)
    labels = golden.predictions(network, golden.evaluate(network, images))
    labels[3] = (labels[3] + 1) % 10
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    return tmp_path


def simulate(folder: Path, *options: str) -> int:
    return main(["simulate", "--model", str(folder / "model.npz"), "--plan", str(folder / "plan.json"),
                 "--images", str(folder / "images.npz"), *options])


def test_a_sound_design_exits_with_0(files: Path, capsys: pytest.CaptureFixture[str]):
    dump = files / "dump"
    status = simulate(files, "--simulator", FASTEST, "--json", "--stall", "0.3", "--dump", str(dump), "--layer", "conv2",
                      "--keep", str(files / "kept"), "--waves", str(files / "run.vcd"))
    report = json.loads(capsys.readouterr().out)
    assert status == 0
    assert report["equal"] and report["differences"] == []
    assert (report["frames"], report["correct"], report["accuracy"]) == (4, 3, 0.75)
    assert report["latency_cycles"] > 0 and report["cycles_per_frame"] > 0
    network = modelfile.load(files / "model.npz")
    with np.load(files / "images.npz") as archive:
        results = golden.run(network, golden.encode(network, archive["images"]))
    np.testing.assert_array_equal(np.load(dump / "conv2.npy"), results["conv2"])
    assert sorted(path.name for path in dump.iterdir()) == ["conv2.npy"]
    assert (files / "kept" / "shell.sv").exists()
    assert "$enddefinitions" in (files / "run.vcd").read_text()


def test_a_wrong_design_exits_with_1_and_names_the_layer(files: Path, capsys: pytest.CaptureFixture[str],
                                                         monkeypatch: pytest.MonkeyPatch):
    from lutq_hw.sim import runner

    def corrupted(case, folder):
        path = emit(case, folder)
        table = next(path.parent.glob("conv2*index*.hex"))
        words = table.read_text().split()
        table.write_text("".join(f"{'0' * len(word)}\n" for word in words))
        return path

    emit = runner.emit
    monkeypatch.setattr(runner, "emit", corrupted)
    assert simulate(files, "--simulator", FASTEST, "--count", "1") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 frame: hardware and golden differ"
    assert lines[1].startswith("layer conv2, frame 0, pixel (y ")
    assert ", golden says " in lines[1]


def test_through_the_uart(files: Path, capsys: pytest.CaptureFixture[str]):
    assert simulate(files, "--through", "uart", "--count", "3", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["equal"] and report["frames"] == 3 and report["bytes"] > 3 * 21


@pytest.mark.parametrize("options, sentence", [
    (["--waves", "run.txt"], "--waves must end in .vcd or .fst, not 'run.txt'"),
    (["--stall", "1"], "stall must be a probability from 0 to below 1, not 1.0"),
    (["--layer", "conv1"], "--layer chooses what --dump saves; give --dump DIR too"),
    (["--dump", "d", "--layer", "flat"], "--layer must be one of image, conv1, pool, conv2, dense, not 'flat'"),
    (["--through", "uart", "--stall", "0.5"],
     "--dump and --stall need --through stream: a UART has no ready line and shows no layers"),
])
def test_wrong_options_exit_with_2(files: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str):
    assert simulate(files, *options) == 2
    assert capsys.readouterr().err == f"lutq: {sentence}\n"
