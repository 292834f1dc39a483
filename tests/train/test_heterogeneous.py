"""Training without the original data: recipes with ``data_from``, whose quantised epochs see other images, no labels."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lutq_hw.errors import InputError
from lutq_train import cli, datasets, loop, recipe, run

FIT = ("fit", "--recipe", "tiny.toml", "--out", "runs/tiny", "--json")


@pytest.fixture
def other(tiny_data):
    """Images of stripes, with the labels of nothing: one class that the network does not have."""
    rng = np.random.default_rng(8)
    images = (rng.integers(0, 190, (240, 6, 1, 1)) + np.zeros((1, 1, 6, 1), np.int64)).astype(np.uint8)
    return dataclasses.replace(tiny_data, name="other", train_images=images, train_labels=np.full(240, 99))


@pytest.fixture
def plan(recipe_for):
    return recipe_for(data_from="other", training={"quantized_epochs": 3})


def trained(state, images):
    while state.epoch < state.epochs:
        loop.run_epoch(state, images)
    return state.model.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_quantised_epochs_see_the_other_images_only(plan, tiny_data, other, tmp_path):
    wanted = trained(run.create(tmp_path / "a", plan, tiny_data, other=other), loop.Images(tiny_data, plan, other=other))
    state, images = run.create(tmp_path / "b", plan, tiny_data, other=other), loop.Images(tiny_data, plan, other=other)
    loop.run_epoch(state, images)
    loop.run_epoch(state, images)
    for part in images.train:
        part.fill_(3)  # from here on the original data may be anything
    assert same(trained(state, images), wanted)
    images.other.fill_(3)
    assert not same(trained(run.create(tmp_path / "c", plan, tiny_data, other=other), images), wanted)


def test_the_loss_is_the_distance_from_the_float_network(plan, tiny_data, other):
    state, images = loop.begin(plan, tiny_data), loop.Images(tiny_data, plan, other=other)
    loop.run_epoch(state, images)
    before = {key: value.clone() for key, value in state.model.state_dict().items()}
    loop.enter_phase(state, images, "quantized")
    assert same(state.teacher.model.state_dict(), before) and not state.teacher.model.training
    x = images.input(images.other[:32])
    with torch.no_grad():
        expected = F.mse_loss(state.model(x), state.teacher.model(x))
        assert torch.equal(loop._loss(state, x, None, quantized=True), expected) and float(expected) > 0


@pytest.mark.parametrize("method", ["lutq-lsq", "hessian-lsq"])
def test_goes_on_exactly(method, recipe_for, tiny_data, other, tmp_path):
    plan = recipe_for(method, data_from="other", training={"float_epochs": 1, "quantized_epochs": 3})
    state, images = run.create(tmp_path / "run", plan, tiny_data, other=other), loop.Images(tiny_data, plan, other=other)
    for _ in range(2):
        loop.run_epoch(state, images)
        run.save(tmp_path / "run", state)
    again = run.restore(tmp_path / "run", plan, tiny_data, other)
    assert same(trained(again, images), trained(state, images))
    changed = dataclasses.replace(other, train_images=other.train_images[::-1])
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path / 'run'))} was trained on other other images than "
                                         r"--data holds; give the data it began with$"):
        run.restore(tmp_path / "run", plan, tiny_data, changed)


def test_from_the_command_line(plan, tiny_data, other, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(datasets.DATASETS, "tiny", lambda folder: tiny_data)
    monkeypatch.setitem(datasets.DATASETS, "other", lambda folder: other)
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(recipe.dumps(plan))
    assert cli.main(list(FIT)) == 0
    assert json.loads(capsys.readouterr().out)["quantized_accuracy"] > 0.5  # of four classes never seen quantised
    assert json.loads(Path("runs/tiny/run.json").read_text())["data_from"] == "other"
    assert cli.main(["export", "--run", "runs/tiny", "--out", "tiny.npz", "--json"]) == 0  # without the other images
    assert json.loads(capsys.readouterr().out)["exact"]


def test_what_does_not_fit(plan, tiny_data, other, recipe_for):
    with pytest.raises(InputError, match=r"^tiny\.toml: training\.distill must be 0 where data_from is given: without "
                                         r"labels, the float network's outputs are all that is learned$"):
        recipe_for(data_from="other", training={"distill": 0.5})
    small = dataclasses.replace(other, train_images=other.train_images[:, :5])
    with pytest.raises(InputError, match=r"^data_from must have images of shape \(6, 6, 1\) with values up to 255 like "
                                         r"tiny, but those of other are \(5, 6, 1\), up to 255$"):
        loop.Images(tiny_data, plan, other=small)
