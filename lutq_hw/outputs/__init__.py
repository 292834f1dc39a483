"""Output stages, one file each. Every file of this folder is imported; adding a stage is adding a file."""

from __future__ import annotations

import importlib
import pkgutil

from ..output import OutputStage

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

OUTPUTS: dict[str, type[OutputStage]] = {stage.name: stage for stage in OutputStage.__subclasses__()}
