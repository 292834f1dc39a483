# amaranth: UnusedElaboratable=no
"""Breaks a target in every way there is and looks whether its checks notice."""

from __future__ import annotations

import gc
import json
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from .operators import Mutant, mutants
from .proof import equivalent
from .swap import clear_caches, swapped
from .targets import Check, Target

CPU_SECONDS = 20
"""A check that takes more hangs: the change made a loop endless."""

KILLED, REFUSED, SAME, EQUIVALENT, SURVIVED = "killed", "refused", "same", "equivalent", "survived"
"""A check saw it; the hardware cannot even be built; the hardware is the same, bit for bit; proved to behave the same; none
of these."""


class Slow(Exception):
    """Out of time."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises `Slow` after so much processor time."""

    def stop(*_: Any) -> None:
        raise Slow(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclass(frozen=True)
class Fate:
    """What became of a mutant."""

    target: str
    mutant: str
    verdict: str
    why: str = ""


def hardware(check: Check) -> str:
    """The RTLIL of what a check simulates."""
    return rtlil.convert(check.build(), name="top", emit_src=False)


def reached(target: Target, checks: Sequence[Check]) -> tuple[set[int], dict[int, str]]:
    """Lines of the target's file that run while the checks' hardware is built, and that hardware by ``id`` of the check.

    Checks that need no such line are left out.
    """
    file = str(target.module.__file__)
    lines: set[int] = set()
    built: dict[int, str] = {}
    needed: set[int] = set()

    def local(frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            needed.add(frame.f_lineno)
        return local

    def trace(frame: Any, event: str, _: Any) -> Any:
        return local if frame.f_code.co_filename == file else None

    before = sys.gettrace()
    for check in checks:
        needed.clear()
        clear_caches(target.module)
        sys.settrace(trace)
        try:
            design = hardware(check)
        finally:
            sys.settrace(before)
        if needed:
            built[id(check)] = design
            lines |= needed
    return lines, built


class Campaign:
    """All mutants of a target, and what its checks say to them.

    Parameters
    ----------
    target
        What is broken.
    known
        Fates of an earlier run, by `key`; those mutants are not tried again.
    """

    def __init__(self, target: Target, known: dict[str, Fate] | None = None):
        self.target, self.known = target, known or {}
        self.source = Path(str(target.module.__file__)).read_text()
        checks = target.checks()
        self.lines, self.right = reached(target, checks)
        self.checks = [check for check in checks if id(check) in self.right]
        every = list(mutants(self.source))
        functions = {mutant.function for mutant in every if mutant.statement in self.lines}
        self.mutants = [mutant for mutant in every if mutant.statement in self.lines]
        self.unreached = sorted({mutant.statement for mutant in every if mutant.function in functions
                                 and mutant.statement not in self.lines})
        """Lines of functions that build hardware which no check's hardware needs: a check is missing."""

    def key(self, mutant: Mutant) -> str:
        """Names a mutant of this very source."""
        return sha256(f"{self.target.name}\0{self.source}\0{mutant.name}".encode()).hexdigest()[:24]

    def sample(self, count: int, seed: int) -> list[Mutant]:
        """``count`` of the mutants at random, no two of one line unless there are too few lines."""
        rng = random.Random(f"{self.target.name} {seed}")
        order = self.mutants[:]
        rng.shuffle(order)
        lines: dict[int, int] = {}
        rank = []
        for mutant in order:
            lines[mutant.statement] = lines.get(mutant.statement, -1) + 1
            rank.append(lines[mutant.statement])
        return [mutant for _, mutant in sorted(zip(rank, order, strict=True), key=lambda pair: pair[0])][:count]

    def run(self, chosen: Sequence[Mutant], done: Callable[[str, Fate], None] = lambda key, fate: None) -> list[Fate]:
        """The fate of each; ``done`` hears of every new one."""
        fates = []
        for mutant in chosen:
            key = self.key(mutant)
            fate = self.known.get(key)
            if fate is None:
                fate = self.fate(mutant)
                done(key, fate)
            fates.append(fate)
        return fates

    def fate(self, mutant: Mutant) -> Fate:
        """Try one mutant."""
        verdict, why = SURVIVED, ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is broken may be built in part only, or have ports of odd widths
            with swapped(self.target.module, mutant):
                for number, check in enumerate(self.checks):
                    try:
                        gc.disable()
                        with limited(CPU_SECONDS):
                            check()
                    except AssertionError as error:
                        verdict, why = KILLED, str(error)
                    except Slow as error:
                        verdict, why = KILLED, str(error)
                    except Exception as error:
                        verdict, why = REFUSED, f"{type(error).__name__}: {error}"
                    finally:
                        gc.enable()
                    if verdict != SURVIVED:
                        # First next time: what finds one often finds another.
                        self.checks.insert(0, self.checks.pop(number))
                        break
            if verdict == SURVIVED:
                verdict, why = self.excuse(mutant)
            gc.collect()
        return Fate(self.target.name, mutant.name, verdict, why.splitlines()[0][:200] if why else "")

    def excuse(self, mutant: Mutant) -> tuple[str, str]:
        """Whether a survivor is no fault at all, by comparison of the hardware and by proof, never by opinion."""
        with swapped(self.target.module, mutant):
            different = [check for check in self.checks if hardware(check) != self.right[id(check)]]
        if not different:
            return SAME, ""
        for check in different:
            if not equivalent(check, self.target.module, mutant):
                return SURVIVED, f"{len(different)} of the checks' designs differ and are not all proved equal"
        return EQUIVALENT, f"proved for the {len(different)} checks whose hardware differs"


def load(path: Path) -> dict[str, Fate]:
    """Fates by key, from a file of JSON lines; a line cut off by an interruption is dropped."""
    fates: dict[str, Fate] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            key, fields = json.loads(line)
        except ValueError:
            continue
        fates[key] = Fate(**fields)
    return fates


def append(path: Path, key: str, fate: Fate) -> None:
    """Adds a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(json.dumps([key, asdict(fate)]) + "\n")
