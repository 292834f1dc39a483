"""QIL by hand: intervals, thresholds, gradients of every parameter, exact integers, fewer levels, other images."""

import copy
from fractions import Fraction
from math import inf, nextafter

import pytest
import torch
from torch import nn

from lutq_hw.errors import InputError
from lutq_train.heterogeneous import Teacher
from lutq_train.method import quantizer_of, source_of
from lutq_train.methods.qil import SMALLEST, QilActivationOptions, QilOptions


def activation(levels, centre, width, signed=False, scaled=True):
    made = QilActivationOptions(levels, scaled=scaled).quantizer(signed)
    made.centre.data.fill_(centre)
    made.width.data.fill_(width)
    return made


def weights(entries, centre, width, gamma=None, scaled=True):
    made = QilOptions(entries, gamma is not None, scaled).quantizer(torch.ones(1))
    made.centre.data.fill_(centre)
    made.width.data.fill_(width)
    if gamma is not None:
        made.gamma.data.fill_(gamma)
    return made


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_activation_codes_by_hand():
    # The interval is 0.5 to 2, three steps of 0.5: boundaries 0.75, 1.25, 1.75.
    x = torch.tensor([-3.0, 0.0, 0.7, 0.75, 1.2, 1.25, 1.7, 1.75, 9.0])
    made = activation(4, 1.25, 0.75, scaled=False)
    assert made.boundaries() == [Fraction(3, 4), Fraction(5, 4), Fraction(7, 4)]
    torch.testing.assert_close(made(x), torch.tensor([0, 0, 0, 1, 1, 2, 2, 3, 3]) / 3)
    torch.testing.assert_close(activation(4, 1.25, 0.75)(x), torch.tensor([0, 0, 0, 1, 1, 2, 2, 3, 3]) * 2 / 3)


def test_signed_activation_codes_by_hand():
    made = activation(8, 1.25, 0.75, signed=True, scaled=False)  # symmetric: 7 levels, top 3
    assert (made.levels, made.lowest) == (7, -3)
    x = torch.tensor([-9.0, -1.75, -1.7, -0.76, -0.75, 0.0, 0.75, 1.3, 1.8])
    # A boundary belongs to the code above it, on both sides of zero.
    torch.testing.assert_close(made(x), torch.tensor([-3, -2, -2, -1, 0, 0, 1, 2, 3]) / 3)


def test_weights_by_hand():
    w = torch.tensor([-3.0, -1.3, -1.0, 0.7, 0.8, 1.26, 2.0], requires_grad=True)
    made = weights(7, 1.25, 0.75)
    y = made(w)
    torch.testing.assert_close(y, torch.tensor([-3, -2, -1, 0, 1, 2, 3]) * 2 / 3)
    upstream = torch.tensor([1.0, 2, 3, 4, 5, 6, 7])
    y.backward(upstream)
    slope = 2 * 0.5 / 0.75  # the end of the interval times a; 0.7 lies inside though its code is 0; the ends do not
    assert w.grad.tolist() == pytest.approx([0, 2 * slope, 3 * slope, 4 * slope, 5 * slope, 6 * slope, 0])
    # papers' 5.1: d what / dc = -sign(w) 0.5/d, d what / dd = -sign(w) 0.5 (|w| - c) / d^2, and the end c + d moves.
    inside = [(2, -1.3), (3, -1.0), (4, 0.7), (5, 0.8), (6, 1.26)]
    codes = [-3, -2, -1, 0, 1, 2, 3]
    end = sum(g * k / 3 for g, k in zip(upstream.tolist(), codes, strict=True))
    sign = [1 if v > 0 else -1 for _, v in inside]
    centre = 2 * sum(g * s * -0.5 / 0.75 for (g, _), s in zip(inside, sign, strict=True)) + end
    width = 2 * sum(g * s * -0.5 * (abs(v) - 1.25) / 0.75**2 for (g, v), s in zip(inside, sign, strict=True)) + end
    assert made.centre.grad.item() == pytest.approx(centre, rel=1e-5)
    assert made.width.grad.item() == pytest.approx(width, rel=1e-5)


