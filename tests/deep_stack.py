"""``python deep_stack.py DEPTH``: recurses DEPTH times in WebAssembly through the launcher of `lutq_hw.tools.wasm`."""

from __future__ import annotations

import sys
import threading
import types

import wasmtime

from lutq_hw.tools import wasm

PROGRAM = """
(module
  (func $start (export "_start") (call $recurse (i32.const DEPTH)) drop)
  (func $recurse (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (i32.add (i32.const 1) (call $recurse (i32.sub (local.get 0) (i32.const 1)))))
      (else (i32.const 0)))))
"""


def launch(argv: list[str]) -> int:
    """Like YoWASP's launcher: an engine with its own configuration, a linker, a thread."""
    engine = wasmtime.Engine(wasmtime.Config())
    module = wasmtime.Module(engine, PROGRAM.replace("DEPTH", argv[0]))
    store = wasmtime.Store(engine)
    instance = wasmtime.Linker(engine).instantiate(store, module)
    failed: list[Exception] = []

    def run() -> None:
        try:
            instance.exports(store)["_start"](store)  # type: ignore[operator]
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return 0


if __name__ == "__main__":
    sys.modules["launcher"] = types.SimpleNamespace(run=launch)  # type: ignore[assignment]
    wasm.LAUNCHERS["deep"] = ("launcher", "run", "")
    sys.exit(wasm.main(["deep", sys.argv[1]]))
