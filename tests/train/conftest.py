"""Tests of the training half; without torch this folder is not collected, and the hardware tests stand alone."""

import importlib.util

import numpy as np
import pytest

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]

OPTIONS = {"tbnu": {"every": 4, "entries": 7, "zero": True}, "hessian": {"entries": 6},
           "lutq": {"entries": 4, "zero": True}}
"""Options that make a weight method work at its task in a short training, pruned too; others have their defaults."""

TINY = {
    "name": "tiny", "dataset": "tiny", "seed": 3,
    "model": {"name": "cnn", "channels": [4], "kernels": [3], "strides": [2], "paddings": [1], "hidden": [8]},
    "weights": {"constraint": "free", "entries": 4},
    "training": {"float_epochs": 2, "quantized_epochs": 2, "float_rate": 0.02, "quantized_rate": 0.01, "batch": 32,
                 "holdout": 50},
    "augmentation": {"shift": 0.5, "rotate": 5.0, "zoom": 0.05},
}


def make_data():
    """Four classes of 6 x 6 images that a small network learns at once: a bright quadrant on noise."""
    from lutq_train.datasets import Dataset

    rng = np.random.default_rng(5)

    def draw(count):
        labels = rng.integers(0, 4, count)
        images = rng.integers(0, 90, (count, 6, 6, 1))
        for image, label in zip(images, labels, strict=True):
            y, x = 3 * (label // 2), 3 * (label % 2)
            image[y:y + 3, x:x + 3] += 100
        return images.astype(np.uint8), labels.astype(np.int64)

    return Dataset("tiny", *draw(300), *draw(200), classes=4, peak=255)


def cases():
    """Names of what to try: every weight method with the activations that go with it, every other activation method."""
    from lutq_train.methods import ACTIVATIONS, WEIGHTS

    own = {kind.activations for kind in WEIGHTS.values()}
    return [*(f"{name}-{kind.activations}" for name, kind in WEIGHTS.items()),
            *(f"lutq-{name}" for name in ACTIVATIONS if name not in own)]


def make_recipe(case="lutq-lsq", **changes):
    """The tiny recipe for one of `cases`; a change that is a table is merged into the table there."""
    from lutq_train.recipe import parse

    method, activations = case.split("-")
    table = {**TINY, "weights": {"method": method, **OPTIONS.get(method, {})},
             "activations": {"method": activations}}
    for key, change in changes.items():
        table[key] = {**table.get(key, {}), **change} if isinstance(change, dict) else change
    return parse(table, "tiny.toml")


def pytest_generate_tests(metafunc):
    """A test that asks for ``case`` runs for all `cases`."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases())


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads that wait for each other on a busy machine are many times slower than one on these tiny tensors."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def tiny_data():
    """See `make_data`."""
    return make_data()


@pytest.fixture
def tiny_recipe():
    """A recipe for ``tiny_data``: one convolution, one hidden layer, two float and two quantised epochs."""
    from lutq_train.recipe import parse

    return parse(TINY, "tiny.toml")


@pytest.fixture
def recipe_for():
    """See `make_recipe`."""
    return make_recipe
