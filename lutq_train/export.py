"""A quantised network as an integer `Network`; with `verify`, the only file that knows both worlds.

The graph is walked once. A layer with weights, an add or an average-pool makes integer *sums*; batch norm, bias and
scales are affine functions of them, kept as exact fractions; the quantiser behind them turns all of it into thresholds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lutq_hw import modelfile
from lutq_hw.errors import InputError, ModelError
from lutq_hw.network import (
    ActivationTable,
    Add,
    AvgPool2d,
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Network,
    Node,
    Output,
    Requantize,
    Shift,
    TensorType,
    Thresholds,
)
from lutq_hw.network.steps import Step

from . import fold
from .bias import integers_of
from .capture import Capture, Kind, source, where
from .edges import Codes, Levels, Sums
from .fold import Affine
from .method import ActivationQuantizer, CodedWeights, quantizer_of, source_of
from .norm import PowerOfTwoNorm1d, PowerOfTwoNorm2d
from .supported import average_window, check, clamp_bounds, max_window, padded_channels, pair, slice_steps
from .table import activation_table

NAME_LENGTH = 56

FAR = 1 << 40
"""Beyond every integer sum."""


@dataclass(frozen=True)
class InputCodes:
    """The network's input where the caller gives codes already: ``code * scale``.

    ``encode`` maps a uint8 pixel to its code, 256 entries.
    """

    bits: int
    scale: float
    signed: bool = False
    encode: np.ndarray | None = None


def export(model: nn.Module, path: str | Path, *, example: Tensor, name: str | None = None,
           info: Mapping[str, Any] | None = None, codes: InputCodes | None = None, coding: str = "none") -> Network:
    """Write the quantised ``model`` as an integer model file, checked against the model on the example.

    Parameters
    ----------
    model
        A network after `quantize`; its evaluation mode is what is exported.
    path
        The .npz file.
    example
        A batch of inputs. Every score of the integer network must equal the model's (in float64) on it.
    name, info
        Name of the model and what else readers should know (JSON values).
    codes
        What ``quantize(..., input_scale=...)`` was told about the input.
    coding
        ``huffman`` codes the assignments in the file, which pruned and skewed networks gain from.

    Raises
    ------
    InputError
        If something has no exact integer form, with the module's name, or a score differs; nothing is written then.
    """
    from .verify import compare  # it imports this module's neighbours

    if Path(path).suffix != ".npz":
        raise InputError(f"{path}: a model file must have a name that ends in .npz")
    result = network(model, example, name=name or type(model).__name__.removeprefix("Quantized"), codes=codes, info=info)
    found = compare(model, result, [example])
    if not found.exact:
        raise InputError(f"{path}: {found}, and {found.unexplained} differ without a tie; nothing was written (a layer "
                         "of this network computes something else than was captured)")
    modelfile.save(result, path, coding=coding)
    return result


def network(model: nn.Module, example: Tensor, *, name: str, codes: InputCodes | None = None,
            info: Mapping[str, Any] | None = None) -> Network:
    """The integer network that computes what the quantised ``model`` computes in evaluation mode.

    Parameters
    ----------
    model, example
        A network after `quantize`, and a batch of inputs, for shapes only.
    name, codes, info
        As for `export`. ``scales`` is added to the info: per node the floats that the integers stand for.

    Raises
    ------
    InputError
        If the network holds something that has no exact integer form, with its name.
    """
    if not any(quantizer_of(layer) for layer in model.modules()):
        raise InputError(f"{type(model).__name__}: must be quantised to be exported; call lutq_train.quantize and train")
    with torch.no_grad():
        walk = _Walk(Capture(model, example[:2]), codes)
        for node in walk.capture.graph.nodes:
            walk.visit(node)
    try:
        return Network(name, tuple(walk.nodes), {**(info or {}), "scales": walk.scales})
    except ModelError as error:
        raise InputError(f"{name}: cannot be held by a model file: {error}") from None


class _Walk:
    """The nodes so far, and what each node of the graph stands for."""

    def __init__(self, capture: Capture, codes: InputCodes | None) -> None:
        self.capture, self.codes = capture, codes
        self.nodes: list[Node] = []
        self.edges: dict[fx.Node, Codes | Sums] = {}
        self.types: dict[str, TensorType] = {}
        self.names: set[str] = set()
        self.scales: dict[str, dict[str, Any]] = {}

    def visit(self, node: fx.Node) -> None:
        """Translate one node."""
        check(self.capture, node)
        kind = self.capture.kind(node)
        method = {
            Kind.INPUT: self._input, Kind.WEIGHTS: self._weights, Kind.NORM: self._norm, Kind.QUANTIZE: self._quantize,
            Kind.RELU: self._clamp, Kind.CLAMP: self._clamp, Kind.MAX_POOL: self._max_pool,
            Kind.AVG_POOL: self._average_pool, Kind.FLATTEN: self._flatten, Kind.SAME: self._same, Kind.ADD: self._add,
            Kind.SLICE: self._slice, Kind.PAD: self._pad, Kind.OUTPUT: self._output,
        }.get(kind)
        if kind is Kind.SHAPE:
            return
        if method is None:
            raise InputError(f"{where(node)}: has no exact integer form; a network may be made of Linear, Conv2d, batch "
                             "norm, ReLU, max- and average-pool, flatten, residual add, and quantisers")
        try:
            edge = method(node)
        except ModelError as error:
            raise InputError(f"{where(node)}: {error}") from None
        if edge is not None:
            self.edges[node] = replace(edge, shared=edge.shared or len(node.users) > 1) \
                if isinstance(edge, Sums) else edge

    def _edge(self, node: fx.Node) -> Codes | Sums:
        """What ``node`` gives."""
        if node not in self.edges:
            raise InputError(f"{where(node)}: the input must be codes, because no quantiser stands behind it; say which, "
                             "with codes=InputCodes(bits, scale)")
        return self.edges[node]

    def _append(self, node: Node) -> TensorType:
        self.nodes.append(node)
        self.types[node.name] = self._type(node)
        return self.types[node.name]

    def _type(self, node: Node) -> TensorType:
        return node.output(*(self.types[name] for name in node.inputs))  # type: ignore[call-arg]

    def _name(self, node: fx.Node) -> str:
        """A node name for hardware: the module's path with underscores, unique; ``_in`` for codes made for a layer.

        An add has no module; it is named after what its sum is coded for.
        """
        text = str(node.target) if node.op == "call_module" else where(node).replace(": ", "_")
        text = text.removeprefix("quantizers.").replace(".", "_")
        kind = self.capture.kind(node)
        if kind is Kind.QUANTIZE and not text.endswith("_out"):
            text += "_in"
        coded = [str(user.target) for user in node.users if self.capture.kind(user) is Kind.QUANTIZE]
        if kind is Kind.ADD and coded:
            text = coded[0].removeprefix("quantizers.").removesuffix("_relu").removesuffix("_add") + "_add"
        text = text[:NAME_LENGTH]
        text = text if text[0].isalpha() else f"n{text}"
        name, count = text, 1
        while name in self.names:
            count += 1
            name = f"{text}_{count}"
        self.names.add(name)
        return name

    def _codes(self, node: fx.Node) -> Codes:
        """The codes that ``node`` reads."""
        edge = self._edge(source(node))
        if not isinstance(edge, Codes) or edge.stride != (1, 1) or edge.pad != (0, 0):
            raise InputError(f"{where(node)}: must read codes, but {where(source(node))} gives sums; put a quantiser "
                             "between them (lutq_train.quantize does)")
        return edge

    # -- where codes come from

    def _input(self, node: fx.Node) -> Codes | None:
        shape = node.meta["shape"]
        if self.codes is None:
            return None  # the quantiser behind it makes the codes
        count = 1 << self.codes.bits
        lowest = -(count // 2) if self.codes.signed else 0
        scale = Fraction(self.codes.scale)
        return self._begin(shape, Levels.of(lowest, [scale * (lowest + n) for n in range(count)]), self.codes.encode)

    def _begin(self, shape: tuple[int, ...], levels: Levels, encode: np.ndarray | None) -> Codes:
        type_ = levels.type((shape[2], shape[3], shape[1]) if len(shape) == 4 else (shape[1],))
        self.names.add("image")
        self.scales["image"] = {"output": float(levels.unit)}
        return Codes("image", self._append(Input("image", type_, encode=encode)), levels)

    def _quantize(self, node: fx.Node) -> Codes:
        quantizer: Any = self.capture.module(node)
        before = source(node)
        if before not in self.edges:
            return self._begin(before.meta["shape"], Levels.of(quantizer.lowest, quantizer.values()), None)
        edge = self.edges[before]
        if isinstance(edge, Codes):
            edge = self._requantized(edge, self._name(node))
        elif edge.shared:
            edge = self._split(edge, self._name(node))
        levels = Levels.of(quantizer.lowest, quantizer.values())
        type_ = self._append(_with_table(edge, quantizer, levels) or
                             edge.make(edge.name, self._step(edge, quantizer, levels)))
        self.scales.setdefault(edge.name, {})["output"] = float(levels.unit)
        result = Codes(edge.name, type_, levels, edge.map_shape)
        if edge.vector:
            flat = Flatten(self._unique(f"{edge.name}_flat"), edge.name)
            result = Codes(flat.name, self._append(flat), levels, type_.map_shape)
        return result

    def _unique(self, name: str) -> str:
        self.names.add(name)
        return name

    def _requantized(self, codes: Codes, name: str) -> Sums:
        """Codes as sums of a node that only has a step."""
        x = codes.type
        if not codes.levels.uniform:
            raise InputError(f"{name}: codes of levels that are not uniform cannot be quantised again")
        channels = x.channels
        bounds = np.full(channels, x.min), np.full(channels, x.max)
        return Sums(name, lambda n, step: Requantize(n, codes.name, step), x,  # type: ignore[arg-type]
                    bounds, (Affine(codes.levels.unit),) * channels, map_shape=codes.map_shape)

    def _split(self, sums: Sums, name: str) -> Sums:
        """Sums that several quantisers read: a node that keeps them raw, and one that only has a step."""
        if sums.name not in self.types:
            self._append(sums.make(sums.name, None))
        return replace(sums, name=name, make=lambda n, step: Requantize(n, sums.name, step),  # type: ignore[arg-type]
                       shared=False)

    def _step(self, sums: Sums, quantizer: ActivationQuantizer, levels: Levels) -> Step:
        type_ = levels.type((1,))
        low, high = sums.bounds
        values, descending = fold.layer(sums.affines, quantizer.boundaries(), low, high, clamp=(sums.low, sums.high),
                                        always=levels.lowest - type_.min)
        step = Thresholds(values, bits=type_.bits, signed=type_.signed, descending=descending)
        return _as_shift(step, low, high) or step

    # -- where sums come from

    def _weights(self, node: fx.Node) -> Sums:
        layer: Any = self.capture.module(node)
        codes = self._codes(node)
        quantizer = quantizer_of(layer)
        if quantizer is None:
            raise InputError(f"{node.target}: the layer must be quantised to be exported")
        name = self._name(node)
        coded = quantizer.coded(source_of(layer))
        last, bias, finer = self._is_last(node), None, Fraction(1)
        if last and layer.bias is not None:
            bias, entered = integers_of(layer)
            finer = codes.levels.unit / entered
            if finer.denominator != 1:
                raise InputError(f"{node.target}: codes.scale must be what lutq_train.quantize got as input_scale, "
                                 f"{float(entered)}, not {float(codes.levels.unit)}")
            # The unit of levels whose integers have a common factor is coarser than the bias is rounded to.
            coded = replace(coded, integers=coded.integers * int(finer))
        padded = isinstance(layer, nn.Conv2d) and any(pair(layer.padding))
        book, unit = codebook(coded, codes, padded, str(node.target))
        unit /= finer
        scales = coded.scale if isinstance(coded.scale, tuple) else (coded.scale,) * len(book.assignments)
        if last and len(set(scales)) > 1:
            raise InputError(f"{node.target}: the last layer must have one weight scale for all its outputs; scores of "
                             "different units cannot be compared")
        make = _conv(layer, codes, book) if isinstance(layer, nn.Conv2d) else _dense(codes, book, bias)
        raw = make(name, None)
        low, high = raw.sum_range(codes.type)
        offsets = [0.0] * len(scales) if layer.bias is None or bias is not None else layer.bias.double().tolist()
        self.scales[name] = {"input": float(codes.levels.unit), "weights": _scalar(scales),
                             "floats": 0 if layer.bias is None else layer.bias.numel()}
        affines = tuple(Affine(unit * scale, Fraction(b)) for scale, b in zip(scales, offsets, strict=True))
        table = None
        if coded.table and bias is None:
            table = lambda n, step, offsets: replace(make(n, step), bias=offsets)  # noqa: E731
        return Sums(name, make, self._type(raw), (low, high), affines, table=table)

    def _is_last(self, node: fx.Node) -> bool:
        """Whether the sums of ``node`` are the scores."""
        users = list(node.users)
        return len(users) == 1 and (users[0].op == "output" or (
            self.capture.kind(users[0]) is Kind.SAME and self._is_last(users[0])))

    def _norm(self, node: fx.Node) -> Sums:
        edge = self._edge(source(node))
        if isinstance(edge, Codes):
            edge = self._requantized(edge, self._name(node))
        if edge.low is not None or edge.high is not None:
            raise InputError(f"{where(node)}: a batch norm behind an activation function must read codes; put a quantiser "
                             "in front of it (lutq_train.quantize does)")
        norm: Any = self.capture.module(node)
        known = self.scales.setdefault(edge.name, {})
        known["floats"] = known.get("floats", 0) + sum(part.numel() for part in norm.parameters())
        affines = [channel.affine for channel in norms(norm, len(edge.affines))]
        return edge.then(affines if edge.map_shape is None else [affines[n] for n in channels_last(edge.map_shape)])

    def _clamp(self, node: fx.Node) -> Codes | Sums:
        edge = self._edge(source(node))
        low, high = (None if bound is None else Fraction(bound) for bound in clamp_bounds(self.capture, node))
        if isinstance(edge, Codes):
            if edge.type.min >= 0 and (low is None or low <= 0) and high is None:
                return edge
            edge = self._requantized(edge, self._name(node))
        return edge.clamped(low, high)

    def _add(self, node: fx.Node) -> Sums:
        edges = [self._edge(self.capture.argument(node, n, key, None)) for n, key in ((0, "input"), (1, "other"))]
        parts: list[Codes] = []
        for edge in edges:
            if isinstance(edge, Sums):
                raise InputError(f"{where(node)}: an add must be of codes; put quantisers in front of it "
                                 "(lutq_train.quantize does)")
            parts.append(self._selected(edge))
        if len({part.map_shape for part in parts}) > 1:
            raise InputError(f"{where(node)}: an add must be of two vectors of the same order, not of one that was a map and "
                             "one that was not")
        unit = min(part.levels.unit for part in parts)
        ratios = [part.levels.unit / unit for part in parts]
        if any(r.denominator != 1 or r.numerator & (r.numerator - 1) or not p.levels.uniform
               for r, p in zip(ratios, parts, strict=True)):
            raise InputError(f"{where(node)}: an add must be of codes whose scales differ by powers of two; use fixed "
                             "quantisers (lutq_train.quantize does)")
        shifts = tuple(r.numerator.bit_length() - 1 for r in ratios)
        add = Add(self._name(node), tuple(part.name for part in parts), shifts)
        type_ = self._type(add)
        low, high = add.sum_range(*(part.type for part in parts))
        bounds = np.full(type_.channels, low), np.full(type_.channels, high)
        self.scales[add.name] = {"input": float(unit)}
        return Sums(add.name, lambda n, step: Add(n, add.inputs, shifts, step), type_, bounds,
                    (Affine(unit),) * type_.channels, map_shape=parts[0].map_shape)

    def _average_pool(self, node: fx.Node) -> Sums:
        codes = self._codes(node)
        if not codes.levels.uniform:
            raise InputError(f"{where(node)}: an average-pool must read uniform codes")
        kernel, stride, padding = average_window(self.capture, node)
        name = self._name(node)
        pool = AvgPool2d(name, codes.name, kernel, stride, padding)
        raw = self._type(pool)
        area = kernel[0] * kernel[1]
        low = np.full(raw.channels, min(codes.type.min, 0) * area)
        high = np.full(raw.channels, codes.type.max * area)
        self.scales[name] = {"input": float(codes.levels.unit)}
        return Sums(name, lambda n, step: AvgPool2d(n, codes.name, kernel, stride, padding, step), raw, (low, high),
                    (Affine(codes.levels.unit / area),) * raw.channels, vector=len(node.meta["shape"]) == 2)

    # -- what keeps codes codes

    def _max_pool(self, node: fx.Node) -> Codes:
        codes = self._codes(node)
        pool = MaxPool2d(self._name(node), codes.name, *max_window(self.capture, node))
        return replace(codes, name=pool.name, type=self._append(pool))

    def _flatten(self, node: fx.Node) -> Codes | Sums:
        edge = self._edge(source(node))
        if isinstance(edge, Sums):
            if edge.type.size == len(edge.affines):
                return replace(edge, vector=True)
            raise InputError(f"{where(node)}: a flatten must read codes; put a quantiser in front of it")
        if len(edge.type.shape) == 1:
            return edge
        flat = Flatten(self._name(node), edge.name)
        return replace(edge, name=flat.name, type=self._append(flat), map_shape=edge.type.map_shape)

    def _same(self, node: fx.Node) -> Codes | Sums | None:
        return self.edges.get(source(node))

    def _slice(self, node: fx.Node) -> Codes:
        return replace(self._codes(node), stride=slice_steps(self.capture, node))

    def _pad(self, node: fx.Node) -> Codes:
        edge = self._edge(source(node))
        if not isinstance(edge, Codes) or edge.pad != (0, 0):
            raise InputError(f"{where(node)}: a pad must be the only one of its add, and read codes")
        return replace(edge, pad=padded_channels(self.capture, node))

    def _selected(self, codes: Codes) -> Codes:
        """Rows, columns and zero channels of a parameter-free shortcut, as a 1 x 1 convolution with weights 0 and 1."""
        if codes.stride == (1, 1) and codes.pad == (0, 0):
            return codes
        channels = codes.type.channels
        weights = np.zeros((sum(codes.pad) + channels, 1, 1, channels), np.uint8)
        weights[codes.pad[0] + np.arange(channels), 0, 0, np.arange(channels)] = 1
        name = self._unique(f"{codes.name}_shortcut"[:NAME_LENGTH + 8])
        node = Conv2d(name, codes.name, Codebook(weights, [0, 1]), step=Shift(0, codes.type.bits, codes.type.signed),
                      stride=codes.stride)
        return Codes(name, self._append(node), codes.levels)

    def _output(self, node: fx.Node) -> None:
        last = node.args[0]
        edge = self.edges.get(last) if isinstance(last, fx.Node) else None
        if not isinstance(edge, Sums) or any(a != edge.affines[0] for a in edge.affines) or edge.affines[0].b:
            raise InputError("forward: the network must end in a Linear whose sums are the scores, with a bias only where "
                             "lutq_train.quantize rounds it")
        self._append(edge.make(edge.name, None))
        self.scales[edge.name]["output"] = float(edge.affines[0].a)
        self._append(Output("output", edge.name))


def codebook(coded: CodedWeights, codes: Codes, padded: bool, name: str) -> tuple[Codebook, Fraction]:
    """Dictionary or product table and assignments, channels last; and what an activation's 1 stands for.

    A layer whose input levels are not uniform, or whose method asks for it, gets a product table.
    """
    def last(tensor: Tensor) -> np.ndarray:
        values = tensor.cpu().numpy()
        if tensor.ndim >= 3:
            return np.moveaxis(values, -3, -1)
        if codes.map_shape is None:
            return values
        return values[..., channels_last(codes.map_shape)]

    integers = coded.integers.cpu().numpy().astype(np.int64)
    if coded.subgroups is None:
        values, assignments = np.unique(weights := last(coded.values), return_inverse=True)
        integers, subgroups, assignments = values[None], None, assignments.reshape(weights.shape)
    else:
        assignments, subgroups = last(coded.assignments), last(coded.subgroups)
    if codes.levels.uniform and not coded.table:
        return Codebook(assignments, integers, subgroups=subgroups), codes.levels.unit
    rows = codes.levels.rows(codes.type)
    if padded and rows[-codes.type.min] != 0:
        raise InputError(f"{name}: padding inserts code 0, which must stand for the value 0; use a method whose levels "
                         "have a zero, or no padding")
    return Codebook(assignments, table=rows[None, :, None] * integers[:, None, :], subgroups=subgroups), codes.levels.unit


def _with_table(sums: Sums, quantizer: ActivationQuantizer, levels: Levels) -> Node | None:
    """The layer with an activation table, where it is a table-based unit and its channels can share one."""
    if sums.table is None or sums.low is not None or sums.high is not None or any(a.a <= 0 for a in sums.affines):
        return None
    boundaries = quantizer.boundaries()
    rows = [fold.channel(affine, boundaries, -FAR, FAR)[0] for affine in sums.affines]
    found = activation_table(rows, levels.lowest, len(levels.integers))
    if found is None:
        return None
    values, shift, offsets = found
    type_ = levels.type((1,))
    return sums.table(sums.name, ActivationTable(values, shift, type_.bits, type_.signed), offsets)


def _conv(layer: nn.Conv2d, codes: Codes, book: Codebook) -> Any:
    return lambda name, step: Conv2d(name, codes.name, book, step=step, stride=layer.stride,  # type: ignore[arg-type]
                                     padding=layer.padding, groups=layer.groups)  # type: ignore[arg-type]


def _dense(codes: Codes, book: Codebook, bias: Tensor | None) -> Any:
    integers = None if bias is None else bias.long().cpu().numpy()
    return lambda name, step: Dense(name, codes.name, book, bias=integers, step=step)


def channels_last(map_shape: tuple[int, int, int]) -> np.ndarray:
    """Places in torch's flattened (C, H, W) of the elements of a map (H, W, C)."""
    height, width, channels = map_shape
    return np.arange(height * width * channels).reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)


