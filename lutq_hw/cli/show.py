"""Show a trained network: layers, shapes, dictionaries, bits per weight against the entropy of the indices, and how the
file has them.

  python -m lutq_hw show --model examples/mnist_cnn.npz
  python -m lutq_hw show --model trained.npz --json
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ._options import add_json, add_model

if TYPE_CHECKING:
    from ..modelfile import Contents
    from ..network import Network, Step, WeightNode

HELP = "show a network: layers, dictionaries, bits per weight, entropy"
BAR_WIDTH = 40
SMALL = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_model(parser)
    add_json(parser)
    parser.add_argument("--histogram", action="store_true",
                        help=f"draw the use of every dictionary, not only of those up to {SMALL} entries")


def run(args: argparse.Namespace) -> int:
    """Load, describe, print."""
    from ..modelfile import contents, load
    description = describe(load(args.model), contents(args.model))
    print(json.dumps(description, indent=2) if args.json else _text(description, histogram=args.histogram))
    return 0


def describe(network: Network, contents: Contents) -> dict[str, Any]:
    """Everything that the command shows, as JSON values."""
    layers = [_layer(network, node) for node in network.nodes]
    for layer in layers:
        if stored := contents.layers.get(layer["name"]):
            layer |= {"coding": stored.coding, "index_bytes": stored.size}
    weighted = [layer for layer in layers if "weights" in layer]
    weights = sum(layer["weights"] for layer in weighted)

    def mean(key: str) -> float:
        return sum(layer["weights"] * layer[key] for layer in weighted) / weights if weights else 0.0

    return {
        "name": network.name, "digest": network.digest, "file_bytes": contents.size, "version": contents.version,
        "layers": layers, "weights": weights,
        "macs": sum(layer["macs"] for layer in weighted), "index_bits": mean("index_bits"), "entropy": mean("entropy"),
        "info": dict(network.info),
    }


def _layer(network: Network, node: Any) -> dict[str, Any]:
    type_ = network.types[node.name]
    row: dict[str, Any] = {
        "name": node.name, "kind": type(node).__name__.lower(), "inputs": list(node.inputs),
        "shape": list(type_.shape), "bits": type_.bits, "signed": type_.signed, "type": str(type_),
    }
    if node in network.weighted:
        row |= _weights(network, node)
    elif hasattr(node, "kernel"):
        row |= {"kernel": list(node.kernel), "stride": list(node.stride), "padding": list(node.padding)}
    elif hasattr(node, "shifts"):
        row["shifts"] = list(node.shifts)
    if hasattr(node, "step"):
        row.setdefault("step", _step(node.step))
    return row


def _weights(network: Network, node: WeightNode) -> dict[str, Any]:
    from ..network import Conv2d
    codebook, x = node.weights, network.input_type(node)
    row: dict[str, Any] = {
        "macs": network.macs(node), "terms": node.terms, "weights": int(codebook.assignments.size),
        "entries": codebook.entries, "subgroups": codebook.groups, "index_bits": codebook.index_bits,
        "entropy": codebook.entropy, "accumulator_bits": node.accumulator_bits(x), "usage": codebook.usage.tolist(),
        "step": _step(node.step),
    }
    if codebook.table is None:
        row["dictionary"] = codebook.dictionary.tolist()
    else:
        row["table"] = list(codebook.table.shape)
    if isinstance(node, Conv2d):
        row |= {key: list(getattr(node, key)) for key in ("kernel", "stride", "padding")} | {"groups": node.groups}
    return row


def _step(step: Step | None) -> str:
    from ..network import ActivationTable, Shift, Thresholds
    match step:
        case Thresholds():
            down = int(step.descending.sum())
            return f"{step.values.shape[1]} thresholds" + (f", {down} channels descending" if down else "")
        case ActivationTable():
            return f"table of {len(step.values)}, shift {step.shift}"
        case Shift():
            return f"shift {step.shift}"
        case None:
            return "none"


def _geometry(layer: dict[str, Any]) -> str:
    if "kernel" not in layer:
        return ""
    (kh, kw), (sh, sw), (ph, pw) = layer["kernel"], layer["stride"], layer["padding"]
    text = f"{kh}x{kw}"
    text += "" if sh == sw == 1 else f" s{sh}" if sh == sw else f" s{sh}x{sw}"
    text += "" if ph == pw == 0 else f" p{ph}" if ph == pw else f" p{ph}x{pw}"
    return text + (f" g{layer['groups']}" if layer.get("groups", 1) > 1 else "")


def _text(description: dict[str, Any], *, histogram: bool) -> str:
    from ..table import table
    header = ["layer", "kind", "window", "output", "weights", "MACs", "K", "bits/weight", "entropy", "coding", "bytes",
              "acc bits", "step"]
    rows = []
    for layer in description["layers"]:
        row = [layer["name"], layer["kind"], _geometry(layer), layer["type"]]
        row += [layer["weights"], layer["macs"], layer["entries"], layer["index_bits"], f"{layer['entropy']:.2f}",
                layer["coding"], layer["index_bytes"], layer["accumulator_bits"]] if "weights" in layer else [None] * 8
        rows.append([*row, layer.get("step")])
    footer = ["total", None, None, None, description["weights"], description["macs"], None,
              f"{description['index_bits']:.2f}", f"{description['entropy']:.2f}", None,
              sum(layer.get("index_bytes", 0) for layer in description["layers"]), None, None]
    lines = [description["name"], f"digest {description['digest']}",
             f"file of {description['file_bytes']:,} bytes, format version {description['version']}",
             "", table(header, rows, footer)]
    for layer in description["layers"]:
        if "weights" in layer:
            lines += ["", *_dictionary(layer, histogram=histogram)]
    if description["info"]:
        lines += ["", "info"]
        lines += [f"  {json.dumps(key)[1:-1]}: {_shorten(value)}" for key, value in description["info"].items()]
    return "\n".join(lines)


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _dictionary(layer: dict[str, Any], *, histogram: bool) -> list[str]:
    """The dictionary of one layer, with bars for the use of each entry if it is small or ``histogram``."""
    from ..table import bar
    if "table" in layer:
        shape = "x".join(map(str, layer["table"]))
        lines = [f"{layer['name']}: product table {shape} (subgroups x levels x entries)"]
        labels = [f"entry {k}" for k in range(layer["entries"])]
    else:
        subgroups = layer["dictionary"]
        lines = [f"{layer['name']}: dictionary " + " ".join(map(str, subgroups[0]))]
        if len(subgroups) > 1:
            lines[0] += f" (subgroup 0 of {len(subgroups)})"
        labels = [str(value) for value in subgroups[0]] if len(subgroups) == 1 else \
                 [f"entry {k}" for k in range(layer["entries"])]
    if histogram or layer["entries"] <= SMALL:
        usage, largest = layer["usage"], max(layer["usage"])
        width, digits = max(map(len, labels)), len(f"{largest:,}")
        lines += [f"  {label:>{width}}  {count:>{digits},}  {100 * count / layer['weights']:5.1f} %  "
                  f"{bar(count, largest, BAR_WIDTH)}".rstrip() for label, count in zip(labels, usage, strict=True)]
    return lines
