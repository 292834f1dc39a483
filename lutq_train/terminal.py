"""What a person sees while training: one line per epoch, and on a terminal a line that is rewritten within one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

INTERVAL = 0.2


class Progress:
    """Writes to ``stream`` (standard error); the live line appears only where it can be rewritten.

    ``quiet`` writes nothing: where several processes train together, one of them speaks.
    """

    def __init__(self, epochs: int, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.epochs, self.quiet = epochs, quiet
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty() and not quiet
        self._last = 0.0

    def step(self, epoch: int, done: float, loss: float) -> None:
        """Within an epoch, any number of times."""
        now = time.monotonic()
        if self.live and now - self._last > INTERVAL:
            self._last = now
            print(f"\r\033[Kepoch {epoch + 1}/{self.epochs}  {done:4.0%}  loss {loss:.4f}", end="", file=self.stream,
                  flush=True)

    def epoch(self, entry: dict[str, Any]) -> None:
        """After an epoch, with its metrics."""
        if self.quiet:
            return
        parts = [f"epoch {entry['epoch']}/{self.epochs}", f"{entry['phase']:9}", f"loss {entry['loss']:.4f}"]
        parts += [f"{words} {entry[key]:.2%}" for key, words in
                  (("kept", "kept"), ("held_out_accuracy", "held-out"), ("test_accuracy", "test")) if key in entry]
        self.clear()
        print("  ".join([*parts, f"{entry['seconds']:.1f} s"]), file=self.stream, flush=True)

    def clear(self) -> None:
        """Remove the live line."""
        if self.live:
            print("\r\033[K", end="", file=self.stream, flush=True)


@contextmanager
def counting(whole: int, stream: TextIO | None = None) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of samples compared so far; shows it on a terminal."""
    out = sys.stderr if stream is None else stream

    def show(done: int) -> None:
        if out.isatty():
            print(f"\r\033[Kcompared {done} of {whole} samples", end="", file=out, flush=True)

    try:
        yield show
    finally:
        if out.isatty():
            print("\r\033[K", end="", file=out, flush=True)
