"""Puts a changed function in the place of the original while modules, classes and their users stay as they are."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lutq_hw import remembered

from .operators import Mutant


def live_function(module: types.ModuleType, path: str) -> types.FunctionType:
    """The function object that everybody calls, behind properties, caches and wrappers."""
    found: Any = module
    for part in path.split("."):
        found = vars(found)[part]
    while not isinstance(found, types.FunctionType) or hasattr(found, "__wrapped__"):
        match found:
            case property():
                found = found.fget
            case functools.cached_property():
                found = found.func
            case classmethod() | staticmethod():
                found = found.__func__
            case _:
                found = found.__wrapped__
    return found


def code_of(code: types.CodeType, path: str) -> types.CodeType | None:
    """The code object of the function ``path`` in that of its module."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if constant.co_qualname == path:
                return constant
            if path.startswith(f"{constant.co_qualname}."):
                return code_of(constant, path)
    return None


def clear_caches(module: types.ModuleType) -> None:
    """Forgets what cached functions of ``module`` found, and what is remembered for weights."""
    remembered.forget()
    for value in vars(module).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


@contextmanager
def swapped(module: types.ModuleType, mutant: Mutant) -> Iterator[None]:
    """While this lasts, ``module`` has the change. The function keeps its identity, so that all importers see it."""
    function = live_function(module, mutant.function)
    compiled = compile(mutant.tree, str(module.__file__), "exec")
    changed = code_of(compiled, mutant.function)
    assert changed is not None
    original = function.__code__
    clear_caches(module)
    function.__code__ = changed
    try:
        yield
    finally:
        function.__code__ = original
        clear_caches(module)
