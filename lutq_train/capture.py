"""A user's network as a graph of calls: what `quantize` inserts quantisers into and what `export` reads.

`torch.fx` records one symbolic run; an example batch gives every node its shape. What a node does is named by a `Kind`,
whichever of PyTorch's spellings (module, function, method) the user chose.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn import functional as F

from lutq_hw.errors import InputError, reason

from .method import ActivationQuantizer


class Kind(Enum):
    """What a node of the graph computes."""

    INPUT = auto()
    WEIGHTS = auto()        # Linear, Conv2d
    NORM = auto()
    QUANTIZE = auto()
    RELU = auto()
    CLAMP = auto()          # ReLU6, Hardtanh, clamp
    TANH = auto()
    MAX_POOL = auto()
    AVG_POOL = auto()
    FLATTEN = auto()
    SAME = auto()           # Identity, and Dropout in evaluation
    ADD = auto()
    SLICE = auto()
    PAD = auto()
    SHAPE = auto()          # numbers, not activations
    OUTPUT = auto()
    OTHER = auto()


MODULES: list[tuple[tuple[type, ...], Kind]] = [
    ((ActivationQuantizer,), Kind.QUANTIZE),
    ((nn.Linear, nn.Conv2d), Kind.WEIGHTS),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm), Kind.NORM),
    ((nn.ReLU6, nn.Hardtanh), Kind.CLAMP),
    ((nn.ReLU,), Kind.RELU),
    ((nn.Tanh,), Kind.TANH),
    ((nn.MaxPool2d,), Kind.MAX_POOL),
    ((nn.AvgPool2d, nn.AdaptiveAvgPool2d), Kind.AVG_POOL),
    ((nn.Flatten,), Kind.FLATTEN),
    ((nn.Identity, nn.Dropout, nn.Dropout2d), Kind.SAME),
]

FUNCTIONS: dict[Any, Kind] = {
    torch.relu: Kind.RELU, torch.relu_: Kind.RELU, F.relu: Kind.RELU, F.relu6: Kind.CLAMP,
    F.hardtanh: Kind.CLAMP, torch.clamp: Kind.CLAMP, torch.tanh: Kind.TANH,
    F.max_pool2d: Kind.MAX_POOL, F.avg_pool2d: Kind.AVG_POOL, F.adaptive_avg_pool2d: Kind.AVG_POOL,
    torch.mean: Kind.AVG_POOL, torch.flatten: Kind.FLATTEN, torch.squeeze: Kind.FLATTEN, torch.add: Kind.ADD,
    operator.add: Kind.ADD, operator.iadd: Kind.ADD, operator.getitem: Kind.SLICE, F.pad: Kind.PAD,
    F.dropout: Kind.SAME, F.dropout2d: Kind.SAME,
}

METHODS: dict[str, Kind] = {
    "relu": Kind.RELU, "relu_": Kind.RELU, "tanh": Kind.TANH, "mean": Kind.AVG_POOL, "flatten": Kind.FLATTEN,
    "view": Kind.FLATTEN, "reshape": Kind.FLATTEN, "squeeze": Kind.FLATTEN, "add": Kind.ADD, "add_": Kind.ADD,
    "contiguous": Kind.SAME, "clamp": Kind.CLAMP,
}


class _Tracer(fx.Tracer):
    """Quantisers, and everything that PyTorch brings, stay one node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = any(isinstance(m, types) for types, _ in MODULES)
        return known or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """Arguments behind the first that have defaults keep these."""
        rest = list(inspect.signature(root_fn).parameters.values())[1 + int(is_module):]
        if rest and all(more.default is not more.empty or more.kind in (more.VAR_POSITIONAL, more.VAR_KEYWORD)
                        for more in rest):
            def single(self: nn.Module, x: Any) -> Any:
                return root_fn(self, x)

            return super().create_args_for_root(single, is_module, concrete_args)
        return super().create_args_for_root(root_fn, is_module, concrete_args)


