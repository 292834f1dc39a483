"""What `quantize` refuses, in a sentence that names the module, and leaves as it was."""

import importlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune
from torch_networks import build

import lutq_train
from lutq_hw.errors import InputError
from lutq_train import LayerOptions, pruning, verify
from lutq_train.export import network
from lutq_train.method import ActivationQuantizer, WeightOptions, quantizer_of
from lutq_train.methods import ACTIVATIONS, WEIGHTS
from lutq_train.methods.hessian import HessianOptions
from lutq_train.methods.lsq import LsqOptions, LsqQuantizer
from lutq_train.methods.lutq import LutqOptions
from lutq_train.quantize import quantize


def state_of(model):
    return {**{name: (id(module), type(module), module.training) for name, module in model.named_modules()},
            **{name: (id(p), p.requires_grad, p.clone()) for name, p in model.named_parameters()},
            **{name: tensor.clone() for name, tensor in model.named_buffers()}}


def assert_same(after, before):
    assert after.keys() == before.keys()
    for name, value in before.items():
        pairs = zip(value, after[name], strict=True) if isinstance(value, tuple) else [(value, after[name])]
        for a, b in pairs:
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name


def refused(model, x, *arguments, **options):
    """The sentence; the network must be as it was."""
    model.eval()
    with torch.no_grad():
        try:
            scores = model(x)
        except (RuntimeError, TypeError):
            scores = None
    model.train()
    before, generator = state_of(model), torch.get_rng_state()
    with pytest.raises(InputError) as caught:
        quantize(model, *arguments, example=x, **options)
    assert "\n" not in str(caught.value)
    assert_same(state_of(model), before)
    assert model.training and "forward" not in vars(model)
    torch.set_rng_state(generator)
    model.eval()
    if isinstance(scores, torch.Tensor):
        with torch.no_grad():
            assert torch.equal(model(x).nan_to_num(), scores.nan_to_num())
    return str(caught.value)


@pytest.mark.parametrize("options, text", [
    ({"method": "lut"}, f"method must be one of {', '.join(sorted(WEIGHTS))}, not 'lut'"),
    ({"activations": "relu"},
     "activations must be one of dorefa, learned_levels, lsq, qil, relud, tanhd, not 'relu'"),
    ({"k": 3}, ("k is no option of lutq; its options are constraint, entries, zero, bits, values, steps, reseed, "
               "cost")),
    ({"entries": "4"}, "entries must be an integer, not '4'"),
    ({"entries": 4.0}, "entries must be an integer, not 4.0"),
    ({"zero": 1}, "zero must be True or False, not 1"),
    ({"cost": "much"}, "cost must be a number, not 'much'"),
    ({"values": [1, 2.5]}, "values must be a tuple of integers, not (1, 2.5)"),
    ({"weight_levels": 1}, "weight_levels must be from 2 to 256, not 1"),
    ({"weight_levels": 2.5}, "weight_levels must be from 2 to 256, not 2.5"),
    ({"activation_bits": 9}, "activation_bits must be from 1 to 8, not 9"),
    ({"activation_bits": 0}, "activation_bits must be from 1 to 8, not 0"),
    ({"input_bits": 9}, "input_bits must be from 1 to 8, not 9"),
    ({"residual_bits": 1}, "residual_bits must be from 2 to 8, not 1"),
    ({"input_scale": 0.0}, "input_scale must be a positive number, not 0.0"),
    ({"input_scale": float("nan")}, "input_scale must be a positive number, not nan"),
    ({"method": LutqOptions(), "weight_levels": 3},
     "weight_levels must be left out where the method is options, which say it already"),
    ({"method": LutqOptions(), "bits": 3}, "bits must be left out where the method is options, which say it already"),
    ({"activations": LsqOptions(), "activation_bits": 3},
     "activation_bits must be left out where activations are options, which say their levels"),
    ({"overrides": {"conv*": {}}}, "override 'conv*' must fit a layer; the layers are 0, 4, 7, 10"),
    ({"overrides": {"4": {"levels": 3}}},
     ("override '4': levels is no option of lutq; its options are constraint, entries, zero, bits, values, steps, reseed, "
      "cost")),
    ({"overrides": {"4": {"activation_bits": -1}}}, "override '4': activation_bits must be from 1 to 8, not -1"),
    ({"overrides": {"last": {"method": "none"}}},
     f"override 'last': method must be one of {', '.join(sorted(WEIGHTS))}, not 'none'"),
    ({"overrides": {"*": {"entries": 1}}}, "override '*': weights.entries must be from 2 to 256, not 1"),
])
def test_wrong_options(options, text):
    model, x = build("chain")
    assert refused(model, x, **options) == text


