"""Compares what a stream carried with what golden expects, and names the first difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Transfer = tuple[int, int | None]
"""Cycle and word; None is a word with undefined bits."""


@dataclass(frozen=True)
class Recording:
    """What a stream carried."""

    transfers: list[Transfer]
    broken: list[int]
    """Cycles in which the sender broke the stream rules."""


def parse(text: str) -> Recording:
    """Reads a file of ``stream_recorder`` (`bench.sv`)."""
    transfers: list[Transfer] = []
    broken: list[int] = []
    for line in text.splitlines():
        cycle, word = line.split()
        if cycle == "!":
            broken.append(int(word))
        else:
            transfers.append((int(cycle), None if set(word.lower()) & {"x", "z"} else int(word, 16)))
    return Recording(transfers, broken)


@dataclass(frozen=True)
class Verdict:
    """Outcome for one design."""

    words: int
    """Words compared, over all streams."""

    streams: int
    differences: list[str] = field(default_factory=list)
    """First wrong value and first wrong cycle, a sentence each; empty when all is equal."""


def element(about: Mapping[str, Any], index: int) -> str:
    """Position of element ``index`` of all frames, in words."""
    shape = tuple(about["shape"])
    frame, rest = divmod(index, int(np.prod(shape)))
    if len(shape) == 1:
        return f"frame {frame}, channel {rest}"
    y, x, channel = np.unravel_index(rest, shape)
    return f"frame {frame}, pixel (y {y}, x {x}), channel {channel}"


def codes(about: Mapping[str, Any], word: int) -> list[int]:
    """Values of the lanes of ``word``."""
    bits, lanes = about["bits"], about["lanes"]
    values = [word >> lane * bits & (1 << bits) - 1 for lane in range(lanes)]
    return [value - (value >> bits - 1 << bits) for value in values] if about["signed"] else values


def value_difference(about: Mapping[str, Any], expected: Sequence[Transfer], got: Sequence[Transfer]) -> str | None:
    """Sentence about the first word whose value differs, or None."""
    layer = f"layer {about['name']}"
    for k, ((_, want), (cycle, found)) in enumerate(zip(expected, got, strict=False)):
        if want == found:
            continue
        first = k * about["lanes"]
        if found is None:
            return f"{layer}, {element(about, first)}: hardware gave undefined bits in cycle {cycle}"
        assert want is not None
        pairs = zip(codes(about, want), codes(about, found), strict=True)
        lane, (golden, hardware) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        position = element(about, first + lane)
        return f"{layer}, {position}: hardware gave {hardware}, golden says {golden} (cycle {cycle})"
    if len(got) < len(expected):
        missing = element(about, len(got) * about["lanes"])
        return f"{layer}, {missing}: hardware gave no word, only {len(got)} of {len(expected)} came"
    if len(got) > len(expected):
        return f"{layer}: hardware gave {len(got)} words, golden says {len(expected)} (cycle {got[len(expected)][0]})"
    return None


def cycle_difference(about: Mapping[str, Any], expected: Sequence[Transfer], got: Sequence[Transfer]) -> str | None:
    """Sentence about the first word whose cycle differs, or None."""
    for k, ((want, _), (found, _)) in enumerate(zip(expected, got, strict=False)):
        if want != found:
            position = element(about, k * about["lanes"])
            return f"layer {about['name']}, {position}: hardware moved the word in cycle {found}, golden says {want}"
    return None


def compare(case: str, probes: Sequence[Mapping[str, Any]], folder: Path) -> Verdict:
    """Compares the recorded streams of ``case`` in ``folder`` with the expected ones.

    ``probes`` describes the streams in network order (`Probe.about`). Values come first: a wrong layer is the earliest
    whose values differ, a late word the earliest of the earliest layer.
    """
    words = 0
    value = cycle = rule = None
    for about in probes:
        expected_text = (folder / f"{case}.{about['name']}.expected").read_text()
        got_text = (folder / f"{case}.{about['name']}.recorded").read_text()
        words += expected_text.count("\n")
        if expected_text == got_text.lower():
            continue
        expected, got = parse(expected_text), parse(got_text)
        value = value or value_difference(about, expected.transfers, got.transfers)
        cycle = cycle or cycle_difference(about, expected.transfers, got.transfers)
        if got.broken and rule is None:
            rule = (f"layer {about['name']}: what it offered was gone or undefined in cycle {got.broken[0]}, "
                    "before it was taken")
    return Verdict(words, len(probes), [sentence for sentence in (value, cycle, rule) if sentence])
