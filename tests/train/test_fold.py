"""Folding: thresholds by hand, and against exact arithmetic for every sum, any batch norm, scale, clamp and levels."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutq_hw.network import Thresholds
from lutq_train import fold
from lutq_train.edges import Levels
from lutq_train.fold import Affine, Norm

QUARTER = Affine(Fraction(1, 4))
BOUNDS = [Fraction(2 * t - 1, 2) for t in (1, 2, 3)]


def channel(norm, *, before=QUARTER, bounds=BOUNDS, low=-100, high=100, **more):
    return fold.channel(before.then(norm.affine), bounds, low, high, **more)


def test_no_norm():
    # acc / 4 >= t - 1/2; exactly on the boundary counts, as floor(x + 1/2) does
    assert channel(Norm()) == ([2, 6, 10], False)


def test_bias_and_shift():
    assert channel(Norm(), before=Affine(Fraction(1, 4), Fraction(1, 4))) == ([1, 5, 9], False)
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


def test_a_slope_takes_the_place_of_gamma_and_variance():
    assert channel(Norm(gamma=3.0, var=2.0, slope=0.5)) == ([4, 12, 20], False)
    assert channel(Norm(gamma=3.0, beta=1.0, mean=2.0, var=2.0, slope=-0.5)) == ([-4, 4, 12], True)


def test_zero_gamma_is_constant():
    assert channel(Norm(gamma=0.0, beta=2.2)) == ([-100, -100, 101], False)
    assert channel(Norm(gamma=0.0, beta=-5.0)) == ([101, 101, 101], False)
    assert channel(Norm(gamma=0.0, beta=9.0)) == ([-100, -100, -100], False)


def test_thresholds_beyond_the_sums_stay_next_to_them():
    assert channel(Norm(), low=4, high=8) == ([4, 6, 9], False)
    assert channel(Norm(gamma=-1.0, beta=4.0), low=8, high=12) == ([7, 10, 12], True)


def test_thresholds_that_every_sum_reaches_or_none():
    assert channel(Norm(), always=2, never=1) == ([-100, -100, 2, 6, 10, 101], False)
    assert channel(Norm(gamma=-1.0, beta=4.0), always=2, never=1) == ([-101, 6, 10, 14, 100, 100], True)
    assert channel(Norm(gamma=0.0, beta=2.2), always=1, never=1) == ([-100, -100, -100, 101, 101], False)


@given(st.fractions(min_value=0, max_value=1 << 40))
def test_root(value):
    assert fold.root(value * value) == value
    error = value - fold.root(value) ** 2
    assert 0 <= error < Fraction(1 << 24, 1 << fold.ROOT_PLACES)


number = st.fractions(min_value=-20, max_value=20, max_denominator=40)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_sum_gets_the_code_of_exact_arithmetic(data):
    """Brute force over all sums: slopes of both signs and zero, clamps, codes that begin above their type's smallest."""
    channels = data.draw(st.integers(1, 3))
    affines = [Affine(data.draw(st.one_of(number, st.just(Fraction(0)))), data.draw(number)) for _ in range(channels)]
    bounds = sorted(data.draw(st.lists(number, min_size=1, max_size=7)))
    clamp = sorted([data.draw(number), data.draw(number)])
    least, most = (bound if data.draw(st.booleans()) else None for bound in clamp)
    low = np.array([data.draw(st.integers(-40, 0)) for _ in range(channels)])
    high = np.array([data.draw(st.integers(0, 40)) for _ in range(channels)])
    signed = data.draw(st.booleans())
    bits = data.draw(st.integers((len(bounds) + 1).bit_length(), 4))
    smallest = -(1 << (bits - 1)) if signed else 0
    lowest = smallest + data.draw(st.integers(0, (1 << bits) - 1 - len(bounds)))
    values, descending = fold.layer(affines, bounds, low, high, clamp=(least, most), always=lowest - smallest)
    assert values.shape == (channels, len(bounds) + lowest - smallest) and (np.diff(values) >= 0).all()
    step = Thresholds(values, bits=bits, signed=signed, descending=descending)
    for o, affine in enumerate(affines):
        acc = np.arange(low[o], high[o] + 1)
        codes = step.apply(np.repeat(acc[:, None], channels, axis=1))[:, o].tolist()
        for n, code in zip(acc.tolist(), codes, strict=True):
            y = affine.a * n + affine.b
            y = y if least is None else max(y, least)
            y = y if most is None else min(y, most)
            assert code == lowest + sum(y >= bound for bound in bounds)


