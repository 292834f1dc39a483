"""What is found out once for a layer's weights and then remembered, for as long as the weights are: a planner asks for
hundreds of array sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from .network import Codebook
from .paths import Path, counted_paths, note_paths

if TYPE_CHECKING:
    from .mac import MacUnit

Unit = TypeVar("Unit", bound="MacUnit")
Measure = TypeVar("Measure")
Arguments = ParamSpec("Arguments")

_known: list[WeakKeyDictionary[Codebook, Any]] = []


def once_per_codebook(measure: Callable[Concatenate[Unit, Arguments], Measure]) -> Callable[
        Concatenate[Unit, Arguments], Measure]:
    """Remembers what depends on a unit's codebook, activation, ``offset`` and family only, with the paths that it notes.

    Further arguments must be hashable.
    """
    known: WeakKeyDictionary[Codebook, dict[tuple[object, ...], tuple[Measure, list[Path]]]] = WeakKeyDictionary()
    _known.append(known)

    @functools.wraps(measure)
    def remember(unit: Unit, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Measure:
        measured = known.setdefault(unit.codebook, {})
        key = (unit.x_bits, unit.x_signed, unit.offset, unit.family.name, args)
        if key not in measured:
            with counted_paths() as paths:
                measured[key] = measure(unit, *args, **kwargs), paths
        found, paths = measured[key]
        note_paths(paths)
        return found

    return remember


def kept_view(make: Callable[[Codebook], Codebook]) -> Callable[[Codebook], Codebook]:
    """Remembers a unit's view of a layer's weights: the same object, by which `once_per_codebook` knows it again."""
    known: WeakKeyDictionary[Codebook, Codebook] = WeakKeyDictionary()
    _known.append(known)

    @functools.wraps(make)
    def remember(weights: Codebook) -> Codebook:
        if weights not in known:
            known[weights] = make(weights)
        return known[weights]

    return remember


def forget() -> None:
    """Forgets all of it: after a change of the functions themselves."""
    for known in _known:
        known.clear()
