"""Recipes: one TOML file per experiment, complete and runnable. Unknown keys are errors."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from lutq_hw.errors import InputError

from .dictionary import Dictionary

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class ModelRecipe:
    """Convolutions (channels, kernels, strides, paddings of equal length), then dense layers of ``hidden`` sizes."""

    channels: tuple[int, ...] = ()
    kernels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    paddings: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for key in ("kernels", "strides", "paddings"):
            found = getattr(self, key)
            if len(found) != len(self.channels):
                raise InputError(f"model.{key} must have one value for each of the {len(self.channels)} "
                                 f"convolutions in model.channels, not {len(found)}")
        for key in ("channels", "kernels", "strides", "paddings", "hidden"):
            least = 0 if key == "paddings" else 1
            for value in getattr(self, key):
                if not least <= value <= 4096:
                    raise InputError(f"model.{key} must hold values from {least} to 4096, not {value}")


@dataclass(frozen=True)
class TrainingRecipe:
    """The schedule: ``float_epochs`` without quantisation, then ``quantized_epochs`` of LUT-Q, each with Adam and a
    learning rate that warms up and falls to zero along a cosine."""

    float_epochs: int = 8
    quantized_epochs: int = 8
    float_rate: float = 0.003
    quantized_rate: float = 0.003
    batch: int = 128
    weight_decay: float = 0.0
    holdout: int = 0            # last images of the training set, kept apart to watch progress
    shift: float = 0.0          # augmentation: largest translation in pixels,
    rotate: float = 0.0         # largest rotation in degrees,
    zoom: float = 0.0           # largest change of size, 0.1 = 10 %

    def __post_init__(self) -> None:
        limits = {"float_epochs": (0, 10000), "quantized_epochs": (1, 10000), "float_rate": (0, 1),
                  "quantized_rate": (0, 1), "batch": (2, 65536), "weight_decay": (0, 1), "holdout": (0, 1 << 24),
                  "shift": (0, 16), "rotate": (0, 180), "zoom": (0, 0.9)}
        for key, (low, high) in limits.items():
            value = getattr(self, key)
            if not low <= value <= high:
                raise InputError(f"training.{key} must be from {low} to {high}, not {value}")


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trained model besides the data itself."""

    name: str
    dataset: str
    model: ModelRecipe
    seed: int = 1
    threads: int = 1            # sums differ in the last bit between thread counts, so it is part of the recipe
    input_bits: int = 4
    activation_bits: int = 4
    weights: Dictionary = field(default_factory=Dictionary)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)

    def __post_init__(self) -> None:
        limits = (("seed", 0, 2**31), ("threads", 1, 256), ("input_bits", 1, 8), ("activation_bits", 1, 8))
        for key, low, high in limits:
            value = getattr(self, key)
            if not low <= value <= high:
                raise InputError(f"{key} must be from {low} to {high}, not {value}")


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def key_names(kind: type = Recipe, prefix: str = "") -> list[str]:
    """Every key of a recipe, with dots: what ``--set`` accepts."""
    found: list[str] = []
    for key, hint in get_type_hints(kind).items():
        found += key_names(hint, f"{prefix}{key}.") if dataclasses.is_dataclass(hint) else [prefix + key]  # type: ignore[arg-type]
    return found


def load(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """A recipe by name or by path of a TOML file, with ``key=value`` overrides.

    Raises
    ------
    InputError
        If there is no such recipe, or a key or value is wrong.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise InputError(f"recipe {name!r} does not exist; choose one of {', '.join(names())}, or give the path of a "
                         ".toml file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a TOML file: {error}") from None
    for override in overrides:
        _override(table, override)
    return parse(table, str(path))


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


def _make(kind: type, table: Any, prefix: str, where: str) -> Any:
    if not isinstance(table, dict):
        raise InputError(f"{where}: {prefix.rstrip('.')} must be a table, not {table!r}")
    hints = get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise InputError(f"{where}: key {prefix}{key} is unknown; the keys here are {', '.join(hints)}")
    for spec in dataclasses.fields(kind):
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and spec.name not in table:
            raise InputError(f"{where}: key {prefix}{spec.name} is missing")
    values = {key: _value(hints[key], value, f"{prefix}{key}", where) for key, value in table.items()}
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, key: str, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _make(hint, value, f"{key}.", where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        if isinstance(value, list) and all(type(item) is inner for item in value):
            return tuple(value)
        raise InputError(f"{where}: {key} must be a list of integers, not {value!r}")
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
    for key, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *(f"{name} = {_toml(item)}" for name, item in value.items())]
        else:
            lines.append(f"{key} = {_toml(value)}")
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