def transformed(x, centre, width, gamma, signed, scaled):
    """The equations with nothing rounded, in plain torch."""
    sizes, sign = (x.abs(), x.sign()) if signed else (x, 1)
    position = ((sizes - centre + width) / (2 * width)).clamp(0, 1) ** gamma
    return position * sign * (centre + width if scaled else 1)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_activation_gradients_are_those_of_the_unrounded_function(signed, scaled):
    # With many levels, rounding does not show; finite differences of the function without it are the reference.
    x, upstream = draw(400).double().requires_grad_(), draw(400, seed=1).double()
    made = activation(256, 0.8, 0.5, signed, scaled).double()
    (made(x) * upstream).sum().backward()

    def loss(centre, width, x):
        return (transformed(x, centre, width, 1.0, signed, scaled) * upstream).sum().item()

    c, d, h = made.centre.item(), made.width.item(), 1e-6
    data = x.detach()
    assert made.centre.grad.item() == pytest.approx((loss(c + h, d, data) - loss(c - h, d, data)) / (2 * h), rel=2e-2)
    assert made.width.grad.item() == pytest.approx((loss(c, d + h, data) - loss(c, d - h, data)) / (2 * h), rel=2e-2)
    for n in range(20):
        step = torch.zeros_like(data)
        step[n] = h
        slope = (loss(c, d, data + step) - loss(c, d, data - step)) / (2 * h)
        assert x.grad[n].item() == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("gamma", [0.7, 1.0, 1.8])
def test_weight_gradients_with_gamma_against_finite_differences(gamma, scaled):
    w, upstream = draw(300).requires_grad_(), draw(300, seed=1)
    made = weights(255, 0.8, 0.5, gamma, scaled)
    (made(w) * upstream).sum().backward()
    start = {"centre": 0.8, "width": 0.5, "gamma": gamma}
    data, h = w.detach().double(), 1e-6

    def loss(x, values):
        y = transformed(x, *(torch.tensor(v, dtype=torch.float64) for v in values.values()), True, scaled)
        return (y * upstream).sum().item()

    for name, value in start.items():
        slope = (loss(data, start | {name: value + h}) - loss(data, start | {name: value - h})) / (2 * h)
        assert getattr(made, name).grad.item() == pytest.approx(slope, rel=2e-2, abs=0.02)
    for n in range(20):
        step = torch.zeros_like(data)
        step[n] = h
        slope = (loss(data + step, start) - loss(data - step, start)) / (2 * h)
        assert w.grad[n].item() == pytest.approx(slope, abs=1e-3)


