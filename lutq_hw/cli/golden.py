"""Run a network in integers with numpy, the specification that hardware is compared with.

Prints the accuracy when labels are known, and with --output saves the scores (or the class, if the network ends in
argmax) of every image as an .npy file.

  python -m lutq_hw golden --model examples/mnist_cnn.npz --images t10k-images-idx3-ubyte.gz \\
      --labels t10k-labels-idx1-ubyte.gz
  python -m lutq_hw golden --model trained.npz --images images.npz --count 1 --layers
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._accuracy import accuracy_lines, graded
from ._options import add_images, add_json, add_model

if TYPE_CHECKING:
    import numpy as np

    from ..network import Network

HELP = "run the network in integers with numpy; accuracy when labels are given"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_model(parser)
    add_images(parser)
    add_json(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, help="save the network's output to this .npy file")
    parser.add_argument("--layers", action="store_true",
                        help="also show the range and mean of every layer's result over these images (at most 1,000)")
    parser.add_argument("--exact", action="store_true",
                        help="use the slow specification itself, not the fast path that is tested equal to it")


def run(args: argparse.Namespace) -> int:
    """Evaluate and report."""
    from .. import golden
    from ..images import load_images
    from ..modelfile import load
    from ..progress import TextProgress

    network = load(args.model)
    images, labels = load_images(args.images, args.labels, network=network)
    available = len(images)
    images, labels = images[:args.count], None if labels is None else labels[:args.count]
    begin = time.perf_counter()
    with TextProgress().stage("golden", total=len(images), unit="images") as stage:
        results = golden.evaluate(network, images, fast=not args.exact, progress=stage.update)
        seconds = time.perf_counter() - begin
        stage.note = f"{len(images):,} images"
    report: dict[str, Any] = {
        "model": network.name, "digest": network.digest, "images": len(images), "available": available,
        "seconds": round(seconds, 3), "images_per_second": round(len(images) / seconds, 1),
    }
    report |= graded(network, results, labels)
    if args.output is not None:
        _write(args.output, results)
        report["output"] = str(args.output)
    if args.layers:
        report["layers"] = _layers(network, images[:1000])
    print(json.dumps(report, indent=2) if args.json else _text(report, args.count))
    return 0


def _write(path: Path, results: np.ndarray) -> None:
    import numpy as np

    from ..errors import InputError
    try:
        with path.open("wb") as file:
            np.save(file, results)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def _layers(network: Network, images: np.ndarray) -> list[dict[str, Any]]:
    """Shape, range and mean of every node's result."""
    from .. import golden, golden_fast
    engine, batch = golden_fast.FastNetwork(network), golden_fast.batch_size(network)
    rows = {node.name: {"name": node.name, "type": str(network.types[node.name]), "min": 1 << 62, "max": -(1 << 62),
                        "sum": 0, "count": 0} for node in network.nodes}
    for begin in range(0, len(images), batch):
        for name, values in engine.run(golden.encode(network, images[begin:begin + batch])).items():
            row = rows[name]
            row["min"], row["max"] = min(row["min"], int(values.min())), max(row["max"], int(values.max()))
            row["sum"], row["count"] = row["sum"] + int(values.sum()), row["count"] + values.size
    return [{**{key: row[key] for key in ("name", "type", "min", "max")}, "mean": row["sum"] / row["count"]}
            for row in rows.values()]


def _text(report: dict[str, Any], count: int | None) -> str:
    from ..table import table
    speed = f"{report['images']:,} images, {report['images_per_second']:,.0f} images/s"
    lines = [f"{report['model']} ({report['digest'][:12]}), {speed}"]
    if count is not None and count > report["available"]:
        lines.append(f"the file holds {report['available']:,} images, fewer than --count {count:,}")
    if "layers" in report:
        rows = [[row[key] for key in ("name", "type", "min", "max", "mean")] for row in report["layers"]]
        lines += ["", table(["layer", "type", "min", "max", "mean"], rows), ""]
    lines += accuracy_lines(report, report["images"])
    if "output" in report:
        lines.append(f"output saved to {report['output']}")
    return "\n".join(lines)
