"""Networks of a few weights for maps (B, 2, 8, 8): every way of writing what `lutq_train.quantize` takes."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from lutq_train.networks.mobilenet import MobileNetOptions
from lutq_train.networks.resnet import ResNetOptions

SHAPE = (2, 8, 8)


def chain():
    """Groups, stride, padding, biases, pooling, layers with and without batch norm."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), groups=2, padding=(0, 1)), nn.ReLU(),
        nn.Flatten(), nn.Linear(36, 9), nn.BatchNorm1d(9), nn.ReLU(inplace=True), nn.Linear(9, 4))


def named():
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(2, 3, 3, bias=False), norm=nn.BatchNorm2d(3, affine=False), relu=nn.ReLU6(),
        pool=nn.AvgPool2d(2, stride=1, padding=1), conv2=nn.Conv2d(3, 4, 2), act=nn.Hardtanh(-0.7, 0.9),
        gap=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), drop=nn.Dropout(0.3), scores=nn.Linear(4, 3, bias=False)))


class Functional(nn.Module):
    """Functions and methods in place of modules; pools in front of ReLUs; a dropout that asks for the mode."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 2)
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.hardtanh(F.avg_pool2d(self.conv2(x), 2, 1, padding=1))
        x = F.relu6(F.max_pool2d(x, kernel_size=2, stride=2, padding=1))
        x = torch.flatten(F.adaptive_avg_pool2d(x, (1, 2)), 1)
        x = F.dropout(self.fc1(x).clamp(min=-0.2), 0.5, self.training)
        return self.fc2(x)


class Means(nn.Module):
    """Global means, and batch norm behind them."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(2, 5, 3), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.norm(torch.relu(self.conv(x)).mean([2, 3])))


class Views(nn.Module):
    """Flattens: view of a computed size, reshape, flatten with a start, and vectors of them added."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 7), nn.Conv2d(2, 3, 7)
        self.fc1, self.fc2, self.fc3 = nn.Linear(12, 12), nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x):
        a = self.conv1(x).relu().view(x.size(0), -1)
        b = self.conv2(x).flatten(start_dim=1)
        c = self.fc1(a + b).relu().reshape(-1, 12)
        return self.fc3(F.relu(self.fc2(c)))


class Branches(nn.Module):
    """One convolution read by two batch norms, an activation added to itself, and one read by three."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm1, self.norm2, self.fc = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Linear(27, 3)

    def forward(self, x):
        x = self.conv1(x)
        x = F.relu(self.norm1(x)) + self.norm2(x)
        x += x
        y = torch.add(self.conv2(x), self.conv3(x))
        return self.fc(F.max_pool2d(F.relu(x.add(y)), 2).flatten(1))


class Odd(nn.Module):
    """Batch norm where hardware wants codes first: behind a pool, behind a ReLU, behind the flatten of a map."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        self.conv2, self.norm2 = nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4)
        self.norm3, self.fc1, self.fc2 = nn.BatchNorm1d(16), nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        x = self.norm2(F.relu(self.conv2(x)))
        x = self.norm3(torch.flatten(x, 1))
        return self.fc2(F.relu_(self.fc1(x)))


class Tanh(nn.Module):
    """For activations that take the place of tanh."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc1, self.fc2 = nn.Linear(64, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.tanh(F.max_pool2d(self.norm(self.conv(x)), 2))
        return self.fc2(self.fc1(x.flatten(1)).tanh())


def residual(shortcut):
    return ResNetOptions(8, 2, shortcut).build((8, 8, 2), 3)


def depthwise():
    return MobileNetOptions(3, (2, 3), (1, 2)).build((8, 8, 2), 3)


NETS = {
    "chain": chain, "named": named, "functional": Functional, "means": Means, "views": Views, "branches": Branches,
    "odd": Odd, "depthwise": depthwise, "option_a": lambda: residual("A"), "option_b": lambda: residual("B"),
}


def build(name, seed=0):
    """One of `NETS` in evaluation mode, with batch norms as training might leave them, and inputs for it."""
    torch.manual_seed(seed)
    model = NETS[name]() if isinstance(name, str) else name()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            if layer.affine:
                layer.weight.data = torch.randn_like(layer.weight)  # negative ones too
                layer.weight.data[0] = 0
                layer.bias.data = torch.randn_like(layer.bias)
            count = layer.num_features
            layer.running_mean = 0.3 * torch.randn(count)
            layer.running_var = torch.rand(count) + 0.1
    return model.eval(), torch.randn(24, *SHAPE)
