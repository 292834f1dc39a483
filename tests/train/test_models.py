"""Networks of recipes: their sizes, their names, that they run and train, and which options are refused."""

import pytest
import torch
from torch import nn

from lutq_hw.errors import InputError
from lutq_train.networks import NETWORKS
from lutq_train.networks.cnn import CnnOptions
from lutq_train.networks.lenet import LeNet5Options
from lutq_train.networks.mlp import MlpOptions
from lutq_train.networks.mobilenet import MobileNetOptions
from lutq_train.networks.resnet import ResNetOptions
from lutq_train.networks.vgg_small import VggSmallOptions

MNIST, CIFAR, TABLE = (28, 28, 1), (32, 32, 3), (1, 1, 16)
SMALL = {"cnn": CnnOptions((4,), (3,), (2,), (1,), (8,)), "resnet": ResNetOptions(8, 4), "vgg_small": VggSmallOptions(4),
         "mobilenet": MobileNetOptions(4)}
PLAIN = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [MNIST, CIFAR, (17, 30, 2)])
def test_every_network_is_made_of_plain_layers_and_learns(name, shape):
    torch.manual_seed(0)
    model = SMALL.get(name, NETWORKS[name]()).build(shape, 7)
    for layer in model.modules():
        assert isinstance(layer, PLAIN) or next(layer.children(), None) or not [*layer.parameters()]
    x = torch.randn(4, shape[2], *shape[:2])
    scores = model(x)
    assert scores.shape == (4, 7)
    scores.logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    assert torch.allclose(model(x)[:2], model(x[:2]), atol=1e-5)


@pytest.mark.parametrize("name, options, shape, count", [
    ("lenet_300_100", {}, MNIST, 266_610),
    ("lenet5", {}, MNIST, 431_080),            # as the papers count
    ("lenet5", {"rectify": False}, MNIST, 431_080),
    ("resnet", {}, CIFAR, 269_722),            # He et al.: 0.27 M
    ("resnet", {"depth": 32}, CIFAR, 464_154),  # Choi et al., section 6
    ("resnet", {"shortcut": "B"}, CIFAR, 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
    ("vgg_small", {}, CIFAR, 4_660_106),
])
def test_sizes(name, options, shape, count):
    assert parameters(NETWORKS[name](**options).build(shape, 10)) == count


def test_cnn_is_what_recipes_have_built_so_far():
    """Names become node names, and the order of layers decides which random weights each gets."""
    torch.manual_seed(1)
    model = CnnOptions((6, 12), (5, 3), (2, 2), (2, 1), (20,)).build(MNIST, 10)
    names = [name for name, _ in model.named_children()]
    assert names == ["conv1", "norm1", "relu1", "conv2", "norm2", "relu2", "flatten", "fc1", "fcnorm1", "fcrelu1", "scores"]
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 6, 5, 2, 2, bias=False), nn.Conv2d(6, 12, 3, 2, 1, bias=False),
              nn.Linear(12 * 49, 20, bias=False), nn.Linear(20, 10, bias=False)]
    for name, layer in zip(("conv1", "conv2", "fc1", "scores"), layers, strict=True):
        assert torch.equal(model.get_submodule(name).weight, layer.weight)


@pytest.mark.parametrize("options, names", [
    (CnnOptions(hidden=(8,)), ["flatten", "fc1", "fcnorm1", "fcrelu1", "scores"]),
    (MlpOptions((8, 4)), ["flatten", "fc1", "norm1", "relu1", "fc2", "norm2", "relu2", "scores"]),
    (MlpOptions((8,), norm=False), ["flatten", "fc1", "relu1", "scores"]),
    (MlpOptions(()), ["flatten", "scores"])])
def test_networks_for_tables(options, names):
    model = options.build(TABLE, 7)
    assert [name for name, _ in model.named_children()] == names
    assert model(torch.rand(3, 16, 1, 1)).shape == (3, 7)


def test_lenet5_has_the_relus_it_is_told_to():
    def names(**options):
        return [name for name, _ in LeNet5Options(**options).build(MNIST, 10).named_children()]

    assert names() == ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten", "fc1", "fcrelu1", "scores"]
    assert names(rectify=False) == ["conv1", "pool1", "conv2", "pool2", "flatten", "fc1", "fcrelu1", "scores"]


