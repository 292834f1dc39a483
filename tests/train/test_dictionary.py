"""Projections against values worked out by hand, and the rules that all of them keep."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lutq_hw.errors import InputError
from lutq_train.dictionary import CONSTRAINTS, FIXED_ENTRIES, Dictionary

CENTRES = torch.tensor([-1.0, -0.3, 0.05, 0.6])
COUNTS = torch.tensor([1, 2, 3, 4])


def project(name, centres=CENTRES, counts=COUNTS, bits=4):
    integers, scale = CONSTRAINTS[name](centres, counts, bits)
    assert scale.shape == (1,)
    return integers.tolist(), scale.item()


def test_free_scales_the_largest_to_the_top():
    integers, scale = project("free")
    assert integers == [-7, -2, 0, 4]                       # -0.3 * 7 = -2.1, 0.05 * 7 = 0.35, 0.6 * 7 = 4.2
    assert scale == pytest.approx(1 / 7)


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


def test_every_sum_of_two_is_one():
    for value in project("sum_of_two", torch.linspace(0.001, 1, 1000), bits=8)[0]:
        assert min(bin(int(value)).count("1"), *(bin(int(value) + (1 << s)).count("1") for s in range(8))) <= 2


def test_binary_and_ternary_take_the_mean_magnitude():
    integers, scale = project("binary", torch.tensor([-0.5, 0.25]), torch.tensor([3, 1]))
    assert (integers, scale) == ([-1, 1], (3 * 0.5 + 0.25) / 4)
    integers, scale = project("ternary", torch.tensor([-0.5, 0.0, 0.25]), torch.tensor([3, 9, 1]))
    assert (integers, scale) == ([-1, 0, 1], (3 * 0.5 + 0.25) / 4)


def test_ternary_without_any_weight_beyond_zero_keeps_its_scale():
    assert project("ternary", torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([0, 9, 0])) == ([-1, 0, 1], 0.5)


@pytest.mark.parametrize("name", CONSTRAINTS)
@settings(max_examples=100, deadline=None)
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
    assert integers.abs().max() <= 1 << (bits - 1)
    again, same = CONSTRAINTS[name](integers * scale, counts, bits)
    torch.testing.assert_close(again * same, integers * scale)
    for row, alone in zip(integers, centres, strict=True):  # layers do not influence each other
        assert torch.equal(CONSTRAINTS[name](alone, counts[0], bits)[0], row)


@pytest.mark.parametrize("spec", [
    Dictionary("free", 5), Dictionary("power_of_two", 8, zero=True), Dictionary("ternary", 3), Dictionary("binary", 2),
    Dictionary("free", 2, zero=True)])
@pytest.mark.parametrize("weight", [torch.linspace(-2, 1, 50), torch.linspace(0.5, 1, 9), torch.zeros(4)])
def test_start_is_ascending_and_pins_zero(spec, weight):
    centres, zero = spec.start(weight)
    assert len(centres) == spec.entries and (centres.diff() >= 0).all()
    assert (zero is None) == (not spec.pinned)
    if zero is not None:
        assert centres[zero] == 0


@pytest.mark.parametrize("values, text", [
    ({"constraint": "float"}, ("weights.constraint must be one of free, power_of_two, sum_of_two, binary, ternary, "
                              "not 'float'")),
    ({"constraint": "ternary", "entries": 4}, "weights.entries must be 3 for a ternary dictionary, not 4"),
    ({"entries": 300}, "weights.entries must be from 2 to 256, not 300"),
    ({"bits": 1}, "weights.bits must be from 2 to 16, not 1"),
    ({"constraint": "binary", "entries": 2, "zero": True},
     "weights.zero must be false for a binary dictionary; ternary is the one with a zero"),
])
def test_wrong_dictionary(values, text):
    with pytest.raises(InputError) as caught:
        Dictionary(**values)
    assert str(caught.value) == text
