"""What a person sees while training: one line per epoch, and on a terminal a line that is rewritten within one."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

INTERVAL = 0.2


class Progress:
    """Writes to ``stream`` (standard error); the live line appears only where it can be rewritten."""

    def __init__(self, epochs: int, stream: TextIO | None = None) -> None:
        self.epochs = epochs
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
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
        parts = [f"epoch {entry['epoch']}/{self.epochs}", f"{entry['phase']:9}", f"loss {entry['loss']:.4f}"]
        parts += [f"{words} {entry[key]:.2%}" for key, words in
                  (("held_out_accuracy", "held-out"), ("test_accuracy", "test")) if key in entry]
        self.clear()
        print("  ".join([*parts, f"{entry['seconds']:.1f} s"]), file=self.stream, flush=True)

    def clear(self) -> None:
        """Remove the live line."""
        if self.live:
            print("\r\033[K", end="", file=self.stream, flush=True)
