"""Hessian-weighted clustering of whole networks: what is shared, what is trained, and what integers come out."""

import copy
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from lutq_hw.errors import InputError
from lutq_train import loop, pruning, run
from lutq_train.clusters import entropy, kmeans
from lutq_train.method import quantizer_of
from lutq_train.methods import WEIGHTS
from lutq_train.methods.hessian import FLOOR, HessianOptions, HessianQuantizer
from lutq_train.quantize import quantize


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 5))


def data():
    generator = torch.Generator().manual_seed(9)
    return torch.randn(24, 2, 5, 5, generator=generator), torch.arange(24) % 5


def attach(model, with_losses=True, **options):
    x, labels = data()
    layers = {name: layer for name, layer in model.named_children() if isinstance(layer, nn.Linear | nn.Conv2d)}

    def losses():
        yield from (cross_entropy(model(a), b) for a, b in zip(x.split(6), labels.split(6), strict=True))

    HessianOptions(**options).attach(layers, losses if with_losses else None)
    return [quantizer_of(layer) for layer in layers.values()]


def train(model, steps=10, rate=1e-3):
    x, labels = data()
    optimizer = torch.optim.SGD(model.parameters(), rate, weight_decay=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_the_method_is_found_by_name():
    assert WEIGHTS["hessian"] is HessianOptions
    assert HessianOptions.for_levels(4, bits=6) == HessianOptions(entries=4, bits=6)


@pytest.mark.parametrize("importance", ["fisher", "hutchinson", "none"])
@pytest.mark.parametrize("options", [
    {"clustering": "kmeans"}, {"clustering": "uniform"}, {"clustering": "uniform", "rate": 2.0},
    {"clustering": "ecsq", "lam": 0.05}, {"clustering": "ecsq", "rate": 2.0}])
def test_every_clustering_gives_what_coded_says(importance, options):
    model = net()
    quantizers = attach(model, importance=importance, entries=8, **options)
    train(model)
    model.double()
    for layer, quantizer in zip((model[0], model[3]), quantizers, strict=True):
        coded = quantizer.coded(layer.parametrizations.weight.original)
        assert coded.assignments.shape == layer.weight.shape and coded.integers.shape == (1, 8)
        assert int(coded.integers.abs().max()) == 127
        assert isinstance(coded.scale, Fraction) and coded.scale == Fraction(float(quantizer.unit()))
        torch.testing.assert_close(layer.weight, coded.values.double() * float(coded.scale), rtol=1e-15, atol=0)
    if "rate" in options:
        assert entropy(torch.cat([quantizer.assignments.flatten() for quantizer in quantizers])) <= 2.0


def test_one_codebook_for_the_network_or_one_for_each_layer():
    model = net()
    a, b = attach(model, scope="network")
    assert a.book is b.book and len(list(model.parameters())) == 5  # two full-precision weights, two biases, one book
    a, b = attach(net(), scope="layer")
    assert a.book is not b.book


def test_the_gradient_of_a_centre_is_the_mean_over_its_weights():
    model = net()
    a, b = attach(model, entries=4, with_losses=False)
    x, labels = data()
    dense = [model[0].weight.detach().clone().requires_grad_(), model[3].weight.detach().clone().requires_grad_()]
    named = {"0.weight": dense[0], "3.weight": dense[1]}
    plain = net()
    loss = cross_entropy(torch.func.functional_call(plain, named, (x,)), labels)
    slopes = torch.autograd.grad(loss, dense)
    cross_entropy(model(x), labels).backward()
    expected = [sum(float(slope[quantizer.assignments == k].sum()) for slope, quantizer
                    in zip(slopes, (a, b), strict=True)) for k in range(4)]
    counts = [sum(int((quantizer.assignments == k).sum()) for quantizer in (a, b)) for k in range(4)]
    assert a.book.shares.tolist() == counts and min(counts) > 0
    torch.testing.assert_close(a.book.centres.grad, torch.tensor(expected) / torch.tensor(counts))
    for layer in (model[0], model[3]):
        original = layer.parametrizations.weight.original
        assert original.grad is None and not original.requires_grad


def test_training_moves_centres_and_leaves_assignments():
    model = net()
    quantizers = attach(model, entries=6)
    before = [quantizer.assignments.clone() for quantizer in quantizers]
    first = train(model, 1)
    assert train(model, 60, 1.0) < first - 0.2
    assert all(torch.equal(old, quantizer.assignments) for old, quantizer in zip(before, quantizers, strict=True))


def test_pruned_weights_stay_zero_and_out_of_the_clustering():
    model = net()
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight[layer.weight.abs() < 0.1] = 0
    masks = [layer.weight == 0 for layer in (model[0], model[3])]
    kept = torch.cat([layer.weight.detach()[~mask] for layer, mask in zip((model[0], model[3]), masks, strict=True)])
    quantizers = attach(model, entries=3, importance="none")
    below, above = kept[kept < 0].mean(), kept[kept > 0].mean()
    torch.testing.assert_close(quantizers[0].book.centres, torch.stack([torch.zeros(()), below, above]))
    train(model, 20, 0.05)
    assert quantizers[0].book.live.tolist() == [False, True, True]
    for layer, mask in zip((model[0], model[3]), masks, strict=True):
        assert torch.equal(layer.weight == 0, mask)


class Mask(nn.Module):
    """A pruning stage in front of the quantiser."""

    def forward(self, weight):
        return weight * (weight.abs() > 0.1)


def test_a_pruning_stage_goes_before():
    model = net()
    for layer in (model[0], model[3]):
        parametrize.register_parametrization(layer, "weight", Mask())
    masks = [layer.weight == 0 for layer in (model[0], model[3])]
    attach(model, entries=5, importance="hutchinson")
    for layer, mask in zip((model[0], model[3]), masks, strict=True):
        assert isinstance(layer.parametrizations.weight[1], HessianQuantizer)
        assert torch.equal(layer.weight == 0, mask)
        assert layer.parametrizations.weight.original.grad is None


def test_importance_draws_the_centres():
    # The loss minds only the last two weights, so the two centres go there.
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0, -0.5, 0.5, 1.0]]))
    x = torch.tensor([[0.0, 0.0, 5.0, 7.0]])
    HessianOptions(entries=2).attach({"fc": layer}, lambda: [layer(x).sum()])
    assert layer.weight.flatten().tolist()[2:] == pytest.approx([0.5, 1.0], abs=0.01)
    assert layer.weight.flatten().tolist()[0] == pytest.approx(0.5, abs=0.01)


