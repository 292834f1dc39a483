"""LUT-Q: the k-means step by hand and against a naive one, prices, empty clusters, and the straight-through gradient."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lutq_hw.errors import InputError
from lutq_train.constraints import CONSTRAINTS, FIXED_ENTRIES, signed_digits
from lutq_train.method import progress, quantizer_of, source_of, update
from lutq_train.methods.lutq import LutqOptions, LutQuantizer, kmeans_step

SPECS = {
    "free": LutqOptions("free", 8), "zero": LutqOptions("free", 5, zero=True), "symmetric": LutqOptions("symmetric", 6),
    "symmetric_zero": LutqOptions("symmetric", 7, zero=True), "power_of_two": LutqOptions("power_of_two", 8, zero=True),
    "sum_of_two": LutqOptions("sum_of_two", 6), "sum_of_three": LutqOptions("sum_of_three", 9, zero=True, bits=6),
    "uniform": LutqOptions("uniform", 7), "binary": LutqOptions("binary", 2), "ternary": LutqOptions("ternary", 3),
    "values": LutqOptions(values=(-3, -1, 0, 1, 3)), "steps": LutqOptions("free", 6, steps=3),
    "reseed": LutqOptions("free", 12, reseed=True), "cost": LutqOptions("free", 8, cost=2.0),
}


def weight(seed=0, shape=(6, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quantizer(of, integers, scale, **spec):
    made = LutQuantizer(LutqOptions(**{"entries": len(integers), **spec}), of)
    made.integers.copy_(torch.tensor(integers))
    made.scale.copy_(torch.tensor([scale]))
    return made


def test_one_step_by_hand():
    w = torch.tensor([[-1.0, -0.8, 0.1], [0.3, 0.5, 1.1]])
    made = quantizer(w, [-127.0, 0.0, 127.0], 1 / 127)
    kmeans_step([(made, w)])
    # Midpoints -0.5 and 0.5; a weight on a midpoint goes down. Centres -0.9, 0.3, 1.1.
    assert made.assignments.tolist() == [[0, 0, 1], [1, 1, 2]]
    assert made.integers.tolist() == [round(-0.9 / 1.1 * 127), round(0.3 / 1.1 * 127), 127]
    assert made.scale.item() == pytest.approx(1.1 / 127)


def test_empty_clusters_keep_their_value_and_zero_stays_pinned():
    w = torch.tensor([0.2, 0.9, 1.1])
    made = quantizer(w, [-4.0, 0.0, 4.0], 0.25, constraint="power_of_two", zero=True)
    kmeans_step([(made, w)])
    assert made.assignments.tolist() == [1, 2, 2]
    assert made.dictionary.tolist() == [-1.0, 0.0, 1.0]  # 0.2 alone would have moved the zero


def naive_step(w, levels, pinned):
    """Assignments, centres and counts of one k-means step, one weight and one cluster at a time."""
    flat = w.flatten().tolist()
    index = [min(range(len(levels)), key=lambda k: (abs(x - levels[k]), k)) for x in flat]
    counts = [index.count(k) for k in range(len(levels))]
    means = [sum(x for x, i in zip(flat, index, strict=True) if i == k) / counts[k] if counts[k] else levels[k]
             for k in range(len(levels))]
    return index, [0.0 if fixed else mean for mean, fixed in zip(means, pinned, strict=True)], counts


@pytest.mark.parametrize("name", sorted(SPECS.keys() - {"reseed", "cost"}))
def test_a_step_is_that_of_a_naive_implementation(name):
    made = SPECS[name].quantizer(weight())
    moved = weight() + 0.2 * weight(1)
    index, centres, counts = naive_step(moved, made.dictionary.tolist(), made.pinned.tolist())
    kmeans_step([(made, moved)])
    assert made.assignments.flatten().tolist() == index
    integers, scale = made.options.project(torch.tensor(centres), torch.tensor(counts))
    assert made.integers.tolist() == integers.tolist()
    torch.testing.assert_close(made.scale, scale)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), cost=st.floats(0, 100), scale=st.floats(2**-8, 1, width=32))
def test_priced_assignments_are_the_best_of_all_entries(data, cost, scale):
    integers = sorted(data.draw(st.lists(st.integers(-127, 127), min_size=2, max_size=20)))
    w = torch.tensor(data.draw(st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=30)))
    made = quantizer(w, [float(n) for n in integers], scale, cost=cost)
    values = made.dictionary.double()
    kmeans_step([(made, w)])
    price = cost * 3 / len(integers) ** 2 * w.double().square().mean() * signed_digits(torch.tensor(integers))
    costs = (w.double()[:, None] - values) ** 2 + price
    taken = costs.gather(1, made.assignments.long()[:, None])[:, 0]
    size = w.double().square() + values.square().max() + price.max() + 1e-30
    assert ((taken - costs.amin(1)) <= 1e-5 * size).all()


def test_dearer_entries_are_used_less():
    """The Pareto curve of one knob: fewer adders for more error, from the same weights; a little of it costs nothing."""
    w, points = weight(shape=(4000,)), []
    for cost in (0.0, 0.1, 1.0, 10.0, 100.0):
        made = LutqOptions("free", 16, zero=True, cost=cost).quantizer(w)
        coded = made.coded(w)
        digits = float(signed_digits(coded.values).double().mean())
        points.append((digits, float((made(w) - w).square().mean())))
    digits, errors = zip(*points, strict=True)
    assert digits[0] > 2 and digits[-1] < 0.5
    assert digits[1] < 0.7 * digits[0] and errors[1] < 1.1 * errors[0]
    assert digits == tuple(sorted(digits, reverse=True)) and errors == tuple(sorted(errors))


@pytest.mark.parametrize("entries", [4, 8, 32])
def test_the_price_means_the_same_for_every_number_of_entries(entries):
    """At a price of 1 some digits go for an error that stays of the order of the free dictionary's."""
    w = weight(shape=(4000,))
    free, priced = (LutqOptions("free", entries, zero=True, cost=cost).quantizer(w) for cost in (0.0, 1.0))
    digits = [float(signed_digits(made.coded(w).values).double().mean()) for made in (free, priced)]
    errors = [float((made(w) - w).square().mean()) for made in (free, priced)]
    assert digits[1] < 0.75 * digits[0] and errors[1] < 2 * errors[0]


