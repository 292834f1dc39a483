"""`quantize`: a user's network made to train with dictionaries and few activation levels, in place.

Layers stay ``nn.Linear`` and ``nn.Conv2d``; their weights get a parametrization. Activation quantisers become
submodules under ``quantizers``, and the network's class gets a forward method that calls them: the recorded one, with
a quantiser in front of every layer with weights (at ``activation_bits``) and at both sides of every residual add (at
``residual_bits``, with scales that are powers of two, so that hardware adds codes with shifts). A ReLU that only feeds
a quantiser is left out: quantisers of activations that are never negative clip at zero themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from lutq_hw.errors import InputError, reason

from .capture import Capture, check_example, check_plain
from .distributed import agree
from .insertion import Insertion
from .method import ActivationOptions, ActivationQuantizer, Losses, WeightOptions, WeightQuantizer, quantizer_of
from .methods import ACTIVATIONS, WEIGHTS
from .pruning import Pruner

RESIDUAL_BITS = 8


@dataclass(frozen=True)
class LayerOptions:
    """How one layer is quantised: its weights and the activations that enter it."""

    weights: WeightOptions
    activations: ActivationOptions


def quantize(model: nn.Module, method: str | WeightOptions = "lutq", *, example: Tensor,
             weight_levels: int | None = None, activation_bits: int | None = None,
             activations: str | ActivationOptions | None = None,
             overrides: Mapping[str, Mapping[str, Any] | LayerOptions] | None = None, input_bits: int = 8,
             input_scale: float | None = None, residual_bits: int = RESIDUAL_BITS, losses: Losses | None = None,
             optimizer: torch.optim.Optimizer | None = None, loading: bool = False, **options: Any) -> nn.Module:
    """Quantise ``model`` in place; go on training it, with ``lutq_train.update(model)`` after ``optimizer.step()``.

    Parameters
    ----------
    model
        Any network that `capture.Capture` can record: Linear and Conv2d (grouped too), batch norm, ReLU, pools,
        residual adds, flatten.
    method
        Name of a weight method (``methods/``), or its options.
    example
        A batch of inputs; it also fits the first activation scales, so take some hundred real ones.
    weight_levels
        Dictionary size; 16 when not said.
    activation_bits
        Width of activation codes, 1 to 8; 4 when not said.
    activations
        Name of an activation method, or its options; each weight method has one that goes with it.
    overrides
        Layer name or pattern (``fnmatch``; ``first`` and ``last`` work too) to ``LayerOptions`` or to some of
        ``method``, ``weight_levels``, ``activation_bits``, ``activations`` and options of the method. A changed method
        or number of levels starts from the method's defaults.
    input_bits, input_scale
        The network's input becomes codes of that width, of a scale that the example chooses; with ``input_scale`` the
        caller says that inputs already are integers times it.
    residual_bits
        Width of the codes on both sides of an add.
    losses
        For the method ``hessian``: gives the losses of some training batches.
    optimizer
        For the method ``hessian`` with ``importance="adam"``: the Adam or AdamW that has trained these very parameters.
    loading
        Only the structure is wanted, because a state dict is going to be loaded: neither losses nor optimiser are
        looked at.
    options
        Options of the weight method.

    Returns
    -------
    ``model`` itself.

    Raises
    ------
    InputError
        With the module's name, if something cannot be recorded or has no hardware; ``model`` is then as it was.
    """
    check_example(example)
    _check_fresh(model)
    base = layer_options(method, weight_levels, activation_bits, activations, options)
    _check_whole("residual_bits", residual_bits, 2)
    _check_whole("input_bits", input_bits, 1)
    if input_scale is not None and not (isfinite(input_scale) and input_scale > 0):
        raise InputError(f"input_scale must be a positive number, not {input_scale}")
    with _all_or_nothing(model):
        capture = Capture(model, example)
        chosen = _choose(capture, base, overrides or {})
        plan = Insertion(capture, {name: layer.activations for name, layer in chosen.items()}, residual_bits, input_bits,
                         input_scale)
        plan.rewrite()
        if loading:
            losses = optimizer = None
            chosen = {name: replace(layer, weights=layer.weights.blank()) for name, layer in chosen.items()}
        _attach(capture, chosen, losses, optimizer)
        plan.install(model, example.device)
        _calibrate(model, example)
    return model


def _check_fresh(model: nn.Module) -> None:
    check_plain(model)
    if isinstance(model, nn.Linear | nn.Conv2d):
        raise InputError(f"{type(model).__name__}: must be a network, not a layer; put it into an nn.Sequential")
    if any(isinstance(module, WeightQuantizer | ActivationQuantizer) for module in model.modules()):
        raise InputError(f"{type(model).__name__}: is quantised already; start from a float network")
    if hasattr(model, "quantizers"):
        raise InputError(f"{type(model).__name__}: must have no attribute called quantizers, which is where activation "
                         "quantisers go; give it another name")


@contextmanager
def _all_or_nothing(model: nn.Module) -> Iterator[None]:
    """If the block fails, every module becomes again what it was: class, parameters, buffers, mode."""
    def tables(module: Any) -> tuple[dict[str, Any], ...]:
        return module._parameters, module._buffers, module._modules

    modules = [(module, type(module), module.training, [dict(table) for table in tables(module)])
               for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    except BaseException:
        for module, kind, training, kept in modules:
            module.__class__, module.training = kind, training
            for table, before in zip(tables(module), kept, strict=True):
                table.clear()
                table.update(before)
        for buffer, before in buffers:
            buffer.copy_(before)
        for parameter, wanted in trained:
            parameter.requires_grad_(wanted)
        raise


def _attach(capture: Capture, chosen: Mapping[str, LayerOptions], losses: Losses | None,
            optimizer: torch.optim.Optimizer | None) -> None:
    """Quantise the weights of all layers, those of equal options together."""
    by_options: dict[WeightOptions, dict[str, nn.Module]] = {}
    for node in capture.weighted():
        by_options.setdefault(chosen[str(node.target)].weights, {})[str(node.target)] = capture.module(node)
    for weights, layers in by_options.items():
        weights.attach(layers, losses, optimizer)
        _check_zeros(weights, layers)


def _check_zeros(options: WeightOptions, layers: Mapping[str, nn.Module]) -> None:
    """A pruned weight must have a zero to become."""
    for name, layer in layers.items():
        quantizer = quantizer_of(layer)
        chain: Any = layer.parametrizations["weight"]  # type: ignore[index]
        if isinstance(chain[0], Pruner) and quantizer is not None and not quantizer.has_zero:
            raise InputError(f"{name}: a layer that is pruned must have a dictionary with a zero, and this one of the "
                             f"method {options.method} has none; choose options with a zero, or do not prune")


def layer_options(method: str | WeightOptions, weight_levels: int | None, activation_bits: int | None,
                  activations: str | ActivationOptions | None, options: Mapping[str, Any]) -> LayerOptions:
    """Options from what a user says; a name stands for a method's defaults."""
    weights = _weight_options(method, weight_levels, options)
    if isinstance(activations, ActivationOptions):
        if activation_bits is not None:
            raise InputError("activation_bits must be left out where activations are options, which say their levels")
        return LayerOptions(weights, activations)
    name = activations or weights.activations
    if name not in ACTIVATIONS:
        raise InputError(f"activations must be one of {', '.join(sorted(ACTIVATIONS))}, not {name!r}")
    bits = 4 if activation_bits is None else activation_bits
    _check_whole("activation_bits", bits, 1)
    return LayerOptions(weights, ACTIVATIONS[name].for_bits(bits))


