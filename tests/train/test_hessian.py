"""Importance of weights against the exact Hessian and against gradients taken one by one."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from lutq_hw.errors import InputError
from lutq_train.hessian import adam_second_moment, fisher, hutchinson


def net():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return model, torch.randn(24, 3).double(), torch.randint(0, 3, (24,))


def exact_diagonals(model, x, labels):
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(*parameters):
        return cross_entropy(torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,)), labels)

    full = torch.autograd.functional.hessian(loss, tuple(values))
    return [row[n].reshape(values[n].numel(), -1).diagonal().view_as(values[n]) for n, row in enumerate(full)]


def test_hutchinson_comes_close_to_the_exact_hessian():
    model, x, labels = net()
    parameters = list(model.parameters())
    halves = [(x[:12], labels[:12]), (x[12:], labels[12:])]
    found = hutchinson(lambda: (cross_entropy(model(a), b) for a, b in halves), parameters, probes=2000)
    for estimate, exact in zip(found, exact_diagonals(model, x, labels), strict=True):
        torch.testing.assert_close(estimate, exact.clamp(min=0), atol=0.01, rtol=0.1)
        assert (estimate >= 0).all()


def test_hutchinson_is_exact_where_the_hessian_is_diagonal():
    w, scale = torch.tensor([1.0, -2.0, 3.0], requires_grad=True), torch.tensor([2.0, 0.5, -1.0])
    found = hutchinson(lambda: [0.5 * (scale * w * w).sum()], [w], probes=1)
    assert found[0].tolist() == [2.0, 0.5, 0.0]


def test_parameters_without_second_derivative_are_zero():
    w, other = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    found = hutchinson(lambda: [w.sum() * 2, (w * w).sum()], [w, other], probes=1)
    assert found[0].tolist() == [1.0, 1.0] and found[1].tolist() == [0.0, 0.0, 0.0]
    linear = hutchinson(lambda: [w.sum() * 2], [w], probes=1)
    assert linear[0].tolist() == [0.0, 0.0]


def test_hutchinson_repeats_itself():
    model, x, labels = net()
    a, b = (hutchinson(lambda: [cross_entropy(model(x), labels)], list(model.parameters())) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_fisher_of_samples_that_share_a_graph():
    model, x, labels = net()
    parameters = list(model.parameters())
    found = fisher(lambda: cross_entropy(model(x), labels, reduction="none").unbind(), parameters)
    for n, parameter in enumerate(parameters):
        expected = torch.zeros_like(parameter)
        for a, b in zip(x, labels, strict=True):
            expected += torch.autograd.grad(cross_entropy(model(a), b), parameters)[n].square() / len(x)
        torch.testing.assert_close(found[n], expected)


def test_fisher_by_hand_and_unused_parameters():
    w, other = torch.tensor([1.0, 2.0], requires_grad=True), torch.ones(1, requires_grad=True)
    found = fisher(lambda: ((w * torch.tensor(x)).sum() for x in ([1.0, 0.0], [3.0, 2.0])), [w, other])
    assert found[0].tolist() == [5.0, 2.0] and found[1].tolist() == [0.0]


def test_second_moment_of_adam():
    w, still = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [still]}, {"params": [w], "betas": (0.9, 0.5)}])
    for target in ([1.0, 2.0], [3.0, 2.0]):
        optimizer.zero_grad()
        (w * torch.tensor(target)).sum().backward()
        optimizer.step()
    # v = 0.5 (0.5 * 1 + 9), (1 - 0.5^2) = 0.75
    torch.testing.assert_close(adam_second_moment(optimizer, w), torch.tensor([(4.75 / 0.75) ** 0.5, 2.0]))
    with pytest.raises(InputError, match=r"^the optimiser must be Adam or AdamW after at least one step of this "
                                         r"parameter, but Adam keeps no second moment of it$"):
        adam_second_moment(optimizer, still)


def test_no_losses():
    w = torch.zeros(2, requires_grad=True)
    for estimate in (hutchinson, fisher):
        with pytest.raises(InputError, match=r"^losses must give the loss of at least one batch to take derivatives "
                                             r"of, but gave none$"):
            estimate(list, [w])
    assert fisher(lambda: [mse_loss(w, torch.ones(2))], [w])[0].tolist() == [1.0, 1.0]
