"""The exported integer network computes what the quantised torch model computes, for every kind of layer."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from lutq_hw import golden
from lutq_hw.errors import InputError
from lutq_train import export, loop, models, verify
from lutq_train.activation import Activation
from lutq_train.dictionary import Dictionary
from lutq_train.quantizer import attach

SPECS = {
    "free": Dictionary("free", 7), "power_of_two": Dictionary("power_of_two", 8, zero=True),
    "sum_of_two": Dictionary("sum_of_two", 6, bits=6), "binary": Dictionary("binary", 2),
    "ternary": Dictionary("ternary", 3), "free_zero": Dictionary("free", 16, zero=True, bits=4),
}


def randomise(model, seed):
    """Batch norms as training might leave them, negative and zero scales included."""
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.weight.data = torch.randn_like(layer.weight)
            layer.weight.data[0] = 0
            layer.bias.data = torch.randn_like(layer.bias)
            layer.running_mean.copy_(0.3 * torch.randn_like(layer.running_mean))
            layer.running_var.copy_(torch.rand_like(layer.running_var) + 0.1)


def chain(bits):
    """Groups, stride, padding, biases, pooling, layers with and without batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), Activation(bits), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), groups=2), Activation(bits),
        nn.Flatten(), nn.Linear(6, 9), nn.BatchNorm1d(9), Activation(bits), nn.Linear(9, 4, bias=False))


def named(model):
    return nn.Sequential(OrderedDict((f"n{i}", layer) for i, layer in enumerate(model)))


def to_network(model, data, bits=4):
    return export.network(named(model), name="test", shape=(6, 6, 1), input_bits=bits, input_scale=2.0**-bits,
                          encode=data.encode(bits))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("name", SPECS)
def test_golden_equals_torch(name, bits, tiny_data, tiny_recipe):
    torch.manual_seed(bits)
    model = chain(bits)
    images = loop.Images(tiny_data, tiny_recipe)
    models.quantize(model, SPECS[name], images.input(images.train[0]))
    randomise(model, bits)
    network = to_network(model, tiny_data)
    comparison = verify.compare(model, network, images, *images.test)
    assert (comparison.samples, comparison.unexplained) == (200, 0)
    assert comparison.equal + comparison.tied_samples >= 200
    assert any(node.step is not None and node.step.descending.any() for node in network.weighted)
    values = set(network.weighted[0].weights.dictionary.reshape(-1).tolist())
    if name == "power_of_two":
        assert all(value == 0 or abs(value).bit_count() == 1 for value in values)
    if name in ("binary", "ternary"):
        assert values <= {-1, 0, 1}


def test_a_wrong_network_is_noticed(tiny_data, tiny_recipe):
    torch.manual_seed(0)
    model = chain(4)
    images = loop.Images(tiny_data, tiny_recipe)
    models.quantize(model, SPECS["free"], images.input(images.train[0]))
    network = to_network(model, tiny_data)
    assert verify.compare(model, network, images, *images.test).exact
    model[1].bias.data += 0.3
    comparison = verify.compare(model, network, images, *images.test)
    assert not comparison.exact and comparison.equal < 200


def test_ties_are_counted(tiny_data, tiny_recipe):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2, bias=False), Activation(2), nn.Linear(2, 2, bias=False))
    images = loop.Images(tiny_data, tiny_recipe)
    model[1].weight.data[:] = 0
    model[1].weight.data[:, 0] = torch.tensor([1.0, -1.0])  # the sum is the first pixel's code, or its negative
    models.quantize(model, Dictionary("power_of_two", 3, zero=True), images.input(images.train[0]))
    model[2].size.data.fill_(4 / 16)                         # codes 2, 6 and 10 lie on a boundary
    pixels = torch.zeros(16, 6, 6, dtype=torch.uint8)
    pixels[:, 0, 0] = torch.arange(16) * 17
    comparison = verify.compare(model, to_network(model, tiny_data), images, pixels, torch.zeros(16, dtype=torch.int64))
    assert (comparison.ties, comparison.tied_samples, comparison.equal) == (3, 3, 16)
    assert str(comparison) == "integer model == torch model on 16/16 samples, ties 3"


def test_flatten_is_channel_last(tiny_data):
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=3, bias=False), Activation(2), nn.Flatten(),
                          nn.Linear(8, 2, bias=False))
    models.quantize(model, SPECS["binary"], torch.rand(4, 1, 6, 6))
    signs = torch.tensor([[0, 0, 0, 1, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0, 1, 0]])  # (O, C * H * W)
    model[3].parametrizations.weight[0].assignments.copy_(signs)
    network = to_network(model, tiny_data)
    # (C, H, W) -> (H, W, C): pixel by pixel, both channels side by side
    assert network.weighted[1].weights.assignments.tolist() == [[0, 0, 0, 1, 0, 1, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0]]
    assert network.nodes[0].encode.tolist() == tiny_data.encode(4).tolist()
    assert golden.evaluate(network, tiny_data.test_images[..., None]).shape == (200, 2)


def test_unused_and_equal_values_are_dropped():
    layer = nn.Linear(2, 2, bias=False)
    attach(layer, Dictionary("power_of_two", 4))
    quantizer = layer.parametrizations.weight[0]
    quantizer.integers = torch.tensor([-2.0, 1.0, 1.0, 4.0])
    quantizer.assignments.copy_(torch.tensor([[0, 1], [2, 2]]))
    made = export.codebook(quantizer, None)
    assert made.dictionary.tolist() == [[-2, 1]]
    assert made.assignments.tolist() == [[0, 1], [1, 1]]


def linear(bias=False):
    layer = nn.Linear(36, 4, bias=bias)
    attach(layer, SPECS["free"])
    return layer


def active():
    made = Activation(4)
    made.restore()
    return made


@pytest.mark.parametrize("layers, text", [
    (lambda: [nn.Flatten(), nn.Linear(36, 4)],
     "n1: the layer must be quantised to be exported; train the quantised epochs first"),
    (lambda: [nn.Flatten(), linear(bias=True)],
     "n1: the last layer must have neither bias nor batch norm, because its integer sums are the scores"),
    (lambda: [nn.Flatten(), linear(), active()], "n1: the last layer must be a Linear without Activation"),
    (lambda: [nn.Flatten(), linear(), linear()], "n1: a layer without Activation must be the last one"),
    (lambda: [nn.Tanh()],
     ("n0: a Tanh must follow a Linear or Conv2d (batch norm, then Activation) or be a Flatten or MaxPool2d to be "
     "exported")),
    (lambda: [nn.MaxPool2d(2, ceil_mode=True)], "n0: a max-pool must have no dilation and no ceil_mode to be exported"),
])
def test_what_cannot_be_exported(layers, text, tiny_data):
    with pytest.raises(InputError) as caught:
        to_network(nn.Sequential(*layers()), tiny_data)
    assert str(caught.value) == text


def test_convolutions_that_cannot_be_exported(tiny_data):
    layer = nn.Conv2d(1, 1, 2, padding="same", bias=False)
    attach(layer, SPECS["binary"])
    with pytest.raises(InputError, match=r"^n0: a convolution must have numeric zero padding and no dilation to be "
                                         r"exported$"):
        to_network(nn.Sequential(layer, active()), tiny_data)


def test_batch_norm_without_statistics():
    with pytest.raises(InputError, match=r"^a batch norm must keep running statistics to be exported$"):
        export.norms(nn.BatchNorm1d(2, track_running_stats=False), 2)
    assert np.isclose(export.norms(nn.BatchNorm1d(2, affine=False), 2)[0].gamma, 1)