def test_entries_are_rounded_to_the_integers_of_least_error_and_price():
    w = weight(shape=(300,))
    made = LutqOptions("free", 6, bits=6, cost=0.5).quantizer(w)
    start = made.integers.clone(), made.scale.clone()
    kmeans_step([(made, w)])
    taken = made.assignments
    means = torch.stack([w[taken == k].mean() if (taken == k).any() else (start[0] * start[1])[k] for k in range(6)]).double()
    price = 0.5 * 3 / 36 * w.double().square().mean()
    scale = means.abs().max() / 31
    for mean, integer in zip(means, made.integers.tolist(), strict=True):
        costs = {n: float((mean - n * scale) ** 2 + price * signed_digits(torch.tensor(n))) for n in range(-31, 32)}
        assert costs[int(integer)] <= min(costs.values()) + 1e-6


def test_the_price_of_one_step_never_buys_more_digits():
    w = weight(shape=(500,))
    start, used = LutqOptions("free", 16, zero=True).quantizer(w), []
    for cost in (0.0, 0.2, 1.0, 5.0, 20.0, 100.0):
        made = quantizer(w, start.integers.tolist(), float(start.scale), cost=cost)
        digits = signed_digits(made.integers)  # before the step moves the centres
        kmeans_step([(made, w)])
        used.append(float(digits[made.assignments.long()].sum()))
    assert used == sorted(used, reverse=True) and used[-1] < used[0] / 2