def test_a_checkpoint_loads_into_a_network_quantised_from_other_weights():
    trained = net(0)
    attach(trained, entries=8, clustering="ecsq", lam=0.2)
    train(trained)
    other = net(1)
    a, b = attach(other, entries=8, clustering="ecsq", lam=0.0, with_losses=False)
    other.load_state_dict(trained.state_dict())
    x, _ = data()
    assert torch.equal(trained(x), other(x)) and a.book is b.book
    again = copy.deepcopy(other)
    assert quantizer_of(again[0]).book is quantizer_of(again[3]).book is not a.book


def test_all_zero_and_unreached_layers():
    model = net()
    with torch.no_grad():
        model[3].weight.zero_()
    quantizers = attach(model, scope="layer", entries=4)  # the gradient of the convolution is zero, too
    assert not model[3].weight.any() and model[0].weight.any()
    assert float(quantizers[1].unit()) > 0
    train(model, 2)


@pytest.mark.parametrize("compiled", [False, True])
def test_mixed_precision_and_compilation(compiled):
    model = net()
    attach(model, entries=4)
    run = torch.compile(model, backend="aot_eager") if compiled else model
    x, labels = data()
    with torch.autocast("cpu", torch.bfloat16, enabled=not compiled):
        loss = cross_entropy(run(x).float(), labels)
        loss.backward()
    assert quantizer_of(model[0]).book.centres.grad.abs().sum() > 0


@pytest.mark.parametrize("options, text", [
    ({"entries": 1}, "weights.entries must be from 2 to 256, not 1"),
    ({"bits": 17}, "weights.bits must be from 2 to 16, not 17"),
    ({"rate": -1.0, "clustering": "ecsq"}, "weights.rate must be from 0 to 8, not -1.0"),
    ({"lam": -0.1}, "weights.lam must be from 0 to 1000, not -0.1"),
    ({"clustering": "fuzzy"}, "weights.clustering must be one of kmeans, uniform, ecsq, not 'fuzzy'"),
    ({"importance": "hessian"}, "weights.importance must be one of fisher, hutchinson, adam, none, not 'hessian'"),
    ({"scope": "channel"}, "weights.scope must be one of network, layer, not 'channel'"),
    ({"rate": 2.0}, "weights.rate must be left out with k-means, which knows no rate; choose uniform or ecsq"),
])
def test_wrong_options(options, text):
    with pytest.raises(InputError, match=f"^{text}$"):
        HessianOptions(**options)


