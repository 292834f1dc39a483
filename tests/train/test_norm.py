"""Multiplier-less batch norm: slopes are powers of two, in training as in evaluation, and export is exact."""

import pytest
import torch
from torch import nn

import lutq_train
from lutq_train import verify
from lutq_train.export import network
from lutq_train.norm import PowerOfTwoNorm2d, power_of_two_norms


def norm(gamma, var):
    made = power_of_two_norms(nn.BatchNorm2d(len(gamma), eps=1e-12))
    made.weight.data, made.running_var = torch.tensor(gamma), torch.tensor(var)
    return made


def test_slopes_by_hand():
    assert norm([1.0, 3.0, -0.7, 0.0, 1.5], [1.0, 1.0, 1.0, 1.0, 4.0]).slope().tolist() == [1.0, 4.0, -0.5, 0.0, 1.0]


def test_evaluation_is_a_shift_and_an_add():
    layer = norm([1.3, -2.9], [0.5, 2.0]).eval()
    layer.running_mean = torch.tensor([0.25, -1.0])
    layer.bias.data = torch.tensor([0.5, 0.125])
    x = torch.randn(3, 2, 4, 4)
    wanted = (x - layer.running_mean[:, None, None]) * layer.slope()[:, None, None] + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), wanted)


def test_training_uses_the_batch():
    layer = norm([1.3, -2.9], [1.0, 1.0]).train()
    x = torch.randn(8, 2, 4, 4) * 3
    y = layer(x)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0)
    torch.testing.assert_close(y, (x - mean) * layer.slope(var)[:, None, None])
    y.square().sum().backward()
    assert layer.weight.grad is not None and (layer.weight.grad != 0).all()
    assert (layer.running_var != 1).all()


@pytest.mark.parametrize("method", ["lutq", "syq"])
def test_export_is_exact(method):
    torch.manual_seed(0)
    model = power_of_two_norms(nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)))
    x = torch.randn(32, 1, 6, 6)
    lutq_train.quantize(model, method, weight_levels=3, example=x)
    model[1].weight.data = torch.tensor([1.7, -0.4, 0.0, 0.9])
    assert isinstance(model[1], PowerOfTwoNorm2d)
    assert verify.compare(model, network(model, x, name="test"), [x]).equal == 32
