"""The trained examples are what their recipes say, and as good as promised."""

import tomllib
from pathlib import Path

import pytest

from lutq_hw import golden, modelfile
from lutq_train import datasets, recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMISED = {"mnist_cnn": (0.99, 10000), "digits": (0.96, 360)}


def recipe_of(info):
    """The recipe in a model file; the first ones had augmentation among the keys of training."""
    table = tomllib.loads(info["recipe_text"])
    moved = {key: table["training"].pop(key) for key in ("shift", "rotate", "zoom") if key in table["training"]}
    return recipe.parse({**table, **({"augmentation": moved} if moved else {})}, info["recipe"])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.npz")), ids=lambda path: path.stem)
def test_examples_come_from_shipped_recipes(path):
    info = modelfile.load(path).info
    assert recipe_of(info) == recipe.load(info["recipe"])
    least, count = PROMISED.get(path.stem, (0, info["test_images"]))
    assert info["test_images"] == count and info["accuracy"] == info["test_correct"] / count >= least
    assert info["ties"] >= 0 and abs(info["accuracy"] - info["quantized_accuracy"]) <= info["ties"] / count


def test_digits_example_has_the_accuracy_it_claims():
    network, digits = modelfile.load(EXAMPLES / "digits.npz"), datasets.load("digits")
    scores = golden.evaluate(network, digits.test_images)
    assert golden.accuracy(network, scores, digits.test_labels) == network.info["accuracy"]
    assert network.info["dataset_sha256"] == digits.digest


def test_mnist_example_keeps_its_lanes_busy_and_has_no_multiplier():
    network = modelfile.load(EXAMPLES / "mnist_cnn.npz")
    assert [network.macs(node) / 1458 for node in network.weighted[:3]] == [12, 36, 18]
    assert sum(node.weights.assignments.size for node in network.weighted) == 6_210
    for node in network.weighted:
        values = node.weights.dictionary.reshape(-1).tolist()
        assert len(values) <= 8 and all(value == 0 or abs(value).bit_count() == 1 for value in values)
