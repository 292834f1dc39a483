"""The exported integer network computes what the quantised torch model computes: every method, every kind of layer."""

import dataclasses
import json
from itertools import cycle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_networks import NETS, SHAPE, Tanh, build

import lutq_train
from lutq_hw import golden, modelfile
from lutq_hw.errors import InputError
from lutq_hw.network import ActivationTable, Add, AvgPool2d, Requantize
from lutq_train import InputCodes, verify
from lutq_train.export import network
from lutq_train.integers import norms
from lutq_train.method import quantizer_of
from lutq_train.methods import ACTIVATIONS, WEIGHTS
from lutq_train.methods.lutq import LutqOptions
from lutq_train.quantize import quantize
from lutq_train.table import multiply_free

SPECS = {
    "free": {"entries": 7}, "power_of_two": {"constraint": "power_of_two", "entries": 8, "zero": True},
    "sum_of_two": {"constraint": "sum_of_two", "entries": 6, "bits": 6}, "binary": {"weight_levels": 2},
    "ternary": {"weight_levels": 3}, "free_zero": {"entries": 16, "zero": True, "bits": 4},
    "symmetric": {"constraint": "symmetric"}, "uniform": {"constraint": "uniform", "entries": 5},
    "values": {"values": (-5, 0, 1, 5)}, "cost": {"cost": 0.1}, "wide": {"entries": 4, "bits": 16},
}


def exact(model, x, name="test", **more):
    """The exported network; every score of ``x`` equal but where floats cannot."""
    made = network(model, x, name=name, **more)
    found = verify.compare(model, made, x.split(10))
    assert (found.samples, found.unexplained) == (len(x), 0) and found.exact
    assert found.equal + found.tied_samples >= len(x)
    return made


@pytest.mark.parametrize("method", WEIGHTS)
@pytest.mark.parametrize("net", NETS)
def test_every_method_on_every_network(net, method):
    model, x = build(net)
    before = model(x)
    exact(quantize(model, method, example=x), x)
    assert not torch.equal(model(x), before)


@pytest.mark.parametrize("net, levels", [("chain", 2), ("odd", 3), ("option_a", 16)])
@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_every_kind_of_activation(net, activations, levels):
    kind = ACTIVATIONS[activations]
    if activations == "tanhd" or (activations, levels) == ("qil", 2) or (activations, levels) == ("dorefa", 2):
        levels |= 1  # where activations may be negative
    model, x = build(net, seed=levels)
    exact(quantize(model, "lutq", activations=kind(levels=levels), example=x, weight_levels=5), x)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activations", ["tanhd", "learned_levels"])
def test_levels_that_are_not_uniform_with_every_method(weights, activations):
    model, x = build(Tanh)
    if activations == "learned_levels":
        model, x = build("chain")
    made = exact(quantize(model, weights, activations=ACTIVATIONS[activations](levels=15), example=x), x)
    assert made.weighted[-1].weights.table is not None


def test_table_based_units_are_tables_and_multiply_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.ReLU(), nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(24, *SHAPE)
    made = exact(quantize(model, "tbnu", weight_levels=5, activations="relud", example=x), x)
    assert multiply_free(made) == []
    *hidden, last = made.weighted
    assert [type(node.step) for node in hidden] == [ActivationTable] * 2 and last.step is None
    for node, layer in zip(hidden, (model[1], model[3]), strict=True):
        scales, levels = made.info["scales"][node.name], made.input_type(node).levels
        products = np.outer(levels * scales["input"], layer.weight.detach().unique().double().numpy())
        unit = scales["input"] * scales["weights"]  # a power of two, so nothing here is rounded
        np.testing.assert_array_equal(node.weights.table[0] * unit, products)
        assert scales["table_step"] == unit * 2**node.step.shift


@pytest.mark.parametrize("spec, bits", list(zip(SPECS, cycle((1, 4, 8)), strict=False)))
def test_every_kind_of_dictionary(spec, bits):
    model, x = build("chain", seed=bits)
    quantize(model, "lutq", activation_bits=bits, example=x, **SPECS[spec])
    made = exact(model, x)
    assert any(node.step is not None and getattr(node.step, "descending", np.zeros(1)).any() for node in made.weighted)
    values = set(made.weighted[0].weights.dictionary.reshape(-1).tolist())
    if spec == "power_of_two":
        assert all(value == 0 or abs(value).bit_count() == 1 for value in values)
    if spec in ("binary", "ternary"):
        assert values <= {-1, 0, 1}


