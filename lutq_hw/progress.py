"""Progress of long work: library code reports it, and only the command line knows whether a terminal listens."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

REFRESH_SECONDS = 0.1


class Stage:
    """One piece of long work; a context manager whose end closes the report."""

    def __init__(self, label: str, total: int | None = None, unit: str = ""):
        self.label, self.total, self.unit = label, total, unit
        self.note = ""
        """What the closing line should say besides the time."""

    def update(self, done: int) -> None:
        """``done`` of ``total`` units are finished."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        """End of the work, by an exception if ``kind`` is one."""


class Progress:
    """Starts stages. This base class is silent: the default of library functions."""

    def stage(self, label: str, total: int | None = None, unit: str = "") -> Stage:
        """A stage named ``label``, of ``total`` units if that is known::

            with progress.stage("evaluate", total=len(images), unit="images") as stage:
                stage.update(done)
        """
        return Stage(label, total, unit)


SILENT = Progress()


class TextProgress(Progress):
    """One line per stage on ``stream`` (stderr): rewritten in place on a terminal, start and end lines elsewhere."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream

    def stage(self, label: str, total: int | None = None, unit: str = "") -> Stage:
        return _TextStage(self._stream, label, total, unit)


class _TextStage(Stage):
    def __init__(self, stream: TextIO, label: str, total: int | None, unit: str):
        super().__init__(label, total, unit)
        self._stream, self._live = stream, stream.isatty()
        self._begin = self._shown = time.monotonic()
        self._width = 0
        self._write(f"{label} ...", final=False)

    def update(self, done: int) -> None:
        now = time.monotonic()
        if not self._live or now - self._shown < REFRESH_SECONDS:
            return
        self._shown = now
        unit = f" {self.unit}" if self.unit else ""
        amount = f"{done:,}{unit}" if self.total is None else f"{done:,} of {self.total:,}{unit}"
        left = ""
        if self.total and done:
            left = f", {(now - self._begin) * max(0, self.total - done) / done:.0f} s left"
        self._write(f"{self.label}: {amount}{left}", final=False)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        end = "stopped" if kind is not None else self.note or "done"
        self._write(f"{self.label}: {end}, {time.monotonic() - self._begin:.1f} s", final=True)

    def _write(self, line: str, *, final: bool) -> None:
        if self._live:
            self._stream.write("\r" + line.ljust(self._width) + ("\n" if final else ""))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
