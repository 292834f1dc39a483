"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def positive(text: str) -> int:
    """An integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return value


def add_model(parser: argparse.ArgumentParser) -> None:
    """``--model FILE``."""
    parser.add_argument("--model", metavar="FILE", type=Path, required=True, help="trained network, a .npz model file")


def add_images(parser: argparse.ArgumentParser, *, count: int | None = None) -> None:
    """``--images FILE``, ``--labels FILE`` and ``--count N``, of which ``count`` is the default (None: all)."""
    parser.add_argument("--images", metavar="FILE", type=Path, required=True,
                        help="images: idx (also .gz), .npy, or .npz with 'images' and optional 'labels'")
    parser.add_argument("--labels", metavar="FILE", type=Path,
                        help="labels of the images: idx (also .gz), .npy or .npz (default: those in the images' .npz)")
    parser.add_argument("--count", metavar="N", type=positive, default=count,
                        help=f"use the first N images (default: {'all' if count is None else count})")


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object for a program to read")
