"""How much the loss minds a change of each weight: the diagonal of its Hessian, or what stands for it.

At a minimum of the loss, changing the weights by ``d`` costs ``1/2 sum h_ii d_i^2`` with the diagonal ``h`` of the
Hessian (Choi, El-Khamy, Lee, ICLR 2017, equation 7). Three estimates, all of them not negative: `hutchinson` of the
Hessian itself, `fisher` from gradients alone, and `adam_second_moment`, which training leaves behind for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lutq_hw.errors import InputError

from .method import Losses


def hutchinson(losses: Losses, parameters: Sequence[Tensor], *, probes: int = 4, seed: int = 0) -> list[Tensor]:
    """Diagonal of the Hessian of the mean loss: ``E[z * (H z)]`` over vectors ``z`` of random signs, clipped at zero.

    Parameters
    ----------
    losses
        Gives mean losses of batches with their graphs; batches count alike. Must be twice differentiable where
        it matters: a quantiser with a straight-through gradient has no second derivative to speak of.
    probes
        Vectors for each batch. The error of an entry falls with the square root of probes times batches; it comes
        from the rest of its row.

    Returns
    -------
    list
        For every parameter a tensor of its shape; zeros where the loss does not depend on it.
    """
    parameters = list(parameters)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    generator = torch.Generator().manual_seed(seed)
    count = 0
    for loss in losses():
        count += 1
        slopes = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        for _ in range(probes):
            signs = [_signs(parameter, generator) for parameter in parameters]
            used = [(slope * z).sum() for slope, z in zip(slopes, signs, strict=True)
                    if slope is not None and slope.requires_grad]
            if not used:
                continue
            products = torch.autograd.grad(sum(used), parameters, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
            for part, z, product in zip(total, signs, products, strict=True):
                if product is not None:
                    part.add_(z * product.detach())
    return [part.div_(_counted(count) * probes).clamp_(min=0) for part in total]


def fisher(losses: Losses, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Diagonal of the empirical Fisher matrix: the mean of the squared gradients of the given losses.

    Give the loss of every *sample* on its own (they may share one graph: ``yield from cross_entropy(...,
    reduction="none")``) for ``E[g^2]`` as it is defined. Mean losses of batches of B samples are cheaper: at a minimum,
    where gradients average out, they give a B-th of it, the same to any clustering, with more noise.

    Returns
    -------
    list
        For every parameter a tensor of its shape; zeros where the loss does not depend on it.
    """
    parameters = list(parameters)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    count = 0
    for loss in losses():
        count += 1
        slopes = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for part, slope in zip(total, slopes, strict=True):
            if slope is not None:
                part.addcmul_(slope, slope)
    return [part.div_(_counted(count)) for part in total]


def adam_second_moment(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
    """``sqrt(v / (1 - beta2^t))``, the paper's replacement for the Hessian where Adam has trained.

    Raises
    ------
    InputError
        If ``optimizer`` keeps no second moment of ``parameter``: not Adam, or no step yet.
    """
    state: dict[str, Any] = optimizer.state.get(parameter, {})
    if "exp_avg_sq" not in state or not state["step"]:
        raise InputError(f"the optimiser must be Adam or AdamW after at least one step of this parameter, but "
                         f"{type(optimizer).__name__} keeps no second moment of it")
    group = next(group for group in optimizer.param_groups if any(parameter is other for other in group["params"]))
    step = float(state["step"])
    return (state["exp_avg_sq"] / (1 - group["betas"][1] ** step)).sqrt()


def _signs(parameter: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, parameter.shape, generator=generator, dtype=torch.int8)
    return signs.to(parameter.device, parameter.dtype).mul_(2).sub_(1)


def _counted(count: int) -> int:
    if not count:
        raise InputError("losses must give the loss of at least one batch to take derivatives of, but gave none")
    return count