def test_unused_entries_are_moved_where_weights_are():
    w = torch.cat([torch.linspace(0.5, 1.5, 50), torch.tensor([-8.0])])
    integers = [-127.0, -60.0, -50.0, 16.0]

    def after(reseed):
        made = quantizer(w, integers, 1 / 16, reseed=reseed)
        kmeans_step([(made, w)])
        return made.dictionary

    # Each of the two unused ones moves half-way to its used neighbour: the single weight, and the mean of fifty.
    torch.testing.assert_close(after(False), torch.tensor([-8.0, -3.75, -3.125, 1.0]), atol=0.04, rtol=0)
    torch.testing.assert_close(after(True), torch.tensor([-8.0, -5.875, -1.06, 1.0]), atol=0.04, rtol=0)


def test_reseeding_uses_every_entry_in_the_end():
    w = weight(shape=(2000,))
    made = quantizer(w, [-127.0, -126.0, -125.0, 0.0, 124.0, 125.0, 126.0, 127.0], 1 / 16, reseed=True)
    for _ in range(30):
        kmeans_step([(made, w)])
    assert len(made.assignments.unique()) == 8 and (made.integers.diff() > 0).all()


def test_several_steps_are_that_many():
    once, thrice, w = (SPECS["free"].quantizer(weight()), LutqOptions("free", 8, steps=3).quantizer(weight()),
                       weight() + 0.3 * weight(1))
    LutQuantizer.update([(thrice, w)])
    for _ in range(3):
        kmeans_step([(once, w)])
    assert torch.equal(once.integers, thrice.integers) and torch.equal(once.assignments, thrice.assignments)


def test_fixed_values_only_have_a_scale():
    w = torch.tensor([-1.0, -0.8, 0.1, 0.9])
    made = LutqOptions(values=(-1, 1)).quantizer(w)  # BinaryConnect with a scale
    assert made.options.entries == 2 and made.integers.tolist() == [-1, 1]
    assert made.scale.item() == pytest.approx((1.0 + 0.8 + 0.1 + 0.9) / 4)
    assert made.assignments.tolist() == [0, 0, 1, 1]
    assert LutqOptions(values=(0, 5)).quantizer(-w.abs()).scale > 0  # nothing to fit: no weight is near the 5


def test_forward_is_the_dictionary_and_the_gradient_passes_straight_through():
    layer = nn.Linear(3, 2, bias=False)
    LutqOptions("free", 3).attach({"layer": layer}, None)
    made = quantizer_of(layer)
    assert isinstance(layer, nn.Linear)
    assert torch.equal(layer.weight, (made.integers * made.scale)[made.assignments.long()])
    x, upstream = torch.randn(5, 3), torch.randn(5, 2)
    layer(x).backward(upstream)
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, upstream.T @ x)


@pytest.mark.parametrize("name", SPECS)
def test_training_moves_weights_and_dictionary_together(name):
    torch.manual_seed(0)
    spec = SPECS[name]
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 3))
    spec.attach({"0": model[0], "2": model[2]}, None)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    before = [quantizer_of(model[n]).assignments.clone() for n in (0, 2)]
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(16, 2, 5, 5)).square().mean().backward()
        optimizer.step()
        update(model)
        progress(model, 0.5)  # nothing here has a schedule
    for old, layer in zip(before, (model[0], model[2]), strict=True):
        made = quantizer_of(layer)
        assert not torch.equal(old, made.assignments) and made.assignments.shape == layer.weight.shape
        coded = made.coded(source_of(layer))
        integers = coded.integers[0]
        assert (integers.diff() >= 0).all() and len(integers) == spec.entries
        assert integers.abs().max() <= (1 << (spec.bits - 1) if "of" in spec.constraint else (1 << (spec.bits - 1)) - 1)
        assert coded.assignments.min() >= 0 and coded.assignments.max() < spec.entries and not coded.table
        assert coded.scale == Fraction(float(made.unit()))
        assert torch.equal((coded.values * float(coded.scale)).float(), layer.weight)
        if made.has_zero:
            assert 0 in integers
        if spec.pinned:
            assert made.integers[made.pinned].tolist() == [0]