def test_weights_that_are_no_numbers():
    model = net()
    with torch.no_grad():
        model[3].weight[0, 0] = float("inf")
    with pytest.raises(InputError, match=r"^3: weights must be finite numbers to be clustered; the training has "
                                         r"diverged$"):
        attach(model, with_losses=False)


def adam_trained(**options):
    """A network after some steps of Adam, and the optimiser."""
    model = net()
    x, labels = data()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, **options)
    for _ in range(5):
        optimizer.zero_grad()
        cross_entropy(model(x), labels).backward()
        optimizer.step()
    return model, optimizer


def test_second_moments_of_adam_are_an_importance():
    model, optimizer = adam_trained()
    weights = [model[0].weight.detach().clone(), model[3].weight.detach().clone()]
    moments = [(optimizer.state[model[n].weight]["exp_avg_sq"] / (1 - 0.999**5)).sqrt() for n in (0, 3)]
    quantize(model, "hessian", weight_levels=5, importance="adam", optimizer=optimizer, example=data()[0])
    flat, h = (torch.cat([part.flatten() for part in parts]) for parts in (weights, moments))
    wanted, centres = kmeans(flat, 5, h / h.mean() + FLOOR, "best", reseed=True)
    found = torch.cat([quantizer_of(model[n]).assignments.flatten() for n in (0, 3)])
    assert torch.equal(found, wanted)
    torch.testing.assert_close(quantizer_of(model[0]).book.centres.detach(), centres)
    plain, _ = kmeans(flat, 5, None, "best", reseed=True)
    assert not torch.equal(found, plain)  # or the test could not fail


def test_second_moments_of_pruned_weights():
    model, _ = adam_trained()
    pruning.attach(model)
    pruning.prune(model, 0.5, "network")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, labels = data()
    cross_entropy(model(x), labels).backward()
    optimizer.step()
    quantize(model, "hessian", weight_levels=5, importance="adam", optimizer=optimizer, example=x)
    assert float((model[3].weight == 0).float().mean()) > 0.2


def test_second_moments_that_there_are_not():
    x = data()[0]
    with pytest.raises(InputError, match=r'^weights\.importance "adam" needs the Adam that trained the weights; give it as '
                                         r"quantize\(\.\.\., optimizer=optimizer\)$"):
        quantize(net(), "hessian", importance="adam", example=x)
    model = net()
    for optimizer in (torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), torch.optim.Adam(model.parameters())):
        with pytest.raises(InputError, match=rf"^0: the optimiser must be Adam or AdamW after at least one step of this "
                                             rf"parameter, but {type(optimizer).__name__} keeps no second moment of it$"):
            quantize(model, "hessian", importance="adam", optimizer=optimizer, example=x)
    quantize(model, "hessian", importance="adam", example=x, loading=True)  # nothing to look at, nothing looked at


@pytest.mark.parametrize("training", [{"optimizer": "sgd"}, {"float_epochs": 0}])
def test_a_recipe_must_train_with_adam_for_its_second_moments(recipe_for, training):
    with pytest.raises(InputError, match=r'^tiny\.toml: training\.optimizer must be "adam", with float or pruned epochs, '
                                         r'where weights\.importance is "adam": it is the second moments of that optimiser$'):
        recipe_for("hessian-lsq", weights={"importance": "adam"}, training=training)


def test_a_recipe_with_second_moments_resumes_exactly(recipe_for, tiny_data, tmp_path):
    plan = recipe_for("hessian-lsq", weights={"importance": "adam"}, training={"float_epochs": 1, "quantized_epochs": 2})
    state, images = run.create(tmp_path / "run", plan, tiny_data), loop.Images(tiny_data, plan)
    for _ in range(2):
        loop.run_epoch(state, images)
        run.save(tmp_path / "run", state)
    again = run.restore(tmp_path / "run", plan, tiny_data)
    for one in (state, again):
        loop.run_epoch(one, images)
    assert state.epoch == state.epochs and all(torch.equal(a, b) for a, b in zip(
        state.model.state_dict().values(), again.model.state_dict().values(), strict=True))
