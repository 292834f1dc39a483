"""FPGA families, one file each with an object ``FAMILY``. Every file here is imported; adding a family is adding a file."""

from __future__ import annotations

import importlib
import pkgutil

from ..family import Family

# An import error is not caught: a family that cannot be imported is a bug that must be seen.
FAMILIES: dict[str, Family] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").FAMILY for module in pkgutil.iter_modules(__path__)}

ICE40 = FAMILIES["ice40"]
"""The family whose synthesis the units' own formulas follow, and the default everywhere."""