def test_resnet_shortcuts_of_zeros():
    block = ResNetOptions(8, 4).build(CIFAR, 10).get_submodule("layer2.0")
    x = torch.randn(2, 4, 5, 6)
    past = block.get_submodule("shortcut")(x)
    assert past.shape == (2, 8, 3, 3)
    assert torch.equal(past[:, 2:6], x[:, :, ::2, ::2]) and not past[:, :2].any() and not past[:, 6:].any()


def test_resnet_is_the_public_one_layer_by_layer():
    """Block by block, written out with functions of the names that public weights have."""
    model = ResNetOptions(8, 4).build(CIFAR, 10).eval()
    state, x = model.state_dict(), torch.randn(3, 3, 32, 32)

    def convolution(x, conv, norm, stride=1):
        x = nn.functional.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        values = (state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return nn.functional.batch_norm(x, *values)

    y = convolution(x, "conv1", "bn1").relu()
    for i in range(1, 4):
        at, stride = f"layer{i}.0", 1 if i == 1 else 2
        inner = convolution(y, f"{at}.conv1", f"{at}.bn1", stride).relu()
        past = y
        if stride == 2:
            quarter = y.shape[1] // 2
            past = nn.functional.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        y = (convolution(inner, f"{at}.conv2", f"{at}.bn2") + past).relu()
    scores = nn.functional.linear(y.mean((2, 3)), state["linear.weight"], state["linear.bias"])
    assert torch.allclose(model(x), scores, atol=1e-5)


def test_depthwise_convolutions_have_one_channel_a_group():
    model = MobileNetOptions(8, (2, 3), (1, 2)).build(MNIST, 10)
    assert [(layer.in_channels, layer.out_channels, layer.groups, layer.stride) for layer in model.modules()
            if isinstance(layer, nn.Conv2d)] == [(1, 8, 1, (1, 1)), (8, 8, 8, (1, 1)), (8, 16, 1, (1, 1)),
                                                 (16, 16, 16, (2, 2)), (16, 24, 1, (1, 1))]


@pytest.mark.parametrize("name, options, text", [
    ("cnn", {"channels": (4, 8), "kernels": (3,)}, ("model.kernels must have one value for each of the 2 convolutions in "
                                                  "model.channels, not 1")),
    ("cnn", {"hidden": (0,)}, "model.hidden must hold values from 1 to 4096, not 0"),
    ("resnet", {"depth": 21}, "model.depth must be 6 n + 2 from 8 to 1202, like 20 or 32, not 21"),
    ("resnet", {"depth": 2}, "model.depth must be 6 n + 2 from 8 to 1202, like 20 or 32, not 2"),
    ("resnet", {"width": 0}, "model.width must be from 1 to 1024, not 0"),
    ("resnet", {"shortcut": "C"}, "model.shortcut must be A or B, not 'C'"),
    ("vgg_small", {"width": 4096}, "model.width must be from 1 to 1024, not 4096"),
    ("mobilenet", {"strides": (1, 2)}, "model.strides must have one value for each of the 7 blocks in model.factors, not 2"),
    ("mobilenet", {"strides": (0,) * 7}, "model.strides must hold values from 1 to 4, not 0"),
    ("mlp", {"hidden": (-1,)}, "model.hidden must hold values from 1 to 65536, not -1"),
])
def test_options_that_cannot_be(name, options, text):
    with pytest.raises(InputError) as caught:
        NETWORKS[name](**options)
    assert str(caught.value) == text


@pytest.mark.parametrize("options, text", [
    (CnnOptions((4,), (9,), (1,), (0,)), "model.kernels[0] must fit its input, not leave a map of 0 x 0"),
    (LeNet5Options(), "model lenet5 must have images of 16 x 16 or more, not 8 x 8"),
])
def test_images_that_are_too_small(options, text):
    with pytest.raises(InputError) as caught:
        options.build((8, 8, 1), 10)
    assert str(caught.value) == text
