"""SYQ and DoReFa by hand: signs, dead zone, subgroups, the authors' gradients, and exact integers for hardware."""

import copy
from fractions import Fraction
from math import inf, nextafter

import pytest
import torch
from torch import nn

from lutq_hw.errors import InputError
from lutq_train.method import quantizer_of, source_of
from lutq_train.methods.syq import SMALLEST, DorefaOptions, SyqOptions

SHAPE = (3, 2, 3, 3)
GROUPS = {"layer": 1, "row": 3, "pixel": 9, "channel": 3}


def weight(seed=0, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def described(coded):
    """The weights that a `CodedWeights` stands for, in float64."""
    scale = coded.scale if isinstance(coded.scale, tuple) else (coded.scale,)
    scale = torch.tensor([float(value) for value in scale], dtype=torch.float64)
    return coded.values.double() * scale.view(-1, *[1] * (coded.assignments.ndim - 1))


def test_ternary_by_hand():
    w = torch.tensor([[1.0, -0.5], [0.04, -0.05]], requires_grad=True)
    made = SyqOptions(3, "layer", eta=0.05).quantizer(w.detach())
    alpha = 1.59 / 4
    assert made.alpha.item() == pytest.approx(alpha)
    y = made(w)
    assert y.tolist() == [[pytest.approx(alpha), pytest.approx(-alpha)], [0, 0]]  # |-0.05| is not above 0.05 * 1
    y.backward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert w.grad.tolist() == [[pytest.approx(alpha), pytest.approx(2 * alpha)], [3, 4]]  # 1 for pruned ones
    assert made.alpha.grad.item() == 1 - 2


def test_binary_by_hand():
    w = torch.tensor([[1.0, -0.5], [0.0, -0.01]], requires_grad=True)
    made = SyqOptions(2, "layer").quantizer(w.detach())
    alpha = 1.51 / 4
    y = made(w)
    assert y.tolist() == [[pytest.approx(alpha), pytest.approx(-alpha)]] * 2
    y.sum().backward()
    assert w.grad.tolist() == [[pytest.approx(alpha)] * 2] * 2
    assert made.alpha.grad.item() == 0


@pytest.mark.parametrize("subgroup", GROUPS)
def test_alphas_begin_as_mean_magnitudes_of_their_subgroups(subgroup):
    w = weight()
    alpha = SyqOptions(3, subgroup).quantizer(w).alpha.detach()
    axes = {"layer": (0, 1, 2, 3), "row": (0, 1, 3), "pixel": (0, 1), "channel": (1, 2, 3)}[subgroup]
    assert alpha.numel() == GROUPS[subgroup]
    torch.testing.assert_close(alpha, w.abs().mean(axes).flatten())


@pytest.mark.parametrize("subgroup", GROUPS)
def test_dense_layers_have_one_alpha(subgroup):
    made = SyqOptions(3, subgroup).quantizer(weight(shape=(4, 5)))
    assert made.alpha.shape == (1,) and made.unit().ndim == 0


@pytest.mark.parametrize("entries", [2, 3])
@pytest.mark.parametrize("subgroup", GROUPS)
def test_coded_is_forward(entries, subgroup):
    w = weight()
    made = SyqOptions(entries, subgroup, eta=0.3).quantizer(w)
    with torch.no_grad():
        made.alpha[0] = -0.3  # nothing keeps an alpha positive
        made.alpha[-1] *= 1.7
    coded, exact = made.coded(w), copy.deepcopy(made).double()
    assert torch.equal(described(coded), exact(w.double()))
    torch.testing.assert_close(described(coded).float(), made(w), rtol=1e-6, atol=0)
    assert (coded.integers.diff(dim=1) > 0).all() and coded.integers.dtype == torch.int64
    assert made.unit().flatten().tolist() == [float(s) for s in (coded.scale if isinstance(coded.scale, tuple)
                                                                  else (coded.scale,))]
    if subgroup in ("row", "pixel"):
        assert coded.integers.shape == (GROUPS[subgroup], entries) and coded.integers.max() == 127
        assert coded.subgroups.shape == SHAPE[1:]
        assert coded.subgroups[1].tolist() == ([[0] * 3, [1] * 3, [2] * 3] if subgroup == "row" else
                                               [[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    else:
        assert coded.integers.tolist() == [[-1, 1] if entries == 2 else [-1, 0, 1]] and coded.subgroups is None


def test_alphas_are_rounded_to_the_integers_of_hardware():
    w = torch.ones(1, 1, 1, 3)
    made = SyqOptions(2, "pixel", bits=3).quantizer(w)
    with torch.no_grad():
        made.alpha.copy_(torch.tensor([3.0, 1.4, 0.6]))
    assert made.coded(w).integers.tolist() == [[-3, 3], [-1, 1], [-1, 1]]
    assert made(w).flatten().tolist() == [3, 1, 1] and made.unit() == 1
    made(w).backward(torch.tensor([[[[1.0, 2.0, 4.0]]]]))
    assert made.alpha.grad.tolist() == [1, 2, 4]  # straight through the rounding


def test_an_alpha_of_zero_still_has_a_scale():
    w = weight()
    for subgroup in GROUPS:
        made = SyqOptions(3, subgroup).quantizer(w)
        made.alpha.data.zero_()
        assert made.unit().eq(SMALLEST).all()
        assert torch.equal(described(made.coded(w)), copy.deepcopy(made).double()(w.double()))


@pytest.mark.parametrize("subgroup", ["layer", "channel"])
def test_gradient_of_alpha_against_finite_differences(subgroup):
    w, upstream = weight(), weight(1)
    made = SyqOptions(3, subgroup, eta=0.2).quantizer(w)
    (made(w) * upstream).sum().backward()
    step = 2.0**-6  # linear in alpha
    for n in range(made.alpha.numel()):
        moved = []
        for sign in (1, -1):
            other = copy.deepcopy(made)
            other.alpha.data[n] += sign * step
            moved.append((other(w).double() * upstream).sum().item())
        assert made.alpha.grad[n].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=1e-3)


@pytest.mark.parametrize("subgroup", GROUPS)
def test_state_loads_into_a_quantiser_of_other_weights(subgroup):
    first, second = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    for layer in (first, second):
        SyqOptions(3, subgroup).attach({"conv": layer}, None)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.weight, second.weight)
    a, b = (quantizer_of(layer).coded(source_of(layer)) for layer in (first, second))
    assert torch.equal(a.values, b.values) and a.scale == b.scale


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 4), torch.randn(64, 8)
    goal = x @ (0.5 * torch.randn(8, 4).sign())
    SyqOptions(2, "layer").attach({"fc": layer}, None)
    optimizer = torch.optim.Adam(layer.parameters(), 0.02)
    losses = []
    for _ in range(100):
        loss = (layer(x) - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("options, text", [
    ({"entries": 4}, r"^weights.entries must be 2 or 3 with the method syq, not 4$"),
    ({"subgroup": "kernel"}, r"^weights.subgroup must be one of layer, row, pixel, channel, not 'kernel'$"),
    ({"eta": 1.5}, r"^weights.eta must be at least 0 and below 1, not 1.5$"),
    ({"bits": 1}, r"^weights.bits must be from 2 to 16, not 1$"),
])
def test_wrong_options(options, text):
    with pytest.raises(InputError, match=text):
        SyqOptions(**options)


def test_dorefa_by_hand():
    x = torch.tensor([-1.0, 0.16, 0.17, 0.5, 0.9, 3.0], requires_grad=True)
    y = DorefaOptions(4).quantizer(False)(x)
    torch.testing.assert_close(y, torch.tensor([0, 0, 1, 2, 3, 3]) / 3)
    y.backward(torch.arange(1.0, 7.0))
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]
    x = torch.tensor([-2.0, -0.6, -0.4, 0.0, 0.6], requires_grad=True)
    signed = DorefaOptions(4).quantizer(True)
    assert (signed.levels, signed.lowest) == (3, -1)
    y = signed(x)
    assert y.tolist() == [-1, -1, 0, 0, 1]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256])
def test_dorefa_boundaries_and_values_are_forward(levels, signed):
    if signed and levels == 2:
        with pytest.raises(InputError, match=r"^activations.levels must be at least 3 where activations are signed, "
                                             r"not 2: dorefa is symmetric$"):
            DorefaOptions(levels).quantizer(True)
        return
    made = DorefaOptions(levels).quantizer(signed)
    bounds, values = made.boundaries(), made.values()
    assert len(values) == made.levels == len(bounds) + 1
    assert values[-1] == (made.levels - 1 + made.lowest) * Fraction(float(made.unit()))
    random = (3 * torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1.5).tolist()
    near = [v for bound in map(float, bounds) for v in (bound, nextafter(bound, inf), nextafter(bound, -inf))]
    expected = [float(values[sum(Fraction(v) >= bound for bound in bounds)]) for v in random + near]
    assert made(torch.tensor(random + near, dtype=torch.float64)).tolist() == expected
    x = torch.tensor(random).float()
    torch.testing.assert_close(made(x), made(x.double()).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("levels", [1, 257])
def test_wrong_dorefa_levels(levels):
    with pytest.raises(InputError, match=rf"^activations.levels must be from 2 to 256, not {levels}$"):
        DorefaOptions(levels)