class Net(nn.Module):
    """Layers for the forward methods below."""

    def __init__(self, forward):
        super().__init__()
        self.conv, self.conv2, self.fc = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Linear(128, 3)
        self.norm, self.other = nn.BatchNorm2d(2), nn.Parameter(torch.ones(1))
        self.odd = nn.Identity()
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


MADE_OF = ("has no hardware; a network may be made of Linear, Conv2d, batch norm, ReLU, max- and average-pool, flatten, "
           "residual add, and dropout")
END = ("the network must end in a Linear whose sums are the scores; leave softmax to the loss, and batch norm or activation "
       "out of the end")


@pytest.mark.parametrize("forward, text", [
    (lambda m, x: F.softmax(m.fc(m.conv(x).flatten(1)), 1), f"softmax: {END}"),
    (lambda m, x: m.fc(m.conv(x).flatten(1)).relu(), f"relu: {END}"),
    (lambda m, x: m.conv(x), f"conv: {END}"),
    (lambda m, x: (m.fc(m.conv(x).flatten(1)), 1), f"forward: {END}"),
    (lambda m, x: m.fc(torch.cat([m.conv(x)[:, :1], m.conv2(x)[:, 1:]], 1).flatten(1)),
     "getitem: a slice must only skip rows and columns, like x[:, :, ::2, ::2]"),
    (lambda m, x: m.fc(m.conv(x)[:, :, ::2, ::2].repeat(1, 4, 1, 1).flatten(1)), f"getitem: {MADE_OF}"),
    (lambda m, x: m.fc(torch.cat([m.conv(x).flatten(1), m.conv(x).flatten(1)], 1)[:, :128]), f"cat: {MADE_OF}"),
    (lambda m, x: m.fc((m.conv(x) * 2).flatten(1)), f"mul: {MADE_OF}"),
    (lambda m, x: m.fc(F.gelu(m.conv(x)).flatten(1)), f"gelu: {MADE_OF}"),
    (lambda m, x: m.fc(m.conv(x).mean(1).flatten(1).repeat(1, 2)), f"mean: {MADE_OF}"),
    (lambda m, x: m.fc(m.conv(x).flatten(1) + 1.0),
     "add: an add must be of two activations; fold a constant into the bias of the layer before it"),
    (lambda m, x: m.fc(torch.add(m.conv(x), m.conv2(x), alpha=2).flatten(1)),
     "add: an add must be of two activations; fold a constant into the bias of the layer before it"),
    (lambda m, x: m.fc((m.conv(x) + m.conv(x).mean([2, 3], keepdim=True)).flatten(1)),
     "add: an add must be of two activations of the same shape, not (24, 2, 8, 8) and (24, 2, 1, 1)"),
    (lambda m, x: m.fc((m.conv(x) + m.other).flatten(1)),
     ("other: a parameter or buffer that forward itself uses has no hardware; put it into a Linear, a Conv2d or a batch "
      "norm")),
    (lambda m, x: F.linear(m.conv(x).flatten(1), m.fc.weight),
     f"linear: {END}"),
    (lambda m, x: m.fc(F.conv2d(m.conv(x), m.conv2.weight, padding=1).flatten(1)),
     ("conv2.weight: a parameter or buffer that forward itself uses has no hardware; put it into a Linear, a Conv2d or a "
      "batch norm")),
    (lambda m, x: m.fc(m.conv(x if x.sum() > 0 else -x).flatten(1)),
     ("Net: forward cannot be recorded (symbolically traced variables cannot be used as inputs to control flow); it must do "
      "the same operations for every input: take decisions that depend on values or shapes out of it")),
    (lambda m, x: m.fc(m.conv(x)), ("fc: the network does not run on the example: mat1 and mat2 shapes cannot be multiplied "
                                    "(384x8 and 128x3)")),
    (lambda m, x: m.fc(torch.tanh(m.conv(x)).flatten(1)),
     ("tanh: tanh has no hardware of its own; choose activations that take its place, like tanhd, for the layers behind "
      "it")),
    (lambda m, x: m.fc(F.max_pool2d(m.conv(x), 3, 1, ceil_mode=True, padding=1).flatten(1)),
     "max_pool2d: a max-pool must have no dilation and no ceil_mode to be exported"),
    (lambda m, x: m.fc(F.avg_pool2d(m.conv(x), 3, 1, padding=1, count_include_pad=False).flatten(1)),
     ("avg_pool2d: an average-pool must have no ceil_mode, no divisor_override and no padding that it leaves out of the "
      "mean")),
    (lambda m, x: m.fc(F.pad(F.adaptive_avg_pool2d(m.conv(x), (3, 8)), (0, 0, 0, 5)).flatten(1)),
     ("adaptive_avg_pool2d: an adaptive average-pool must divide its map of 8 x 8 evenly, not into 3 x 8")),
    (lambda m, x: m.fc((m.conv2(x) + F.pad(m.conv(x)[:, :, 1:, 1:], (1, 0, 1, 0))).flatten(1)),
     "getitem: a slice must only skip rows and columns, like x[:, :, ::2, ::2]"),
    (lambda m, x: m.fc((m.conv2(x) + F.pad(m.conv(x)[:, :, ::2, ::2], (2, 2, 2, 2))).flatten(1)),
     ("pad: a pad must only add channels of zeros in front of an add; zeros around a map are the padding of the layer behind "
      "it, the same on opposite sides")),
    (lambda m, x: m.fc(m.conv(x).chunk(2, 1)[0].flatten(1).repeat(1, 2)), f"chunk: {MADE_OF}"),
    (lambda m, x: m.fc(m.conv(x).max(1, keepdim=True)[0].flatten(1).repeat(1, 2)), f"max: {MADE_OF}"),
    (lambda m, x: m.fc(m.conv(x) if len(x) > 2 else m.conv2(x)),
     ("Net: forward cannot be recorded ('len' is not supported in symbolic tracing by default); it must do the same "
      "operations for every input: take decisions that depend on values or shapes out of it")),
    (lambda m, x: m.fc(F.pad(m.conv(x), (0, 0, 0, 0, 0, 0)).flatten(1)), f"pad: {MADE_OF}"),
    (lambda m, x: m.fc(m.conv2(m.conv(x)[0]).flatten().repeat(2, 1)),
     "getitem: a slice must only skip rows and columns, like x[:, :, ::2, ::2]"),
    (lambda m, x: m.fc(m.conv(x).clamp(min=m.fc.bias.sum()).flatten(1)),
     ("fc.bias: a parameter or buffer that forward itself uses has no hardware; put it into a Linear, a Conv2d or a batch "
      "norm")),
])
def test_what_has_no_hardware(forward, text):
    _, x = build("chain")
    assert refused(Net(forward), x) == text


