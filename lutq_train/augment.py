"""Random shifts, rotations, zooms, crops and flips of uint8 images, from a generator so that a run can be repeated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from .ranges import check_ranges


@dataclass(frozen=True)
class Augmentation:
    """How far training images are changed; all zero and false leaves them as they are."""

    shift: float = 0.0          # largest translation in pixels, to fractions of one
    rotate: float = 0.0         # largest rotation in degrees
    zoom: float = 0.0           # largest change of size, 0.1 = 10 %
    flip: bool = False          # left and right exchanged, every second image
    crop: int = 0               # pixels added on all sides, of which a random part of the old size is kept

    def __post_init__(self) -> None:
        check_ranges(self, "augmentation", shift=(0, 16), rotate=(0, 180), zoom=(0, 0.9), crop=(0, 16))


class Motion(Protocol):
    """The part of an `Augmentation` that resamples: shift, rotation and zoom."""

    @property
    def shift(self) -> float: ...
    @property
    def rotate(self) -> float: ...
    @property
    def zoom(self) -> float: ...


def augment(images: Tensor, options: Motion, generator: torch.Generator, background: int = 0) -> Tensor:
    """Images ``(B, H, W)`` or ``(B, H, W, C)`` uint8, each changed by its own draws; same shape.

    Parameters
    ----------
    options
        An `Augmentation`. Other objects with shift, rotate and zoom neither flip nor crop.
    generator
        Of any device, the images' or not: draws depend on the number of images and on what is switched on only.
    background
        Pixel value outside of an image.
    """
    if options.shift or options.rotate or options.zoom:
        images = _move(images, options, generator, background)
    if isinstance(options, Augmentation) and (options.flip or options.crop):
        images = _crop(images, options, generator, background)
    return images


def _move(images: Tensor, options: Motion, generator: torch.Generator, background: int) -> Tensor:
    """A random similarity of each image, bilinear."""
    count, height, width = images.shape[:3]
    draw = torch.rand(4, count, generator=generator, device=generator.device).to(images.device) * 2 - 1
    angle, zoom = draw[0] * math.radians(options.rotate), 1 + draw[1] * options.zoom
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    # affine_grid counts from -1 to 1 over an axis, so a pixel is 2 / size, and a rotation must undo the aspect ratio.
    theta = torch.stack((
        torch.stack((cos, -sin * height / width, draw[2] * options.shift * 2 / width), 1),
        torch.stack((sin * width / height, cos, draw[3] * options.shift * 2 / height), 1)), 1)
    grid = affine_grid(theta, [count, 1, height, width], align_corners=False)
    planes = images.reshape(count, height, width, -1).permute(0, 3, 1, 2).float()
    # grid_sample puts zeros outside, so the background is made zero for it.
    moved = grid_sample(planes - background if background else planes, grid, mode="bilinear", align_corners=False)
    return (moved.round() + background).to(torch.uint8).permute(0, 2, 3, 1).reshape(images.shape)


def _crop(images: Tensor, options: Augmentation, generator: torch.Generator, background: int) -> Tensor:
    """A random window of each image with a border added, and every second image mirrored."""
    (count, height, width), border = images.shape[:3], options.crop
    device, drawn = images.device, generator.device
    rows = torch.arange(height, device=device).expand(count, -1)
    columns = torch.arange(width, device=device).expand(count, -1)
    if options.flip:
        mirrored = torch.rand(count, 1, generator=generator, device=drawn).to(device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if border:
        start = torch.randint(2 * border + 1, (2, count, 1), generator=generator, device=drawn).to(device)
        rows, columns = rows + start[0], columns + start[1]
        channels = [0, 0] * (images.ndim - 3)
        images = pad(images, (*channels, border, border, border, border), value=background)
    return images[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