def _weight_options(method: str | WeightOptions, weight_levels: int | None, options: Mapping[str, Any]) -> WeightOptions:
    if isinstance(method, WeightOptions):
        if weight_levels is not None or options:
            raise InputError(f"{', '.join(options) or 'weight_levels'} must be left out where the method is options, which "
                             "say it already")
        return method
    if method not in WEIGHTS:
        raise InputError(f"method must be one of {', '.join(sorted(WEIGHTS))}, not {method!r}")
    options = _checked(WEIGHTS[method], options)
    if weight_levels is None:
        return WEIGHTS[method](**options)
    _check_whole("weight_levels", weight_levels, 2, 256)
    return WEIGHTS[method].for_levels(weight_levels, **options)


def _checked(kind: type[WeightOptions], options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` of a method, of the types that it wants; lists become tuples."""
    words = {int: "an integer", float: "a number", bool: "True or False", str: "a text", tuple: "a tuple of integers"}
    known = {spec.name: type(spec.default) for spec in fields(kind)}
    checked = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    for key, value in checked.items():
        if key not in known:
            raise InputError(f"{key} is no option of {kind.method}; its options are {', '.join(known)}")
        wanted = known[key]
        fits = type(value) in ((int, float) if wanted is float else (wanted,))
        if not fits or (wanted is tuple and not all(type(item) is int for item in value)):
            raise InputError(f"{key} must be {words[wanted]}, not {value!r}")
    return checked


def _check_whole(name: str, value: Any, low: int, high: int = 8) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{name} must be from {low} to {high}, not {value}")


def _choose(capture: Capture, base: LayerOptions, overrides: Mapping[str, Any]) -> dict[str, LayerOptions]:
    """Options of every layer; an override that fits no layer is an error."""
    names = [str(node.target) for node in capture.weighted()]
    if not names:
        raise InputError(f"{type(capture.model).__name__}: must have a Linear or a Conv2d to quantise")
    chosen = dict.fromkeys(names, base)
    for pattern, change in overrides.items():
        found = fitting(pattern, names)
        if not found:
            raise InputError(f"override {pattern!r} must fit a layer; the layers are {', '.join(names)}")
        for name in found:
            try:
                chosen[name] = change if isinstance(change, LayerOptions) else changed(chosen[name], change)
            except InputError as error:
                raise InputError(f"override {pattern!r}: {error}") from None
    return chosen


def fitting(pattern: str, names: list[str]) -> list[str]:
    """Those of the layers ``names`` that an override's pattern, ``first`` or ``last`` means."""
    return {"first": names[:1], "last": names[-1:]}.get(pattern) or [name for name in names if fnmatchcase(name, pattern)]


def changed(options: LayerOptions, change: Mapping[str, Any]) -> LayerOptions:
    """``options`` with what an override says; see `quantize`."""
    change = dict(change)
    levels, bits = change.pop("weight_levels", None), change.pop("activation_bits", None)
    activations, method = change.pop("activations", None), change.pop("method", options.weights.method)
    weights = options.weights
    if levels is not None or method != weights.method:
        weights = _weight_options(method, levels, change)
    elif change:
        weights = replace(weights, **_checked(type(weights), change))
    if activations is not None:
        return layer_options(weights, None, bits, activations, {})
    if bits is None:
        return LayerOptions(weights, options.activations)
    _check_whole("activation_bits", bits, 1)
    return LayerOptions(weights, type(options.activations).for_bits(bits))


@torch.no_grad()
def _calibrate(model: nn.Module, example: Tensor) -> None:
    """First parameters of every activation quantiser, in the order of the graph, from one run on the example."""
    def choose(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, ActivationQuantizer)
        module.calibrate(args[0])
        agree(*module.state_dict().values())

    hooks = [module.register_forward_pre_hook(choose) for module in model.modules()
             if isinstance(module, ActivationQuantizer)]
    try:
        model(example)
    except (RuntimeError, ValueError) as error:
        name = type(model).__name__.removeprefix("Quantized")
        raise InputError(f"{name}: does not run on the example in its present mode ({reason(error)}); take more samples, or "
                         "quantise it in evaluation mode") from None
    finally:
        for hook in hooks:
            hook.remove()