class _Recorder(fx.Interpreter):
    """Runs a graph once and writes into every node's ``meta`` its shape, or its value where that is numbers."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False  # ours is one sentence

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{where(n)}: the network does not run on the example: {reason(error)}") from None
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
            if n.op == "placeholder":
                n.meta["negative"] = bool((result < 0).any())
        elif not _holds_tensors(result):
            n.meta["value"] = result
        return result


def _holds_tensors(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, Tensor) or any(map(_holds_tensors, values))


def check_plain(model: nn.Module) -> None:
    """Refuse a network in one of PyTorch's wrappers, whose own forward method is no network.

    Raises
    ------
    InputError
        With what to give instead.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise InputError(f"{type(model).__name__}: must be unwrapped; give its .module, and wrap it after "
                         "lutq_train.quantize")
    if hasattr(model, "_orig_mod"):  # looking for the class would import the compiler
        raise InputError(f"{type(model).__name__}: must be the network that was compiled; give that one, and compile it "
                         "after lutq_train.quantize")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise InputError(f"{type(model).__name__}: must be a plain nn.Module, not a scripted one")


def check_example(example: Any) -> None:
    """Refuse what is no batch of inputs.

    Raises
    ------
    InputError
        With what it is.
    """
    if not isinstance(example, Tensor) or not example.is_floating_point() or not example.numel():
        kind = f"{example.dtype} of shape {tuple(example.shape)}" if isinstance(example, Tensor) else type(example).__name__
        raise InputError(f"example must be a tensor of floating-point numbers, a batch of inputs, not {kind}")
    if not bool(torch.isfinite(example).all()):
        raise InputError("example must hold finite numbers")


class Capture:
    """The graph of ``model``, with shapes from one run on ``example`` in evaluation mode.

    Raises
    ------
    InputError
        If the forward method cannot be recorded, has several inputs or does not run on the example.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.model = model
        tracer = _Tracer()
        try:
            self.graph = tracer.trace(model)
        except Exception as error:  # a tracer runs the user's code with stand-ins: anything may come back
            inside = next(reversed(tracer.module_stack), "") or type(model).__name__
            raise InputError(f"{inside}: forward cannot be recorded ({reason(error)}); it must do the same "
                             "operations for every input: take decisions that depend on values or shapes out of it"
                             ) from None
        inputs = [str(node.target) for node in self.graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise InputError(f"{type(model).__name__}: forward must have one input, not {len(inputs)}: "
                             f"{', '.join(inputs) or 'none'}")
        self.modules = dict(model.named_modules())
        with evaluating(model), torch.no_grad():
            _Recorder(fx.GraphModule(model, self.graph)).run(example)

    def kind(self, node: fx.Node) -> Kind:
        """What ``node`` computes."""
        if node.op in ("placeholder", "output"):
            return Kind.INPUT if node.op == "placeholder" else Kind.OUTPUT
        if "value" in node.meta:
            return Kind.SHAPE
        if node.op == "call_module":
            module = self.module(node)
            return next((kind for types, kind in MODULES if isinstance(module, types)), Kind.OTHER)
        if node.op == "call_method":
            kind = METHODS.get(str(node.target), Kind.OTHER)
        else:
            kind = FUNCTIONS.get(node.target, Kind.OTHER)
        if kind is Kind.AVG_POOL and node.target in ("mean", torch.mean) and not self._is_global_mean(node):
            return Kind.OTHER
        return Kind.OTHER if kind is Kind.FLATTEN and not self._is_flatten(node) else kind

    def _is_global_mean(self, node: fx.Node) -> bool:
        shape = source(node).meta["shape"]
        axes = self.argument(node, 1, "dim", None)
        return len(shape) == 4 and isinstance(axes, tuple | list) and sorted(a % 4 for a in axes) == [2, 3]

    def _is_flatten(self, node: fx.Node) -> bool:
        before, after = source(node).meta["shape"], node.meta["shape"]
        return len(after) == 2 and before[0] == after[0]

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a ``call_module`` node calls."""
        return self.modules[str(node.target)]

    def argument(self, node: fx.Node, position: int, name: str, default: Any) -> Any:
        """Argument of a function call by place or name, numbers that the forward method computed included."""
        value = node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
        return map_arg(value, lambda n: n.meta.get("value", n))

    def weighted(self) -> Iterator[fx.Node]:
        """The layers with weights, in the order of their calls."""
        return (node for node in self.graph.nodes if self.kind(node) is Kind.WEIGHTS)


def source(node: fx.Node) -> fx.Node:
    """The node whose result ``node`` works on."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(first, fx.Node):
        raise InputError(f"{where(node)}: its first argument must be an activation")
    return first


def where(node: fx.Node) -> str:
    """Name of a node for people: the module's path, or the function with the module that calls it."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    inside = [str(path) for path, _ in stack.values() if path]
    name = getattr(node.target, "__name__", str(node.target))
    return f"{inside[-1]}: {name}" if inside else name


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model`` in evaluation mode; every module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
