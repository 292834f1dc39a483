"""The trained examples are what their recipes say, and as good as promised."""

import tomllib
from pathlib import Path

import pytest

from lutq_hw import golden, modelfile
from lutq_train import data, recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMISED = {"mnist_cnn": (0.988, 10000), "digits": (0.96, 360)}


@pytest.mark.parametrize("name", PROMISED)
def test_example_comes_from_the_shipped_recipe(name):
    info = modelfile.load(EXAMPLES / f"{name}.npz").info
    assert recipe.parse(tomllib.loads(info["recipe_text"]), name) == recipe.load(name)
    least, count = PROMISED[name]
    assert info["test_images"] == count and info["accuracy"] == info["test_correct"] / count >= least


def test_digits_example_has_the_accuracy_it_claims():
    network, digits = modelfile.load(EXAMPLES / "digits.npz"), data.load("digits")
    scores = golden.evaluate(network, digits.test_images[..., None])
    assert golden.accuracy(network, scores, digits.test_labels) == network.info["accuracy"]
    assert network.info["dataset_sha256"] == digits.digest


def test_mnist_example_is_the_network_of_the_design():
    network = modelfile.load(EXAMPLES / "mnist_cnn.npz")
    assert sum(map(network.macs, network.weighted)) == 86_640
    assert sum(node.weights.assignments.size for node in network.weighted) == 5_550
    for node in network.weighted:
        values = node.weights.dictionary.reshape(-1).tolist()
        assert len(values) <= 8 and all(value == 0 or abs(value).bit_count() == 1 for value in values)