def test_update_of_several_layers_equals_one_at_a_time():
    torch.manual_seed(1)
    weights = [torch.randn(4, 5), torch.randn(7, 3, 2, 2)]
    for name in ("power_of_two", "cost", "reseed", "values"):
        together, alone = ([SPECS[name].quantizer(w) for w in weights] for _ in range(2))
        moved = [w + 0.1 * torch.randn_like(w) for w in weights]
        LutQuantizer.update(list(zip(together, moved, strict=True)))
        for a, b, w in zip(together, alone, moved, strict=True):
            LutQuantizer.update([(b, w)])
            assert torch.equal(a.assignments, b.assignments)
            assert torch.equal(a.integers, b.integers) and torch.equal(a.scale, b.scale)


def test_the_start_is_a_fixed_point_of_k_means():
    made = LutqOptions("free", 4, bits=16).quantizer(w := torch.tensor([-2.0, -1.9, -1.0, 0.4, 0.5, 3.0]))
    values = made.dictionary.clone()
    kmeans_step([(made, w)])
    torch.testing.assert_close(made.dictionary, values)
    torch.testing.assert_close(values, torch.tensor([-1.95, -1.0, 0.45, 3.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("w", [torch.linspace(-2, 1, 50), torch.linspace(0.5, 1, 9), torch.zeros(4)])
def test_start_is_ascending_and_pins_zero(name, w):
    spec = SPECS[name]
    centres, zero = spec.start(w)
    assert len(centres) == spec.entries and (centres.diff() >= 0).all()
    assert (zero is None) == (not spec.pinned)
    if zero is not None:
        assert centres[zero] == 0
    made = spec.quantizer(w)
    assert made.scale > 0 and torch.isfinite(made(w)).all()


def test_numbers_of_levels_choose_a_constraint():
    chosen = {levels: LutqOptions.for_levels(levels) for levels in (2, 3, 4, 256)}
    assert [(o.constraint, o.entries) for o in chosen.values()] == [("binary", 2), ("ternary", 3), ("free", 4),
                                                                     ("free", 256)]
    assert LutqOptions.for_levels(3, constraint="uniform").constraint == "uniform"
    assert FIXED_ENTRIES.keys() <= CONSTRAINTS.keys()


@pytest.mark.parametrize("values, text", [
    ({"constraint": "float"}, ("weights.constraint must be one of free, symmetric, power_of_two, sum_of_two, "
                              "sum_of_three, uniform, binary, ternary, not 'float'")),
    ({"constraint": "ternary", "entries": 4}, "weights.entries must be 3 for a ternary dictionary, not 4"),
    ({"entries": 300}, "weights.entries must be from 2 to 256, not 300"),
    ({"bits": 1}, "weights.bits must be from 2 to 16, not 1"),
    ({"steps": 0}, "weights.steps must be from 1 to 100, not 0"),
    ({"cost": -0.5}, "weights.cost must be from 0 to 1000, not -0.5"),
    ({"constraint": "binary", "entries": 2, "zero": True},
     "weights.zero must be false for a binary dictionary; ternary is the one with a zero"),
    ({"constraint": "symmetric", "entries": 4, "zero": True},
     "weights.zero must be true exactly where weights.entries is odd for a symmetric dictionary, not true with 4"),
    ({"constraint": "symmetric", "entries": 5},
     "weights.zero must be true exactly where weights.entries is odd for a symmetric dictionary, not false with 5"),
    ({"values": (1, -1)}, "weights.values must be distinct integers, ascending, not [1, -1]"),
    ({"values": (-1, 1), "zero": True},
     "weights.values is a dictionary of its own; leave out weights.constraint and weights.zero"),
    ({"values": (-1, 65536)}, "weights.values must be below 65536 in magnitude, not [-1, 65536]"),
    ({"values": (3,)}, "weights.entries must be from 2 to 256, not 1"),
])
def test_wrong_options(values, text):
    with pytest.raises(InputError) as caught:
        LutqOptions(**values)
    assert str(caught.value) == text