@pytest.mark.parametrize("subgroup", ["layer", "row", "pixel", "channel"])
@pytest.mark.parametrize("net", ["chain", "depthwise"])
def test_every_kind_of_subgroup(net, subgroup):
    model, x = build(net)
    made = exact(quantize(model, "syq", weight_levels=2, subgroup=subgroup, example=x), x)
    scale = made.info["scales"][made.weighted[0].name]["weights"]
    groups = len(made.weighted[0].weights.dictionary)
    assert isinstance(scale, list) == (subgroup == "channel")
    assert groups == {"layer": 1, "row": 3, "pixel": 9, "channel": 1}[subgroup]


@pytest.mark.parametrize("method", WEIGHTS)
def test_after_training(method):
    model, x = build("option_a")
    quantize(model, method, example=x, activation_bits=3)
    model.train()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.02, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(24) % 3).backward()
        optimizer.step()
        lutq_train.update(model)
    exact(model, x)
    assert model.training


@pytest.mark.parametrize("residual_bits", [2, 5, 8])
def test_residual_streams(residual_bits):
    model, x = build("option_a")
    made = exact(quantize(model, example=x, residual_bits=residual_bits), x)
    adds = [node for node in made.nodes if isinstance(node, Add)]
    assert len(adds) == 3
    for node in adds:
        assert all(made.types[name].bits <= residual_bits for name in node.inputs)
        assert made.types[node.name].bits == residual_bits
    assert any(isinstance(node, Requantize) for node in made.nodes)  # narrower codes for the layers behind


def test_inputs_that_are_integers_already():
    model, x = build("chain")
    codes = torch.randint(0, 16, x.shape)
    x = codes * 0.3
    quantize(model, example=x, input_scale=0.3)
    made = exact(model, x, codes=InputCodes(4, 0.3))
    assert made.input.type.bits == 4 and not made.input.type.signed
    scores = golden.evaluate(made, np.moveaxis(codes.numpy(), 1, -1))
    with pytest.raises(InputError, match=r"^input: the input must be codes, because no quantiser stands behind it; say "
                                         r"which, with codes=InputCodes\(bits, scale\)$"):
        network(model, x, name="test")
    wanted = model.double()(codes.double() * 0.3) / made.info["scales"]["n10"]["output"]
    torch.testing.assert_close(torch.from_numpy(scores).double(), wanted.detach())


def test_input_codes_of_another_scale(tmp_path):
    model, x = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 3)))
    x = torch.randint(0, 16, x.shape) * 0.3
    quantize(model, example=x, input_scale=0.3)
    with pytest.raises(InputError, match=r"^1: codes\.scale must be what lutq_train\.quantize got as input_scale, 0\.3, not "
                                         r"0\.2$"):
        network(model, x, name="test", codes=InputCodes(4, 0.2))
    model, x = build("chain")
    x = torch.randint(0, 16, x.shape) * 0.3
    quantize(model, example=x, input_scale=0.3)
    with pytest.raises(InputError, match="differ without a tie; nothing was written"):
        lutq_train.export(model, tmp_path / "wrong.npz", example=x, codes=InputCodes(4, 0.2))


def test_the_file_is_the_network(tmp_path):
    model, x = build("named")
    quantize(model, example=x)
    made = lutq_train.export(model, tmp_path / "named.npz", example=x, info={"note": 1})
    read = modelfile.load(tmp_path / "named.npz")
    assert read.digest == made.digest and read.info["note"] == 1 and read.name == "Sequential"
    assert [node.name for node in read.weighted] == ["conv", "conv2", "scores"]
    assert set(read.info["scales"]) >= {"conv", "conv2", "scores", "image"} and json.dumps(read.info)
    assert [node.kernel for node in read.nodes if isinstance(node, AvgPool2d)] == [(2, 2), (6, 6)]
    x = x[:5].double()
    scores = golden.evaluate(read, verify.codes_of(read, x, read.info["scales"]["image"]["output"]))
    wanted = model.double()(x) / read.info["scales"]["scores"]["output"]
    torch.testing.assert_close(torch.from_numpy(scores).double(), wanted.detach())