finite = st.floats(-100, 100, width=32)
positive = st.floats(2**-10, 100, width=32)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), top=st.integers(1, 255), unit=positive, scale=positive)
def test_integers_decide_as_float64_does_apart_from_ties(data, top, unit, scale):
    channels = data.draw(st.integers(1, 3))
    eps = data.draw(st.sampled_from([1e-5, 1e-3, 0.0]))
    rows = [(data.draw(finite), data.draw(finite), data.draw(finite), data.draw(positive)) for _ in range(channels)]
    biases = [data.draw(finite) for _ in range(channels)]
    low = np.array([data.draw(st.integers(-5000, 0)) for _ in range(channels)])
    high = np.array([data.draw(st.integers(0, 5000)) for _ in range(channels)])
    affines = [Affine(Fraction(unit), Fraction(bias)).then(Norm(*row, eps=eps).affine)
               for row, bias in zip(rows, biases, strict=True)]
    bounds = [Fraction(2 * t - 1, 2) * Fraction(scale) for t in range(1, top + 1)]
    values, descending = fold.layer(affines, bounds, low, high)
    step = Thresholds(values, bits=top.bit_length(), descending=descending)
    for o, (gamma, beta, mean, var) in enumerate(rows):
        acc = np.arange(low[o], high[o] + 1)
        z = acc * unit + biases[o]
        steps = (gamma * (z - mean) / np.sqrt(var + eps) + beta) / scale + 0.5
        size = (np.abs(gamma) * (np.abs(z).max() + abs(mean)) / np.sqrt(var + eps) + abs(beta)) / scale + 1
        tie = np.abs(steps - np.round(steps)) < 1e-13 * size
        codes = step.apply(np.repeat(acc[:, None], channels, axis=1))[:, o]
        expected = np.clip(np.floor(steps), 0, top)
        assert (codes == expected)[~tie].all()
        assert np.abs(codes - expected).max(initial=0) <= 1


@given(st.lists(number, min_size=2, max_size=9, unique=True), st.integers(-4, 0))
def test_levels_are_integers_times_the_largest_unit(values, lowest):
    values = sorted(values)
    found = Levels.of(lowest, values)
    assert [n * found.unit for n in found.integers] == values and found.unit > 0
    assert found.uniform == ({b - a for a, b in pairwise(values)} == {found.unit} and values[0] == lowest * found.unit)
    assert np.gcd.reduce(found.integers) == 1


def test_types_and_rows_of_levels():
    found = Levels.of(-2, [Fraction(n, 3) for n in (-4, -1, 0, 2, 6)])
    assert (found.integers, found.unit, found.uniform, found.bits) == ((-4, -1, 0, 2, 6), Fraction(1, 3), False, 3)
    kind = found.type((5,))
    assert (kind.shape, kind.min, kind.max) == ((5,), -4, 3)
    assert found.rows(kind).tolist() == [-4, -4, -4, -1, 0, 2, 6, 6]
    assert Levels.of(0, [Fraction(0), Fraction(2, 5), Fraction(4, 5)]) == Levels(0, (0, 1, 2), Fraction(2, 5))


def test_a_layer_needs_bounds_for_each_channel():
    with pytest.raises(ValueError, match="zip"):
        fold.layer([Affine()], BOUNDS, np.zeros(2), np.ones(1))
