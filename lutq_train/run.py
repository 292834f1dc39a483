"""A run folder: what was trained, on what, with what, and where it stands.

    recipe.toml     the complete recipe, every value written out
    run.json        data set digest, versions of torch, numpy and Python
    metrics.jsonl   one line per finished epoch
    checkpoint.pt   weights, optimiser and metrics after the last finished epoch

Every file is whole or not there (`lutq_hw.atomic`), so an interruption leaves the last state, never half of one.
"""

from __future__ import annotations

import io
import json
import os
import platform
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lutq_hw.atomic import write_bytes, write_text
from lutq_hw.errors import InputError, reason

from . import distributed, loop, recipe
from .datasets import Dataset
from .weights import load_weights, read_torch, renormalize_input

FORMAT = 2

CONTENT = {"recipe": str, "epoch": int, "metrics": list, "model": dict, "optimizer": dict}
"""Keys that every checkpoint has."""

UNFINISHED = (".recipe.toml.", ".run.json.", ".checkpoint.pt.")
"""How the names of files begin that a killed start may have left."""


def exists(folder: Path) -> bool:
    """Whether ``folder`` holds a run."""
    return (folder / "checkpoint.pt").is_file()


def create(folder: Path, plan: recipe.Recipe, data: Dataset, data_folder: str | None = None,
           other: Dataset | None = None) -> loop.State:
    """A fresh run in a folder that is new or empty; ``other`` is the data set of the recipe's ``data_from``.

    Raises
    ------
    InputError
        If the folder holds something else, or cannot be made, or the weights to start from or the recipe's methods do not
        fit the network.
    """
    state = loop.begin(plan, data)
    if plan.start:
        _start(state, data, data_folder)
    distributed.agree(*state.model.state_dict().values())
    loop.rehearse(state, loop.Images(data, plan, state.device, other))
    if distributed.rank():
        return state
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = [entry.name for entry in folder.iterdir() if entry.name not in ("recipe.toml", "run.json")
                     and not entry.name.startswith(UNFINISHED)]
    except OSError as error:
        raise InputError(f"{folder} cannot be made a run folder: {error.strerror or error}") from None
    if strangers:
        raise InputError(f"{folder} must be new, empty or a run folder, but it holds {sorted(strangers)[0]}")
    about = {"format": FORMAT, "dataset": data.name, "dataset_sha256": data.digest, "torch": str(torch.__version__),
             "numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine(),
             "processes": distributed.world()}
    if other is not None:
        about |= {"data_from": other.name, "data_from_sha256": other.digest}
    write_text(folder / "recipe.toml", recipe.dumps(plan))
    write_text(folder / "run.json", json.dumps(about, indent=2) + "\n")
    save(folder, state)
    return state


