"""Run folders as data: the recipe, the metrics of every epoch, and what follows from both."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lutq_hw.errors import InputError

from .. import recipe
from ..method import WeightOptions
from ..quantize import LayerOptions, changed, fitting
from ..weights import read_torch


@dataclass(frozen=True)
class Run:
    """A run, finished or not, with at least one epoch. Accuracies are parts of 1, times seconds."""

    label: str
    folder: Path
    recipe: recipe.Recipe
    metrics: Sequence[Mapping[str, Any]]
    start_accuracy: float | None = None
    weights: Mapping[str, int] = field(default_factory=dict)
    """Weights of each layer as the checkpoint has them, where the metrics do not tell."""

    @property
    def epochs(self) -> int:
        """Epochs that are done."""
        return self.metrics[-1]["epoch"]

    @property
    def finished(self) -> bool:
        """Whether all epochs of the recipe are done."""
        return self.epochs >= self.recipe.training.epochs

    @property
    def seconds(self) -> float:
        """Time of training, evaluation of the held-out and test images included."""
        return sum(entry["seconds"] for entry in self.metrics)

    @property
    def float_accuracy(self) -> float | None:
        """On the test set, after the float epochs, or of the weights that the run started from."""
        found = [entry["test_accuracy"] for entry in self.metrics
                 if entry["phase"] == "float" and "test_accuracy" in entry]
        return found[-1] if found else self.start_accuracy

    @property
    def quantized_accuracy(self) -> float | None:
        """On the test set, at the end; None while the run is unfinished."""
        return self.metrics[-1].get("test_accuracy") if self.layers else None

    @property
    def held_out_accuracy(self) -> float | None:
        """On held-out training images, after the last epoch."""
        return self.metrics[-1].get("held_out_accuracy")

    @property
    def kept(self) -> float | None:
        """Part of the weights that is not pruned; None without pruning."""
        return self.metrics[-1].get("kept")

    @property
    def layers(self) -> Mapping[str, Mapping[str, Any]]:
        """Statistics of the quantised layers after the last epoch; empty before the first quantised one."""
        return self.metrics[-1].get("layers", {})

    @property
    def quantized(self) -> list[Mapping[str, Any]]:
        """Entries of the quantised epochs."""
        return [entry for entry in self.metrics if "layers" in entry]

    @property
    def entropy(self) -> float | None:
        """Bits of entropy of an index, mean over all quantised weights; None when their number is not known."""
        sizes = {name: sum(layer["usage"]) if "usage" in layer else self.weights.get(name, 0)
                 for name, layer in self.layers.items()}
        if not sizes or not all(sizes.values()):
            return None
        return sum(size * self.layers[name]["entropy"] for name, size in sizes.items()) / sum(sizes.values())

    @cached_property
    def levels(self) -> dict[str, int]:
        """K of every quantised layer: what the recipe allows, else the number of values in use; absent if neither."""
        names, base = list(self.layers), LayerOptions(self.recipe.weights, self.recipe.activation_options)
        chosen = dict.fromkeys(names, base)
        for pattern, change in self.recipe.layers.items():
            for name in fitting(pattern, names):
                chosen[name] = changed(chosen[name], change)
        found = {name: entries_of(options.weights) or len(self.layers[name].get("dictionary", []))
                 for name, options in chosen.items()}
        return {name: count for name, count in found.items() if count}

    def row(self) -> dict[str, Any]:
        """The run in one line: what stands in the table, with plain values."""
        plan = self.recipe
        wanted = entries_of(plan.weights)
        entries = sorted(set(self.levels.values()) or ({wanted} if wanted else set()))
        return {"run": self.label, "recipe": plan.name, "dataset": plan.dataset, "network": _name(plan.model),
                "weights": _described(plan.weights), "activations": _name(plan.activation_options),
                "weight_levels": entries, "activation_bits": _activation_bits(plan),
                "float_accuracy": self.float_accuracy, "quantized_accuracy": self.quantized_accuracy,
                "held_out_accuracy": self.held_out_accuracy, "kept": self.kept, "entropy": self.entropy,
                "epochs": self.epochs, "epochs_planned": plan.training.epochs, "seconds": round(self.seconds, 2),
                "seed": plan.seed}


def entries_of(options: WeightOptions) -> int | None:
    """Dictionary size that the options of a method ask for; None for a method without one."""
    return getattr(options, "entries", None)


def _activation_bits(plan: recipe.Recipe) -> list[int]:
    """Widths of activation codes, ascending: the recipe's, and those of single layers."""
    base = LayerOptions(plan.weights, plan.activation_options)
    kinds = [base.activations, *(changed(base, change).activations for change in plan.layers.values())]
    return sorted({(kind.levels - 1).bit_length() for kind in kinds})


