"""Recipes: one TOML file per experiment, runnable. Unknown keys are errors.

``base = "NAME"`` at the top takes everything that a file does not say from another recipe; see `_with_base`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from lutq_hw.errors import InputError

from .augment import Augmentation
from .method import ActivationOptions, WeightOptions
from .methods import ACTIVATIONS, WEIGHTS
from .methods.lutq import LutqOptions
from .networks import NETWORKS, NetworkOptions
from .pruning import Pruning
from .quantize import LayerOptions, changed
from .ranges import check_choices, check_ranges

FOLDER = Path(__file__).parent / "recipes"

OPTIMIZERS = ("adam", "sgd")
PRECISIONS = ("float32", "bfloat16")
NORMS = ("batch", "power_of_two")


@dataclass(frozen=True)
class TrainingRecipe:
    """The schedule: float epochs, then epochs in which weights are pruned, then quantised ones; each phase with a
    learning rate that warms up and falls to zero along a cosine.

    A checkpoint of float weights to start from is ``start`` of the recipe, not part of the schedule.
    """

    float_epochs: int = 8
    pruned_epochs: int = 0      # 0: pruning, if any, goes on in the quantised epochs
    quantized_epochs: int = 8
    float_rate: float = 0.003
    pruned_rate: float = 0.001
    quantized_rate: float = 0.003
    optimizer: str = "adam"     # AdamW, or SGD with Nesterov's momentum 0.9
    batch: int = 128
    weight_decay: float = 0.0
    smoothing: float = 0.0      # of the labels
    distill: float = 0.0        # weight of the float network's outputs in the loss of the quantised epochs
    holdout: int = 0            # last images of the training set, kept apart to watch progress

    def __post_init__(self) -> None:
        check_ranges(self, "training", float_epochs=(0, 10000), pruned_epochs=(0, 10000), quantized_epochs=(1, 10000),
                     float_rate=(0, 10), pruned_rate=(0, 10), quantized_rate=(0, 10), batch=(2, 65536),
                     weight_decay=(0, 1), smoothing=(0, 0.9), distill=(0, 1), holdout=(0, 1 << 24))
        check_choices(self, "training", optimizer=OPTIMIZERS)

    @property
    def epochs(self) -> int:
        """Epochs of the whole schedule."""
        return self.float_epochs + self.pruned_epochs + self.quantized_epochs

    def phase(self, epoch: int) -> tuple[str, int, int]:
        """Name of the phase that ``epoch`` (from 0) is in, the phase's first epoch and its number of epochs."""
        begin = 0
        for name in ("float", "pruned", "quantized"):
            length = getattr(self, f"{name}_epochs")
            if epoch < begin + length or name == "quantized":
                return name, begin, length
            begin += length
        raise AssertionError("the last phase takes every epoch")


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trained model besides the data itself."""

    name: str
    dataset: str
    model: NetworkOptions
    seed: int = 1
    threads: int = 1            # sums differ in the last bit between thread counts, so it is part of the recipe
    precision: str = "float32"  # of the training arithmetic
    start: str = ""             # file of float weights, in the data folder or with a path
    data_from: str = ""         # data set whose images the quantised epochs see, without labels, in place of dataset's
    input_bits: int = 4
    activation_bits: int = 4
    residual_bits: int = 8      # of both sides of an add
    norm: str = "batch"         # or power_of_two: multiplier-less batch norm in the quantised epochs
    weights: WeightOptions = field(default_factory=LutqOptions)
    activations: ActivationOptions | None = None
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pruning: Pruning = field(default_factory=Pruning)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)

    def __post_init__(self) -> None:
        check_ranges(self, "", seed=(0, 2**31), threads=(1, 256), input_bits=(1, 8), activation_bits=(1, 8),
                     residual_bits=(2, 8))
        check_choices(self, "", norm=NORMS, precision=PRECISIONS)
        if self.training.pruned_epochs and not self.pruning.ratio:
            raise InputError("training.pruned_epochs must be 0 where pruning.ratio is 0")
        if self.weights.once and self.pruning.ratio and not self.training.pruned_epochs:
            raise InputError(f"training.pruned_epochs must not be 0 where pruning.ratio is {self.pruning.ratio} and the "
                             f"method is {self.weights.method}, which assigns weights once, after pruning")
        if self.data_from and self.training.distill:
            raise InputError("training.distill must be 0 where data_from is given: without labels, the float network's "
                             "outputs are all that is learned")
        options = LayerOptions(self.weights, self.activation_options)
        kinds = [self.weights, *(changed(options, change).weights for change in self.layers.values())]
        if any(kind.wants_adam for kind in kinds) and (
                self.training.optimizer != "adam" or not self.training.float_epochs + self.training.pruned_epochs):
            raise InputError('training.optimizer must be "adam", with float or pruned epochs, where weights.importance is '
                             '"adam": it is the second moments of that optimiser')

    @property
    def activation_options(self) -> ActivationOptions:
        """How activations are quantised; without an ``activations`` table as goes with the weights' method."""
        return self.activations or ACTIVATIONS[self.weights.activations].for_bits(self.activation_bits)


