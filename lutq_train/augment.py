"""Small random shifts, rotations and zooms of uint8 images, drawn from a generator so that a run can be repeated."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from .recipe import TrainingRecipe


def augment(images: Tensor, recipe: TrainingRecipe, generator: torch.Generator) -> Tensor:
    """Images ``(B, H, W)`` uint8, each moved by its own random similarity, bilinear, zeros outside."""
    if not (recipe.shift or recipe.rotate or recipe.zoom):
        return images
    count, height, width = images.shape
    draw = torch.rand(4, count, generator=generator) * 2 - 1
    angle, zoom = draw[0] * math.radians(recipe.rotate), 1 + draw[1] * recipe.zoom
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    # affine_grid counts from -1 to 1 over an axis, so a pixel is 2 / size, and a rotation must undo the aspect ratio.
    theta = torch.stack((
        torch.stack((cos, -sin * height / width, draw[2] * recipe.shift * 2 / width), 1),
        torch.stack((sin * width / height, cos, draw[3] * recipe.shift * 2 / height), 1)), 1)
    grid = affine_grid(theta, [count, 1, height, width], align_corners=False)
    moved = grid_sample(images[:, None].float(), grid, mode="bilinear", align_corners=False)
    return moved[:, 0].round().to(torch.uint8)
