"""Augmentation: draws that repeat, images that stay what they were, limits."""

import pytest
import torch

from lutq_hw.errors import InputError
from lutq_train.augment import Augmentation, augment


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def pictures(*shape):
    return torch.randint(0, 256, shape, generator=generator(1), dtype=torch.uint8)


class Moving:
    """What has shift, rotate and zoom only."""

    shift, rotate, zoom = 1.0, 6.0, 0.06


def test_moves_are_those_of_the_shipped_models():
    """Draws in the order angle, zoom, shift in x, shift in y, before any other; a change would change every model."""
    height, width = 28, 22
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    images = torch.stack((9 * x, 9 * y)).to(torch.uint8).expand(2, height, width)
    moved = augment(images, Augmentation(1.0, 6.0, 0.06, flip=False, crop=0), generator())
    angle, zoom, across, down = torch.rand(4, 2, generator=generator()) * 2 - 1
    angle, zoom = torch.deg2rad(angle * 6.0), 1 + zoom * 0.06
    for i in range(2):
        u, v = x - (width - 1) / 2, y - (height - 1) / 2
        cos, sin = angle[i].cos() / zoom[i], angle[i].sin() / zoom[i]
        source = (cos * u - sin * v + across[i] + (width - 1) / 2, sin * u + cos * v + down[i] + (height - 1) / 2)
        inside = (source[0] >= 0) & (source[0] <= width - 1) & (source[1] >= 0) & (source[1] <= height - 1)
        assert inside.float().mean() > 0.8
        assert torch.allclose(moved[i].float()[inside], 9 * source[i][inside], atol=0.51)


def test_axes_and_kinds_of_options_make_no_difference():
    images = pictures(5, 9, 7)
    moved = augment(images, Augmentation(1.0, 6.0, 0.06), generator())
    assert torch.equal(moved, augment(images, Moving(), generator()))
    assert torch.equal(moved, augment(images[..., None], Moving(), generator())[..., 0])
    colour = augment(images[..., None].expand(-1, -1, -1, 3), Moving(), generator())
    assert colour.shape == (5, 9, 7, 3) and torch.equal(colour, moved[..., None].expand(-1, -1, -1, 3))


def test_nothing_switched_on_draws_nothing():
    images, source = pictures(2, 4, 4, 1), generator()
    state = source.get_state()
    assert augment(images, Augmentation(), source) is images
    assert torch.equal(source.get_state(), state)


@pytest.mark.parametrize("shape", [(64, 6, 5), (64, 6, 5, 3)])
def test_flip_mirrors_every_second_image(shape):
    images = pictures(*shape)
    flipped = augment(images, Augmentation(flip=True), generator())
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(2)).flatten(1).all(1)
    assert bool((same | mirrored).all()) and 16 < int(mirrored.sum()) < 48


def test_crop_takes_every_window_of_the_padded_image():
    images = pictures(200, 4, 5, 3)
    padded = torch.full((200, 6, 7, 3), 99, dtype=torch.uint8)
    padded[:, 1:5, 1:6] = images
    windows = [padded[:, y:y + 4, x:x + 5] for y in range(3) for x in range(3)]
    cropped = augment(images, Augmentation(crop=1), generator(), background=99)
    hits = torch.stack([(cropped == window).flatten(1).all(1) for window in windows])
    assert cropped.dtype == torch.uint8 and bool(hits.any(0).all()) and bool(hits.any(1).all())


def test_a_background_surrounds_moved_images_and_fills_nothing_else():
    images = torch.full((8, 12, 12, 3), 128, dtype=torch.uint8)
    options = Augmentation(shift=3.0, rotate=30.0, zoom=0.2, flip=True, crop=4)
    assert torch.equal(augment(images, options, generator(), background=128), images)
    assert augment(images, options, generator()).min() == 0


def test_everything_together_repeats():
    images, options = pictures(16, 8, 8, 3), Augmentation(1.0, 10.0, 0.1, flip=True, crop=2)
    first = augment(images, options, generator(), 128)
    assert torch.equal(first, augment(images, options, generator(), 128))
    assert not torch.equal(first, augment(images, options, generator(4), 128))


@pytest.mark.parametrize("options, text", [
    ({"shift": 16.5}, "augmentation.shift must be from 0 to 16, not 16.5"),
    ({"rotate": -1.0}, "augmentation.rotate must be from 0 to 180, not -1.0"),
    ({"zoom": 1.0}, "augmentation.zoom must be from 0 to 0.9, not 1.0"),
    ({"zoom": float("nan")}, "augmentation.zoom must be from 0 to 0.9, not nan"),
    ({"crop": 17}, "augmentation.crop must be from 0 to 16, not 17"),
])
def test_limits(options, text):
    with pytest.raises(InputError) as caught:
        Augmentation(**options)
    assert str(caught.value) == text
