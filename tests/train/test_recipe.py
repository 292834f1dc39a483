"""Recipes: all that ship load, texts round-trip, and every mistake is one sentence."""

import tomllib

import pytest

from lutq_hw.errors import InputError
from lutq_train import data, recipe


@pytest.mark.parametrize("name", recipe.names())
def test_shipped_recipes_load(name):
    loaded = recipe.load(name)
    assert loaded.name == name and loaded.dataset in data.DATASETS
    assert recipe.parse(tomllib.loads(recipe.dumps(loaded)), name) == loaded


def test_names():
    assert recipe.names() == ["digits", "mnist_cnn"]


def test_a_path_is_a_recipe_too(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(recipe.dumps(recipe.load("digits")))
    assert recipe.load(str(path)) == recipe.load("digits")


def test_overrides():
    loaded = recipe.load("digits", ("seed=7", "training.float_epochs=3", "model.channels=[4, 6]", "name=mine",
                                    "weights.zero=false", "training.float_rate=1"))
    assert (loaded.seed, loaded.training.float_epochs, loaded.model.channels) == (7, 3, (4, 6))
    assert (loaded.name, loaded.weights.zero, loaded.training.float_rate) == ("mine", False, 1.0)


@pytest.mark.parametrize("override, text", [
    ("seed", "--set must have the form key=value, like training.float_epochs=4, not 'seed'"),
    ("=3", "--set must have the form key=value, like training.float_epochs=4, not '=3'"),
    ("name.x=3", "--set name.x: name must be a table of the recipe, not a value"),
    ("sed=3", ("{path}: key sed is unknown; the keys here are name, dataset, model, seed, threads, input_bits, "
              "activation_bits, weights, training")),
    ("weights.k=3", "{path}: key weights.k is unknown; the keys here are constraint, entries, zero, bits"),
    ("seed=one", "{path}: seed must be an integer, not 'one'"),
    ("seed=true", "{path}: seed must be an integer, not True"),
    ("weights.zero=1", "{path}: weights.zero must be true or false, not 1"),
    ("training.float_rate=[1]", "{path}: training.float_rate must be a number, not [1]"),
    ("model.channels=8", "{path}: model.channels must be a list of integers, not 8"),
    ("model.channels=[8]",
     ("{path}: model.kernels must have one value for each of the 1 convolutions in model.channels, not 2")),
    ("model.channels=[8, 0]", "{path}: model.channels must hold values from 1 to 4096, not 0"),
    ("model=3", "{path}: model must be a table, not 3"),
    ("activation_bits=9", "{path}: activation_bits must be from 1 to 8, not 9"),
    ("training.batch=1", "{path}: training.batch must be from 2 to 65536, not 1"),
    ("weights.entries=1", "{path}: weights.entries must be from 2 to 256, not 1"),
])
def test_wrong_overrides(override, text):
    with pytest.raises(InputError) as caught:
        recipe.load("digits", (override,))
    assert str(caught.value) == text.format(path=recipe.FOLDER / "digits.toml")


def test_unknown_recipe():
    with pytest.raises(InputError, match=r"^recipe 'mnist' does not exist; choose one of digits, mnist_cnn, or give "
                                         r"the path of a \.toml file$"):
        recipe.load("mnist")


def test_damaged_and_incomplete_files(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("name = ")
    with pytest.raises(InputError, match=r"x\.toml must be a TOML file: "):
        recipe.load(str(path))
    path.write_text('name = "x"\n')
    with pytest.raises(InputError, match=r"x\.toml: key dataset is missing$"):
        recipe.load(str(path))


def test_keys_are_what_set_accepts():
    assert "training.float_epochs" in recipe.key_names() and "weights.constraint" in recipe.key_names()
    assert "training" not in recipe.key_names()


def test_texts_with_quotes_survive():
    made = recipe.load("digits", ("name=a \"quoted\" \\ name",))
    assert recipe.parse(tomllib.loads(recipe.dumps(made)), "x").name == 'a "quoted" \\ name'