KINDS: dict[type, tuple[str, Mapping[str, type]]] = {
    NetworkOptions: ("name", NETWORKS), WeightOptions: ("method", WEIGHTS), ActivationOptions: ("method", ACTIVATIONS),
}
"""Tables of a recipe whose keys depend on one of them."""

DEFAULTS = {NetworkOptions: "cnn", WeightOptions: "lutq", ActivationOptions: "lsq"}


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def key_names(kind: type = Recipe, prefix: str = "") -> list[str]:
    """Every key of a recipe, with dots: what ``--set`` accepts. Keys of methods and networks are their options."""
    found: list[str] = []
    for key, hint in get_type_hints(kind).items():
        chosen = _dataclass_of(hint)
        if chosen in KINDS:
            found.append(f"{prefix}{key}.{KINDS[chosen][0]}")
        else:
            found += key_names(chosen, f"{prefix}{key}.") if chosen else [prefix + key]
    return found


def load(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """A recipe by name or by path of a TOML file, with ``key=value`` overrides.

    Raises
    ------
    InputError
        If there is no such recipe, or a key or value is wrong.
    """
    path = _path(name)
    if not path.is_file():
        raise InputError(f"recipe {name!r} does not exist; choose one of {', '.join(names())}, or give the path of a "
                         ".toml file")
    table = _with_base(path, ())
    for override in overrides:
        _override(table, override)
    return parse(table, str(path))


def bases() -> dict[str, str]:
    """The recipes that come with the package, each with the name of its base, or with nothing."""
    return {name: str(_read(_path(name)).get("base", "")) for name in names()}


def _path(name: str, folder: Path = Path()) -> Path:
    return folder / name if name.endswith(".toml") else FOLDER / f"{name}.toml"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a TOML file: {error}") from None


def _with_base(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The table of the file ``path`` over that of its base, a recipe's name or a path from the file's own folder.

    ``above`` are the files that led here.
    """
    table = _read(path)
    if "base" not in table:
        return table
    base = table.pop("base")
    where = _path(base, path.parent) if isinstance(base, str) else None
    if where is None or not where.is_file():
        raise InputError(f"{path}: base must be one of {', '.join(names())}, or the path of a .toml file, not {base!r}")
    chain = (*above, path.resolve())
    if where.resolve() in chain:
        raise InputError(f"{path}: base must not lead back to the recipe itself, as "
                         f"{' -> '.join(file.stem for file in (*chain, where))} does; leave it out of one of them")
    under = _with_base(where, chain)
    under.pop("name", None)  # a recipe has a name of its own
    return _merged(under, table, "")


def _merged(under: dict[str, Any], over: dict[str, Any], key: str) -> dict[str, Any]:
    """``over`` where it says something, else ``under``. A table that names another method or network stands alone."""
    made = dict(under)
    for name, value in over.items():
        before = made.get(name)
        if isinstance(value, dict) and isinstance(before, dict) and not _chooses(f"{key}{name}", before, value):
            made[name] = _merged(before, value, f"{key}{name}.")
        else:
            made[name] = value
    return made


def _chooses(key: str, under: dict[str, Any], over: dict[str, Any]) -> bool:
    """Whether the table ``key`` names another method or network than its base, whose options then mean nothing."""
    if key.startswith("layers."):
        return len({table["method"] for table in (under, over) if "method" in table}) > 1
    kind = _dataclass_of(get_type_hints(Recipe).get(key))
    if kind not in KINDS:
        return False
    word = KINDS[kind][0]
    return over.get(word, under.get(word, DEFAULTS[kind])) != under.get(word, DEFAULTS[kind])


def parse(table: dict[str, Any], where: str) -> Recipe:
    """A recipe from a parsed TOML table; ``where`` names it in errors."""
    return _make(Recipe, table, "", where)


def _override(table: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise InputError(f"--set must have the form key=value, like training.float_epochs=4, not {text!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word is a string, so that --set dataset=digits needs no inner quotes
    *path, last = key.split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {key}: {part} must be a table of the recipe, not a value")
    table[last] = parsed


def _dataclass_of(hint: Any) -> type | None:
    """The dataclass that a type hint, optional or not, names."""
    choices = [hint, *get_args(hint)] if get_origin(hint) not in (tuple, Mapping) else []
    return next((choice for choice in choices if dataclasses.is_dataclass(choice)), None)  # type: ignore[return-value]


def _make(kind: type, table: Any, prefix: str, where: str) -> Any:
    if not isinstance(table, dict):
        raise InputError(f"{where}: {prefix.rstrip('.')} must be a table, not {table!r}")
    if kind in KINDS:
        key, choices = KINDS[kind]
        chosen = table.get(key, DEFAULTS[kind])
        if chosen not in choices:
            raise InputError(f"{where}: {prefix}{key} must be one of {', '.join(sorted(choices))}, not {chosen!r}")
        kind, table = choices[chosen], {name: value for name, value in table.items() if name != key}
    fields = {spec.name: spec for spec in dataclasses.fields(kind)}
    hints = {key: hint for key, hint in get_type_hints(kind).items() if key in fields}
    for key in table:
        if key not in hints:
            raise InputError(f"{where}: key {prefix}{key} is unknown; the keys here are {', '.join(hints)}")
    for key, spec in fields.items():
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and key not in table:
            raise InputError(f"{where}: key {prefix}{key} is missing")
    values = {key: _value(hints[key], value, f"{prefix}{key}", where) for key, value in table.items()}
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, key: str, where: str) -> Any:
    chosen = _dataclass_of(hint)
    if chosen:
        return _make(chosen, value, f"{key}.", where)
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        if isinstance(value, list) and all(type(item) is inner for item in value):
            return tuple(value)
        raise InputError(f"{where}: {key} must be a list of integers, not {value!r}")
    if get_origin(hint) is Mapping:
        if isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()):
            return {name: {inner: tuple(v) if isinstance(v, list) else v for inner, v in item.items()}
                    for name, item in value.items()}
        raise InputError(f"{where}: {key} must be tables, one for each layer or pattern, not {value!r}")
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        words = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
        raise InputError(f"{where}: {key} must be {words[hint]}, not {value!r}")
    return value


def dumps(recipe: Recipe) -> str:
    """The recipe as TOML with every value written out; ``parse`` reads it back to an equal recipe."""
    lines: list[str] = []
    tables: list[str] = []
    for spec in dataclasses.fields(recipe):
        value = getattr(recipe, spec.name)
        if isinstance(value, Mapping):
            for name, change in value.items():
                tables += ["", f"[{spec.name}.{_toml(name)}]", *(f"{key} = {_toml(item)}" for key, item in change.items())]
        elif dataclasses.is_dataclass(value):
            base = next((base for base in KINDS if isinstance(value, base)), None)
            choice = [f'{KINDS[base][0]} = "{getattr(value, KINDS[base][0])}"'] if base else []
            items = [f"{inner.name} = {_toml(getattr(value, inner.name))}" for inner in dataclasses.fields(value)]
            tables += ["", f"[{spec.name}]", *choice, *items]
        elif value is not None:
            lines.append(f"{spec.name} = {_toml(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
