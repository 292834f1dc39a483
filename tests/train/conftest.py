"""Tests of the training half; without torch this folder is not collected, and the hardware tests stand alone."""

import importlib.util

import numpy as np
import pytest

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads that wait for each other on a busy machine are many times slower than one on these tiny tensors."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def tiny_data():
    """Four classes of 6 x 6 images that a small network learns at once: a bright quadrant on noise."""
    from lutq_train.data import Dataset

    rng = np.random.default_rng(5)

    def draw(count):
        labels = rng.integers(0, 4, count)
        images = rng.integers(0, 90, (count, 6, 6))
        for image, label in zip(images, labels, strict=True):
            y, x = 3 * (label // 2), 3 * (label % 2)
            image[y:y + 3, x:x + 3] += 100
        return images.astype(np.uint8), labels.astype(np.int64)

    return Dataset("tiny", *draw(300), *draw(200), classes=4, peak=255)


@pytest.fixture
def tiny_recipe():
    """A recipe for ``tiny_data``: one convolution, one hidden layer, two float and two quantised epochs."""
    from lutq_train.recipe import parse

    return parse({
        "name": "tiny", "dataset": "tiny", "seed": 3,
        "model": {"channels": [4], "kernels": [3], "strides": [2], "paddings": [1], "hidden": [8]},
        "weights": {"constraint": "free", "entries": 4},
        "training": {"float_epochs": 2, "quantized_epochs": 2, "float_rate": 0.02, "quantized_rate": 0.01, "batch": 32,
                     "holdout": 50, "shift": 0.5, "rotate": 5.0, "zoom": 0.05},
    }, "tiny.toml")
