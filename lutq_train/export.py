"""A quantised network as an integer `Network`, in a model file; with `verify`, what knows both worlds.

    walk.py      the graph, walked once: sums, what happens to them, and the codes that they become
    edges.py     what flows between two nodes meanwhile
    integers.py  the layers of a network in integers: dictionaries, tables, batch norms, steps
    fold.py      affine functions of sums as thresholds, exactly
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lutq_hw import modelfile
from lutq_hw.errors import InputError, ModelError
from lutq_hw.network import Network

from .capture import Capture, check_example, check_plain
from .edges import InputCodes
from .method import quantizer_of
from .verify import compare
from .walk import Walk

__all__ = ["InputCodes", "export", "network"]


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
        As for `export`. ``scales`` is added to the info: per node the floats that the integers stand for, and
        of an activation table ``table_step``, the width of an entry on the axis of the sums (``Δx``).

    Raises
    ------
    InputError
        If the network holds something that has no exact integer form, with its name.
    """
    check_example(example)
    check_plain(model)
    if not any(quantizer_of(layer) for layer in model.modules()):
        raise InputError(f"{type(model).__name__}: must be quantised to be exported; call lutq_train.quantize and train")
    for key, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{key}: must hold finite numbers to be exported; the training has diverged, lower its rate")
    with torch.no_grad():
        walk = Walk(Capture(model, example[:2]), codes)
        for node in walk.capture.graph.nodes:
            walk.visit(node)
    try:
        return Network(name, tuple(walk.nodes), {**(info or {}), "scales": walk.scales})
    except ModelError as error:
        raise InputError(f"{name}: cannot be held by a model file: {error}") from None
