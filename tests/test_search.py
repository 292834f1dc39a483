"""Search for plans: against exhaustive search, with and without what stands between layers, and its bounds."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest

from lutq_hw.cost import Cost
from lutq_hw.errors import PlanError
from lutq_hw.network import Codebook, Dense, Input, Network, Output, TensorType, Thresholds
from lutq_hw.plan import PoolPlan
from lutq_hw.planner import find_plan, make_search
from lutq_hw.planning import knapsack
from lutq_hw.planning.budget import shortage
from lutq_hw.planning.candidates import Candidate, pareto_by_ports
from lutq_hw.planning.front import front, point
from lutq_hw.planning.pareto import efficient
from lutq_hw.planning.search import Search

SEEDS = range(40)


def random_layers(rng: np.random.Generator, *, periods: bool) -> list[list[Candidate]]:
    """A few layers with a few candidates each: faster ones tend to be dearer, in one resource or another."""
    layers = []
    for number in range(int(rng.integers(1, 5))):
        layer = []
        for _ in range(int(rng.integers(1, 8))):
            cycles = int(rng.choice([40, 60, 90, 100, 150, 200, 400]))
            work = 40_000 / cycles * rng.uniform(0.5, 1.5)
            in_blocks = rng.random() < 0.5
            cost = Cost(luts=float(work * (0.6 if in_blocks else 1.0)), ffs=float(rng.integers(0, 100)),
                        brams=int(rng.integers(0, 6)), dsps=int(rng.integers(0, 4)) if in_blocks else 0,
                        sprams=int(rng.random() < 0.2))
            layer.append(Candidate(PoolPlan(node=f"n{number}", channels=1), cycles, cost,
                                   float(rng.choice([20, 22, 25, 31])) if periods else 0.0))
        layers.append(pareto_by_ports(layer))
    return layers


def random_budget(rng: np.random.Generator) -> Cost:
    return Cost(luts=float(rng.uniform(300, 2500)), brams=int(rng.integers(2, 14)), dsps=int(rng.integers(0, 6)),
                sprams=int(rng.integers(0, 3)))


def joints(chosen) -> Cost:
    """Up to 2 % of the logic cells for each pair of neighbours that differ."""
    return Cost(luts=sum(20.0 * (a.cycles != b.cycles) for a, b in itertools.pairwise(chosen)))


def exhaustive(search: Search, value) -> float:
    """The least value of all plans that fit, infinite if none does."""
    return min((value(chosen) for chosen in itertools.product(*search.layers) if search.fits(chosen)), default=math.inf)


@pytest.mark.parametrize("periods", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_fastest_is_the_best_of_all(seed, periods):
    rng = np.random.default_rng(seed)
    search = Search(random_layers(rng, periods=periods), random_budget(rng))
    best = exhaustive(search, search.time_of)
    found = search.fastest()
    if found is None:
        assert best == math.inf
        return
    assert search.fits(found.chosen)
    assert found.value == pytest.approx(best, rel=1e-12)
    assert found.gap == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_smallest_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    search = Search(random_layers(rng, periods=seed % 2 == 1), random_budget(rng))
    frame_ns = float(rng.uniform(60, 400)) * (25 if seed % 2 else 1)

    def price(chosen):
        fast_enough = max(c.cycles for c in chosen) * max(c.period_ns or 1 for c in chosen) <= frame_ns
        return search.price(search.total(chosen)) if fast_enough else math.inf

    best, found = exhaustive(search, price), search.smallest(frame_ns)
    assert (math.inf if found is None else found.value) == pytest.approx(best, rel=1e-12)
    assert found is None or found.gap == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_stands_between_layers_is_counted(seed):
    rng = np.random.default_rng(seed)
    search = Search(random_layers(rng, periods=False), random_budget(rng), between=joints)
    best, found = exhaustive(search, search.time_of), search.fastest()
    if found is None:
        # Only room that the joints need could hide a plan.
        assert best == math.inf
        return
    assert search.fits(found.chosen)
    assert found.bound <= best * (1 + 1e-12), "the bound holds for every plan"
    assert best * (1 - 1e-12) <= found.value <= 1.05 * best
    assert found.value == pytest.approx(best, rel=1e-12), "plans in order of price find the best of so few"
    assert found.gap == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_counted_in_units_still_give_a_plan_and_a_bound(seed):
    rng = np.random.default_rng(seed)
    layers, budget = random_layers(rng, periods=False), random_budget(rng)
    search = Search(layers, budget, states=40)
    best, found = exhaustive(search, search.time_of), search.fastest()
    if found is not None:
        assert search.fits(found.chosen)
        assert found.bound <= best * (1 + 1e-12)
        assert found.value >= best * (1 - 1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_front_by_definition(seed):
    """The fewest cells for each number of cycles, of all plans whose blocks there are."""
    rng = np.random.default_rng(seed)
    search = Search(random_layers(rng, periods=seed % 2 == 1), random_budget(rng))
    plans = [point(search, chosen) for chosen in itertools.product(*search.layers)]
    enough = [p for p in plans if not set(shortage(p.cost, search.available)) - {"cells"}]
    figures = np.array([(p.cycles, p.cost.cells) for p in enough]).reshape(-1, 2)
    expected = figures[efficient(figures.round(6))]
    found = front(search)
    np.testing.assert_allclose([(p.cycles, p.cost.cells) for p in found] or np.zeros((0, 2)), expected)
    assert all(p.fits == (p.cost.cells <= search.available.cells) for p in found)


def test_units_of_blocks_keep_the_table_small():
    layer = knapsack.Options(np.array([1.0]), np.array([[700, 300, 0]]))
    units, most = knapsack.units_of((1000, 300, 4), [layer, layer], 1000)
    assert most == [1000, 300, 0]
    assert math.prod(-(-n // unit) + 1 for n, unit in zip(most, units, strict=True)) <= 1000
    assert knapsack.units_of((20, 8, 4), [layer, layer], 1000)[0] == [1, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_efficient_rows_by_definition(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 4, (int(rng.integers(0, 40)), 3)).astype(float)
    kept = efficient(rows)
    beaten = [any((other <= row).all() and ((other < row).any() or j < i) for j, other in enumerate(rows) if j != i)
              for i, row in enumerate(rows)]
    assert sorted(kept) == [i for i, is_beaten in enumerate(beaten) if not is_beaten]
    assert [tuple(row) for row in rows[kept]] == sorted(tuple(row) for row in rows[kept])


@dataclass(frozen=True)
class Board:
    """Just what the planner asks of a board."""

    available: Cost
    name: str = "bench"
    title: str = "Bench"
    family: str = "ice40"
    plan_clock_hz: float = 20e6


@pytest.mark.parametrize("seed", range(3))
def test_whole_networks_against_exhaustive_search(seed):
    """Real candidates and real gearboxes between them."""
    rng = np.random.default_rng(seed)
    dictionary = [-4, -1, 0, 1, 2, 4] if seed % 2 else [-7, -3, 0, 1, 5, 9]
    hidden = int(rng.choice([4, 6]))
    net = Network("small", (
        Input("image", TensorType((6,), 4)),
        Dense("a", "image", Codebook(rng.integers(0, 6, (hidden, 6)), dictionary=dictionary),
              step=Thresholds(np.sort(rng.integers(-90, 90, (hidden, 7))), 3)),
        Dense("b", "a", Codebook(rng.integers(0, 6, (4, hidden)), dictionary=dictionary)),
        Output("out", "b", "argmax")))
    board = Board(Cost(luts=float(rng.uniform(450, 1000)), brams=int(rng.integers(2, 8)), dsps=int(rng.integers(0, 5))))
    search = make_search(net, board)
    assert math.prod(map(len, search.layers)) < 30000
    best = math.inf
    for chosen in itertools.product(*search.layers):
        layers_only = search.price(sum((c.cost for c in chosen), Cost()))
        # Pricing what stands between them is the slow part; without it a plan can only look better.
        if search.frame_time(max(c.cycles for c in chosen), 0, layers_only) < best and search.fits(chosen):
            best = min(best, search.time_of(chosen))
    try:
        planned = find_plan(net, board)
    except PlanError:
        assert best == math.inf
        return
    assert search.time_of(planned.chosen) == pytest.approx(best, rel=1e-9)
    assert planned.optimal