def test_a_wrong_network_is_noticed(tmp_path):
    model, x = build("chain")
    quantize(model, example=x)
    made = network(model, x, name="test")
    assert verify.compare(model, made, [x]).exact
    model[1].bias.data += 0.3
    found = verify.compare(model, made, [x])
    assert not found.exact and found.equal < 24 and found.unexplained == 24 - found.equal
    model[0].register_forward_hook(lambda module, args, output: output + 0.3)  # what no graph shows
    with pytest.raises(InputError, match=r"wrong\.npz: integer model == torch model on \d+/24 samples, ties 0, and \d+ "
                                         r"differ without a tie; nothing was written \(a layer of this network computes "
                                         r"something else than was captured\)$"):
        lutq_train.export(model, tmp_path / "wrong.npz", example=x)
    assert not list(tmp_path.iterdir())


def test_accuracy_is_that_of_the_integers():
    model, x = build("chain")
    quantize(model, example=x)
    made = network(model, x, name="test")
    best = model(x).argmax(1).numpy()
    labels = np.where(np.arange(24) < 6, (best + 1) % 4, best)
    steps = []
    found = verify.compare(model, made, [x[:20], x[20:]], labels, progress=steps.append)
    assert found.accuracy == 0.75 and found.correct == 18 and steps == [20, 24]
    assert verify.compare(model, made, [x]).accuracy is None
    assert str(found) == "integer model == torch model on 24/24 samples, ties 0"
    assert not dataclasses.replace(found, unexplained=1).exact


def tied(scale):
    """Sums are the first input's code and its negative, boundaries odd halves of two: codes 2, 6, 10 lie on one."""
    model = nn.Sequential(nn.Linear(36, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    model[0].weight.data[:] = 0
    model[0].weight.data[:, 0] = torch.tensor([1.0, -1.0])
    x = torch.zeros(16, 36)
    x[:, 0] = torch.arange(16) * scale
    quantize(model, LutqOptions("power_of_two", 3, zero=True), activation_bits=2, example=x, input_scale=scale)
    model.quantizers["2"].size.data.fill_(4 * scale)
    made = network(model, x, name="test", codes=InputCodes(4, scale))
    return verify.compare(model, made, [x])


def test_ties_are_counted():
    found = tied(float(torch.tensor(1 / 15)) / 1024)  # its multiples are finer than verify.GRID
    assert (found.ties, found.tied_samples, found.unexplained) == (3, 3, 0) and found.equal >= 13
    found = tied(1 / 16)  # exact in float64, like its boundaries: both sides decide alike
    assert (found.ties, found.equal) == (0, 16)


def test_flatten_is_channel_last():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2, bias=False))
    quantize(model, weight_levels=2, activation_bits=2, example=(x := torch.rand(4, 1, 6, 6)))
    signs = torch.tensor([[0, 0, 0, 1, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0, 1, 0]])  # (O, C * H * W)
    quantizer_of(model[3]).assignments.copy_(signs)
    made = exact(model, x)
    # (C, H, W) -> (H, W, C): pixel by pixel, both channels side by side
    assert made.weighted[1].weights.assignments.tolist() == [[0, 0, 0, 1, 0, 1, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0]]


def test_unused_and_equal_values_are_dropped():
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    quantize(model, LutqOptions("power_of_two", 4), example=(x := torch.rand(3, 2)))
    quantizer = quantizer_of(model[0])
    quantizer.integers.copy_(torch.tensor([-2.0, 1.0, 1.0, 4.0]))
    quantizer.assignments.copy_(torch.tensor([[0, 1], [2, 2]]))
    made = network(model, x, name="test").weighted[0].weights
    assert made.dictionary.tolist() == [[-2, 1]] and made.assignments.tolist() == [[0, 1], [1, 1]]


def test_the_last_bias_is_rounded_to_the_unit_of_the_scores():
    model, x = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 3)))
    layer = quantize(model, example=x)[1]
    unit = quantizer_of(layer).unit() * model.quantizers["input"].unit()
    full = layer.parametrizations.bias.original
    torch.testing.assert_close(layer.bias, (full / unit).round() * unit)
    layer.bias.sum().backward()
    assert full.grad.tolist() == [1, 1, 1]
    assert exact(model, x).weighted[0].bias.tolist() == (full / unit).round().tolist()