def odd(layer):
    model = Net(lambda m, x: m.fc(m.odd(m.conv(x)).flatten(1)))
    model.odd = layer
    return model


@pytest.mark.parametrize("layer, text", [
    (nn.Conv2d(2, 2, 3, padding=2, dilation=2),
     "odd: a convolution must have numeric zero padding and no dilation to be exported"),
    (nn.Conv2d(2, 2, 3, padding="same"),
     "odd: a convolution must have numeric zero padding and no dilation to be exported"),
    (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
     "odd: a convolution must have numeric zero padding and no dilation to be exported"),
    (nn.Conv2d(2, 2, 1, padding=1),
     "odd: a convolution must have a padding smaller than its kernel, not (1, 1) with (1, 1)"),
    (nn.BatchNorm2d(2, track_running_stats=False), "odd: a batch norm must keep running statistics to be exported"),
    (nn.Linear(8, 8), ("odd: a Linear must read a batch of vectors (B, N), not of shape (24, 2, 8, 8); put a flatten in "
                       "front of it")),
    (nn.MaxPool2d(3, 1, padding=1, dilation=2), "odd: a max-pool must have no dilation and no ceil_mode to be exported"),
    (nn.AvgPool2d(3, 1, padding=1, divisor_override=2), ("odd: an average-pool must have no ceil_mode, no divisor_override "
                                                         "and no padding that it leaves out of the mean")),
    (nn.GroupNorm(1, 2), f"odd (GroupNorm): {MADE_OF}"), (nn.GELU(), f"odd (GELU): {MADE_OF}"),
    (nn.ConvTranspose2d(2, 2, 3, padding=1), f"odd (ConvTranspose2d): {MADE_OF}"),
    (nn.AdaptiveMaxPool2d(8), f"odd (AdaptiveMaxPool2d): {MADE_OF}"),
])
def test_layers_without_hardware(layer, text):
    _, x = build("chain")
    model = odd(layer)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
        model.fc = nn.Linear(200, 3)
    if isinstance(layer, nn.MaxPool2d):
        model.fc = nn.Linear(72, 3)
    assert refused(model, x) == text


