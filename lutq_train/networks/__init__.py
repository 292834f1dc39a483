"""Networks, one file each. Every file of this folder is imported; adding a network is adding a file."""

from __future__ import annotations

import importlib
import pkgutil

from .network import NetworkOptions

__all__ = ["NETWORKS", "NetworkOptions"]

# An import error is not caught: a network that cannot be imported is a bug that must be seen.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

NETWORKS: dict[str, type[NetworkOptions]] = {kind.name: kind for kind in NetworkOptions.__subclasses__()}
