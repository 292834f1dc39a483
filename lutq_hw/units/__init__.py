"""MAC units, one file each. Every file of this folder is imported; adding a unit is adding a file."""

from __future__ import annotations

import importlib
import pkgutil

from ..mac import MacUnit

# An import error is not caught: a unit that cannot be imported is a bug that must be seen.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

UNITS: dict[str, type[MacUnit]] = {unit.name: unit for unit in MacUnit.__subclasses__()}