def test_arguments_with_defaults_keep_them_and_squeezed_maps_are_vectors():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)

        def forward(self, x, features=False, *more, scale=None, **rest):
            x = F.adaptive_avg_pool2d(F.relu(self.conv(x)), 1).squeeze((2, 3))
            if features or scale is not None or more or rest:
                return x
            return self.fc(x)

    model, (_, x) = Net().eval(), build("chain")
    quantize(model, example=x)
    assert verify.compare(model, network(model, x, name="n"), [x]).exact
    assert model(x).shape == (24, 3)


def test_a_decision_deep_inside_is_named_by_its_module():
    class Gate(nn.Module):
        def forward(self, x):
            return x if x.mean() > 0 else -x

    model, x = build("chain")
    model[5] = nn.Sequential(nn.ReLU(), Gate())
    assert refused(model, x) == (
        "5.1: forward cannot be recorded (symbolically traced variables cannot be used as inputs to control flow); it must "
        "do the same operations for every input: take decisions that depend on values or shapes out of it")


def test_recurrent_layers_and_attention():
    class Recurrent(nn.Module):
        def __init__(self, layer, *more):
            super().__init__()
            self.core, self.fc, self.more = layer, nn.Linear(8, 3), more

        def forward(self, x):
            return self.fc(self.core(x, *[x] * len(self.more))[0])

    x = torch.randn(6, 8)
    assert refused(Recurrent(nn.LSTM(8, 8)), x) == f"core (LSTM): {MADE_OF}"
    assert refused(Recurrent(nn.MultiheadAttention(8, 2), 1, 1), x) == f"core (MultiheadAttention): {MADE_OF}"
    assert refused(Recurrent(nn.LSTM(8, 8)), torch.randn(6, 5, 8)) == (
        "x: the input must be a batch of maps (B, C, H, W) or of vectors (B, N), not of shape (6, 5, 8)")


def test_a_last_layer_that_reads_a_map():
    _, x = build("chain")
    assert refused(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Linear(6, 3)), x) == (
        "2: a Linear must read a batch of vectors (B, N), not of shape (24, 3, 6, 6); put a flatten in front of it")


@pytest.mark.parametrize("example, text", [
    (None, "of floating-point numbers, a batch of inputs, not NoneType"),
    (torch.zeros(0, 2, 8, 8), "of floating-point numbers, a batch of inputs, not torch.float32 of shape (0, 2, 8, 8)"),
    (torch.zeros(3, 2, 8, 8, dtype=torch.int32), ("of floating-point numbers, a batch of inputs, not torch.int32 of shape "
                                                 "(3, 2, 8, 8)"))])
def test_examples_that_are_none(example, text, tmp_path):
    model, x = build("chain")
    with pytest.raises(InputError) as caught:
        quantize(model, example=example)
    assert str(caught.value) == f"example must be a tensor {text}"
    quantize(model, example=x)
    with pytest.raises(InputError) as caught:
        lutq_train.export(model, tmp_path / "model.npz", example=example)
    assert str(caught.value) == f"example must be a tensor {text}"


def test_examples_that_do_not_do():
    model, x = build("chain")
    assert refused(model, x / 0) == "example must hold finite numbers"
    assert refused(model, x[:1]) == (
        "Sequential: does not run on the example in its present mode (Expected more than 1 value per channel when training, "
        "got input size torch.Size([1, 9])); take more samples, or quantise it in evaluation mode")


REPLACED = ("its weight must be a parameter, which weight_norm or torch.nn.utils.prune has replaced; undo that "
            "(parametrize.remove_parametrizations, prune.remove) before quantising")


def test_weights_that_are_no_parameters():
    for change in (lambda layer: nn.utils.parametrizations.weight_norm(layer),
                   lambda layer: prune.l1_unstructured(layer, "weight", 0.5)):
        model, x = build("chain")
        change(model[4])
        assert refused(model, x) == f"4: {REPLACED}"
    model, x = build("chain")
    assert refused(model.bfloat16(), x.bfloat16()) == (
        "10: its weight must be float32 to be quantised, not torch.bfloat16; train in half precision with torch.autocast")


