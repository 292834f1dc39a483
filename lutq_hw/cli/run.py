"""Run images on a programmed board through its serial port and compare every result with the golden model.

The board must hold the same model; it says so itself. Prints the accuracy when labels are known, and the rate that the
host reached. Exit status 1 if a result differs from golden.

  python -m lutq_hw run --model examples/mnist_cnn.npz --port /dev/ttyUSB1 --images t10k-images-idx3-ubyte.gz \\
      --labels t10k-labels-idx1-ubyte.gz
  python -m lutq_hw run --model trained.npz --port /dev/ttyUSB1 --images images.npz --report build/mnist/report.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._accuracy import accuracy_lines, graded
from ._options import add_images, add_json, add_model, positive

if TYPE_CHECKING:
    from ..link.device import Device
    from ..network import Network

HELP = "run images on a board and compare with the golden model"

PROBE_S = 0.1
"""How long an answer may take while the rate is unknown."""

REST_S = 0.5
"""What it may take afterwards besides the time on the line."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_model(parser)
    parser.add_argument("--port", required=True, help="serial port of the board; of an iCEBreaker's two the second, "
                                                      "/dev/ttyUSB1 if nothing else is plugged in")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--baud", metavar="B", type=positive,
                      help="rate of the link (default: the usual rates are tried, fastest first)")
    rate.add_argument("--report", metavar="FILE", type=Path, help="report.json of the build, which names the rate")
    add_images(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Find the board, send the images, compare."""
    import numpy as np

    from .. import golden
    from ..images import load_images
    from ..link.rate import frames_per_second
    from ..modelfile import load
    from ..progress import TextProgress

    network = load(args.model)
    images, labels = load_images(args.images, args.labels)
    images, labels = images[:args.count], None if labels is None else labels[:args.count]
    golden.encode(network, images[:1])  # a wrong shape is refused before the port is touched
    baud = _reported_baud(args.report) if args.report else args.baud
    device, baud = find(args.port, baud, network)
    try:
        device.check()
        with TextProgress().stage("board", total=len(images), unit="images") as stage:
            begin = time.perf_counter()
            results = device.infer(images, progress=stage.update)
            seconds = time.perf_counter() - begin
    finally:
        device.transport.close()
    expected = golden.evaluate(network, images)
    wrong = np.flatnonzero((results != expected).any(axis=1))
    report: dict[str, Any] = {
        "model": network.name, "digest": network.digest, "port": args.port, "baud": baud, "images": len(images),
        "differ": len(wrong), "first_difference": int(wrong[0]) if len(wrong) else None, "sent_again": device.retried,
        "seconds": round(seconds, 3), "frames_per_second": round(len(images) / seconds, 1),
        "link_frames_per_second": round(frames_per_second(baud, network), 1),
    }
    report |= graded(network, results, labels)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(text(report))
        if len(wrong):
            print(f"image {wrong[0]}: board {results[wrong[0]].tolist()}, golden {expected[wrong[0]].tolist()}")
    return 1 if len(wrong) else 0


def _reported_baud(path: Path) -> int:
    from ..errors import InputError
    try:
        baud = json.loads(path.read_text())["link"]["baud"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError):
        baud = None
    if not isinstance(baud, int) or isinstance(baud, bool) or baud < 1:
        raise InputError(f"{path}: must be the report.json of a build, with a baud rate of its link") from None
    return baud


def find(port: str, baud: int | None, network: Network) -> tuple[Device, int]:
    """A device that answers at ``port``, and its rate; the usual rates are tried if ``baud`` is None."""
    from ..errors import LinkError
    from ..link.device import Device
    from ..link.rate import STANDARD, answer_bytes, request_bytes
    from ..link.serial_port import SerialPort

    def opened(baud: int) -> Device:
        frames_s = 4 * 10 * (request_bytes(network) + answer_bytes(network)) / baud
        return Device(SerialPort(port, baud, timeout_s=REST_S + frames_s), network)

    if baud is not None:
        return opened(baud), baud
    for baud in STANDARD:
        transport = SerialPort(port, baud, timeout_s=PROBE_S)
        try:
            Device(transport, network, retries=1).reset()
        except LinkError:
            transport.close()
            continue
        transport.close()
        return opened(baud), baud
    raise LinkError(f"{port}: no board answered at {STANDARD[0]} to {STANDARD[-1]} baud; give the rate that build "
                    "reported with --baud, and check the port and that the board is programmed")


def text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['model']} ({report['digest'][:12]}) on {report['port']} at {report['baud']:,} baud",
        (f"{report['images']:,} images, {report['frames_per_second']:,.0f} images/s "
         f"of the {report['link_frames_per_second']:,.0f} that the link carries"),
    ]
    if report["sent_again"]:
        lines.append(f"{report['sent_again']:,} requests had to be sent again")
    lines += accuracy_lines(report, report["images"])
    equal = report["images"] - report["differ"]
    lines.append("every result equals golden" if not report["differ"] else
                 f"{equal:,} of {report['images']:,} results equal golden, {report['differ']:,} differ")
    return "\n".join(lines)
