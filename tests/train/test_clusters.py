"""Clusters on a line: hand-worked steps, scikit-learn as a second opinion, and brute force for every shortcut."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from lutq_hw.errors import InputError
from lutq_train import clusters
from lutq_train.clusters import assign, ecsq, ecsq_at, entropy, kmeans, lloyd, uniform, uniform_at
from lutq_train.intervals import Locator, SortedWeights, envelope


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(weights, assignments, centres, importance=1.0):
    return float((importance * (weights.double() - centres.double()[assignments.long()]).square()).mean())


def test_one_step_by_hand():
    weights = torch.tensor([[-1.0, -0.8, 0.1], [0.3, 0.5, 1.1]])
    assignments, centres = lloyd(weights, torch.tensor([-1.0, 0.0, 1.0, 9.0]))
    assert assignments.tolist() == [[0, 0, 1], [1, 1, 2]]  # 0.5 lies half-way and goes down
    assert assignments.dtype == torch.int32
    torch.testing.assert_close(centres, torch.tensor([-0.9, 0.3, 1.1, 9.0]))  # the empty cluster stays


def test_equation_8_by_hand():
    weights = torch.tensor([0.0, 1.0, 4.0, 6.0])
    assignments, centres = lloyd(weights, torch.tensor([0.0, 5.0]), torch.tensor([1.0, 3.0, 3.0, 1.0]))
    assert assignments.tolist() == [0, 0, 1, 1]
    assert centres.tolist() == [0.75, 4.5]
    nothing = lloyd(weights, torch.tensor([0.0, 5.0]), torch.tensor([1.0, 1.0, 0.0, 0.0]))[1]
    assert nothing.tolist() == [0.5, 5.0]  # no importance: stays


def test_reseeding_splits_the_worst_cluster():
    weights = torch.tensor([0.0, 0.0, 10.0, 12.0])
    _, centres = lloyd(weights, torch.tensor([0.0, 11.0, 50.0, 60.0]), reseed=True)
    assert centres.tolist() == [0.0, 10.0, 12.0, 60.0]  # one error to split, so one of two empty clusters is used
    assert kmeans(weights, 3, start="quantile", reseed=True)[1].tolist() == [0.0, 10.0, 12.0]
    assert lloyd(torch.ones(3), torch.tensor([1.0, 2.0]), reseed=True)[1].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("entries", [2, 5, 16, 200])
def test_a_step_is_that_of_scikit_learn(entries):
    weights, h = numbers(0, 5000).double(), numbers(1, 5000).double().abs()
    start = kmeans(weights, entries, steps=2)[1]
    for importance in (None, h):
        theirs = KMeans(entries, init=start[:, None].numpy(), n_init=1, max_iter=1, algorithm="lloyd", tol=0)
        theirs.fit(weights[:, None].numpy(), sample_weight=None if importance is None else h.numpy())
        ours = lloyd(weights, start, importance)[1]
        np.testing.assert_allclose(ours.numpy(), theirs.cluster_centers_[:, 0], rtol=1e-9, atol=1e-12)


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=40), st.integers(1, 30), st.integers(0, 99),
       st.sampled_from([torch.float32, torch.float64, torch.float16]))
def test_the_locator_is_bisection(bounds, span, seed, dtype):
    bounds = torch.tensor(sorted(bounds), dtype=dtype)
    values = torch.cat([numbers(seed, 200).to(dtype) * span, bounds])
    found = Locator(bounds)(values, torch.empty(len(values), dtype=torch.int32))
    assert torch.equal(found, torch.bucketize(values, bounds, out_int32=True))


def test_blocks_make_no_difference(monkeypatch):
    weights, h = numbers(0, 10, 100), numbers(1, 10, 100).square()
    whole = lloyd(weights, torch.linspace(-2, 2, 9), h)
    monkeypatch.setattr(clusters, "_BLOCK", 64)
    blocks = lloyd(weights, torch.linspace(-2, 2, 9), h)
    assert torch.equal(whole[0], blocks[0])
    torch.testing.assert_close(whole[1], blocks[1])
    assert torch.equal(assign(weights, whole[1]), torch.bucketize(weights, (whole[1][1:] + whole[1][:-1]) / 2).int())


@pytest.mark.parametrize("start", [*clusters.STARTS, "best"])
@pytest.mark.parametrize("weighted", [False, True])
def test_kmeans_ends_at_a_fixed_point_of_the_step(start, weighted):
    weights = numbers(3, 40, 50)
    h = numbers(4, 40, 50).square() if weighted else None
    assignments, centres = kmeans(weights, 8, h, start)
    again, moved = lloyd(weights, centres, h)
    assert torch.equal(assignments, again) and assignments.shape == weights.shape
    torch.testing.assert_close(moved, centres, atol=1e-6, rtol=1e-6)
    uniform_error = error(weights, *uniform(weights, 8, h), 1.0 if h is None else h)
    assert error(weights, assignments, centres, 1.0 if h is None else h) < uniform_error


def test_eight_levels_of_a_normal_distribution():
    # Max (1960): the best eight levels of a normal distribution have 0.03454 of its variance as error.
    weights = numbers(5, 400_000)
    assert error(weights, *kmeans(weights, 8)) == pytest.approx(0.03454, rel=0.02)


def test_the_best_of_the_starts():
    weights = torch.cat([numbers(6, 2000), 30 + numbers(7, 5)])
    errors = {start: error(weights, *kmeans(weights, 12, start=start)) for start in (*clusters.STARTS, "best")}
    assert errors["best"] == min(errors.values()) < errors["uniform"]


def test_few_distinct_weights():
    for start in clusters.STARTS:
        assignments, centres = kmeans(torch.tensor([1.0, 1.0, 1.0]), 4, start=start)
        assert centres[assignments.long()].tolist() == [1.0, 1.0, 1.0]


def test_uniform_cells_by_hand():
    weights = torch.tensor([0.0, 0.4, 1.2, 4.0, 3.9])
    assignments, centres = uniform(weights, 4, torch.tensor([3.0, 1.0, 1.0, 1.0, 1.0]))
    assert assignments.tolist() == [0, 0, 1, 2, 2]  # nothing between 2 and 3: dropped
    torch.testing.assert_close(centres, torch.tensor([0.1, 1.2, 3.95]))
    middle = uniform(weights, step=1.0)
    assert middle[0].tolist() == [0, 0, 1, 2, 2] and middle[1][0].item() == pytest.approx(0.2)
    edge = uniform(torch.tensor([-0.2, 0.2]), step=1.0, phase=0.0)
    assert edge[0].tolist() == [0, 1]


def test_uniform_quantisation_loses_a_quarter_of_a_bit():
    # Gish and Pierce (1968): at high rate, entropy = h(X) - log2(step) and error = step^2 / 12.
    weights = numbers(6, 200_000).double()
    step, assignments, centres = uniform_at(weights, 3.5)
    assert 3.45 < entropy(assignments) <= 3.5
    assert math.log2(step) == pytest.approx(0.5 * math.log2(2 * math.pi * math.e) - 3.5, abs=0.05)
    assert error(weights, assignments, centres) == pytest.approx(step**2 / 12, rel=0.03)
    assert len(uniform_at(weights, 9.0, entries=16)[2]) <= 16


def brute_ecsq(weights, centres, costs, h):
    return (h[:, None] * (weights[:, None] - centres).square() + costs).argmin(1)


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_the_envelope_is_the_cheapest_choice(seed, entries):
    weights = numbers(seed, 200).double()
    centres = numbers(seed + 1, entries).double().sort().values
    costs = numbers(seed + 2, entries).double().square()
    kept, bounds = envelope(centres, costs)
    assert (bounds.diff() >= 0).all() and len(bounds) == len(kept) - 1
    found = kept[torch.bucketize(weights, bounds)]
    assert torch.equal(found, brute_ecsq(weights, centres, costs, torch.ones_like(weights)))


def test_the_envelope_of_equal_centres():
    kept, bounds = envelope(torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.tensor([0.0, 3.0, 0.0, 1.0]))
    assert kept.tolist() == [0, 2] and bounds.tolist() == [0.5]


@pytest.mark.parametrize("weighted", [False, True])
def test_ecsq_is_a_fixed_point_and_beats_kmeans_at_its_rate(weighted):
    weights = numbers(7, 60, 50).double()
    h = (numbers(8, 60, 50).double().abs() + 0.1) if weighted else None
    lam, assignments, centres = ecsq_at(weights, 24, 2.0, h)
    assert 1.8 < entropy(assignments) <= 2.0 and lam > 0
    p = torch.bincount(assignments.flatten()) / weights.numel()
    assert (p > 0).all() and (centres.diff() > 0).all()
    weight = torch.ones_like(weights) if h is None else h
    chosen = brute_ecsq(weights.flatten(), centres, -lam * p.log2(), weight.flatten())
    assert (chosen == assignments.flatten()).double().mean() > 0.99
    plain = kmeans(weights, 4, h)
    assert entropy(plain[0]) < 2.0 < entropy(kmeans(weights, 5, h)[0])
    assert error(weights, assignments, centres, weight) < error(weights, *plain, weight)


def test_equal_importance_is_none():
    weights = numbers(9, 3000).double()
    without, ones = ecsq(weights, 16, 0.02), ecsq(weights, 16, 0.02, torch.ones_like(weights))
    assert torch.equal(without[0], ones[0])
    torch.testing.assert_close(without[1], ones[1])


def test_ecsq_at_needs_no_price_where_there_is_room():
    lam, assignments, _ = ecsq_at(numbers(1, 500), 4, 3.0)
    assert lam == 0 and entropy(assignments) <= 2
    assert len(ecsq(numbers(1, 500), 16, 1e3)[1]) == 1


def test_ecsq_at_searches_on_some_of_many_weights(monkeypatch):
    monkeypatch.setattr(clusters, "_SEARCHED", 500)
    weights, h = numbers(1, 5000), numbers(2, 5000).square()
    found = ecsq_at(weights, 16, 2.0, h)
    assert 1.8 < entropy(found[1]) <= 2.0
    assert torch.equal(found[1], ecsq(weights, 16, found[0], h)[0])


def test_entropy():
    assert entropy(torch.tensor([0, 0, 1, 3])) == 1.5
    assert str(entropy(torch.tensor([2, 2]))) == "0.0"


def test_sums_over_cells():
    cells = SortedWeights(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 4.0])).cells(torch.tensor([1.0, 2.5]))
    assert cells.tolist() == [[1, 1, 1], [2, 4, 1], [2, 8, 3], [2, 16, 9]]


W = torch.tensor([1.0, 2.0])


@pytest.mark.parametrize("call, text", [
    (lambda: kmeans(W, 2, start="random"), "start must be one of quantile, uniform, density or best, not 'random'"),
    (lambda: kmeans(W, 0), "entries must be at least 1, not 0"),
    (lambda: uniform(W, 0), "entries must be at least 1, not 0"),
    (lambda: kmeans(torch.tensor([1.0, math.nan]), 2), "weights to be clustered must be finite numbers, at least one"),
    (lambda: lloyd(W, W, torch.ones(3)), r"importance must have the weights' shape \(2,\), not \(3,\)"),
    (lambda: lloyd(W, W, -W), "importance must be finite and not negative; clip second derivatives at zero"),
    (lambda: uniform(W), "uniform cells need either a number of entries or a step, not both or neither"),
    (lambda: uniform(W, step=0.0), "step must be positive and leave at most 4194304 cells, not 0.0"),
    (lambda: uniform(W, step=1e-9), "step must be positive and leave at most 4194304 cells, not 1e-09"),
    (lambda: ecsq(W, 2, -1.0), "lam must not be negative, but it is -1.0"),
])
def test_wrong_arguments(call, text):
    with pytest.raises(InputError, match=f"^{text}$"):
        call()
