"""Data sets, one file per family. Every file of this folder is imported; adding a data set is adding a file.

A file gives ``LOADERS``: name of a data set to a function of the folder with its files.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path

from lutq_hw.errors import InputError

from .dataset import Dataset
from .table import SUFFIXES, read_table

__all__ = ["DATASETS", "Dataset", "load"]

DATASETS: dict[str, Callable[[str | None], Dataset]] = {}

# An import error is not caught: a data set that cannot be imported is a bug that must be seen.
for _found in pkgutil.iter_modules(__path__):
    _loaders = getattr(importlib.import_module(f"{__name__}.{_found.name}"), "LOADERS", {})
    if _clash := DATASETS.keys() & _loaders.keys():
        raise TypeError(f"Data set {min(_clash)} is defined twice, the second time in {_found.name}.py")
    DATASETS.update(_loaders)


def load(name: str, folder: str | None = None) -> Dataset:
    """A data set by name, or a table by the path of its .npz or .csv file.

    ``folder`` (or LUTQ_DATA) is where the files of those that need files lie; also tables that are not found at their
    path as it stands.

    Raises
    ------
    InputError
        If the name is unknown, or a file is missing or damaged.
    """
    folder = folder or os.environ.get("LUTQ_DATA")
    if name in DATASETS:
        return DATASETS[name](folder)
    path = Path(name)
    if path.suffix not in SUFFIXES:
        raise InputError(f"dataset must be one of {', '.join(DATASETS)} or the path of a {' or '.join(SUFFIXES)} table, "
                         f"not {name!r}")
    return read_table(path if path.exists() or folder is None else Path(folder) / path)