def test_gamma_of_one_is_the_fast_form():
    w, upstream = draw(4, 5, seed=2), draw(4, 5, seed=3)
    grads = []
    for made in (weights(7, 0.8, 0.5), weights(7, 0.8, 0.5, gamma=1.0)):
        x = w.clone().requires_grad_()
        y = made(x)
        y.backward(upstream)
        grads.append((y.detach(), x.grad, made.centre.grad, made.width.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("entries", [3, 7, 15, 255])
@pytest.mark.parametrize("gamma", [None, 0.6, 1.5])
@pytest.mark.parametrize("scaled", [False, True])
def test_coded_is_forward(entries, gamma, scaled):
    w = draw(8, 3, 3, 3)
    made = QilOptions(entries, gamma is not None, scaled).quantizer(w)
    with torch.no_grad():
        made.centre *= 1.3
        if gamma is not None:
            made.gamma.fill_(gamma)
    coded = made.coded(w)
    exact = copy.deepcopy(made).double()(w.double())
    assert coded.integers.tolist() == [list(range(-(entries // 2), entries // 2 + 1))]
    assert torch.equal(coded.values.double() * float(coded.scale), exact)
    assert torch.equal(copy.deepcopy(made).double().coded(w.double()).values, coded.values)
    torch.testing.assert_close(exact.float(), made(w), rtol=1e-6, atol=1e-7)
    assert Fraction(float(made.unit())) == coded.scale
    if not scaled:
        assert coded.scale == pytest.approx(Fraction(1, entries // 2))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("levels", [2, 3, 4, 16, 256])
@pytest.mark.parametrize("scaled", [False, True])
def test_boundaries_and_values_are_forward(levels, signed, scaled):
    if signed and levels == 2:
        with pytest.raises(InputError, match=r"^activations.levels must be at least 3 where activations are signed, "
                                             r"not 2: qil is symmetric$"):
            QilActivationOptions(levels).quantizer(True)
        return
    made = activation(levels, 0.83, 0.61, signed, scaled)
    bounds, values = made.boundaries(), made.values()
    assert len(values) == made.levels == len(bounds) + 1
    assert bounds == sorted(bounds) and values[-made.lowest] == 0
    random = (1.5 * draw(300).double()).tolist()
    near = [v for bound in map(float, bounds) for v in (bound, nextafter(bound, inf), nextafter(bound, -inf))]
    expected = [float(values[sum(Fraction(v) >= bound for bound in bounds)]) for v in random + near]
    for network in (made, copy.deepcopy(made).double()):
        assert network(torch.tensor(random + near, dtype=torch.float64)).tolist() == expected
    x = torch.tensor(random).float()
    torch.testing.assert_close(made(x), made(x.double()).float(), rtol=1e-6, atol=1e-7)


def test_the_first_interval_fits_the_data():
    x = torch.linspace(-1, 1, 2001)
    made = QilActivationOptions(16).quantizer(False)
    made.calibrate(x)
    assert made.centre.item() == made.width.item() == pytest.approx(0.5, rel=0.05)
    made.calibrate(torch.cat([x.abs(), torch.tensor([5.0])]))
    assert made.centre.item() < 0.6 * 2.5  # clips what is rare
    made.calibrate(torch.zeros(5))
    assert made.unit() > 0
    assert QilOptions(127).quantizer(x).centre.item() == pytest.approx(0.5, rel=0.05)


def test_intervals_stay_possible():
    made = activation(4, -1.0, -2.0)
    assert [part.item() for part in made.interval()] == [SMALLEST, SMALLEST]
    made = activation(4, 1.0, 2.0)
    assert [part.item() for part in made.interval()] == [2, 2]
    # At the edge c = d, a step that would leave it is projected onto the edge; one that would not is free.
    for upstream, expected in (((3.0, 1.0), (2.0, 2.0)), ((1.0, 3.0), (1.0, 3.0))):
        made = activation(4, 2.0, 2.0)
        torch.autograd.backward(made.interval(), [torch.tensor(v) for v in upstream])
        assert (made.centre.grad.item(), made.width.grad.item()) == expected
    made = activation(4, 2.0, 1.0)
    torch.autograd.backward(made.interval(), [torch.tensor(3.0), torch.tensor(1.0)])
    assert (made.centre.grad.item(), made.width.grad.item()) == (3, 1)


def test_fewer_levels_keep_the_interval_and_are_state():
    made = activation(32, 0.8, 0.5)
    for levels in (16, 8, 4):
        made.set_levels(levels)
        assert (made.levels, len(made.values()), made.centre.item()) == (levels, levels, pytest.approx(0.8))
    other = QilActivationOptions(32).quantizer(False)
    other.load_state_dict(made.state_dict())
    assert other.levels == 4 and other.boundaries() == made.boundaries() and other.values() == made.values()
    signed = QilActivationOptions(32).quantizer(True)
    signed.set_levels(4)
    assert (signed.levels, signed.lowest) == (3, -1)
    with pytest.raises(InputError, match=r"^activations.levels must be from 2 to 256, not 1$"):
        made.set_levels(1)


@pytest.mark.parametrize("gamma", [False, True])
def test_state_loads_into_a_quantiser_of_other_weights(gamma):
    first, second = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    for layer in (first, second):
        QilOptions(15, gamma).attach({"conv": layer}, None)
    quantizer_of(first).set_levels(3)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.weight, second.weight)
    a, b = (quantizer_of(layer).coded(source_of(layer)) for layer in (first, second))
    assert torch.equal(a.values, b.values) and a.scale == b.scale and b.integers.tolist() == [[-1, 0, 1]]
    with pytest.raises(InputError, match=r"^weights.entries must be odd and from 3 to 255 with the method qil "
                                         r"\(2\^bits - 1\), not 4$"):
        quantizer_of(first).set_levels(4)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_activations_train(half):
    x = draw(64).to(half).requires_grad_()
    made = activation(4, 0.5, 0.5)
    y = made(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == half and made.centre.grad.dtype == torch.float32


def test_memory_order_does_not_matter():
    x = draw(2, 3, 4, 5)
    results = []
    for order in (torch.contiguous_format, torch.channels_last):
        made, leaf = activation(8, 0.8, 0.5, signed=True), x.clone(memory_format=order).requires_grad_()
        made(leaf).square().sum().backward()
        results.append((leaf.grad, made.centre.grad, made.width.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("entries", [2, 4, 257])
def test_wrong_options(entries):
    with pytest.raises(InputError, match=rf"^weights.entries must be odd and from 3 to 255 with the method qil "
                                         rf"\(2\^bits - 1\), not {entries}$"):
        QilOptions(entries)
    with pytest.raises(InputError, match=r"^activations.levels must be from 2 to 256, not 300$"):
        QilActivationOptions(300)


def test_learning_from_a_teacher_on_other_images():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    teacher = Teacher(model)
    x = draw(128, 6)
    QilOptions(3).attach({"0": model[0], "2": model[2]}, None)
    model[1] = QilActivationOptions(4).quantizer(False)
    with torch.no_grad():
        model[1].calibrate(model[0](x))
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = teacher.loss(x, model(x))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]  # ternary weights cannot do much more
    assert losses[0] == pytest.approx(teacher.loss(x, teacher.outputs(x) + losses[0]**0.5).item(), rel=1e-5)
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