@pytest.mark.parametrize("wrap, text", [
    (nn.DataParallel, "DataParallel: must be unwrapped; give its .module, and wrap it after lutq_train.quantize"),
    (lambda model: torch.compile(model, backend="eager"),
     ("OptimizedModule: must be the network that was compiled; give that one, and compile it after lutq_train.quantize")),
    (lambda model: nn.Sequential(torch.jit.trace(model, torch.zeros(1, 2, 8, 8))),
     "Sequential: must be a plain nn.Module, not a scripted one"),
    (lambda model: model[-1], "Linear: must be a network, not a layer; put it into an nn.Sequential")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, of itself
def test_wrappers_and_layers_are_no_networks(wrap, text):
    model, x = build("chain")
    with pytest.raises(InputError) as caught:
        quantize(wrap(model), example=x)
    assert str(caught.value) == text
    quantize(model, example=x)


def test_one_layer_under_two_names_and_one_weight_of_two_layers():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.again, self.b.weight = self.a, self.a.weight

        def forward(self, x):
            return self.c(F.relu(self.again(F.relu(self.b(F.relu(self.a(x)))))))

    model, x = Tied(), torch.randn(8, 4)
    quantize(model, example=x)
    assert verify.compare(model, network(model, x, name="n"), [x]).exact


def test_batch_norm_of_several_processes_and_dropout_of_channels():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(2, 3, 3), nn.SyncBatchNorm(3), nn.Linear(108, 3)

        def forward(self, x):
            x = F.dropout2d(F.relu(self.norm(self.conv(x))), 0.5, self.training)
            return self.fc(x.flatten(1))

    model, (_, x) = Net().eval(), build("chain")
    quantize(model, example=x)
    assert verify.compare(model, network(model, x, name="n"), [x]).exact
    model.norm.eval()
    model.training = True
    assert not torch.equal(model(x), model(x))


def test_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x, mask):
            return self.fc(x)

    assert refused(Two(), torch.randn(3, 4)) == "Two: forward must have one input, not 2: x, mask"
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    assert refused(model, torch.randn(3, 2, 4)) == (
        "input: the input must be a batch of maps (B, C, H, W) or of vectors (B, N), not of shape (3, 2, 4)")
    assert refused(nn.Sequential(nn.Flatten()), torch.randn(3, 4)) == (
        "Sequential: must have a Linear or a Conv2d to quantise")


def test_a_second_time_and_a_name_that_is_taken():
    model, x = build("chain")
    quantize(model, example=x)
    before = model(x)
    with pytest.raises(InputError, match=r"^QuantizedSequential: is quantised already; start from a float network$"):
        quantize(model, example=x)
    assert torch.equal(model(x), before)
    model, x = build("chain")
    model.quantizers = nn.Identity()
    with pytest.raises(InputError, match=r"^Sequential: must have no attribute called quantizers, which is where activation "
                                         r"quantisers go; give it another name$"):
        quantize(model, example=x)


def test_scores_of_different_units():
    model, x = build("chain")
    chosen = WEIGHTS["syq"](subgroup="channel")
    object.__setattr__(chosen, "quantizer", lambda weight: Rows(weight))
    assert refused(model, x, overrides={"last": LayerOptions(chosen, LsqOptions())}) == (
        "the last layer must have one weight scale for all its outputs, not one for each: scores of different units cannot "
        "be compared; give it another subgroup")


class Rows(lutq_train.method.WeightQuantizer):
    """Signs times a scale of each output: nothing that a last layer may have."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("scale", weight.abs().amax(1))

    def forward(self, weight):
        return weight.sign() * self.scale[:, None]

    def unit(self):
        return self.scale


def test_a_method_that_fails_half_way_leaves_nothing(monkeypatch):
    model, x = build("option_b")
    pruning.attach(model)
    made = []

    def quantizer(self, weight):
        made.append(weight)
        if len(made) == 4:
            raise InputError("enough")
        return lutq_train.methods.lutq.LutQuantizer(self, weight)

    monkeypatch.setattr(LutqOptions, "quantizer", quantizer)
    assert refused(model, x, LutqOptions(zero=True)) == "enough"
    assert all(type(chain[0]) is pruning.Pruner and len(chain) == 1 for chain in model.modules()
               if isinstance(chain, parametrize.ParametrizationList))
    monkeypatch.undo()
    quantize(model, zero=True, example=x)
    assert verify.compare(model.eval(), network(model, x, name="n"), [x]).exact


def test_calibration_that_fails_leaves_nothing(monkeypatch):
    def calibrate(self, x):
        raise InputError("enough")

    model, x = build("chain")
    monkeypatch.setattr(LsqQuantizer, "calibrate", calibrate)
    assert refused(model, x) == "enough"


def test_derivatives_that_fail_leave_nothing():
    model, x = build("chain")
    model[4].weight.requires_grad_(False)

    def losses():
        model.eval()
        yield model(x).square().mean()
        raise InputError("enough")

    assert refused(model, x, HessianOptions(), losses=losses) == "enough"


WITHOUT_ZERO = [("lutq", {}), ("lutq", {"constraint": "binary", "entries": 2}), ("lutq", {"values": (-1, 1)}),
                ("syq", {"entries": 2}), ("tbnu", {}), ("tbnu", {"entries": 8, "clustering": "fixed"})]
WITH_ZERO = [("lutq", {"zero": True}), ("lutq", {"constraint": "uniform"}), ("lutq", {"values": (-1, 0, 2)}),
             ("lutq", {"constraint": "ternary", "entries": 3}), ("syq", {}), ("qil", {}), ("hessian", {}),
             ("tbnu", {"zero": True}), ("tbnu", {"entries": 7, "clustering": "laplacian"})]


@pytest.mark.parametrize("method, options", WITHOUT_ZERO)
def test_pruned_layers_need_a_zero(method, options):
    model, x = build("chain")
    pruning.attach(model)
    assert refused(model, x, method, **options) == (
        f"0: a layer that is pruned must have a dictionary with a zero, and this one of the method {method} has none; choose "
        "options with a zero, or do not prune")


@pytest.mark.parametrize("method, options", WITH_ZERO)
def test_pruned_weights_are_zero_in_the_file(method, options):
    model, x = build("chain")
    pruning.attach(model)
    pruning.prune(model, 0.6)
    quantize(model, method, example=x, **options)
    model.train()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        lutq_train.update(model)
    model.eval()
    made = network(model, x, name="n")
    assert verify.compare(model, made, [x]).exact
    for (pruner, _), layer in zip(pruning.pruners(model), (model[0], model[4], model[7], model[10]), strict=True):
        assert not layer.weight[pruner.mask == 0].any() and (pruner.mask == 0).any()
    coded = [quantizer_of(layer).coded(lutq_train.method.source_of(layer)).values for layer in (model[0], model[7])]
    for values, (pruner, _) in zip(coded, [pruning.pruners(model)[n] for n in (0, 2)], strict=True):
        assert not values[pruner.mask == 0].any()
    if made.weighted[0].weights.table is None:
        assert (made.weighted[0].weights.values == 0).sum() >= (pruning.pruners(model)[0][0].mask == 0).sum()


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(["first", "last", "*", "[0-4]", "7", "10"]),
                       st.fixed_dictionaries({}, optional={
                           "weight_levels": st.integers(-1, 20), "activation_bits": st.integers(-1, 9),
                           "method": st.sampled_from([*WEIGHTS, "other"]), "entries": st.integers(0, 9),
                           "constraint": st.sampled_from(["free", "uniform", "ternary", "x"]),
                           "zero": st.booleans(), "activations": st.sampled_from(["lsq", "relud", "y"])}), max_size=3))
def test_any_overrides_are_taken_or_refused_in_a_sentence(overrides):
    model, x = build("chain")
    try:
        quantize(model, example=x, overrides=overrides)
    except InputError as error:
        assert "\n" not in str(error) and not any(isinstance(m, ActivationQuantizer) for m in model.modules())
        assert not any(quantizer_of(layer) for layer in model.modules())


def test_no_module_takes_a_public_name():
    for path in Path(lutq_train.__file__).parent.glob("[a-z]*.py"):
        importlib.import_module(f"lutq_train.{path.stem}")
    assert all(callable(getattr(lutq_train, name)) for name in lutq_train.__all__)


def test_base_options_have_no_quantiser():
    with pytest.raises(TypeError, match="must define quantizer or attach"):
        WeightOptions().quantizer(torch.zeros(1))


def test_levels_that_a_sign_does_not_allow():
    model, x = build("named")
    assert refused(model, x, activations=ACTIVATIONS["tanhd"](16)) == (
        "activations.levels must be odd for tanhd of activations that may be negative, not 16: code 0, which pads "
        "convolutions, must stand for exactly 0; take 15")
