"""Weights to start from: reading them into a network by name, and fitting the first layer to another input."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lutq_hw.errors import InputError, reason

from .datasets.archive import read_npz

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue, 0 to 1: what most public weights, those of the CIFAR-10 ResNets too, were trained with."""

_COUNTER = "num_batches_tracked"  # of a batch norm: plays no part with a momentum, and .npz files leave it out


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill all parameters and buffers of ``model`` from a file, by name; nothing is changed where the file does not fit.

    Parameters
    ----------
    path
        An .npz of arrays, or a file of ``torch.save`` with a state dict in it, as such or under the key ``state_dict``.
        A prefix ``module.`` that all names share (from DataParallel) is taken off.

    Raises
    ------
    InputError
        If the file cannot be read, a name is missing, unexpected or of another shape, or a number is not finite.
    """
    path = Path(path)
    found = _read_npz(path) if path.suffix == ".npz" else _read_state(path)
    if found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    wanted = model.state_dict()
    for name, value in wanted.items():
        if name not in found and not name.endswith(_COUNTER):
            raise InputError(f"{path} must hold {name} of shape {tuple(value.shape)}, which is missing")
    for name, value in found.items():
        if name not in wanted:
            raise InputError(f"{path} holds {name}, which the model does not have; give weights of the same model")
        if value.shape != wanted[name].shape:
            raise InputError(f"{path} must hold {name} of shape {tuple(wanted[name].shape)}, not {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{path} must hold finite numbers, which those of {name} are not")
    model.load_state_dict({**wanted, **found})


def _read_npz(path: Path) -> dict[str, Tensor]:
    arrays = read_npz(path)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise InputError(f"{path} must hold numbers, but {name} is an array of {array.dtype}")
    return {name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in arrays.items()}


def read_torch(path: Path, *, mapped: bool = False) -> Any:
    """What ``torch.save`` wrote: tensors and plain values; nothing that a file names is ever called.

    ``mapped`` tensors are read when they are looked at.

    Raises
    ------
    InputError
        If the file cannot be read or is another one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks about files that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} must be a torch file of tensors: {reason(error)}") from None


def _read_state(path: Path) -> dict[str, Tensor]:
    content = read_torch(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} must hold a state dict, names with a tensor each, and it does not")
    return {str(name): value for name, value in content.items()}


@torch.no_grad()
def renormalize_input(conv: nn.Conv2d, norm: nn.BatchNorm2d, mean: Sequence[float] = IMAGENET_MEAN,
                      std: Sequence[float] = IMAGENET_STD, *, centre: float = 128.0, scale: float = 64.0) -> None:
    """Fit a first convolution that was trained on ``(pixel / 255 - mean) / std`` to the input ``(pixel - centre) / scale``.

    Exact but at padded borders, where the old input padded with ``255 mean`` and the new one pads with ``centre``.

    Parameters
    ----------
    conv, norm
        The convolution and the batch norm behind it; weights and running mean are changed in place.
    mean, std
        One value for each input channel.
    centre, scale
        128 and 64 are the signed 8-bit codes of `lutq_train.datasets`.

    Raises
    ------
    InputError
        If ``mean`` and ``std`` do not have one value for each input channel, or the convolution is grouped.
    """
    if not len(mean) == len(std) == conv.in_channels or conv.groups != 1:
        raise InputError(f"mean and std must have one value for each of {conv.in_channels} input channels of an ungrouped "
                         f"convolution, not {len(mean)} and {len(std)} with {conv.groups} groups")
    if norm.running_mean is None:
        raise InputError("norm must be a batch norm with a running mean, not one with track_running_stats=False")
    # old input = gain * new input + offset
    gain = [scale / (255 * s) for s in std]
    offset = [(centre / 255 - m) / s for m, s in zip(mean, std, strict=True)]
    weight = conv.weight.double()
    norm.running_mean.sub_((weight.sum((2, 3)) @ weight.new_tensor(offset)).to(norm.running_mean))
    conv.weight.copy_(weight * weight.new_tensor(gain)[:, None, None])
