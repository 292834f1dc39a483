"""Write a model file again with its indices as Huffman codewords, or as plain bytes.

The network stays the same, its digest too; a packed file can be given wherever a model file can. Each layer takes
the smallest form: a byte for each weight, a codeword for each, or codewords for the weights that were not pruned and
for the gaps between them. --output may name the input: the file is replaced as a whole.

  python -m lutq_hw pack --model trained.npz --output small.npz
  python -m lutq_hw pack --model small.npz --output plain.npz --coding none
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ._options import add_json, add_model

HELP = "write a model file smaller, with Huffman-coded indices"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_model(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="model file to write (.npz)")
    parser.add_argument("--coding", choices=("huffman", "none"), default="huffman",
                        help="of the indices (default: huffman, where that is smaller)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Load, write, say what it saved."""
    from ..modelfile import contents, load, save
    before = contents(args.model).size
    network = load(args.model)
    save(network, args.output, coding=args.coding)
    after = contents(args.output)
    if args.json:
        codings = {name: {"coding": layer.coding, "index_bytes": layer.size} for name, layer in after.layers.items()}
        print(json.dumps({"digest": network.digest, "bytes_before": before, "bytes_after": after.size,
                          "layers": codings}, indent=2))
    else:
        coded = sum(layer.coding != "raw" for layer in after.layers.values())
        print(f"{args.output}: {before:,} bytes before, {after.size:,} now; {coded} of {len(after.layers)} layers "
              "coded")
    return 0
