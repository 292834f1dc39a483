"""`quantize`: in place, where quantisers go, and overrides."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_networks import NETS, build

import lutq_train
from lutq_train import LayerOptions, verify
from lutq_train.export import network
from lutq_train.method import quantizer_of
from lutq_train.methods import WEIGHTS
from lutq_train.methods.lsq import LsqOptions, LsqQuantizer
from lutq_train.methods.lutq import LutqOptions
from lutq_train.quantize import quantize


def widths(model):
    """Name of every activation quantiser to its number of levels, negative where it is signed."""
    return {name: -q.levels if q.signed else q.levels for name, q in model.quantizers.items()}


def entries(model):
    return {name: quantizer_of(layer).options.entries for name, layer in model.named_modules() if quantizer_of(layer)}


@pytest.mark.parametrize("net", NETS)
def test_in_place_and_of_plain_layers(net):
    model, x = build(net)
    kind, count = type(model), len(list(model.parameters()))
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    assert quantize(model, weight_levels=4, example=x) is model
    assert isinstance(model, kind) and type(model).__name__ == f"Quantized{kind.__name__}"
    for name, layer in layers.items():
        assert model.get_submodule(name) is layer and isinstance(layer, nn.Linear | nn.Conv2d)
        assert layer.weight.unique().numel() <= 4
        assert torch.equal(layer.parametrizations.weight.original, weights[name])
    assert len(list(model.parameters())) == count + sum(isinstance(q, LsqQuantizer) and not q.fixed
                                                        for q in model.quantizers.values())
    assert not model.training and not any(module.training for module in model.modules())


def test_where_quantisers_go_in_a_chain():
    model, x = build("chain")
    quantize(model, activation_bits=3, input_bits=6, example=x)
    # Codes of ReLUs are unsigned, in front of the pool and of the flatten; the input may be negative.
    assert widths(model) == {"input": -64, "4": 8, "7": 8, "10": 8}
    order = [str(node.target) for node in lutq_train.capture.Capture(model, x).graph.nodes if node.op == "call_module"]
    assert order == ["quantizers.input", "0", "1", "quantizers.4", "3", "4", "quantizers.7", "6", "7", "8", "quantizers.10",
                     "10"]  # no ReLU is left


def test_where_quantisers_go_in_a_residual_network():
    model, x = build("option_b")
    quantize(model, activation_bits=3, residual_bits=7, example=x.abs())
    # Wide codes where an add or a mean reads, signed behind a batch norm; others read narrower codes of these. Where
    # only layers read, as those of a block with a shortcut of its own, they share narrow codes of the sums.
    assert widths(model) == {
        "input": 256, "relu": 128, "layer1_0_conv1": 8, "layer1_0_conv2": 8, "layer1_0_bn2_out": -128,
        "layer2_0_conv1": 8, "layer2_0_conv2": 8, "layer2_0_bn2_out": -128, "layer2_0_shortcut_1_out": -128,
        "layer3_0_conv1": 8, "layer3_0_conv2": 8, "layer3_0_bn2_out": -128, "layer3_0_shortcut_1_out": -128,
        "layer3_0_relu": 128, "linear": 8}
    for name, quantizer in model.quantizers.items():
        assert quantizer.fixed == (name == "input" or quantizer.levels == 128)
        assert not quantizer.fixed or torch.frexp(quantizer.unit()).mantissa == 0.5


def test_layers_that_read_the_same_share_a_quantiser():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.d = nn.Linear(3, 2)

        def forward(self, x):
            x = F.relu(self.a(x))
            return self.d(self.b(x) + self.c(x))

    model, x = Net(), torch.randn(9, 4)
    quantize(model, example=x, activation_bits=2)
    assert widths(model) == {"input": -256, "b": 4, "b_out": -256, "c_out": -256, "d": -16} | {"d": -4}
    model = Net()
    quantize(model, example=x, overrides={"c": {"activation_bits": 5}})
    assert widths(model) == {"input": -256, "relu": 256, "b": 16, "c": 32, "b_out": -256, "c_out": -256, "d": -16}


def test_inputs_that_are_codes_get_no_quantiser():
    model, x = build("chain")
    quantize(model, example=x, input_scale=0.1)
    assert set(model.quantizers) == {"4", "7", "10"}


def test_functions_that_quantisers_do_not_absorb():
    model, x = build("named")
    quantize(model, example=x)
    calls = {str(node.target) for node in lutq_train.capture.Capture(model, x).graph.nodes}
    assert {"act", "relu"} <= calls  # ReLU6 and Hardtanh clamp at other bounds than the quantiser


def test_the_mode_of_dropout_is_that_of_the_network():
    model, x = build("functional")
    quantize(model, example=x)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        model.train()
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))


def test_frozen_parts_keep_their_mode():
    model, x = build("chain")
    model.train()
    model[1].eval()
    quantize(model, example=x)
    assert model.training and not model[1].training and model[0].training
    assert all(q.training for q in model.quantizers.values())


def test_overrides():
    model, x = build("chain")
    quantize(model, weight_levels=4, activation_bits=2, example=x, overrides={
        "first": {"weight_levels": 255, "constraint": "uniform"}, "last": {"activation_bits": 6},
        "[47]": {"entries": 5, "bits": 5}, "7": LayerOptions(LutqOptions.for_levels(3), LsqOptions(9))})
    assert entries(model) == {"0": 255, "4": 5, "7": 3, "10": 4}
    assert widths(model) == {"input": -256, "4": 4, "7": 9, "10": 64}
    assert quantizer_of(model[4]).options == LutqOptions(entries=5, bits=5)
    assert quantizer_of(model[0]).options == LutqOptions("uniform", 255)


def test_overrides_of_the_method():
    model, x = build("chain")
    quantize(model, "syq", example=x, overrides={"4": {"method": "lutq", "weight_levels": 8}, "10": {"activations": "qil"},
                                                 "7": {"method": "qil"}})
    kinds = {name: type(quantizer_of(layer)).__name__ for name, layer in model.named_modules() if quantizer_of(layer)}
    assert kinds == {"0": "SyqQuantizer", "4": "LutQuantizer", "7": "QilQuantizer", "10": "SyqQuantizer"}
    assert [type(model.quantizers[name]).__name__ for name in ("4", "10")] == ["LsqQuantizer", "QilActivationQuantizer"]


def test_overrides_keep_what_they_do_not_say():
    model, x = build("chain")
    quantize(model, weight_levels=3, example=x, overrides={"4": {"constraint": "ternary"}, "7": {"steps": 2}})
    assert {quantizer_of(model[n]).options.constraint for n in (0, 4, 7, 10)} == {"ternary"}
    assert quantizer_of(model[7]).options.steps == 2


def test_options_stand_for_names():
    model, x = build("chain")
    quantize(model, LutqOptions("uniform", 9), activations=LsqOptions(5), example=x)
    assert set(entries(model).values()) == {9} and widths(model)["4"] == 5


@pytest.mark.parametrize("method", WEIGHTS)
def test_copies_are_independent(method):
    model, x = build("chain")
    quantize(model, method, example=x)
    other = copy.deepcopy(model)
    before = model(x).detach()
    assert torch.equal(other(x), before)
    for tensor in (*other.parameters(), *other.buffers()):
        if tensor.is_floating_point():
            tensor.data.mul_(0.5)
    assert not torch.equal(other(x), before) and torch.equal(model(x), before)
    optimizer = torch.optim.SGD((p for p in other.parameters() if p.requires_grad), 0.1)
    other(x).square().sum().backward()
    optimizer.step()
    lutq_train.update(other)
    assert torch.equal(model(x), before)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("net", ["chain", "option_a"])
@pytest.mark.parametrize("method", WEIGHTS)
def test_states_load_into_networks_that_began_elsewhere(method, net):
    model, x = build(net)
    quantize(model, method, example=x)
    model.train()
    model(x).square().mean().backward()
    torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1).step()
    lutq_train.update(model)
    model.eval()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    other, _ = build(net, seed=1)
    quantize(other, method, example=torch.rand(2, *x.shape[1:]) - 0.5)
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert torch.equal(other.eval()(x), model(x))
    assert network(other, x, name="n").digest == network(model, x, name="n").digest


def test_names_of_layers_that_containers_use_themselves():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.keys, self.values, self.pop = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.pop(self.values(self.keys(x)))

    model, x = Attention(), torch.randn(8, 4)
    quantize(model, example=x)
    assert set(model.quantizers) == {"input", "values_2", "pop_2"}
    assert verify.compare(model, network(model, x, name="n"), [x]).exact


def test_a_layer_that_is_called_twice():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(F.relu(self.a(F.relu(self.a(x)))))

    model, x = Net(), torch.randn(8, 4)
    quantize(model, example=x)
    made = network(model, x, name="n")
    assert verify.compare(model, made, [x]).exact and [node.name for node in made.weighted] == ["a", "a_2", "b"]
