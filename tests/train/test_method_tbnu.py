"""Table-based neural units (arXiv 1906.04798): clusterings, levels, gradients and exactness against the equations."""

from fractions import Fraction
from math import atanh, inf

import pytest
import torch
from torch import nn

from lutq_hw.errors import InputError
from lutq_train.grid import power_unit, spread_sample
from lutq_train.method import ActivationQuantizer, CodedWeights, quantizer_of, update
from lutq_train.methods.learned_levels import LearnedOptions
from lutq_train.methods.relud import ReludOptions
from lutq_train.methods.tanhd import TanhdOptions
from lutq_train.methods.tbnu import TbnuOptions, TbnuQuantizer, laplacian_centres

EVERY_LEVELS = [TanhdOptions(9), TanhdOptions(15), ReludOptions(16), ReludOptions(5, top=1.0), LearnedOptions(12),
                LearnedOptions(5, bits=12)]


def _laplacian(count: int, seed: int = 0) -> torch.Tensor:
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return uniform.sign() * -(1 - uniform.abs()).clamp(min=1e-6).log() * 0.1


def _values(coded: CodedWeights) -> torch.Tensor:
    assert isinstance(coded.scale, Fraction)
    return coded.values.double() * float(coded.scale)


def _layer(options: TbnuOptions, weight: torch.Tensor) -> tuple[nn.Linear, TbnuQuantizer]:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    options.attach({"fc": layer}, None)
    quantizer = quantizer_of(layer)
    assert isinstance(quantizer, TbnuQuantizer)
    return layer, quantizer


# ---- centres


