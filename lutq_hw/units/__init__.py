"""MAC units, one file each. Every file of this folder is imported; adding a unit is adding a file."""

from __future__ import annotations

import importlib
import pkgutil

from ..mac import MacUnit

# An import error is not caught: a unit that cannot be imported is a bug that must be seen.
_modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]

UNITS: dict[str, type[MacUnit]] = {
    unit.name: unit for module in _modules for unit in vars(module).values()
    if isinstance(unit, type) and issubclass(unit, MacUnit) and unit.__module__ == module.__name__}
