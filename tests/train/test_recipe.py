"""Recipes: all that ship load, texts round-trip, and every mistake is one sentence."""

import dataclasses
import re
import tomllib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lutq_hw.errors import InputError
from lutq_train import datasets, recipe
from lutq_train.augment import Augmentation
from lutq_train.methods import ACTIVATIONS, WEIGHTS
from lutq_train.methods.lsq import LsqOptions
from lutq_train.methods.lutq import LutqOptions
from lutq_train.networks import NETWORKS
from lutq_train.networks.cnn import CnnOptions
from lutq_train.networks.resnet import ResNetOptions
from lutq_train.pruning import Pruning
from lutq_train.quantize import quantize

SHAPES = {"cifar10": (32, 32, 3), "mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "digits": (8, 8, 1)}


def again(made):
    return recipe.parse(tomllib.loads(recipe.dumps(made)), "again")


@pytest.mark.parametrize("name", recipe.names())
def test_shipped_recipes_load(name):
    loaded = recipe.load(name)
    assert loaded.name == name and loaded.dataset in datasets.DATASETS
    assert again(loaded) == loaded and recipe.dumps(again(loaded)) == recipe.dumps(loaded)


@pytest.mark.parametrize("name", recipe.names())
def test_shipped_recipes_fit_their_networks(name):
    """Layer patterns that fit nothing, or methods that a layer cannot have, would show only after the float epochs."""
    loaded = recipe.load(name)
    if loaded.dataset not in SHAPES:
        return
    height, width, channels = SHAPES[loaded.dataset]
    torch.manual_seed(0)
    model = loaded.model.build((height, width, channels), 10)
    example = torch.rand(2, channels, height, width)
    quantize(model, loaded.weights, activations=loaded.activation_options, overrides=loaded.layers, example=example,
             residual_bits=loaded.residual_bits, input_bits=loaded.input_bits)


def test_names():
    assert {"digits", "digits_hessian", "digits_lutq", "digits_qil", "digits_syq", "digits_tbnu",
            "mnist_cnn"} <= set(recipe.names())
    assert {recipe.load(f"digits_{method}").weights.method for method in WEIGHTS} == set(WEIGHTS)


def test_a_path_is_a_recipe_too(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(recipe.dumps(recipe.load("digits")))
    assert recipe.load(str(path)) == recipe.load("digits")


def test_defaults():
    made = recipe.parse({"name": "x", "dataset": "digits", "model": {}}, "x")
    assert made.model == CnnOptions() and made.weights == LutqOptions()
    assert made.activations is None and made.activation_options == LsqOptions(16)
    assert made.pruning == Pruning() and made.augmentation == Augmentation() and made.layers == {}
    wider = dataclasses.replace(made, activation_bits=2)
    assert wider.activation_options == LsqOptions(4)
    for method, kind in WEIGHTS.items():
        made = recipe.parse({"name": "x", "dataset": "digits", "model": {}, "weights": {"method": method}}, "x")
        assert made.activation_options.method == kind.activations


def test_tables_of_methods_and_networks():
    made = recipe.parse({
        "name": "x", "dataset": "digits", "model": {"name": "resnet", "depth": 8}, "weights": {"method": "syq", "entries": 2},
        "activations": {"method": "relud", "levels": 9, "top": 4}, "pruning": {"ratio": 0.5, "scope": "layer"},
        "augmentation": {"shift": 1.5},
        "layers": {"first": {"method": "lutq", "values": [-1, 0, 1]}, "layer*": {"activation_bits": 3}}}, "x")
    assert made.model == ResNetOptions(8) and made.weights == WEIGHTS["syq"](2)
    assert made.activation_options == ACTIVATIONS["relud"](9, top=4.0)
    assert made.pruning == Pruning(0.5, "layer") and made.augmentation.shift == 1.5
    assert made.layers["first"]["values"] == (-1, 0, 1)
    assert again(made) == made


def test_overrides():
    loaded = recipe.load("digits", ("seed=7", "training.float_epochs=3", "model.channels=[4, 6]", "name=mine",
                                    "weights.zero=false", "training.float_rate=1", "augmentation.shift=2",
                                    "pruning.ratio=0.5", "layers.first.weight_levels=5", "activations.levels=9"))
    assert (loaded.seed, loaded.training.float_epochs, loaded.model.channels) == (7, 3, (4, 6))
    assert (loaded.name, loaded.weights.zero, loaded.training.float_rate) == ("mine", False, 1.0)
    assert (loaded.augmentation.shift, loaded.pruning.ratio, loaded.layers) == (2.0, 0.5, {"first": {"weight_levels": 5}})
    assert loaded.activation_options == LsqOptions(9)


def test_a_base_gives_what_a_recipe_does_not_say(tmp_path):
    (tmp_path / "low.toml").write_text('''name = "low"
dataset = "digits"
seed = 3
[model]
name = "resnet"
depth = 8
[weights]
constraint = "power_of_two"
entries = 6
[layers.first]
method = "lutq"
constraint = "uniform"
weight_levels = 9
[layers.last]
method = "lutq"
weight_levels = 5
[training]
batch = 32
''')
    high = tmp_path / "high.toml"
    high.write_text('''name = "high"
base = "low.toml"
seed = 4
[weights]
entries = 7
[layers.last]
activation_bits = 8
[training]
smoothing = 0.1
''')
    low, made = recipe.load(str(tmp_path / "low.toml")), recipe.load(str(high))
    assert made == dataclasses.replace(
        low, name="high", seed=4, weights=LutqOptions("power_of_two", 7),
        layers={**low.layers, "last": {"method": "lutq", "weight_levels": 5, "activation_bits": 8}},
        training=dataclasses.replace(low.training, smoothing=0.1))
    assert "base" not in recipe.dumps(made) and again(made) == made  # a run folder needs no other file

    top = tmp_path / "top.toml"
    top.write_text('''name = "top"
base = "high.toml"
[model]
name = "cnn"
[weights]
method = "syq"
[layers.first]
method = "qil"
weight_levels = 15
''')
    made = recipe.load(str(top), ("weights.eta=0.1",))  # options of another method or network mean nothing here
    assert (made.model, made.weights) == (CnnOptions(), WEIGHTS["syq"](eta=0.1))
    assert made.layers["first"] == {"method": "qil", "weight_levels": 15} and made.training.smoothing == 0.1


def test_bases_of_shipped_recipes():
    found = recipe.bases()
    assert list(found) == recipe.names()
    some = [found[f"resnet20_{name}"] for name in ("lutq", "qil3", "tbnu40")]
    assert some == ["", "resnet20_lutq", "resnet20_tbnu320"]
    made = recipe.load("resnet20_tbnu40")
    assert made.weights == WEIGHTS["tbnu"](5, every=20) and made.activations == ACTIVATIONS["learned_levels"](8)
    assert made.training == dataclasses.replace(recipe.load("resnet20_lutq").training, quantized_epochs=8)


@pytest.mark.parametrize("base, text", [
    ('"none"', "{path}: base must be one of {names}, or the path of a .toml file, not 'none'"),
    ('"none.toml"', "{path}: base must be one of {names}, or the path of a .toml file, not 'none.toml'"),
    ("3", "{path}: base must be one of {names}, or the path of a .toml file, not 3"),
    ('"x.toml"', ("{path}: base must not lead back to the recipe itself, as x -> x does; leave it out of one of them")),
    ('"y.toml"', ("{other}: base must not lead back to the recipe itself, as x -> y -> x does; leave it out of one of "
                  "them")),
])
def test_wrong_bases(tmp_path, base, text):
    path, other = tmp_path / "x.toml", tmp_path / "y.toml"
    path.write_text(f'name = "x"\nbase = {base}\n')
    other.write_text('base = "x.toml"\n')
    with pytest.raises(InputError) as caught:
        recipe.load(str(path))
    assert str(caught.value) == text.format(path=path, other=other, names=", ".join(recipe.names()))


KEYS = ", ".join(spec.name for spec in dataclasses.fields(recipe.Recipe))


@pytest.mark.parametrize("override, text", [
    ("seed", "--set must have the form key=value, like training.float_epochs=4, not 'seed'"),
    ("=3", "--set must have the form key=value, like training.float_epochs=4, not '=3'"),
    ("name.x=3", "--set name.x: name must be a table of the recipe, not a value"),
    ("sed=3", f"{{path}}: key sed is unknown; the keys here are {KEYS}"),
    ("weights.k=3", ("{path}: key weights.k is unknown; the keys here are constraint, entries, zero, bits, values, steps, "
                     "reseed, cost")),
    ("weights.method=none", f"{{path}}: weights.method must be one of {', '.join(sorted(WEIGHTS))}, not 'none'"),
    ("activations.method=none", ("{path}: activations.method must be one of dorefa, learned_levels, lsq, qil, relud, tanhd, "
                                 "not 'none'")),
    ("model.name=none", f"{{path}}: model.name must be one of {', '.join(sorted(NETWORKS))}, not 'none'"),
    ("model.name=resnet", "{path}: key model.channels is unknown; the keys here are depth, width, shortcut"),
    ("seed=one", "{path}: seed must be an integer, not 'one'"),
    ("seed=true", "{path}: seed must be an integer, not True"),
    ("weights.zero=1", "{path}: weights.zero must be true or false, not 1"),
    ("training.float_rate=[1]", "{path}: training.float_rate must be a number, not [1]"),
    ("model.channels=8", "{path}: model.channels must be a list of integers, not 8"),
    ("model.channels=[8]",
     ("{path}: model.kernels must have one value for each of the 1 convolutions in model.channels, not 2")),
    ("model.channels=[8, 0]", "{path}: model.channels must hold values from 1 to 4096, not 0"),
    ("model=3", "{path}: model must be a table, not 3"),
    ("weights=[]", "{path}: weights must be a table, not []"),
    ("activation_bits=9", "{path}: activation_bits must be from 1 to 8, not 9"),
    ("residual_bits=1", "{path}: residual_bits must be from 2 to 8, not 1"),
    ("precision=half", "{path}: precision must be one of float32, bfloat16, not 'half'"),
    ("training.batch=1", "{path}: training.batch must be from 2 to 65536, not 1"),
    ("training.optimizer=lion", "{path}: training.optimizer must be one of adam, sgd, not 'lion'"),
    ("training.shift=1", ("{path}: key training.shift is unknown; the keys here are float_epochs, pruned_epochs, "
                          "quantized_epochs, float_rate, pruned_rate, quantized_rate, optimizer, batch, weight_decay, "
                          "smoothing, distill, holdout")),
    ("training.pruned_epochs=3", "{path}: training.pruned_epochs must be 0 where pruning.ratio is 0"),
    ("pruning.ratio=1", "{path}: pruning.ratio must be from 0 to 0.999, not 1.0"),
    ("augmentation.crop=-1", None),
    ("weights.entries=1", "{path}: weights.entries must be from 2 to 256, not 1"),
    ("layers=3", "{path}: layers must be tables, one for each layer or pattern, not 3"),
    ("layers.first=3", "{path}: layers must be tables, one for each layer or pattern, not {{'first': 3}}"),
    ("layers.first.k=3", ("{path}: k is no option of lutq; its options are constraint, entries, zero, bits, values, steps, "
                          "reseed, cost")),
    ("layers.first.entries=many", "{path}: entries must be an integer, not 'many'"),
    ("layers.first.activation_bits=9", "{path}: activation_bits must be from 1 to 8, not 9"),
])
def test_wrong_overrides(override, text):
    with pytest.raises(InputError) as caught:
        recipe.load("digits", (override,))
    path = recipe.FOLDER / "digits.toml"
    assert str(caught.value).startswith(f"{path}: augmentation.crop") if text is None else (
        str(caught.value) == text.format(path=path))


def test_unknown_recipe():
    with pytest.raises(InputError, match=rf"^recipe 'mnist' does not exist; choose one of {', '.join(recipe.names())}, or "
                                         r"give the path of a \.toml file$"):
        recipe.load("mnist")


def test_damaged_and_incomplete_files(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("name = ")
    with pytest.raises(InputError, match=r"x\.toml must be a TOML file: "):
        recipe.load(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"x\.toml must be a TOML file: "):
        recipe.load(str(path))
    path.write_text('name = "x"\n')
    with pytest.raises(InputError, match=r"x\.toml: key dataset is missing$"):
        recipe.load(str(path))


def test_keys_are_what_set_accepts():
    keys = recipe.key_names()
    assert {"training.float_epochs", "augmentation.shift", "pruning.ratio", "weights.method", "activations.method",
            "model.name", "layers", "seed"} <= set(keys)
    assert not {"training", "weights", "model"} & set(keys)


def test_texts_with_quotes_survive():
    made = recipe.load("digits", ("name=a \"quoted\" \\ name",))
    assert again(made).name == 'a "quoted" \\ name'
    made = dataclasses.replace(made, layers={'a "b" [*].c': {"constraint": "free", "values": (-1, 1), "zero": False}})
    assert again(made) == made


def test_phases():
    training = recipe.TrainingRecipe(float_epochs=2, pruned_epochs=1, quantized_epochs=3)
    assert training.epochs == 6
    assert [training.phase(epoch) for epoch in range(6)] == [
        ("float", 0, 2)] * 2 + [("pruned", 2, 1)] + [("quantized", 3, 3)] * 3
    assert recipe.TrainingRecipe(0, 0, 1).phase(0) == ("quantized", 0, 1)


def options_of(kind):
    """Any values of a dataclass's fields, of the right type; most fit together."""
    kinds = {bool: st.booleans(), int: st.integers(0, 9), float: st.floats(0, 1), str: st.just(None),
             tuple: st.lists(st.integers(-3, 9), max_size=3)}
    found = {spec.name: kinds[type(spec.default)] for spec in dataclasses.fields(kind) if type(spec.default) is not str}
    return st.fixed_dictionaries({}, optional=found)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_values_are_taken_or_refused_and_round_trip(data):
    table = {"name": "x", "dataset": "digits", "model": {}}
    for key, kinds in (("weights", WEIGHTS), ("activations", ACTIVATIONS)):
        name = data.draw(st.sampled_from(sorted(kinds)))
        table[key] = {"method": name, **data.draw(options_of(kinds[name]))}
    try:
        made = recipe.parse(table, "x")
    except InputError as error:
        assert str(error).startswith("x: ") and "\n" not in str(error)
        return
    assert again(made) == made


def test_weights_that_are_assigned_once_are_pruned_before():
    path = re.escape(str(recipe.FOLDER / "digits_hessian.toml"))
    with pytest.raises(InputError, match=rf"^{path}: training\.pruned_epochs must not be 0 where pruning\.ratio is 0\.7 "
                       r"and the method is hessian, which assigns weights once, after pruning$"):
        recipe.load("digits_hessian", ("training.pruned_epochs=0",))