@st.composite
def random_nets(draw):
    """A chain of one to four blocks and what may stand in each; residual ones too."""
    channels, size, layers = 2, 8, []
    for _ in range(draw(st.integers(1, 3))):
        count = 2 * draw(st.integers(1, 2))
        kernel = draw(st.integers(1, min(3, size)))
        padding = draw(st.integers(0, min(1, kernel - 1)))
        stride, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2]))
        if draw(st.booleans()) and channels == count:
            layers.append(Residual(channels, draw(st.booleans())))
        layers.append(nn.Conv2d(channels, count, kernel, stride, padding, groups=groups, bias=draw(st.booleans())))
        size, channels = (size + 2 * padding - kernel) // stride + 1, count
        functions = [nn.BatchNorm2d(count), nn.ReLU(), nn.MaxPool2d(2, 1), nn.AvgPool2d(2, 1), nn.Hardtanh(-0.3, 1.1)]
        for layer in draw(st.lists(st.sampled_from(functions), max_size=4, unique_by=type)):
            if not isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) or size > 1:
                layers.append(layer)
                size -= isinstance(layer, nn.MaxPool2d | nn.AvgPool2d)
    layers += [nn.Flatten(), nn.Linear(channels * size * size, 3)]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """``x + norm(conv(x))``, with a ReLU or without."""

    def __init__(self, channels, rectify):
        super().__init__()
        self.conv, self.norm, self.rectify = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), rectify

    def forward(self, x):
        y = x + self.norm(self.conv(x))
        return y.relu() if self.rectify else y


@settings(max_examples=25, deadline=None)
@given(net=random_nets(), method=st.sampled_from(sorted(WEIGHTS)), bits=st.sampled_from([2, 4, 8]), seed=st.integers(0, 99))
def test_random_networks(net, method, bits, seed):
    model, x = build(lambda: net, seed)
    exact(quantize(model, method, activation_bits=bits, example=x), x)


def test_names_fit_hardware_and_are_unique():
    model, x = build("branches")
    made = exact(quantize(model, example=x), x)
    names = [node.name for node in made.nodes]
    assert len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    model, x = build("chain")
    assert [node.name for node in exact(quantize(model, example=x), x).weighted] == ["n0", "n4", "n7", "n10"]


def test_float_networks_are_not_exported(tmp_path):
    model, x = build("chain")
    with pytest.raises(InputError, match=r"^Sequential: must be quantised to be exported; call lutq_train\.quantize and "
                                         r"train$"):
        network(model, x, name="test")
    with pytest.raises(InputError, match=r"model\.onnx: a model file must have a name that ends in \.npz$"):
        lutq_train.export(model, tmp_path / "model.onnx", example=x)


def test_a_training_that_has_diverged(tmp_path):
    model, x = build("chain")
    quantize(model, example=x)
    model[4].parametrizations.weight.original.data[0, 0, 0, 0] = torch.nan
    lutq_train.update(model)
    with pytest.raises(InputError, match=r"^4\.parametrizations\.weight\.original: must hold finite numbers to be exported; "
                                         r"the training has diverged, lower its rate$"):
        lutq_train.export(model, tmp_path / "model.npz", example=x)
    assert not list(tmp_path.iterdir())


def test_codes_of_an_input_that_is_quantised():
    model, x = build("chain")
    quantize(model, example=x)
    with pytest.raises(InputError, match=r"^input: is quantised by the network itself, as lutq_train\.quantize got no "
                                         r"input_scale; leave out codes$"):
        network(model, x, name="n", codes=InputCodes(4, 0.3))


def test_layers_that_were_left_out_are_named():
    model, x = build("chain")
    quantize(model, example=x)
    nn.utils.parametrize.remove_parametrizations(model[4], "weight")
    with pytest.raises(InputError, match=r"^4: the layer must be quantised to be exported$"):
        network(model, x, name="test")
    model, x = build("chain")
    quantize(model, example=x)
    model.quantizers["4"] = nn.Identity()
    with pytest.raises(InputError, match=r"^3: must read codes, but quantizers\.4 gives sums; put a quantiser between them "
                                         r"\(lutq_train\.quantize does\)$"):
        network(model, x, name="test")


def test_batch_norm_channel_by_channel():
    layer = nn.BatchNorm1d(2, affine=False)
    layer.running_mean[:] = torch.tensor([0.5, -1.0])
    found = norms(layer, 2)
    assert [(n.gamma, n.beta, n.mean, n.var, n.eps, n.slope) for n in found] == [
        (1, 0, 0.5, 1, 1e-5, None), (1, 0, -1.0, 1, 1e-5, None)]


def test_shapes_of_torch_networks():
    for name in NETS:
        model, x = build(name)
        assert x.shape[1:] == SHAPE and model(x).ndim == 2
