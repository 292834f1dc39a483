"""A plan: for every layer the unit, the size of its array and its memories. Plain data that a person may edit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import PlanError

VERSION = 1

MAX_DEPTH = 1 << 20
"""Most words of a FIFO in a file: keeps a slip of the pen from asking for absurd amounts of memory."""

TERMS = ("all", "nonzero")


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """One weight layer.

    Parameters
    ----------
    node
        Name of the layer.
    unit
        Name of the MAC unit (``lutq_hw/units/``).
    pe
        Output channels computed at once; divides the output channels of a group.
    channels, rows
        Input channels and kernel rows read at once; ``simd = channels * rows`` terms a cycle. ``rows`` is 1 or the
        kernel height.
    spread
        Channel groups computed at once. Above 1, ``pe`` is all outputs of these groups and ``channels`` all inputs of one
        group; a depthwise convolution then has ``pe = spread``.
    index_memory
        Where assignments live: ``bram`` or ``luts``.
    terms
        Which terms are read: ``all`` of them, or the ``nonzero`` ones only (``nonzero.py``; ``channels`` and ``rows`` are
        then 1, and each of ``pe`` lanes reads its own).
    output
        Name of the output stage (``lutq_hw/outputs/``).
    output_lanes
        Channels that the output stage finishes at once; divides ``pe``.
    output_memory
        Where thresholds or biases live: ``bram`` or ``luts``.
    """

    node: str
    unit: str
    pe: int
    channels: int
    rows: int = 1
    index_memory: str = "bram"
    output: str = "thresholds"
    output_lanes: int = 1
    output_memory: str = "luts"
    terms: str = "all"
    spread: int = 1

    @property
    def simd(self) -> int:
        """Terms a cycle."""
        return self.channels * self.rows

    @property
    def array(self) -> tuple[int, int, int, int]:
        """Size of the array: ``pe, channels, rows, spread``."""
        return self.pe, self.channels, self.rows, self.spread

    @property
    def input_lanes(self) -> int:
        """Activations in a word of the input stream."""
        return self.spread * self.channels


@dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """One max-pool: ``channels`` compared at once."""

    node: str
    channels: int = 1


@dataclass(frozen=True, kw_only=True)
class SumPlan:
    """One add, average pool or requantise node.

    Parameters
    ----------
    node
        Name of the node.
    channels
        Channels summed at once; divides those of the input.
    output, output_lanes, output_memory
        As in `LayerPlan`; ``output_lanes`` divides ``channels``.
    """

    node: str
    channels: int = 1
    output: str
    output_lanes: int = 1
    output_memory: str = "luts"


@dataclass(frozen=True, kw_only=True)
class FifoPlan:
    """A FIFO in front of an add, on a branch that is shorter than the other.

    Parameters
    ----------
    node
        Name of the add.
    input
        Number of its input, from 0.
    depth
        Words of the add's ``channels`` that are kept.
    memory
        ``bram`` or ``luts`` (registers).
    """

    node: str
    input: int
    depth: int
    memory: str = "bram"


Entry = LayerPlan | PoolPlan | SumPlan


@dataclass(frozen=True)
class Plan:
    """The plans of all layers in network order, for one model and (if known) one board, and the FIFOs of branches.

    ``digest`` is the model's; a plan made for another model is refused when it is used. An input of an add that
    ``fifos`` does not name has no FIFO.
    """

    digest: str
    layers: tuple[Entry, ...]
    board: str | None = None
    fifos: tuple[FifoPlan, ...] = ()

    def __getitem__(self, node: str) -> Entry:
        for layer in self.layers:
            if layer.node == node:
                return layer
        raise PlanError(f"plan must have an entry for layer {node}, but has none; make the plan again")

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        layers = [asdict(layer) for layer in self.layers]
        fifos = {"fifos": [asdict(fifo) for fifo in self.fifos]} if self.fifos else {}
        return json.dumps({"format": "lutq plan", "version": VERSION, "board": self.board, "digest": self.digest,
                           "layers": layers, **fifos}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan; every wrong field is a `PlanError` that names it."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise PlanError(f"plan must be JSON: {error}") from None
        if not isinstance(raw, dict) or raw.get("format") != "lutq plan":
            raise PlanError('plan must be a JSON object with "format": "lutq plan"')
        if raw.get("version") != VERSION:
            raise PlanError(f"plan version must be {VERSION}, not {raw.get('version')!r}; make the plan again")
        digest, board, layers = raw.get("digest"), raw.get("board"), raw.get("layers")
        if not isinstance(digest, str) or not (board is None or isinstance(board, str)) or not isinstance(layers, list):
            raise PlanError("plan must have a digest (string), a board (string or null) and layers (list)")
        fifos = raw.get("fifos", [])
        if not isinstance(fifos, list):
            raise PlanError("plan must have fifos that are a list, or none")
        return cls(digest, tuple(_layer(f"layers[{i}]", entry) for i, entry in enumerate(layers)), board,
                   tuple(_fields(FifoPlan, f"fifos[{i}]", entry) for i, entry in enumerate(fifos)))

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan file."""
        try:
            return cls.from_json(path.read_text())
        except OSError as error:
            raise PlanError(f"{path}: plan file must be readable: {error.strerror}") from None
        except UnicodeDecodeError:
            raise PlanError(f"{path}: plan must be JSON text") from None
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from None


def _layer(place: str, entry: Any) -> Entry:
    known = entry if isinstance(entry, Mapping) else {}
    return _fields(LayerPlan if "unit" in known else SumPlan if "output" in known else PoolPlan, place, entry)


def _fields(kind: type[Any], place: str, entry: Any) -> Any:
    """A ``kind`` from the JSON object ``entry``, every field checked."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("node"), str):
        raise PlanError(f'{place} must be an object with a "node"')
    known = {f.name: f for f in fields(kind)}
    where = f"layer {entry['node']}"
    for key, value in entry.items():
        if key not in known:
            raise PlanError(f"{where}: field must be one of {', '.join(known)}, not {key!r}")
        if known[key].type == "int" and (type(value) is not int or value < (key != "input")):
            least = "an integer from 0" if key == "input" else "a positive integer"
            raise PlanError(f"{where}: {key} must be {least}, not {value!r}")
        if known[key].type == "str" and not isinstance(value, str):
            raise PlanError(f"{where}: {key} must be a string, not {value!r}")
        if (key == "memory" or key.endswith("_memory")) and value not in ("bram", "luts"):
            raise PlanError(f"{where}: {key} must be bram or luts, not {value!r}")
        if key == "depth" and isinstance(value, int) and value > MAX_DEPTH:
            raise PlanError(f"{where}: {key} must be at most {MAX_DEPTH}, not {value}")
        if key == "terms" and value not in TERMS:
            raise PlanError(f"{where}: {key} must be {' or '.join(TERMS)}, not {value!r}")
    missing = [f.name for f in known.values() if f.default is f.default_factory and f.name not in entry]
    if missing:
        raise PlanError(f"{where}: field {missing[0]} must be given")
    return kind(**entry)
