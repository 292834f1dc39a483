"""Training methods, one file each. Every file of this folder is imported; adding a method is adding a file."""

from __future__ import annotations

import importlib
import pkgutil

from ..method import ActivationOptions, WeightOptions

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

WEIGHTS: dict[str, type[WeightOptions]] = {kind.method: kind for kind in WeightOptions.__subclasses__()}
ACTIVATIONS: dict[str, type[ActivationOptions]] = {kind.method: kind for kind in ActivationOptions.__subclasses__()}
