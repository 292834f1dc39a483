"""The graph of a quantised network, walked once and translated node by node.

A layer with weights, an add or an average-pool makes integer *sums*; batch norm, bias and scales are affine functions of
them, kept as exact fractions; the quantiser behind them turns all of it into thresholds.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from torch import fx, nn

from lutq_hw.errors import InputError, ModelError
from lutq_hw.network import (
    ActivationTable,
    Add,
    AvgPool2d,
    Codebook,
    Conv2d,
    Flatten,
    Input,
    MaxPool2d,
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
from .edges import Codes, InputCodes, Levels, Sums
from .fold import Affine
from .integers import as_shift, channels_last, codebook, conv, dense, norms, scalar, with_table
from .method import ActivationQuantizer, quantizer_of, source_of
from .supported import average_window, check, clamp_bounds, max_window, padded_channels, pair, slice_steps

NAME_LENGTH = 56


class Walk:
    """The nodes so far, and what each node of the graph stands for; `visit` adds the next."""

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
        if self.capture.kind(before) is Kind.INPUT and self.codes is not None:
            raise InputError(f"{before.target}: is quantised by the network itself, as lutq_train.quantize got no "
                             "input_scale; leave out codes")
        if before not in self.edges:
            return self._begin(before.meta["shape"], Levels.of(quantizer.lowest, quantizer.values()), None)
        edge = self.edges[before]
        if isinstance(edge, Codes):
            edge = self._requantized(edge, self._name(node))
        elif edge.shared:
            edge = self._split(edge, self._name(node))
        levels = Levels.of(quantizer.lowest, quantizer.values())
        made = with_table(edge, quantizer, levels) or edge.make(edge.name, self._step(edge, quantizer, levels))
        type_, scales = self._append(made), self.scales.setdefault(edge.name, {})
        scales["output"] = float(levels.unit)
        if isinstance(step := getattr(made, "step", None), ActivationTable):
            scales["table_step"] = float(edge.affines[0].a * (1 << step.shift))
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
        return as_shift(step, low, high) or step

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
        make = conv(layer, codes, book) if isinstance(layer, nn.Conv2d) else dense(codes, book, bias)
        raw = make(name, None)
        low, high = raw.sum_range(codes.type)
        offsets = [0.0] * len(scales) if layer.bias is None or bias is not None else layer.bias.double().tolist()
        self.scales[name] = {"input": float(codes.levels.unit), "weights": scalar(scales),
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
