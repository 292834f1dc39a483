"""Folding: thresholds by hand, and the integer result against float64 for any batch norm, scale and dictionary."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutq_hw.network import Thresholds
from lutq_train import fold
from lutq_train.fold import Norm

QUARTER = Fraction(1, 4)


def channel(norm, *, unit=QUARTER, bias=0.0, scale=1.0, top=3, low=-100, high=100):
    return fold.channel(norm, unit=unit, bias=bias, scale=scale, top=top, low=low, high=high)


def test_no_norm():
    # acc / 4 >= t - 1/2; exactly on the boundary counts, as floor(x + 1/2) does
    assert channel(Norm()) == ([2, 6, 10], False)


def test_bias_and_shift():
    assert channel(Norm(), bias=0.25) == ([1, 5, 9], False)
    assert channel(Norm(beta=0.3)) == ([1, 5, 9], False)       # 0.8, 4.8, 8.8 round up
    assert channel(Norm(mean=0.3)) == ([4, 8, 12], False)      # 3.2, 7.2, 11.2


def test_negative_gamma_counts_downwards():
    # 4 - acc / 4 >= t - 1/2: acc <= 18 - 4 t
    assert channel(Norm(gamma=-1.0, beta=4.0)) == ([6, 10, 14], True)
    assert channel(Norm(gamma=-1.0, beta=4.1)) == ([6, 10, 14], True)
    assert channel(Norm(gamma=-1.0, beta=3.9)) == ([5, 9, 13], True)


def test_variance_is_a_square_root():
    assert channel(Norm(var=3.75, eps=0.25)) == ([4, 12, 20], False)  # deviation exactly 2
    assert channel(Norm(var=2.0)) == ([3, 9, 15], False)              # 2.83, 8.49, 14.14


def test_zero_gamma_is_constant():
    assert channel(Norm(gamma=0.0, beta=2.2)) == ([-100, -100, 101], False)
    assert channel(Norm(gamma=0.0, beta=-5.0)) == ([101, 101, 101], False)
    assert channel(Norm(gamma=0.0, beta=9.0)) == ([-100, -100, -100], False)


def test_thresholds_beyond_the_sums_stay_next_to_them():
    assert channel(Norm(), low=4, high=8) == ([4, 6, 9], False)
    assert channel(Norm(gamma=-1.0, beta=4.0), low=8, high=12) == ([7, 10, 12], True)


@given(st.fractions(min_value=0, max_value=1 << 40))
def test_root(value):
    assert fold.root(value * value) == value
    error = value - fold.root(value) ** 2
    assert 0 <= error < Fraction(1 << 24, 1 << fold.ROOT_PLACES)


finite = st.floats(-100, 100, width=32)
positive = st.floats(2**-10, 100, width=32)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), top=st.integers(1, 255), input_scale=positive, dictionary_scale=positive, scale=positive)
def test_integers_decide_as_float64_does_apart_from_ties(data, top, input_scale, dictionary_scale, scale):
    channels = data.draw(st.integers(1, 3))
    eps = data.draw(st.sampled_from([1e-5, 1e-3, 0.0]))
    rows = [(data.draw(finite), data.draw(finite), data.draw(finite), data.draw(positive)) for _ in range(channels)]
    biases = [data.draw(finite) for _ in range(channels)]
    low = np.array([data.draw(st.integers(-5000, 0)) for _ in range(channels)])
    high = np.array([data.draw(st.integers(0, 5000)) for _ in range(channels)])
    values, descending = fold.layer([Norm(*row, eps=eps) for row in rows],
                                    unit=Fraction(input_scale) * Fraction(dictionary_scale), biases=biases, scale=scale,
                                    top=top, low=low, high=high)
    step = Thresholds(values, bits=top.bit_length(), descending=descending)
    for o, (gamma, beta, mean, var) in enumerate(rows):
        acc = np.arange(low[o], high[o] + 1)
        z = acc * (input_scale * dictionary_scale) + biases[o]
        steps = (gamma * (z - mean) / np.sqrt(var + eps) + beta) / scale + 0.5
        size = (np.abs(gamma) * (np.abs(z).max() + abs(mean)) / np.sqrt(var + eps) + abs(beta)) / scale + 1
        tie = np.abs(steps - np.round(steps)) < 1e-13 * size
        codes = step.apply(np.repeat(acc[:, None], channels, axis=1))[:, o]
        expected = np.clip(np.floor(steps), 0, top)
        assert (codes == expected)[~tie].all()
        assert np.abs(codes - expected).max(initial=0) <= 1


def test_a_layer_needs_one_bias_for_each_channel():
    with pytest.raises(ValueError, match="zip"):
        fold.layer([Norm()], unit=QUARTER, biases=[], scale=1.0, top=1, low=np.zeros(1), high=np.ones(1))
