"""Finds and runs external tools: a log file each, a time limit, and one sentence when something goes wrong."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, ToolError
from ..progress import SILENT, Progress
from .wasm import LAUNCHERS, TRAPPED, cache_folder

ORIGINS = ("auto", "wheel", "native")
"""``auto``: what the environment variable names, else the wheel, else PATH. The others insist."""

TAIL_LINES = 12

POLL_S = 0.5
"""How often a limit is asked for."""


@dataclass(frozen=True)
class Runner:
    """Runs yosys, nextpnr-ice40, icepack, icebram, and whatever else `wasm.LAUNCHERS` names.

    Parameters
    ----------
    origin
        One of `ORIGINS`. The environment variable of ``nextpnr-ice40`` is ``NEXTPNR_ICE40``, and so on; one that names
        a YoWASP script means the wheel, which runs here with a deeper stack than that script gives.
    progress
        Shows every run as a stage.
    timeout_s
        Limit for one run in seconds; a function is asked again while it runs.
    """

    origin: str = "auto"
    progress: Progress = SILENT
    timeout_s: float | Callable[[], float] = 1200.0

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise InputError(f"tools must be one of {', '.join(ORIGINS)}, not {self.origin!r}")

    def command(self, tool: str) -> list[str]:
        """What to put in front of the arguments of ``tool``; an error says how to install it."""
        variable = tool.upper().replace("-", "_")
        named = shlex.split(os.environ.get(variable, ""))
        package, _, _ = LAUNCHERS[tool]
        wheel = importlib.util.find_spec(package) is not None
        if named and Path(named[0]).name.startswith("yowasp-"):
            named = []
        if self.origin != "wheel" and named:
            if shutil.which(named[0]) is None:
                raise ToolError(f"{variable} names {named[0]!r}, which is no program on PATH; "
                                "correct the variable or unset it")
            return named
        if self.origin != "native" and wheel:
            return [sys.executable, "-m", "lutq_hw.tools.wasm", tool]
        if self.origin == "wheel":
            raise ToolError(f"{tool} is not installed; run: pip install {package.replace('_', '-')}")
        found = shutil.which(tool)
        if found is None:
            raise ToolError(f"{tool} is not installed; run: pip install {package.replace('_', '-')} "
                            f"(or put a native {tool} on PATH, or name it in {variable})")
        return [found]

    def run(self, tool: str, arguments: Sequence[str], *, folder: Path, log: Path, stage: str,
            timeout_s: float | Callable[[], float] | None = None) -> float:
        """Runs ``tool`` in ``folder``; its output (and what it wrote to ``log`` itself) ends up in ``log``.

        The wheels see their own ``/tmp``: arguments should be paths relative to ``folder``.

        Returns
        -------
        float
            Seconds of wall-clock time.

        Raises
        ------
        ToolError
            If the tool is missing.
        RunError
            If it fails or runs past the limit (text: `failure`).
        """
        prefix = self.command(tool)
        wanted = self.timeout_s if timeout_s is None else timeout_s
        limit_s = wanted if callable(wanted) else lambda: wanted
        label = stage
        if prefix[1:2] == ["-m"] and not _compiled(tool):
            label += f", first run of {tool}: it is compiled once (10 to 60 s)"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        printed = log.with_name(log.name + ".printed")
        begin = time.monotonic()
        with self.progress.stage(label):
            try:
                with printed.open("wb") as stream:
                    code = _wait([*prefix, *arguments], folder, stream.fileno(), limit_s)
            finally:
                _merge(log, printed)
            if code != 0:
                raise failure(stage, [tool, *arguments], code, limit_s(), log)
        return time.monotonic() - begin

    def version(self, tool: str) -> str:
        """Version of ``tool``; for the wheel that of the package, without a run."""
        prefix = self.command(tool)
        if prefix[1:2] == ["-m"]:
            package = LAUNCHERS[tool][0].replace("_", "-")
            return f"{package} {importlib.metadata.version(package)}"
        option = "-V" if tool == "yosys" else "--version" if tool.startswith("nextpnr-") else None
        if option is None:
            return " ".join(prefix)
        done = subprocess.run([*prefix, option], capture_output=True, text=True, timeout=60, check=False)
        lines = (done.stdout + done.stderr).strip().splitlines()
        return lines[0] if lines else " ".join(prefix)


class RunError(ToolError):
    """A tool that ran and failed, for those who can try something else.

    Attributes
    ----------
    exit_code
        `TRAPPED` if it died in WebAssembly, negative if a signal killed it, None if it ran out of time.
    log
        What it said.
    """

    def __init__(self, sentence: str, exit_code: int | None, log: Path):
        super().__init__(sentence)
        self.exit_code, self.log = exit_code, log


def failure(stage: str, command: Sequence[str], code: int | None, limit_s: float, log: Path) -> RunError:
    """The error for a run that failed: command, exit code, the log's path and its last lines."""
    if code is None:
        what = f"did not end within {limit_s:g} s and was stopped"
    elif code == TRAPPED:
        what = "died inside WebAssembly (usually its stack was too small for this design)"
    elif code < 0:
        what = f"was killed by signal {-code} ({signal.strsignal(-code)})"
    else:
        what = f"failed with exit code {code}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    tail = "\n".join(f"  | {line[:200]}" for line in lines[-TAIL_LINES:])
    ending = f" and ends with\n{tail}" if tail else ""
    return RunError(f"{stage}: {shlex.join(command)} {what}; its log is {log}{ending}", code, log)


_running: set[subprocess.Popen[bytes]] = set()


def stop_running() -> None:
    """Ends all tools of this process: for whoever runs several in threads and is interrupted."""
    for process in list(_running):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _wait(command: list[str], folder: Path, output: int, limit_s: Callable[[], float]) -> int | None:
    """Exit code of ``command``, or None when it had to be stopped; no child outlives this call."""
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                               start_new_session=True, env=_environment())
    _running.add(process)
    begin = time.monotonic()
    try:
        while (left := begin + limit_s() - time.monotonic()) > 0:
            try:
                return process.wait(min(left, POLL_S))
            except subprocess.TimeoutExpired:
                continue
        return None
    finally:
        _running.discard(process)
        # Also on Ctrl-C: the tool leads its own process group, so that its children end with it.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment() -> dict[str, str]:
    """The environment with this package importable, wherever the child runs."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def _merge(log: Path, printed: Path) -> None:
    """Appends to ``log`` what the tool printed and did not log itself."""
    known = set(log.read_bytes().splitlines()) if log.exists() else set()
    with log.open("ab") as stream:
        for line in printed.read_bytes().splitlines():
            if line not in known:
                stream.write(line + b"\n")
    printed.unlink()


@functools.cache
def _program(tool: str) -> tuple[str, str, str]:
    """Package, file name and SHA-1 of a wheel's program: the path of its compiled form in the cache."""
    package, _, name = LAUNCHERS[tool]
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    with (Path(spec.submodule_search_locations[0]) / name).open("rb") as stream:
        return package, name, hashlib.file_digest(stream, "sha1").hexdigest()


def _compiled(tool: str) -> bool:
    """True if the wheel has run before on this machine, hence starts at once."""
    return cache_folder().joinpath(*_program(tool)).exists()