def _scalar(scales: tuple[Fraction, ...]) -> float | list[float]:
    return float(scales[0]) if len(set(scales)) == 1 else [float(scale) for scale in scales]


def _as_shift(step: Thresholds, low: np.ndarray, high: np.ndarray) -> Shift | None:
    """The shift that decides the same for all sums from ``low`` to ``high``, if there is one."""
    codes = np.arange(1, 1 << step.bits) - (1 << (step.bits - 1) if step.signed else 0)
    if step.descending.any() or step.values.shape[1] != len(codes):
        return None
    for shift in range(20):
        wanted = (codes << shift) - ((1 << shift) >> 1)
        if (np.clip(wanted, low[:, None], high[:, None] + 1) == step.values).all():
            return Shift(shift, step.bits, step.signed)
    return None


def norms(norm: Any, channels: int) -> list[fold.Norm]:
    """A batch norm channel by channel, in evaluation mode."""
    tensors = ((norm.weight, 1.0), (norm.bias, 0.0), (norm.running_mean, 0.0), (norm.running_var, 1.0))
    columns = (_floats(tensor, channels, default) for tensor, default in tensors)
    slopes, eps = [None] * channels, norm.eps
    if isinstance(norm, PowerOfTwoNorm1d | PowerOfTwoNorm2d):
        slopes = copy.deepcopy(norm).double().slope().tolist()
    return [fold.Norm(*values, eps=eps, slope=slope) for *values, slope in zip(*columns, slopes, strict=True)]


def _floats(tensor: Tensor | None, count: int, default: float) -> list[float]:
    return [default] * count if tensor is None else tensor.detach().to(torch.float64).tolist()
