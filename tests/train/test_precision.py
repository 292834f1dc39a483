"""Mixed precision and compiled networks: every method trains in both, and exports exactly afterwards."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import lutq_train
from lutq_train import loop, run, verify
from lutq_train.export import network as to_network

# torch.compile makes objects of autograd functions and imports torch.jit, of both of which PyTorch warns: itself, here.
OWN_WARNING = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def small(recipe_for, case):
    """A quantised network, a batch, and its labels."""
    plan = recipe_for(case)
    torch.manual_seed(4)
    model = plan.model.build((6, 6, 1), 4)
    x, labels = torch.rand(64, 1, 6, 6), torch.randint(0, 4, (64,))
    lutq_train.quantize(model, plan.weights, activations=plan.activation_options, example=x)
    return model, x, labels


def steps(model, x, labels, *, forward=None, autocast=False, count=6):
    """Train; the losses."""
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(count):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            scores = (forward or model)(x)
        loss = cross_entropy(scores.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lutq_train.update(model)
        losses.append(loss.item())
    return losses


def test_recipe_in_bfloat16(case, tiny_data, recipe_for, tmp_path):
    plan = recipe_for(case, precision="bfloat16")
    state = run.create(tmp_path / "run", plan, tiny_data)
    images = loop.Images(tiny_data, plan)
    while state.epoch < state.epochs:
        loop.run_epoch(state, images)
    assert all(p.dtype == torch.float32 for p in state.model.parameters())
    network = to_network(state.model, images.input(images.test[0][:2]), name="tiny", codes=images.codes)
    found = verify.compare(state.model, network, images.batches(images.test[0]), images.test[1].numpy())
    assert (found.samples, found.unexplained) == (200, 0)
    assert found.accuracy > 0.6


def test_autocast(case, recipe_for, tmp_path):
    model, x, labels = small(recipe_for, case)
    losses = steps(model, x, labels, autocast=True, count=12)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    network = lutq_train.export(model, tmp_path / "model.npz", example=x)
    assert verify.compare(model, network, [x]).exact


@pytest.mark.parametrize("method", ["lsq", "qil"])
def test_eight_bits_in_bfloat16(method):
    """Codes above 128 are those of float32, though bfloat16 has no number between 200 and 201."""
    from lutq_train.methods import ACTIVATIONS

    quantizer = ACTIVATIONS[method].for_bits(8).quantizer(signed=False)
    x = torch.linspace(0, 4, 1001).bfloat16()
    quantizer.calibrate(x.float())
    assert torch.equal(quantizer(x), quantizer(x.float()).bfloat16())


def compiled(model, backend):
    torch._dynamo.reset()
    return torch.compile(model, backend=backend, fullgraph=True)


@OWN_WARNING
def test_compiled(case, recipe_for):
    """One graph without a break, also of the gradients, and the same numbers; `update` changes what it computes with."""
    model, x, labels = small(recipe_for, case)
    plain = copy.deepcopy(model)
    assert steps(model, x, labels, forward=compiled(model, "aot_eager")) == steps(plain, x, labels)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@OWN_WARNING
@pytest.mark.slow
def test_compiled_to_machine_code(case, recipe_for):
    model, x, labels = small(recipe_for, case)
    plain = copy.deepcopy(model)
    forward = compiled(model, "inductor")
    assert steps(model, x, labels, forward=forward, count=1) == pytest.approx(steps(plain, x, labels, count=1), rel=1e-5)
    for (name, found), wanted in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5, msg=name)
    # From here on a last bit may move a weight or an activation across a boundary, so there is no comparing.
    losses = steps(model, x, labels, forward=forward, count=12)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
