"""Constraints on dictionaries against values worked out by hand, and the rules that all of them keep."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lutq_train.constraints import CONSTRAINTS, FIXED_ENTRIES, signed_digit_sums, signed_digits

CENTRES = torch.tensor([-1.0, -0.3, 0.05, 0.6])
COUNTS = torch.tensor([1, 2, 3, 4])


def project(name, centres=CENTRES, counts=COUNTS, bits=4):
    integers, scale = CONSTRAINTS[name](centres, counts, bits)
    assert scale.shape == (1,)
    return integers.tolist(), scale.item()


def adders(value):
    """Fewest signed powers of two that sum to ``value``, by search."""
    reach, count = {0}, 0
    while value not in reach:
        reach |= {known + sign * (1 << power) for known in reach for power in range(12) for sign in (-1, 1)}
        count += 1
    return count


def test_free_scales_the_largest_to_the_top():
    integers, scale = project("free")
    assert integers == [-7, -2, 0, 4]                       # -0.3 * 7 = -2.1, 0.05 * 7 = 0.35, 0.6 * 7 = 4.2
    assert scale == pytest.approx(1 / 7)


def test_symmetric_pairs_take_the_mean_magnitude_of_their_weights():
    # (1 * 1 + 0.6 * 4) / 5 = 0.68 and (0.3 * 2 + 0.05 * 3) / 5 = 0.15, which is 1.54 of 7
    integers, scale = project("symmetric")
    assert scale == pytest.approx(0.68 / 7)
    assert integers == [-7, -2, 2, 7]
    assert project("symmetric", torch.tensor([-1.0, 0.0, 0.5]), torch.tensor([1, 5, 1])) == (
        [-7, 0, 7], pytest.approx(0.75 / 7))


def test_symmetric_pairs_without_weights_keep_their_place():
    integers, scale = project("symmetric", torch.tensor([-0.9, -0.2, 0.4, 1.1]), torch.tensor([0, 1, 1, 0]))
    assert integers == [-7, -2, 2, 7] and scale == pytest.approx(1 / 7)  # 0.3 * 7 = 2.1


def test_power_of_two_rounds_the_exponent():
    # log2: 0, -1.74 -> -2, -4.32 -> -4 but not below 0 - 3, -0.74 -> -1; the smallest becomes 2^0
    assert project("power_of_two") == ([-8, -2, 1, 4], 2.0**-3)
    assert project("power_of_two", bits=8) == ([-16, -4, 1, 8], 2.0**-4)


def test_power_of_two_keeps_a_zero_and_does_not_count_it():
    assert project("power_of_two", torch.tensor([-0.5, 0.0, 1.1])) == ([-1, 0, 2], 0.5)
    assert project("power_of_two", torch.zeros(3))[0] == [0, 0, 0]


def test_sum_of_two_takes_the_nearest():
    # 4 bits: 0 1 2 3 4 5 6 7 8 without none; in units of 1/8 the centres are -8, -2.4, 0.4, 4.8
    assert project("sum_of_two") == ([-8, -2, 0, 5], 1 / 8)
    # 6 bits, units of 1/32: 11 is no sum of two powers (10, 12 are), 13.4 is nearest to 14 = 16 - 2
    assert project("sum_of_two", torch.tensor([11.4, 13.4, 32.0]) / 32, bits=6) == ([12, 14, 32], 1 / 32)


def test_sum_of_three_takes_the_nearest():
    # 7 bits, units of 1/64: 11 = 8 + 2 + 1 and 13 = 8 + 4 + 1 are, 43 = 32 + 8 + 2 + 1 is not (42 and 44 are)
    assert project("sum_of_three", torch.tensor([11.4, 13.4, 43.4, 64.0]) / 64, bits=7) == ([11, 13, 44, 64], 1 / 64)


@pytest.mark.parametrize("digits", [2, 3])
def test_sums_of_signed_digits_are_all_that_there_are(digits):
    assert signed_digit_sums(7, digits) == tuple(value for value in range(65) if adders(value) <= digits)


def test_digits_of_the_canonical_form_are_the_fewest():
    values = torch.arange(-300, 301)
    assert signed_digits(values).tolist() == [adders(abs(value)) for value in values.tolist()]
    assert signed_digits(torch.tensor([7.0, -127.0, 0.0])).tolist() == [2.0, 2.0, 0.0]


def test_uniform_is_one_number_of_least_squares():
    # Integers -2 -1 0 1, counts 1 2 3 4: (2 * 1 + 1 * 2 * 0.3 + 4 * 0.6) / (4 + 2 + 4)
    integers, scale = project("uniform")
    assert integers == [-2, -1, 0, 1] and scale == pytest.approx((2 + 0.6 + 2.4) / 10)
    integers, scale = project("uniform", torch.tensor([-0.5, 0.1, 0.7]), torch.tensor([1, 9, 3]))
    assert integers == [-1, 0, 1] and scale == pytest.approx((0.5 + 2.1) / 4)


def test_uniform_without_any_weight_beyond_zero_keeps_its_scale():
    assert project("uniform", torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([0, 9, 0])) == ([-1, 0, 1], 0.5)


def test_binary_and_ternary_take_the_mean_magnitude():
    integers, scale = project("binary", torch.tensor([-0.5, 0.25]), torch.tensor([3, 1]))
    assert (integers, scale) == ([-1, 1], (3 * 0.5 + 0.25) / 4)
    integers, scale = project("ternary", torch.tensor([-0.5, 0.0, 0.25]), torch.tensor([3, 9, 1]))
    assert (integers, scale) == ([-1, 0, 1], (3 * 0.5 + 0.25) / 4)


def test_ternary_without_any_weight_beyond_zero_keeps_its_scale():
    assert project("ternary", torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([0, 9, 0])) == ([-1, 0, 1], 0.5)


@pytest.mark.parametrize("name", CONSTRAINTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_projections_keep_order_range_and_themselves(name, data):
    count = FIXED_ENTRIES.get(name, 6)
    value = st.floats(-100, 100, width=32)
    rows = data.draw(st.lists(st.lists(value, min_size=count, max_size=count), min_size=1, max_size=3))
    bits = data.draw(st.integers(2, 9))
    centres = torch.tensor(rows).sort(-1).values
    counts = torch.ones_like(centres)
    integers, scale = CONSTRAINTS[name](centres, counts, bits)
    assert integers.shape == centres.shape and scale.shape == (len(rows), 1)
    assert (scale > 0).all() and torch.equal(integers, integers.round())
    assert (integers.diff() >= 0).all()
    assert integers.abs().max() <= (3 if name == "uniform" else 1 << (bits - 1))
    if name == "symmetric":
        assert torch.equal(integers, -integers.flip(-1))
    again, same = CONSTRAINTS[name](integers * scale, counts, bits)
    torch.testing.assert_close(again * same, integers * scale)
    for row, alone in zip(integers, centres, strict=True):  # layers do not influence each other
        assert torch.equal(CONSTRAINTS[name](alone, counts[0], bits)[0], row)