@pytest.mark.parametrize("entries", [2, 3, 4, 7, 16])
def test_laplacian_centres_are_conditional_means(entries):
    b = 0.3
    # Ends of the cells, of even spacing in 1 - exp(-t / 3b), and the mean of the density in each by the midpoint rule.
    ends = [-3 * b * torch.tensor(1 - (2 * k + entries % 2) / entries).log().item() for k in range(entries // 2)]
    side = []
    for low, high in zip(ends, [*ends[1:], inf], strict=True):
        t = torch.linspace(low, min(high, low + 40 * b), 400_001, dtype=torch.float64)
        t = (t[1:] + t[:-1]) / 2
        density = torch.exp(-t / b)
        side.append(float((t * density).sum() / density.sum()))
    expected = [-c for c in reversed(side)] + [0.0] * (entries % 2) + side
    found = laplacian_centres(torch.tensor(b, dtype=torch.float64), entries)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-7)


def test_laplacian_centres_in_closed_form():
    # One cell a side, all of it: the mean magnitude. With a zero between, cells begin at u = 1/3: exp(-t/b) = (2/3)^3.
    assert laplacian_centres(torch.tensor(2.0), 2).tolist() == [-2, 2]
    outer = 1 - 3 * torch.tensor(2 / 3, dtype=torch.float64).log()
    torch.testing.assert_close(laplacian_centres(torch.tensor(1.0, dtype=torch.float64), 3)[2], outer)
    # Two cells: the inner one ends where exp(-t / b) = 1/8.
    t = -torch.tensor(1 / 8, dtype=torch.float64).log()
    expected = torch.stack([1 - t / 8 / (7 / 8), 1 + t])
    torch.testing.assert_close(laplacian_centres(torch.tensor(1.0, dtype=torch.float64), 4)[2:], expected)


def test_fixed_clustering_fits_only_a_scale():
    weight = torch.tensor([[-0.9, -0.35, 0.3, 1.0], [0.31, -0.3, 0.95, -1.05]])
    _, quantizer = _layer(TbnuOptions(4, "fixed"), weight)
    # Least squares of a * {-3, -1, 1, 3}: (3 * 3.9 + 1.26) / (4 * 9 + 4), on the grid 2^-7 below a peak under 1.
    a = (3 * 3.9 + 1.26) / 40
    assert quantizer.scale.item() == 2**-7
    assert quantizer.integers.tolist() == [q * round(a * 128) for q in (-3, -1, 1, 3)]
    _, quantizer = _layer(TbnuOptions(5, "fixed", bits=3), torch.linspace(-1, 1, 12).view(3, 4))
    assert quantizer.integers.tolist() == [-2, -1, 0, 1, 2]


def test_kmeans_stands_still_at_its_own_centres():
    weight = _laplacian(4000).view(40, 100)
    _, quantizer = _layer(TbnuOptions(8, bits=12), weight)
    index = (weight[..., None] - quantizer.dictionary).abs().argmin(-1)
    means = torch.stack([weight[index == k].mean() for k in range(8)])
    torch.testing.assert_close(quantizer.dictionary, means, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("clustering, worst", [("kmeans", 0.017), ("laplacian", 0.018), ("fixed", 0.030)])
def test_adaptive_centres_suit_laplacian_weights_better(clustering, worst):
    # 16 levels: Panter and Dite's formula for many levels, 9 / (2 K^2) of the variance, is 0.0176.
    weight = _laplacian(20_000).view(200, 100)
    layer, _ = _layer(TbnuOptions(16, clustering), weight)
    error = (layer.weight - weight).square().mean() / weight.square().mean()
    assert 0.01 < error < worst


def test_the_unit_is_the_power_of_two_below_the_highest_bit():
    for peak in (1.0, 0.999, 0.5, 3.0, 0.0):
        unit = power_unit(torch.tensor(peak), 7).item()
        assert float(unit).hex().startswith("0x1.0000000000000p")
        assert not peak or 64 <= peak / unit < 128
    assert TbnuOptions(3, bits=4).integers(torch.tensor([-1.0, 0.0, 0.999]), torch.tensor(0.125)).tolist() == [-7, 0, 7]


def test_samples_leave_no_position_of_a_kernel_out():
    assert spread_sample(torch.arange(6), 6).tolist() == [0, 1, 2, 3, 4, 5]
    sample = spread_sample(torch.arange(100 * 9).view(100, 9), 300)
    assert 100 < len(sample) <= 300
    assert set((sample % 9).tolist()) == set(range(9))


# ---- weights between clusterings


@pytest.mark.parametrize("entries", [2, 7, 8])
def test_pruned_weights_have_a_zero(entries):
    weight = _laplacian(600).view(20, 30)
    weight[weight.abs() < 0.1] = 0
    for options in (TbnuOptions(entries, zero=True), TbnuOptions(entries, "laplacian")):
        layer, quantizer = _layer(options, weight)
        update(layer)
        assert quantizer.has_zero == (0 in quantizer.integers) == (not layer.weight[weight == 0].any())
        assert quantizer.integers.tolist() == sorted(quantizer.integers.tolist())


def test_tied_weights_are_the_nearest_values_and_gradients_pass():
    layer, quantizer = _layer(TbnuOptions(5, every=2), _laplacian(60).view(6, 10))
    before = quantizer.dictionary.clone()
    out = layer.weight
    assert torch.equal(out, before[(layer.parametrizations.weight.original[..., None] - before).abs().argmin(-1)])
    seed = torch.randn(6, 10)
    out.backward(seed)
    source = layer.parametrizations.weight.original
    assert torch.equal(source.grad, seed)
    source.data *= 1.5
    update(layer)
    assert torch.equal(quantizer.dictionary, before)
    update(layer)
    far = (source[..., None] - before).square().amin(-1).sum()
    assert (layer.weight - source).square().sum() < 0.7 * far


@pytest.mark.parametrize("clustering", ["kmeans", "laplacian", "fixed"])
def test_drifting_weights_are_replaced_at_a_clustering(clustering):
    layer, quantizer = _layer(TbnuOptions(5, clustering, every=3, hold="drift"), _laplacian(60).view(6, 10))
    source = layer.parametrizations.weight.original
    for step in range(1, 5):
        source.data += torch.randn(6, 10, generator=torch.Generator().manual_seed(step)) * 0.01
        update(layer)
        assert torch.equal(layer.weight, source)
        clustered = set(source.flatten().tolist()) <= set(quantizer.dictionary.tolist())
        assert clustered == (step == 3)
        layer.eval()
        assert len(layer.weight.unique()) <= 5
        assert step != 3 or torch.equal(layer.weight, source)
        assert torch.equal(layer.weight.double(), _values(quantizer.coded(source)))
        layer.train()


def test_drift_refuses_pruned_weights():
    class Halve(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 0.5

    layer = nn.Linear(10, 6)
    nn.utils.parametrize.register_parametrization(layer, "weight", Halve())
    TbnuOptions(5, every=1, hold="drift").attach({"fc": layer}, None)
    with pytest.raises(InputError, match=r'^weights\.hold must be "tied" where weights are pruned, because "drift" '
                                         r"replaces weights$"):
        update(layer)


@pytest.mark.parametrize("clustering", ["kmeans", "laplacian", "fixed"])
@pytest.mark.parametrize("hold", ["tied", "drift"])
@pytest.mark.parametrize("entries", [2, 5, 16])
def test_coded_is_forward_exactly(clustering, hold, entries):
    layer, quantizer = _layer(TbnuOptions(entries, clustering, every=2, hold=hold), _laplacian(600).view(20, 30))
    source = layer.parametrizations.weight.original
    for step in range(3):
        source.data += torch.randn(20, 30, generator=torch.Generator().manual_seed(step)) * 0.02
        update(layer)
        layer.eval()
        coded = quantizer.coded(source.data)
        assert coded.table
        assert coded.integers.shape == (1, entries)
        assert coded.integers.abs().max() <= 127
        assert coded.scale == Fraction(float(quantizer.unit()))
        assert coded.scale.numerator == 1
        assert torch.equal(layer.weight.double(), _values(coded))
        layer.double()
        assert torch.equal(layer.weight, _values(coded))
        layer.float().train()


@pytest.mark.parametrize("hold", ["tied", "drift"])
def test_resumed_training_is_the_same(hold):
    options = TbnuOptions(4, every=3, hold=hold)

    def train(layer, start, stop):
        for step in range(start, stop):
            x = torch.randn(8, 10, generator=torch.Generator().manual_seed(step))
            layer.zero_grad()
            layer(x).square().mean().backward()
            source = layer.parametrizations.weight.original
            source.data -= 0.5 * source.grad
            update(layer)

    whole, _ = _layer(options, _laplacian(60).view(6, 10))
    train(whole, 0, 4)
    state = {key: value.clone() for key, value in whole.state_dict().items()}
    train(whole, 4, 8)
    resumed, _ = _layer(options, torch.zeros(6, 10))
    resumed.load_state_dict(state)
    train(resumed, 4, 8)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_kernels_of_any_order_in_memory():
    conv = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    TbnuOptions(4, every=1, hold="drift").attach({"conv": conv}, None)
    update(conv)
    assert torch.equal(conv.eval().weight, conv.parametrizations.weight.original)


def test_weights_that_are_all_zero():
    for clustering in ("kmeans", "laplacian", "fixed"):
        layer, _ = _layer(TbnuOptions(4, clustering), torch.zeros(3, 4))
        update(layer)
        assert layer.weight.abs().max() < 2.0**-50


# ---- levels


def test_tanhd_levels_by_hand():
    quantizer = TanhdOptions(5).quantizer(signed=True)
    # Values -1 + 2 k / 4; midpoints -3/4, -1/4, 1/4, 3/4; atanh 0.2554 and 0.9730; half the least gap is 0.2554.
    assert quantizer.values() == [-1, Fraction(-1, 2), 0, Fraction(1, 2), 1]
    assert quantizer.lowest == -2
    assert quantizer.unit().item() == 0.5
    assert quantizer.boundaries() == [-1, Fraction(-1, 4), Fraction(1, 4), 1]
    assert abs(atanh(0.75) - 0.973) < 1e-3
    x = torch.tensor([-1.001, -1.0, -0.2501, -0.25, 0.2499, 0.25, 0.9999, 1.0, 50.0, -50.0])
    assert quantizer(x).tolist() == [-1, -0.5, -0.5, 0, 0, 0.5, 0.5, 1, 1, -1]
    # Never negative: k / 3, midpoints 1/6, 1/2, 5/6, atanh 0.168, 0.549, 1.199 on a grid of 1/8 = Δx.
    quantizer = TanhdOptions(4, places=4).quantizer(signed=False)
    assert quantizer.values() == [0, Fraction(5, 16), Fraction(11, 16), 1]
    assert quantizer.boundaries() == [Fraction(1, 8), Fraction(1, 2), Fraction(5, 4)]


def test_relud_levels_by_hand():
    quantizer = ReludOptions(4).quantizer(signed=False)
    assert quantizer.values() == [0, 2, 4, 6]
    assert quantizer.boundaries() == [1, 3, 5]
    assert quantizer(torch.tensor([-9.0, 0.99, 1.0, 2.9, 3.0, 5.0, 99.0])).tolist() == [0, 0, 2, 2, 4, 6, 6]
    # 6 / 15 on the grid 1/16.
    assert ReludOptions(16, places=4).quantizer(signed=False).values()[-1] == 15 * Fraction(6, 16)
    quantizer = ReludOptions(4, top=1.0).quantizer(signed=True)
    assert quantizer.values() == [-1, Fraction(-1, 2), 0, Fraction(1, 2)]
    assert quantizer(torch.tensor([-9.0, -0.75, -0.2501, -0.25, 0.25, 9])).tolist() == [-1, -0.5, -0.5, 0, 0.5, 0.5]


def test_learned_levels_settle_on_the_means():
    quantizer = LearnedOptions(4, bits=12).quantizer(signed=False)
    batch = torch.tensor([-3.0, -1, 0, 0, 1.0, 1.2, 5, 5.2, 9.8, 10.2]).repeat(50)
    quantizer.calibrate(batch)
    torch.testing.assert_close(quantizer.means, torch.tensor([0, 1.1, 5.1, 10]), rtol=1e-5, atol=1e-5)
    # Running means: one hundredth of the way to those of each batch.
    quantizer(torch.full((1000,), 2.1))
    torch.testing.assert_close(quantizer.means, torch.tensor([0, 1.11, 5.1, 10]), rtol=1e-5, atol=1e-5)
    quantizer.eval()
    quantizer(torch.full((1000,), 2.1))
    torch.testing.assert_close(quantizer.means, torch.tensor([0, 1.11, 5.1, 10]), rtol=1e-5, atol=1e-5)
    values = [float(value) for value in quantizer.values()]
    assert values == pytest.approx([0, 1.11, 5.1, 10], abs=0.002)
    assert [float(b) for b in quantizer.boundaries()] == pytest.approx([0.555, 3.105, 7.55], abs=0.002)


def test_learned_levels_of_batches_without_one_sign():
    for batch in (torch.zeros(50), -torch.rand(50), torch.rand(50)):
        for signed in (False, True):
            quantizer = LearnedOptions(6).quantizer(signed)
            quantizer.calibrate(batch)
            assert quantizer.means.isfinite().all()
            values = quantizer.values()
            assert values == sorted(values)
            assert values[-quantizer.lowest] == 0


def _calibrated(options, signed: bool) -> ActivationQuantizer:
    quantizer = options.quantizer(signed)
    batch = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 1.3
    quantizer.calibrate(batch if signed else batch.relu())
    return quantizer.eval()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("options", EVERY_LEVELS, ids=repr)
def test_boundaries_and_values_are_forward_exactly(options, signed):
    quantizer = _calibrated(options, signed)
    bounds, values, unit = quantizer.boundaries(), quantizer.values(), Fraction(float(quantizer.unit()))
    assert (len(bounds), len(values)) == (options.levels - 1, options.levels)
    assert bounds == sorted(bounds) and values == sorted(values)
    assert values[-quantizer.lowest] == 0
    assert all((value / unit).denominator == 1 for value in values)
    assert quantizer.lowest == (-(options.levels // 2) if signed else 0)
    for kind in (torch.float32, torch.float64):
        edges = torch.tensor([float(bound) for bound in bounds], dtype=kind)
        assert [Fraction(edge) for edge in edges.tolist()] == bounds
        near = [edges, edges.nextafter(torch.tensor(-inf, dtype=kind)), edges.nextafter(torch.tensor(inf, dtype=kind))]
        spread = torch.randn(500, dtype=kind, generator=torch.Generator().manual_seed(2)) * 3
        x = torch.cat([*near, spread, torch.tensor([0.0, -0.0, 1e30, -1e30, inf, -inf, 1e-40, -1e-40], dtype=kind)])
        expected = [float(values[sum(v >= float(bound) for bound in bounds)]) for v in x.tolist()]
        assert quantizer.to(kind)(x).tolist() == expected
        quantizer.float()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("options", EVERY_LEVELS, ids=repr)
def test_gradients_are_those_of_the_function_without_levels(options, signed):
    quantizer = _calibrated(options, signed).double()
    low, top = float(quantizer.values()[0]), float(quantizer.values()[-1])

    def smooth(x: torch.Tensor) -> torch.Tensor:
        if isinstance(options, TanhdOptions):
            return (x if signed else x.relu()).tanh()
        return x.clamp(low, top)

    x = torch.randn(300, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2
    x.requires_grad_()
    seed = torch.randn(300, dtype=torch.float64)
    quantizer(x).backward(seed)
    difference = (smooth(x.detach() + 1e-6) - smooth(x.detach() - 1e-6)) / 2e-6
    torch.testing.assert_close(x.grad, seed * difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", EVERY_LEVELS, ids=repr)
def test_what_is_no_number_stays_none(options):
    found = _calibrated(options, False)(torch.tensor([float("nan"), 0.0]))
    assert found.isnan().tolist() == [True, False]


@pytest.mark.parametrize("options", EVERY_LEVELS, ids=repr)
def test_levels_in_low_precision_keep_shape_and_type(options):
    found = _calibrated(options, False)(torch.rand(2, 3, 4, 5).bfloat16())
    assert (found.dtype, found.shape) == (torch.bfloat16, (2, 3, 4, 5))


@pytest.mark.parametrize("options", EVERY_LEVELS, ids=repr)
def test_the_order_in_memory_does_not_matter(options):
    quantizer, x = _calibrated(options, False), torch.randn(2, 3, 4, 5)
    expected = quantizer(x)
    last = quantizer(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, expected)
    assert torch.equal(quantizer(x.transpose(0, 3)), expected.transpose(0, 3))


def test_learned_levels_resume():
    first = LearnedOptions(8).quantizer(signed=True)
    first.calibrate(torch.randn(1000))
    second = LearnedOptions(8).quantizer(signed=True)
    second.load_state_dict(first.state_dict())
    batch = torch.randn(100)
    assert torch.equal(first(batch), second(batch))
    assert torch.equal(first.means, second.means)


# ---- options


@pytest.mark.parametrize("options, sentence", [
    ({"entries": 1}, r"weights\.entries must be from 2 to 256, not 1"),
    ({"entries": 257}, r"weights\.entries must be from 2 to 256, not 257"),
    ({"clustering": "soft"}, r"weights\.clustering must be one of kmeans, laplacian, fixed, not 'soft'"),
    ({"hold": "free"}, r"weights\.hold must be one of tied, drift, not 'free'"),
    ({"every": 0}, r"weights\.every must be from 1 to 1000000, not 0"),
    ({"bits": 17}, r"weights\.bits must be from 2 to 16, not 17"),
    ({"clustering": "fixed", "zero": True},
     r"weights\.entries must be odd for a fixed dictionary with a zero, not 16"),
    ({"entries": 100}, None),
    ({"entries": 200}, r"weights\.bits must be at least 9 for 200 entries, not 8"),
    ({"entries": 16, "bits": 4}, r"weights\.bits must be at least 5 for 16 entries, not 4"),
])
def test_weight_options(options, sentence):
    if sentence is None:
        assert TbnuOptions(**options)
        return
    with pytest.raises(InputError, match=f"^{sentence}$"):
        TbnuOptions(**options)


def test_tanhd_of_a_width_has_an_odd_number_of_levels():
    assert [TanhdOptions.for_bits(bits).levels for bits in (1, 2, 4, 8)] == [2, 3, 15, 255]


def test_any_number_of_levels_gets_enough_bits():
    assert {TbnuOptions.for_levels(levels).bits for levels in (2, 3, 128)} == {8}
    assert TbnuOptions.for_levels(256).bits == 9
    assert TbnuOptions.for_levels(4, bits=3) == TbnuOptions(4, bits=3)
    with pytest.raises(InputError, match=r"^weights\.entries must be from 2 to 256, not 0$"):
        TbnuOptions.for_levels(0)


@pytest.mark.parametrize("make, sentence", [
    (lambda: TanhdOptions(1), r"activations\.levels must be from 2 to 256, not 1"),
    (lambda: TanhdOptions(256, places=2), r"activations\.places must be at least 7 for 256 levels, not 2"),
    (lambda: TanhdOptions(16).quantizer(True),
     (r"activations\.levels must be odd for tanhd of activations that may be negative, not 16: code 0, which pads "
      r"convolutions, must stand for exactly 0; take 15")),
    (lambda: ReludOptions(16, places=0), r"activations\.places must be from 1 to 16, not 0"),
    (lambda: ReludOptions(16, top=-1.0),
     r"activations\.top must be a number of at least \(levels - 1\) / 2\^places = 0\.0585938, not -1\.0"),
    (lambda: ReludOptions(16, top=inf), r"activations\.top must be a number of at least .*, not inf"),
    (lambda: LearnedOptions(300), r"activations\.levels must be from 2 to 256, not 300"),
    (lambda: LearnedOptions(16, bits=3), r"activations\.bits must be at least 4 for 16 levels, not 3"),
])
def test_activation_options(make, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        make()
