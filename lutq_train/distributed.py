"""Several processes that train one network: what must be the same on all of them comes from the first.

Started with ``torchrun``; a process on its own needs none of it.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, distributed, nn


def active() -> bool:
    """Whether several processes work together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    """Number of this process, 0 for the first or only one."""
    return distributed.get_rank() if active() else 0


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if active() else 1


@torch.no_grad()
def agree(*tensors: Tensor) -> None:
    """Overwrite ``tensors`` with those of the first process.

    Sums on a GPU depend on the order of its threads; without this, two processes could round a centre differently.
    """
    if active():
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


def begin() -> None:
    """Join the other processes if ``torchrun`` (or what sets its environment variables) started this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def end() -> None:
    """Leave the other processes."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def device() -> torch.device:
    """Where this process trains: its GPU if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(place)
    return place


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over all processes, in one exchange."""
    if not active():
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= world()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def mean(value: float) -> float:
    """The mean of the ``value`` of every process."""
    if not active():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device())
    distributed.all_reduce(total)
    return float(total) / world()


def share(value: Any) -> Any:
    """The first process's ``value``, any object that can be pickled, on every process."""
    if not active():
        return value
    box = [value if rank() == 0 else None]
    distributed.broadcast_object_list(box, 0)
    return box[0]
