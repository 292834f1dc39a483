"""What is found out once for a layer's weights."""

import gc

import numpy as np

from lutq_hw import remembered
from lutq_hw.mac import MacUnit
from lutq_hw.network import Codebook
from lutq_hw.paths import Path, counted_paths, note_paths
from lutq_hw.remembered import kept_view, once_per_codebook
from lutq_hw.units import UNITS


def unit(codebook: Codebook, pe: int = 1) -> MacUnit:
    return UNITS["multiplier"](codebook=codebook, x_bits=4, x_signed=False, pe=pe, simd=2, acc_bits=12)


def book() -> Codebook:
    return Codebook(assignments=np.zeros((4, 4), np.int64), dictionary=np.array([1, 2]))


def test_a_measure_is_taken_once_for_all_sizes_and_notes_its_paths_each_time():
    taken: list[tuple[int, int]] = []

    @once_per_codebook
    def measure(one: MacUnit, factor: int = 1) -> int:
        taken.append((one.pe, factor))
        note_paths([Path(levels=3)])
        return factor * one.x_bits

    codebook = book()
    with counted_paths() as paths:
        assert [measure(unit(codebook, pe)) for pe in (1, 2, 4)] == [4, 4, 4]
    assert paths == [Path(levels=3)] * 3
    assert measure(unit(codebook), 3) == 12
    assert measure(unit(book())) == 4
    assert taken == [(1, 1), (1, 3), (1, 1)]
    remembered.forget()
    assert measure(unit(codebook, 2)) == 4
    assert taken[-1] == (2, 1)


def test_nothing_is_kept_longer_than_the_weights():
    made: list[int] = []

    @kept_view
    def view(weights: Codebook) -> Codebook:
        made.append(1)
        return weights.reordered([1, 0])

    codebook = book()
    assert view(codebook) is view(codebook)
    assert len(made) == 1
    known = remembered._known[-1]
    assert len(known) == 1
    del codebook
    gc.collect()
    assert len(known) == 0
