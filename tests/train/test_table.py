"""Tables of neural units: the equations of arXiv 1906.04798 by hand, and that tables decide as boundaries do."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutq_hw.network import (
    ActivationTable,
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Network,
    Output,
    TensorType,
    Thresholds,
)
from lutq_train import fold
from lutq_train.fold import Affine
from lutq_train.table import LayerTable, activation_table, compactness, multiply_free


def rows_of(affines, bounds):
    """Thresholds of each channel's integer sums, as export makes them."""
    return [fold.channel(affine, bounds, -1 << 40, 1 << 40)[0] for affine in affines]


def decided(found, acc):
    codes, shift, offsets = found
    return codes[np.clip((acc + offsets) >> shift, 0, len(codes) - 1)]


def test_a_unit_worked_by_hand():
    # Levels 0 and 1/2 times weights -1 and 1/4: sums are in units of 1/8. Boundaries 1/2, 1, 2: entries of 1/2 = 4 units.
    affines = [Affine(Fraction(1, 8), Fraction(0)), Affine(Fraction(1, 8), Fraction(1, 3))]
    found = activation_table(rows_of(affines, [Fraction(1, 2), Fraction(1), Fraction(2)]), lowest=0, levels=4)
    assert found is not None
    codes, shift, offsets = found
    # With s = 4, step 1/2 and x_min = 1/4, s b / step + s / 2 - s x_min / step = 8 b + 2 - 2; 8 / 3 is rounded down.
    assert (shift, offsets.tolist()) == (2, [0, 2])
    # Entry n begins at n / 2.
    assert codes.tolist() == [0, 1, 2, 2, 3]
    # acc / 8 + 1/3 reaches 1/2 at acc = 2, and 2 at 14.
    assert decided(found, np.array([[3, 1], [4, 2], [15, 13], [16, 14]])).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_tables_decide_as_boundaries_do(data):
    unit = Fraction(1, 1 << data.draw(st.integers(0, 6)))
    first = data.draw(st.fractions(min_value=-20, max_value=20, max_denominator=40))
    steps = sorted(data.draw(st.lists(st.integers(0, 200), max_size=5)))
    bounds = [first, *(first + step * unit for step in steps)]  # gaps are whole units, whatever a bias adds
    affines = [Affine(unit, Fraction(n, 7)) for n in data.draw(st.lists(st.integers(-40, 40), min_size=1, max_size=3))]
    found = activation_table(rows_of(affines, bounds), lowest=-2, levels=len(bounds) + 1)
    assert found is not None
    sums = np.arange(-3000, 3001)
    codes = decided(found, np.repeat(sums[:, None], len(affines), 1))
    for o, affine in enumerate(affines):
        starts = [-((affine.b - bound) // unit) for bound in bounds]  # the least sums with affine(acc) >= bound
        np.testing.assert_array_equal(codes[:, o], -2 + np.searchsorted(starts, sums, side="right"))


def test_one_table_for_all_channels_with_the_largest_shift():
    found = activation_table([[-5, 3, 27], [100, 108, 132]], lowest=-1, levels=4)
    assert found is not None
    codes, shift, offsets = found
    assert (codes.tolist(), shift, offsets.tolist()) == ([-1, 0, 1, 1, 1, 2], 3, [13, -92])
    sums = np.arange(-300, 300)
    for bounds, offset in zip(([-5, 3, 27], [100, 108, 132]), offsets, strict=True):
        ours = codes[np.clip((sums + offset) >> shift, 0, len(codes) - 1)]
        np.testing.assert_array_equal(ours, -1 + np.searchsorted(bounds, sums, side="right"))


def test_no_table_for_channels_of_different_scale_or_too_many_entries():
    assert activation_table([[0, 4], [0, 6]], lowest=0, levels=3) is None
    assert activation_table([[0, 4095]], lowest=0, levels=3) is None
    assert activation_table([[0, 4094]], lowest=0, levels=3, largest=2048) is None
    assert activation_table([[0, 4094]], lowest=0, levels=3, largest=2049) is not None
    assert activation_table([[1 << 32, (1 << 32) + 4]], lowest=0, levels=3) is None


def test_one_boundary_and_equal_boundaries():
    for bounds, levels in (([7], 2), ([7, 7, 7], 4)):
        found = activation_table([bounds], lowest=0, levels=levels)
        assert found is not None
        codes, shift, offsets = found
        assert (codes.tolist(), shift, offsets.tolist()) == ([0, levels - 1], 0, [-6])
    with pytest.raises(ValueError, match=r"^boundaries must number 3 in every channel, not 2$"):
        activation_table([[1, 2]], lowest=0, levels=4)


def _network(first: Codebook, second: Codebook) -> Network:
    step = Thresholds(np.tile([[1, 2, 5, 9]], (2, 1)), bits=3)  # five of the eight codes
    return Network("net", (
        Input("image", TensorType((4, 4, 1), bits=2)),
        Conv2d("conv", "image", first, step=step),
        MaxPool2d("pool", "conv", (2, 2)),
        Flatten("flat", "pool"),
        Dense("fc", "flat", second, step=ActivationTable([-1, 0, 0, 1], shift=2, bits=2, signed=True)),
        Dense("end", "fc", Codebook(assignments=[[0, 1]], dictionary=[-4, 8])),
        Output("out", "end"),
    ))


def test_compactness_by_hand():
    first = Codebook(assignments=np.arange(2).reshape(2, 1, 1, 1), dictionary=[-2, 2, 5])  # 5 is not used
    # Columns 0, a and -a; the rows for codes 5 to 7 cannot be reached, row 0 is zero and row 4 equals row 3.
    column = np.array([0, 1, 2, 3, 3, 90, 91, 92])
    second = Codebook(assignments=np.arange(16).reshape(2, 8) % 3, table=np.stack([0 * column, column, -column], 1))
    found = compactness(_network(first, second))
    assert found.layers == (LayerTable("conv", 4, 2, 4, None, 3), LayerTable("fc", 5, 3, 3, 4, 3),
                            LayerTable("end", 3, 2, 5, None, 2))
    assert (found.largest, found.total) == (15, 29)
    assert str(found) == """\
layer    N_a  N_w  entries  bits    N_x  stored
conv       4    2        8     4      -       3
fc         5    3       15     3      4       3
end        3    2        6     5      -       2
network  largest table 15 entries, all together 29, stored 8"""


def test_layers_that_multiply():
    powers = Codebook(assignments=np.arange(2).reshape(2, 1, 1, 1), dictionary=[-2, 1])
    threes = Codebook(assignments=np.arange(2).reshape(2, 1, 1, 1), dictionary=[-3, 0])
    table = Codebook(assignments=np.zeros((2, 8), int), table=np.full((8, 1), 7))
    assert multiply_free(_network(powers, table)) == []
    assert multiply_free(_network(threes, table)) == ["conv"]
    assert multiply_free(_network(threes, Codebook(assignments=np.zeros((2, 8), int), dictionary=[6]))) == ["conv", "fc"]


def test_padding_reaches_code_zero():
    kernel = Codebook(assignments=np.zeros((1, 3, 3, 1), int), dictionary=[1])
    network = Network("net", (
        Input("image", TensorType((2, 2, 1), bits=2), encode=np.repeat([1, 3], 128)),
        Conv2d("bare", "image", kernel, step=Thresholds([[3]], bits=1), padding=(1, 1)),
        Flatten("flat", "bare"),
        Dense("end", "flat", Codebook(assignments=np.zeros((1, 4), int), dictionary=[1])),
        Output("out", "end"),
    ))
    assert [layer.activations for layer in compactness(network).layers] == [3, 2]
