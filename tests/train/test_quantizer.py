"""LUT-Q: the k-means step by hand, the straight-through gradient, and layers that stay plain torch layers."""

import pytest
import torch
from torch import nn

from lutq_train.dictionary import Dictionary
from lutq_train.quantizer import LutQuantizer, attach, kmeans_step, quantizer_of, quantizers, update


def quantizer(weight, integers, scale, **spec):
    made = LutQuantizer(Dictionary(entries=len(integers), **spec), weight)
    made.integers, made.scale = torch.tensor(integers), torch.tensor([scale])
    return made


def test_one_step_by_hand():
    weight = torch.tensor([[-1.0, -0.8, 0.1], [0.3, 0.5, 1.1]])
    made = quantizer(weight, [-127.0, 0.0, 127.0], 1 / 127, constraint="free")
    kmeans_step([(made, weight)])
    # Midpoints -0.5 and 0.5; a weight on a midpoint goes down. Centres -0.9, 0.3, 1.1.
    assert made.assignments.tolist() == [[0, 0, 1], [1, 1, 2]]
    assert made.integers.tolist() == [round(-0.9 / 1.1 * 127), round(0.3 / 1.1 * 127), 127]
    assert made.scale.item() == pytest.approx(1.1 / 127)


def test_empty_clusters_keep_their_value_and_zero_stays_pinned():
    weight = torch.tensor([0.2, 0.9, 1.1])
    made = quantizer(weight, [-4.0, 0.0, 4.0], 0.25, constraint="power_of_two", zero=True)
    kmeans_step([(made, weight)])
    assert made.assignments.tolist() == [1, 2, 2]
    assert made.values.tolist() == [-1.0, 0.0, 1.0]  # 0.2 alone would have moved the zero


def test_forward_is_the_dictionary_and_the_gradient_passes_straight_through():
    layer = nn.Linear(3, 2, bias=False)
    attach(layer, Dictionary("free", 3))
    made = quantizer_of(layer)
    assert isinstance(layer, nn.Linear)
    assert torch.equal(layer.weight, (made.integers * made.scale)[made.assignments.long()])
    x, upstream = torch.randn(5, 3), torch.randn(5, 2)
    layer(x).backward(upstream)
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, upstream.T @ x)


@pytest.mark.parametrize("spec", [
    Dictionary("free", 8), Dictionary("power_of_two", 8, zero=True), Dictionary("sum_of_two", 6),
    Dictionary("ternary", 3), Dictionary("binary", 2)])
def test_training_moves_weights_and_dictionary_together(spec):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 3))
    attach(model, spec)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    before = [made.assignments.clone() for made, _ in quantizers(model)]
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(16, 2, 5, 5)).square().mean().backward()
        optimizer.step()
        update(model)
    for old, (made, weight) in zip(before, quantizers(model), strict=True):
        assert not torch.equal(old, made.assignments)
        assert (made.integers.diff() >= 0).all() and torch.equal(made.integers, made.integers.round())
        assert made.assignments.shape == weight.shape
        assert made.assignments.min() >= 0 and made.assignments.max() < spec.entries
        if spec.pinned:
            assert made.integers[made.pinned].tolist() == [0]


def test_update_of_several_layers_equals_one_at_a_time():
    torch.manual_seed(1)
    weights = [torch.randn(4, 5), torch.randn(7, 3, 2, 2)]
    spec = Dictionary("power_of_two", 6, zero=True)
    together, alone = ([LutQuantizer(spec, weight) for weight in weights] for _ in range(2))
    moved = [weight + 0.1 * torch.randn_like(weight) for weight in weights]
    kmeans_step(list(zip(together, moved, strict=True)))
    for a, b, weight in zip(together, alone, moved, strict=True):
        kmeans_step([(b, weight)])
        assert torch.equal(a.assignments, b.assignments)
        assert torch.equal(a.integers, b.integers) and torch.equal(a.scale, b.scale)


def test_the_start_is_a_fixed_point_of_k_means():
    made = LutQuantizer(Dictionary("free", 4, bits=16), weight := torch.tensor([-2.0, -1.9, -1.0, 0.4, 0.5, 3.0]))
    values = made.values.clone()
    kmeans_step([(made, weight)])
    torch.testing.assert_close(made.values, values)
    torch.testing.assert_close(values, torch.tensor([-1.95, -1.0, 0.45, 3.0]), atol=1e-3, rtol=0)


def test_attach_leaves_quantised_layers_alone():
    layer = nn.Linear(3, 2)
    attach(layer, Dictionary("free", 3))
    attach(layer, Dictionary("free", 4))
    assert quantizer_of(layer).dictionary.entries == 3
    assert quantizer_of(nn.Linear(1, 1)) is None