def _start(state: loop.State, data: Dataset, data_folder: str | None) -> None:
    """Fill the network with the recipe's weights, fit it to our input, and measure it."""
    places = [Path(state.recipe.start)]
    given = data_folder or os.environ.get("LUTQ_DATA")
    if given:
        places += [Path(given) / state.recipe.start, Path(given).parent / state.recipe.start]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"start must be a file of weights, as it stands or in the data folder, and {state.recipe.start} "
                         "is not; give the folder that holds it with --data or in LUTQ_DATA")
    load_weights(state.model, found)
    norms = [module for module in state.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    convs = [module for module in state.model.modules() if isinstance(module, torch.nn.Conv2d)]
    if data.signed and convs and norms:
        renormalize_input(convs[0], norms[0])
    images = loop.Images(data, state.recipe, state.device)
    if distributed.rank() == 0:
        state.start_accuracy = loop.accuracy(state.model, images, images.test)


def save(folder: Path, state: loop.State) -> None:
    """Write the checkpoint, then the metrics that are in it; the first process does it for all."""
    if distributed.rank():
        return
    content = {"format": FORMAT, "recipe": recipe.dumps(state.recipe), "epoch": state.epoch, "metrics": state.metrics,
               "model": state.model.state_dict(), "optimizer": state.optimizer.state_dict(),
               "teacher": None if state.teacher is None else state.teacher.model.state_dict(),
               "start_accuracy": state.start_accuracy}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(folder / "checkpoint.pt", buffer.getvalue())
    write_metrics(folder, state)


def write_metrics(folder: Path, state: loop.State) -> None:
    """Write metrics.jsonl from the run's state; a kill between the two files of `save` may have left it behind."""
    write_text(folder / "metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in state.metrics))


def read_recipe(folder: Path) -> recipe.Recipe:
    """The recipe of a run.

    Raises
    ------
    InputError
        If the folder holds no run or its recipe was damaged.
    """
    # Only the first process need see the folder: others may run on machines without that disk.
    table = distributed.share(None if distributed.rank() else _read_recipe(folder))
    return recipe.parse(table, str(folder / "recipe.toml"))


def _read_recipe(folder: Path) -> dict[str, Any]:
    if not exists(folder):
        raise InputError(f"{folder} must be a run folder with a checkpoint.pt; make one with: "
                         f"python -m lutq_train fit --recipe NAME --out {folder}")
    path = folder / "recipe.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def restore(folder: Path, plan: recipe.Recipe, data: Dataset, other: Dataset | None = None) -> loop.State:
    """The run as it was after its last finished epoch; ``other`` is needed only to go on with training.

    Raises
    ------
    InputError
        If the checkpoint is damaged, or the recipe or the data are not those that the run began with.
    """
    content = distributed.share(None if distributed.rank() else _read_checkpoint(folder / "checkpoint.pt"))
    if recipe.parse(tomllib.loads(content["recipe"]), str(folder / "checkpoint.pt")) != plan:
        difference = _difference(content["recipe"], recipe.dumps(plan))
        raise InputError(f"{folder} holds a run of another recipe ({difference}); "
                         "choose another --out, or leave out --recipe and --set to go on with this one")
    if distributed.rank() == 0 and facts(folder)["dataset_sha256"] != data.digest:
        raise InputError(f"{folder} was trained on other {data.name} data than --data holds; give the data it began "
                         "with")
    if distributed.rank() == 0 and other is not None and facts(folder).get("data_from_sha256") != other.digest:
        raise InputError(f"{folder} was trained on other {other.name} images than --data holds; give the data it began "
                         "with")
    state = loop.begin(plan, data)
    state.epoch, state.metrics = content["epoch"], content["metrics"]
    state.start_accuracy = content["start_accuracy"]
    name = plan.training.phase(state.epoch - 1)[0] if state.epoch else "float"
    if name != "float":
        loop.enter_phase(state, loop.Images(data, plan, state.device), name, restoring=True)
    try:
        state.model.load_state_dict(content["model"])
        if state.teacher is not None:
            state.teacher.model.load_state_dict(content["teacher"])
        state.optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{folder / 'checkpoint.pt'} does not fit its recipe: {reason(error)}") from None
    return state


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        content = read_torch(path)
    except InputError as error:
        raise InputError(f"{error}; this one is damaged: remove the folder and start again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} must be a checkpoint of format {FORMAT}, which this file is not; start a new run")
    for key, kind in CONTENT.items():
        if not isinstance(content.get(key), kind):
            raise InputError(f"{path} must hold {key} as fit writes it; this one is damaged: remove the folder and start "
                             "again")
    return content


def facts(folder: Path) -> dict[str, str]:
    """What ``run.json`` says: data set digest and versions."""
    path = folder / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        optional = {"data_from_sha256": str(found["data_from_sha256"])} if "data_from_sha256" in found else {}
        return {key: str(found[key]) for key in ("dataset_sha256", "torch")} | optional
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} must be the run.json that fit wrote, but it cannot be read: {error}") from None


def epochs_done(folder: Path) -> int:
    """Epochs that the checkpoint in ``folder`` holds."""
    return _read_checkpoint(folder / "checkpoint.pt")["epoch"]


def _difference(old: str, new: str) -> str:
    """The first key that differs between two recipes as text."""
    tables = [_flat(tomllib.loads(text)) for text in (old, new)]
    for key in tables[0] | tables[1]:
        values = [repr(table.get(key)) for table in tables]
        if values[0] != values[1]:
            return f"{key} is {values[0]}, not {values[1]}"
    return "written differently"


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, value in table.items():
        items |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items
