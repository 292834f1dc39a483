"""LSQ by hand: codes, the gradients of equations 3 and 5, exact boundaries, and scales that are fixed powers of two."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lutq_hw.errors import InputError
from lutq_train.methods.lsq import SMALLEST, LsqOptions, best_scale


def quantizer(scale, levels=4, signed=False, fixed=False):
    made = LsqOptions(levels, fixed).quantizer(signed)
    made.size.data.fill_(scale)
    return made


def test_codes_round_half_up_and_saturate():
    x = torch.tensor([-9.0, -0.25, 0.24, 0.25, 0.74, 0.75, 1.3, 99.0])
    assert quantizer(0.5)(x).tolist() == [0, 0, 0, 0.5, 0.5, 1.0, 1.5, 1.5]
    assert quantizer(0.5, 2)(x).tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert quantizer(0.5, 4, signed=True)(x).tolist() == [-1.0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert quantizer(0.5, 3, signed=True)(x).tolist() == [-0.5, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_codes_of_signed_activations():
    assert [(q.lowest, q.top) for q in (quantizer(1.0, n, signed=True) for n in (2, 3, 4, 5, 256))] == [
        (-1, 0), (-1, 1), (-2, 1), (-2, 2), (-128, 127)]
    assert (quantizer(1.0, 5).lowest, quantizer(1.0, 5).top) == (0, 4)


def test_gradients_of_input_and_scale():
    made = quantizer(0.5)
    x = torch.tensor([-1.0, 0.3, 1.2, 5.0], requires_grad=True)
    made(x).backward(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    assert x.grad.tolist() == [0, 2, 4, 0]
    # code - x / scale: 1 - 0.6 and 2 - 2.4 inside; top = 3 above; 0 below; divided by sqrt(4 * 3)
    assert made.size.grad.item() == pytest.approx((2 * 0.4 - 4 * 0.4 + 8 * 3) / 12**0.5)


def test_gradients_of_signed_activations():
    made = quantizer(0.5, 4, signed=True)
    x = torch.tensor([-3.0, -0.7, 0.3, 0.9], requires_grad=True)
    made(x).backward(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    assert x.grad.tolist() == [0, 2, 4, 0]
    # lowest = -2 below; -1 + 1.4 and 1 - 0.6 inside; top = 1 above
    assert made.size.grad.item() == pytest.approx((-2 * 1 + 2 * 0.4 + 4 * 0.4 + 8 * 1) / 4**0.5)


@pytest.mark.parametrize("signed", [False, True])
def test_gradient_of_scale_is_that_of_the_quantiser_where_rounding_is_the_identity(signed):
    """Equation 3 by finite differences: codes stay, x / scale inside of the range does not move the value."""
    generator = torch.Generator().manual_seed(0)
    x, upstream = torch.randn(64, generator=generator), torch.randn(64, generator=generator)
    made, step = quantizer(0.3, 8, signed), 2.0**-20
    made(x).mul(upstream).sum().backward()
    low, top = made.lowest, made.top

    def value(scale, at):  # the code's rounding error is held, as straight-through has it
        inside = (x / 0.3 > low) & (x / 0.3 < top)
        error = (x / at + 0.5).floor() - x / at
        return torch.where(inside, (x / scale + error) * scale, (x / 0.3).clamp(low, top) * scale)

    x = x.double()
    moved = (value(0.3 + step, 0.3) - value(0.3 - step, 0.3)).mul(upstream).sum() / (2 * step)
    assert made.size.grad.item() == pytest.approx(float(moved) / (64 * top) ** 0.5, rel=1e-4)


def test_half_precision_keeps_its_type():
    x = torch.tensor([0.3, 1.2], dtype=torch.bfloat16, requires_grad=True)
    made = quantizer(0.5)
    y = made(x)
    y.backward(torch.ones_like(y))
    assert y.dtype == x.grad.dtype == torch.bfloat16 and made.size.grad.dtype == torch.float32


def test_scale_is_positive_whatever_the_optimiser_does():
    assert quantizer(-0.5).unit() == 0.5
    assert quantizer(0.0).unit() == SMALLEST


@pytest.mark.parametrize("levels, signed", [(4, False), (2, True), (5, True), (256, True)])
def test_boundaries_and_values_are_exact(levels, signed):
    made = quantizer(0.3, levels, signed).double()
    made.size.data.fill_(0.1875)  # boundaries that float64 holds
    bounds, values = made.boundaries(), made.values()
    assert len(bounds) == levels - 1 and len(values) == levels
    assert values[-made.lowest] == 0 and values[-1] - values[-2] == Fraction(3, 16)
    for bound, below, above in zip(bounds, values, values[1:], strict=False):
        at = [float(bound) - 2.0**-40, float(bound)]
        assert Fraction(at[1]) == bound
        assert made(torch.tensor(at, dtype=torch.float64)).tolist() == [float(below), float(above)]


@settings(max_examples=50, deadline=None)
@given(x=st.lists(st.floats(-50, 50), min_size=1, max_size=20), scale=st.floats(2**-10, 8, width=32),
       levels=st.integers(2, 256), signed=st.booleans())
def test_codes_count_boundaries(x, scale, levels, signed):
    made = quantizer(scale, levels, signed)
    unit, bounds = Fraction(float(made.unit().detach())), made.boundaries()
    for value, y in zip(x, made.double()(torch.tensor(x, dtype=torch.float64)).tolist(), strict=True):
        expected = made.values()[sum(Fraction(value) >= bound for bound in bounds)]
        nearest = min(abs(Fraction(value) - bound) for bound in bounds)
        assert y == pytest.approx(float(expected), rel=1e-12) or nearest < unit / 10**12


def test_calibration_fits_the_scale():
    made = LsqOptions(16).quantizer(False)
    made.calibrate(torch.linspace(-1, 3, 1001))
    assert made.unit().item() == pytest.approx(3 / 15, rel=0.1)
    made = LsqOptions(16).quantizer(True)
    made.calibrate(torch.linspace(-3, 3, 1001))
    assert made.unit().item() == pytest.approx(6 / 16, rel=0.1)


@pytest.mark.parametrize("signed", [False, True])
def test_a_fixed_scale_is_a_power_of_two_that_nothing_trains(signed):
    made = LsqOptions(16, fixed=True).quantizer(signed)
    assert not list(made.parameters())
    made.calibrate(torch.linspace(-1, 3, 1001))
    assert made.unit() == (0.5 if signed else 0.25)  # at least the fitted one
    x = torch.tensor([0.3, 99.0], requires_grad=True)
    made(x).backward(torch.ones(2))
    assert x.grad.tolist() == [1, 0]


def test_best_scale_clips_outliers():
    x = torch.cat([torch.linspace(0, 1, 1000), torch.tensor([8.0])])
    assert best_scale(x, 0, 3) < 1.0 < 8 / 3
    assert best_scale(torch.zeros(5), 0, 3) > 0
    assert best_scale(torch.zeros(5), -1, 0) > 0
    assert best_scale(-x, -4, 3) < 1.0


@pytest.mark.parametrize("levels", [1, 257])
def test_wrong_levels(levels):
    with pytest.raises(InputError, match=rf"^activations.levels must be from 2 to 256, not {levels}$"):
        LsqOptions(levels)
