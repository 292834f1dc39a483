"""A run that stops after any epoch and goes on from its checkpoint ends with the same bits as one that never stopped."""

import pytest
import torch

from lutq_train import loop, run
from lutq_train.methods import WEIGHTS

EPOCHS = {"float_epochs": 1, "pruned_epochs": 1, "quantized_epochs": 2}
PRUNING = {"ratio": 0.5}


def trained(state, images):
    while state.epoch < state.epochs:
        loop.run_epoch(state, images)
    return state


def parts(state):
    """Everything that a run is made of: weights, optimiser, teacher, metrics but for the seconds."""
    metrics = [{key: value for key, value in entry.items() if key != "seconds"} for entry in state.metrics]
    return (state.model.state_dict(), state.optimizer.state_dict(),
            state.teacher.model.state_dict() if state.teacher else None, metrics)


def assert_same(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype and torch.equal(found, wanted)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert_same(a, b)
    else:
        assert found == wanted


def interrupt_everywhere(plan, data, folder):
    """Train once without a stop; go on from the checkpoint of every epoch, and compare."""
    state = run.create(folder / "whole", plan, data)
    images = loop.Images(data, plan)
    copies = [run.restore(folder / "whole", plan, data)]
    while state.epoch < state.epochs:
        loop.run_epoch(state, images)
        run.save(folder / "whole", state)
        copies.append(run.restore(folder / "whole", plan, data))
    assert [copy.epoch for copy in copies] == list(range(state.epochs + 1))
    for copy in copies:
        assert_same(parts(trained(copy, images)), parts(state))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_after_every_epoch(case, optimizer, tiny_data, recipe_for, tmp_path):
    training = EPOCHS | {"optimizer": optimizer, "distill": 0.5 * (optimizer == "sgd"), "weight_decay": 1e-4}
    interrupt_everywhere(recipe_for(case, training=training, pruning=PRUNING), tiny_data, tmp_path)


def test_without_float_epochs(case, tiny_data, recipe_for, tmp_path):
    training = EPOCHS | {"float_epochs": 0, "pruned_epochs": 0}
    interrupt_everywhere(recipe_for(case, training=training), tiny_data, tmp_path)


def test_pruning_in_bfloat16(case, tiny_data, recipe_for, tmp_path):
    # A method that assigns once is pruned in epochs of its own.
    before = int(WEIGHTS[case.split("-")[0]].once)
    plan = recipe_for(case, training=EPOCHS | {"pruned_epochs": before}, pruning=PRUNING, precision="bfloat16")
    interrupt_everywhere(plan, tiny_data, tmp_path)


def test_qil_in_stages(tiny_data, recipe_for, tmp_path):
    plan = recipe_for("qil-qil", training={"float_epochs": 1, "quantized_epochs": 3},
                      weights={"entries": 3, "progressive": [15, 7]}, activations={"levels": 4, "progressive": [16, 8]})
    interrupt_everywhere(plan, tiny_data, tmp_path)


def test_weights_that_drift_between_clusterings(tiny_data, recipe_for, tmp_path):
    interrupt_everywhere(recipe_for("tbnu-relud", weights={"hold": "drift", "every": 5}), tiny_data, tmp_path)
