"""Where activation quantisers stand in a network: its recorded graph, rewritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from lutq_hw.errors import InputError

from .bias import register_score_bias
from .capture import Capture, Kind, source, where
from .distributed import share
from .method import ActivationOptions, ActivationQuantizer, quantizer_of
from .methods.lsq import LsqOptions
from .supported import check, clamp_bounds

PASSING = (Kind.MAX_POOL, Kind.FLATTEN, Kind.SAME)
"""What keeps codes codes."""

FUNCTIONS = (Kind.RELU, Kind.CLAMP, Kind.TANH)
"""What never descends, and so gives the same in front of a max-pool as behind it."""


@dataclass(frozen=True)
class _Demand:
    """``reader`` wants the codes of ``options`` where it now reads ``wanted``."""

    reader: fx.Node
    wanted: fx.Node
    options: ActivationOptions


class Insertion:
    """Decides where quantisers stand and rewrites the graph.

    A demand belongs to a *place*: the node whose result is to be coded, in front of pools and flattens, because
    hardware pools and reorders codes, not sums. A place that an add reads is coded once, at ``residual_bits``, for
    everyone; layers then requantise those codes.
    """

    def __init__(self, capture: Capture, chosen: Mapping[str, ActivationOptions], residual_bits: int,
                 input_bits: int, input_scale: float | None) -> None:
        self.capture, self.chosen = capture, chosen
        self.input_bits, self.input_scale = input_bits, input_scale
        self.residual = LsqOptions(levels=1 << residual_bits, fixed=True)
        self.quantizers: dict[str, ActivationQuantizer] = {}
        self.signed: dict[fx.Node, bool] = {}
        self.demands: dict[fx.Node, list[_Demand]] = {}
        check(capture, next(node for node in capture.graph.nodes if node.op == "placeholder"))
        self.last = self._end()
        self._move_functions()
        for node in capture.graph.nodes:
            check(capture, node)
            self._study(node)

    def _move_functions(self) -> None:
        """Activation functions in front of the pools and flattens before them, where quantisers can absorb them."""
        for node in list(self.capture.graph.nodes):
            if self.capture.kind(node) not in FUNCTIONS:
                continue
            while self.capture.kind(passing := source(node)) in PASSING and len(passing.users) == 1 \
                    and len((before := source(passing)).users) == 1:
                passing.prepend(node)
                node.replace_all_uses_with(passing)
                node.replace_input_with(passing, before)
                passing.replace_input_with(before, node)
                node.meta["shape"] = before.meta["shape"]

    def _study(self, node: fx.Node) -> None:
        """Sign and demands of one node."""
        kind = self.capture.kind(node)
        self.signed[node] = True
        match kind:
            case Kind.OTHER | Kind.SLICE | Kind.PAD:
                self._check_odd(node, kind)
                self.signed[node] = self.signed[source(node)]
            case Kind.INPUT:
                self.signed[node] = share(bool(node.meta["negative"]))
            case Kind.WEIGHTS:
                self._demand(node, source(node), self.chosen[str(node.target)])
            case Kind.ADD:
                operands = self._operands(node)
                self.signed[node] = any(self.signed[operand] for operand in operands)
                for operand in operands:
                    self._demand(node, operand, self.residual)
            case Kind.AVG_POOL:
                self._demand(node, source(node), self.residual)
                self.signed[node] = self.signed[source(node)]
            case Kind.NORM:
                self._demand_behind(node, (*PASSING, *FUNCTIONS))
            case Kind.RELU | Kind.CLAMP:
                self._demand_behind(node, PASSING)
                least = clamp_bounds(self.capture, node)[0]
                self.signed[node] = self.signed[source(node)] and (least is None or least < 0)
            case Kind.TANH:
                self._demand_behind(node, PASSING)
                self.signed[node] = self.signed[source(node)]
            case Kind.MAX_POOL | Kind.FLATTEN | Kind.SAME:
                self.signed[node] = self.signed[source(node)]

    def _demand_behind(self, node: fx.Node, kinds: tuple[Kind, ...]) -> None:
        """Wide codes for ``node`` where it follows one of ``kinds`` that hardware cannot do with sums.

        A batch norm is an affine function of sums; behind a ReLU or a max-pool of them it is none.
        """
        place = source(node)
        while self.capture.kind(place) in (Kind.SAME, Kind.FLATTEN) and (
                place.meta["shape"][1] == source(place).meta["shape"][1]):
            place = source(place)
        if self.capture.kind(place) in kinds:
            self._demand(node, source(node), self.residual)

    def _demand(self, reader: fx.Node, wanted: fx.Node, options: ActivationOptions) -> None:
        place = wanted
        while self.capture.kind(place) in (*PASSING, Kind.SLICE, Kind.PAD):
            place = source(place)
        if self.capture.kind(place) is not Kind.INPUT:
            self.demands.setdefault(place, []).append(_Demand(reader, wanted, options))

    def _operands(self, node: fx.Node) -> list[fx.Node]:
        operands = [self.capture.argument(node, 0, "input", None), self.capture.argument(node, 1, "other", None)]
        if not all(isinstance(operand, fx.Node) for operand in operands) or node.kwargs.get("alpha", 1) != 1:
            raise InputError(f"{where(node)}: an add must be of two activations; fold a constant into the bias of the "
                             "layer before it")
        shapes = [operand.meta["shape"] for operand in operands]
        if shapes[0] != shapes[1]:
            raise InputError(f"{where(node)}: an add must be of two activations of the same shape, not {shapes[0]} and "
                             f"{shapes[1]}")
        return operands

    def _check_odd(self, node: fx.Node, kind: Kind) -> None:
        if node.op == "get_attr":
            raise InputError(f"{node.target}: a parameter or buffer that forward itself uses has no hardware; put it into "
                             "a Linear, a Conv2d or a batch norm")
        follower = (Kind.PAD, Kind.ADD)
        if kind is Kind.OTHER or any(self.capture.kind(user) not in follower for user in node.users):
            name = f"{node.target} ({type(self.capture.module(node)).__name__})" if node.op == "call_module" else where(node)
            raise InputError(f"{name}: has no hardware; a network may be made of Linear, Conv2d, batch norm, ReLU, max- and "
                             "average-pool, flatten, residual add, and dropout")

    def _end(self) -> fx.Node:
        """The layer whose sums are the scores."""
        end = next(node for node in self.capture.graph.nodes if node.op == "output")
        last = end.args[0]
        while isinstance(last, fx.Node) and self.capture.kind(last) is Kind.SAME:
            last = source(last)
        if isinstance(last, fx.Node) and self.capture.kind(last) is Kind.WEIGHTS:
            check(self.capture, last)  # a Linear that reads a map lacks a flatten rather than an end
        if not isinstance(last, fx.Node) or self.capture.kind(last) is not Kind.WEIGHTS or len(last.meta["shape"]) != 2:
            name = where(last) if isinstance(last, fx.Node) else "forward"
            raise InputError(f"{name}: the network must end in a Linear whose sums are the scores; leave softmax to the "
                             "loss, and batch norm or activation out of the end")
        return last

    def rewrite(self) -> None:
        """Put the quantisers into the graph."""
        begin = next(node for node in self.capture.graph.nodes if node.op == "placeholder")
        if self.input_scale is None:
            self._replace_everywhere(begin, self._insert(begin, LsqOptions(levels=1 << self.input_bits, fixed=True),
                                                         "input", self.signed[begin]))
        for place, demands in self.demands.items():
            options = {demand.options for demand in demands}
            direct = len(options) == 1 and self.residual not in options
            if direct:
                self._code_directly(place, demands)
            else:
                self._code_for_all(place, demands)
        self._drop_functions()

    def _code_directly(self, place: fx.Node, demands: list[_Demand]) -> None:
        made = self._insert(place, demands[0].options, str(demands[0].reader.target), self.signed[place])
        for demand in demands:
            reader, read = demand.reader, demand.wanted
            while read is not place and read is not made:
                reader, read = read, source(read)
            reader.replace_input_with(place, made)

    def _code_for_all(self, place: fx.Node, demands: list[_Demand]) -> None:
        name = self._name(place)
        wide = self._insert(place, self.residual, name, self.signed[place])
        self._replace_everywhere(place, wide)
        narrow: dict[tuple[fx.Node, ActivationOptions], fx.Node] = {}
        for demand in demands:
            if demand.options == self.residual:
                continue
            read = wide if demand.wanted is place else demand.wanted
            key = read, demand.options
            if key not in narrow:
                narrow[key] = self._insert(read, demand.options, str(demand.reader.target), self.signed[place])
            demand.reader.replace_input_with(read, narrow[key])

    def _name(self, place: fx.Node) -> str:
        """A name for the codes of ``place``: its module's, or one made of the function and the module around it."""
        if place.op == "call_module":
            return f"{place.target}_out"
        return where(place).replace(": ", "_")

    def _replace_everywhere(self, place: fx.Node, made: fx.Node) -> None:
        place.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)

    def _insert(self, place: fx.Node, options: ActivationOptions, name: str, signed: bool) -> fx.Node:
        key = name.replace(".", "_")
        while key in self.quantizers or hasattr(nn.ModuleDict, key):
            key += "_2"
        self.quantizers[key] = options.quantizer(signed)
        self.capture.modules[f"quantizers.{key}"] = self.quantizers[key]
        with self.capture.graph.inserting_after(place):
            made = self.capture.graph.create_node("call_module", f"quantizers.{key}", (place,))
        made.meta["shape"] = place.meta["shape"]
        return made

    def _drop_functions(self) -> None:
        """Leave out every activation function that is part of the quantisers behind it."""
        names = {Kind.RELU: "relu", Kind.TANH: "tanh"}
        for node in list(self.capture.graph.nodes):
            name = names.get(self.capture.kind(node))
            readers = [self.capture.modules.get(str(user.target)) for user in node.users]
            if name and readers and all(isinstance(reader, ActivationQuantizer) and reader.absorbs == name
                                        and (name != "relu" or not reader.signed) for reader in readers):
                node.replace_all_uses_with(source(node))
                self.capture.graph.erase_node(node)
            elif name == "tanh":
                raise InputError(f"{where(node)}: tanh has no hardware of its own; choose activations that take its place, "
                                 "like tanhd, for the layers behind it")

    def _follow_mode(self) -> None:
        """``F.dropout(x, training=self.training)`` goes on asking, where the recorded run holds one answer."""
        graph = self.capture.graph
        for node in list(graph.nodes):
            if node.target not in (F.dropout, F.dropout2d) or self.capture.argument(node, 2, "training", None) is None:
                continue
            with graph.inserting_before(node):
                mode = graph.create_node("get_attr", "training")
            node.args, node.kwargs = (*node.args[:2],), {**node.kwargs, "training": mode}

    def install(self, model: nn.Module, device: torch.device) -> None:
        """Give ``model`` the quantisers and the forward method that calls them."""
        self._follow_mode()
        model.add_module("quantizers", nn.ModuleDict(self.quantizers).to(device).train(model.training))
        forward = type(fx.GraphModule(model, self.capture.graph)).forward
        kind = type(model)
        model.__class__ = type(f"Quantized{kind.__name__}", (kind,), {"forward": forward, "__module__": kind.__module__})
        layer, entered = self.capture.module(self.last), source(self.last)
        if layer.bias is not None:
            while self.capture.kind(entered) in PASSING:
                entered = source(entered)
            known = self.capture.modules.get(str(entered.target)) if entered.op == "call_module" else None
            weights = quantizer_of(layer)
            assert weights is not None and (known is None or isinstance(known, ActivationQuantizer))
            register_score_bias(layer, weights, known, self.input_scale)
        for node in self.capture.weighted():
            layer = self.capture.module(node)
            layer.parametrizations.train(layer.training)  # type: ignore[union-attr]
