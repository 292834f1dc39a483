"""The last layer's bias: a whole number of the sums' unit, and no business of copies made before."""

import copy

import torch
from torch import nn

import lutq_train
from lutq_train import pruning
from lutq_train.bias import integers_of


def test_bias_is_a_multiple_of_the_unit_and_exported_as_such():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.rand(32, 6)
    lutq_train.quantize(model, weight_levels=4, example=x)
    model = model.double()
    unit = model[2].parametrizations["bias"][0].unit()
    assert torch.equal(model[2].bias / unit, (model[2].bias / unit).round())
    assert torch.equal(integers_of(model[2])[0] * unit, model[2].bias)


def test_the_copy_of_a_pruned_network_goes_on_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    pruning.attach(model)
    pruning.prune(model, 0.5)
    teacher, x = copy.deepcopy(model), torch.rand(32, 6)
    before = teacher(x)
    lutq_train.quantize(model, "lutq", entries=4, zero=True, example=x)
    assert torch.equal(teacher(x), before)
    assert not torch.equal(model(x), before)