def _name(options: Any) -> str:
    return next(getattr(options, key) for base, (key, _) in recipe.KINDS.items() if isinstance(options, base))


def _described(options: WeightOptions) -> str:
    """Name of a method and its choices that are words: ``lutq power_of_two``."""
    values = [getattr(options, spec.name) for spec in dataclasses.fields(options)]
    return " ".join([_name(options), *(value for value in values if isinstance(value, str))])


def read(folders: Sequence[Path]) -> list[Run]:
    """Runs in the order of their folders; one that is named twice comes once.

    Raises
    ------
    InputError
        If a folder holds no run, one that has no epoch yet, or one with damaged files.
    """
    places = list(dict.fromkeys(folder.resolve() for folder in folders))
    given = {folder.resolve(): folder for folder in reversed(folders)}
    return [_read(given[place], label) for place, label in zip(places, _labels(places), strict=True)]


def _labels(places: Sequence[Path]) -> list[str]:
    """Names of the folders, with as many of their parents as tell them apart."""
    depth = dict.fromkeys(places, 1)
    while True:
        labels = {place: "/".join(place.parts[-depth[place]:]) for place in places}
        twice = [place for place in places if list(labels.values()).count(labels[place]) > 1]
        if not twice:
            return list(labels.values())
        for place in twice:
            depth[place] += 1


def _read(folder: Path, label: str) -> Run:
    for name in ("recipe.toml", "metrics.jsonl"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} must be a run folder with recipe.toml and metrics.jsonl, but it has no {name}; "
                             f"make one with: python -m lutq_train fit --recipe NAME --out {folder}")
    metrics = _metrics(folder / "metrics.jsonl")
    if not metrics:
        raise InputError(f"{folder} has no finished epoch yet, so there is nothing to report; wait for one, or leave "
                         "the run out")
    path = folder / "recipe.toml"
    try:
        plan = recipe.parse(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    run = Run(label, folder, plan, metrics)
    counted = all("usage" in layer for layer in run.layers.values())
    if counted and (run.float_accuracy is not None or not plan.start):
        return run
    start, weights = _checkpoint(folder / "checkpoint.pt")
    return dataclasses.replace(run, start_accuracy=start, weights=weights)


NEEDED = {"epoch": int, "phase": str, "loss": (int, float), "seconds": (int, float)}
"""Keys that every line of metrics.jsonl has."""


def _metrics(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in NEEDED.items()) \
                or not _are_layers(entry.get("layers", {})):
            raise InputError(f"{path}, line {number}: must be an epoch as fit writes it, with {', '.join(NEEDED)}, not "
                             f"{line[:40]!r}")
        found.append(entry)
    return found


def _are_layers(layers: Any) -> bool:
    """Whether these are statistics of quantised layers."""
    return isinstance(layers, dict) and all(
        isinstance(layer, dict) and isinstance(layer.get("entropy"), int | float)
        and isinstance(values := layer.get("dictionary", []), list) and isinstance(usage := layer.get("usage", []), list)
        and len(values) == len(usage) and all(isinstance(number, int | float) for number in (*values, *usage))
        for layer in layers.values())


def _checkpoint(path: Path) -> tuple[float | None, dict[str, int]]:
    """Accuracy of the start weights, and weights of each layer. Nothing if the file is not there or not whole.

    The file is mapped, not read: of the tensors only the shapes are looked at.
    """
    try:
        content = read_torch(path, mapped=True)
        mark = ".parametrizations.weight.original"
        sizes = {name.removesuffix(mark): tensor.numel() for name, tensor in content["model"].items()
                 if name.endswith(mark)}
        return content["start_accuracy"], sizes
    except (InputError, KeyError, TypeError, AttributeError):
        return None, {}  # the report then lacks two numbers, and shows a dash for each
