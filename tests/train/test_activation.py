"""Activation codes, their learned scale and its gradient."""

import pytest
import torch

from lutq_train.activation import Activation, best_scale


def active(bits, scale):
    made = Activation(bits)
    made.restore()
    made.size.data.fill_(scale)
    return made


def test_relu_before_calibration():
    assert Activation(4)(torch.tensor([-1.0, 0.3])).tolist() == [0.0, pytest.approx(0.3)]


def test_codes_round_half_up_and_saturate():
    x = torch.tensor([-9.0, -0.25, 0.24, 0.25, 0.74, 0.75, 1.3, 99.0])
    assert active(2, 0.5)(x).tolist() == [0, 0, 0, 0.5, 0.5, 1.0, 1.5, 1.5]
    assert active(1, 0.5)(x).tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_gradients_of_input_and_scale():
    made = active(2, 0.5)
    x = torch.tensor([-1.0, 0.3, 1.2, 5.0], requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 4.0, 8.0])
    made(x).backward(upstream)
    assert x.grad.tolist() == [0, 2, 4, 0]
    # code - x / scale: 1 - 0.6 and 2 - 2.4 inside; top = 3 above; 0 below; divided by sqrt(4 * 3)
    assert made.size.grad.item() == pytest.approx((2 * 0.4 - 4 * 0.4 + 8 * 3) / 12**0.5)


def test_scale_is_positive_whatever_the_optimiser_does():
    assert active(4, -0.5).scale == 0.5
    assert active(4, 0.0).scale == 2.0**-20


def test_calibration_happens_once():
    made = Activation(4)
    made.calibrate()
    x = torch.linspace(-1, 3, 1001)
    made(x)
    scale = made.scale.item()
    assert scale == pytest.approx(3 / 15, rel=0.1)
    made(10 * x)
    assert made.scale.item() == scale


def test_best_scale_clips_outliers():
    x = torch.cat([torch.linspace(0, 1, 1000), torch.tensor([8.0])])
    assert best_scale(x, 3) < 1.0 < 8 / 3
    assert best_scale(torch.zeros(5), 3) > 0


def test_wrong_bits():
    with pytest.raises(ValueError, match=r"^Activation bits must be from 1 to 8, not 9$"):
        Activation(9)
