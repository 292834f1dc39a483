"""Pruning: the schedule, exact ratios, LAMP scores against a naive version, and weights that may come back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lutq_hw.errors import InputError
from lutq_train import loop, pruning
from lutq_train.pruning import Pruning, prune, pruners


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 7), nn.Linear(7, 3))
    pruning.attach(model)
    return model


def masks(model):
    return [pruner.mask.bool() for pruner, _ in pruners(model)]


def lamp(weight):
    """Equation 2, one weight at a time: its square over those of all that are not smaller (itself and later ones)."""
    flat = weight.detach().flatten().double()
    order = sorted(range(len(flat)), key=lambda n: abs(float(flat[n])))
    scores = [0.0] * len(flat)
    for place, n in enumerate(order):
        scores[n] = float(flat[n] ** 2) / sum(float(flat[m] ** 2) for m in order[place:])
    return scores


def test_the_schedule_is_cubic_and_ends_in_time():
    plan = Pruning(0.8, until=0.5)
    assert [plan.ratio_at(done) for done in (0, 0.25, 0.5, 1)] == [0, pytest.approx(0.8 * (1 - 0.5**3)), 0.8, 0.8]
    steps = [plan.ratio_at(n / 100) for n in range(101)]
    assert steps == sorted(steps)
    assert Pruning(0.8, until=0.0).ratio_at(0) == 0.8 and Pruning().ratio_at(0.3) == 0


@settings(max_examples=40, deadline=None)
@given(ratio=st.floats(0, 0.999), seed=st.integers(0, 5))
@pytest.mark.parametrize("scope", pruning.SCOPES)
def test_ratios_are_met_exactly(scope, ratio, seed):
    model = network(seed)
    prune(model, ratio, scope)
    sizes = [mask.numel() for mask in masks(model)]
    zeros = [int((~mask).sum()) for mask in masks(model)]
    if scope == "layer":
        assert zeros == [round(ratio * size) for size in sizes]
    assert abs(sum(zeros) - ratio * sum(sizes)) <= (0.5 if scope == "network" else 1.5) + 1e-9
    assert pruning.kept(model) == pytest.approx(1 - sum(zeros) / sum(sizes))
    assert pruning.reached(model, ratio, scope) and not pruning.reached(model, ratio + 4 / sum(sizes), scope)


def test_the_smallest_of_each_layer_go():
    model = network()
    prune(model, 0.4, "layer")
    for (_, weight), mask in zip(pruners(model), masks(model), strict=True):
        assert weight[~mask].abs().max() < weight[mask].abs().min()


def test_the_whole_network_is_ranked_by_lamp_scores():
    model = network()
    scores = [score for _, weight in pruners(model) for score in lamp(weight)]
    prune(model, 0.7)
    kept = torch.cat([mask.flatten() for mask in masks(model)])
    wanted = sorted(range(len(scores)), key=lambda n: -scores[n])[:int(kept.sum())]
    assert kept.nonzero().flatten().tolist() == sorted(wanted)
    assert all(mask.any() for mask in masks(model))  # the largest of a layer has the score 1


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=20))
def test_lamp_scores_are_those_of_the_naive_version(values):
    weight = torch.tensor(values)
    found = pruning._lamp(weight)
    if weight.abs().unique().numel() == len(values) and weight.abs().min() > 1e-6:
        assert found.tolist() == pytest.approx(lamp(weight))
    assert ((found >= 0) & (found <= 1)).all()


def test_equal_weights_are_cut_at_the_ratio():
    model = nn.Sequential(nn.Linear(10, 10))
    model[0].weight.data[:] = 0.5
    pruning.attach(model)
    for scope in pruning.SCOPES:
        prune(model, 0.25, scope)
        assert int(masks(model)[0].sum()) == 75
    model[0].parametrizations.weight.original.data[:] = 0
    prune(model, 0.25)
    assert int(masks(model)[0].sum()) == 75


def test_a_pruned_weight_moves_on_and_may_return():
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[0.1, 1.0]])
    model = nn.Sequential(layer)
    pruning.attach(model)
    prune(model, 0.5)
    assert layer.weight.tolist() == [[0.0, 1.0]]
    (layer(torch.tensor([[1.0, 1.0]])) * -20).sum().backward()  # gradients pass the mask
    original = layer.parametrizations.weight.original
    assert original.grad.tolist() == [[-20, -20]]
    torch.optim.SGD([original], 0.1).step()
    assert original.tolist() == [[pytest.approx(2.1), 3.0]] and layer.weight.tolist() == [[0.0, 3.0]]
    original.data[0, 1] = 0.3
    prune(model, 0.5)
    assert layer.weight.tolist() == [[pytest.approx(2.1), 0.0]]


def test_what_is_pruned():
    model = network()
    assert len(pruners(model)) == 3 and pruning.kept(model) == 1.0
    pruning.attach(model)  # once is enough
    assert all(len(model[n].parametrizations.weight) == 1 for n in (0, 3, 4))
    assert not nn.utils.parametrize.is_parametrized(model[1])
    plain = nn.Linear(2, 2)
    prune(plain, 0.5)
    assert pruning.kept(plain) == 1.0 and (plain.weight != 0).all()


def test_masks_stay_once_the_ratio_is_reached(tiny_data, recipe_for):
    plan = recipe_for("lutq-lsq", training={"float_epochs": 0, "pruned_epochs": 4, "quantized_epochs": 1, "batch": 8,
                                            "pruned_rate": 0.5}, pruning={"ratio": 0.5, "until": 0.2})
    state, images = loop.begin(plan, tiny_data), loop.Images(tiny_data, plan)
    found = []
    while state.epoch < 4:
        loop.run_epoch(state, images)
        found.append([mask.clone() for mask in masks(state.model)])
    for later in found[2:]:
        assert all(torch.equal(a, b) for a, b in zip(later, found[1], strict=True))


@pytest.mark.parametrize("pruned_epochs, until", [(0, 0.8), (2, 0.8), (2, 1.0)])
def test_a_run_ends_at_its_ratio(pruned_epochs, until, tiny_data, recipe_for):
    plan = recipe_for("lutq-lsq", training={"float_epochs": 1, "pruned_epochs": pruned_epochs, "quantized_epochs": 2,
                                            "batch": 8}, pruning={"ratio": 0.7, "until": until})
    state, images = loop.begin(plan, tiny_data), loop.Images(tiny_data, plan)
    while state.epoch < state.epochs:
        loop.run_epoch(state, images)
    kept = [entry["kept"] for entry in state.metrics]
    assert kept[0] == 1 and kept == sorted(kept, reverse=True) and kept[1] > kept[2]
    total = sum(mask.numel() for mask in masks(state.model))
    assert kept[-1] == pytest.approx(1 - round(0.7 * total) / total, abs=1e-6)
    if pruned_epochs:
        assert kept[2] == kept[3] == kept[4]  # masks stay while quantised
    for layer, mask in zip((state.model.conv1, state.model.fc1, state.model.scores), masks(state.model), strict=True):
        assert not layer.weight[~mask].any()


@pytest.mark.parametrize("options, text", [
    ({"ratio": 1.0}, "pruning.ratio must be from 0 to 0.999, not 1.0"),
    ({"ratio": -0.1}, "pruning.ratio must be from 0 to 0.999, not -0.1"),
    ({"until": 1.5}, "pruning.until must be from 0 to 1.0, not 1.5"),
    ({"scope": "global"}, "pruning.scope must be one of layer, network, not 'global'"),
])
def test_wrong_options(options, text):
    with pytest.raises(InputError) as caught:
        Pruning(**options)
    assert str(caught.value) == text
