"""The nodes of the DAG. A node knows its parameters and derives its output type from its input type."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import MAX_KERNEL, Pair, check_name, check_node, check_padding, pair, window_extents
from .codebook import Codebook
from .merge import Add, Requantize
from .pooling import AvgPool2d, MaxPool2d
from .steps import Step, Thresholds, check_step
from .tensor import MAX_BITS, MAX_CODE_BITS, Ints, TensorType, integer, integers, magnitude, require, signed_bits


@dataclass(frozen=True, eq=False)
class Input:
    """Where images enter.

    ``encode`` maps a uint8 pixel to a code, 256 entries; without it the caller supplies codes of ``type`` directly.
    """

    name: str
    type: TensorType
    encode: Any = None

    def __post_init__(self) -> None:
        check_name(self.name)
        require(isinstance(self.type, TensorType), f"type must be a TensorType, not {type(self.type).__name__}")
        require(self.type.bits <= MAX_CODE_BITS, f"input must have at most {MAX_CODE_BITS} bits, not {self.type.bits}")
        if self.encode is not None:
            table = integers(self.encode, "encode")
            require(table.shape == (256,), f"encode must have one entry for each of 256 pixels, not {table.shape}")
            low, high = int(table.min()), int(table.max())
            require(self.type.min <= low and high <= self.type.max,
                    f"encode must hold values of {self.type}, not {low} to {high}")
            object.__setattr__(self, "encode", table)

    @property
    def inputs(self) -> tuple[str, ...]:
        return ()

    def output(self) -> TensorType:
        """Type of the codes."""
        return self.type


@dataclass(frozen=True, eq=False)
class _Weighted:
    name: str
    input: str
    weights: Codebook
    bias: Any = None
    step: Step | None = None

    def __post_init__(self) -> None:
        check_node(self.name, self.input)
        require(isinstance(self.weights, Codebook), f"weights must be a Codebook, not {type(self.weights).__name__}")
        check_step(self.step, optional=True)
        outputs = self.weights.assignments.shape[0]
        bias = integers(np.zeros(outputs, np.int64) if self.bias is None else self.bias, "bias")
        require(bias.shape == (outputs,), f"bias must have shape ({outputs},), not {bias.shape}")
        require(magnitude(bias) < 1 << 31, f"bias must be below 2**31 in magnitude, not {magnitude(bias)}")
        if isinstance(self.step, Thresholds):
            require(self.step.channels == outputs,
                    f"thresholds must have one row for each of {outputs} outputs, not {self.step.channels}")
        object.__setattr__(self, "bias", bias)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.weights.assignments.shape[0])

    @property
    def terms(self) -> int:
        """Length of one dot product."""
        return math.prod(self.weights.assignments.shape[1:])

    def sum_range(self, x: TensorType) -> tuple[Ints, Ints]:
        """Smallest and largest Σ T of every output channel, without bias; exact from the assignments."""
        return self.weights.sum_range(x)

    def accumulator_bits(self, x: TensorType) -> int:
        """Bits of the signed accumulator for input type ``x``, bias included; `ModelError` if it does not fit."""
        require(x.bits <= MAX_CODE_BITS,
                f"input must have at most {MAX_CODE_BITS} bits, not {x.bits} (give {self.input} a step)")
        low, high = self.sum_range(x)
        low, high = low + self.bias, high + self.bias
        bits = signed_bits(int(min(low.min(), 0)), int(high.max()))
        require(bits <= MAX_BITS, f"accumulator must fit {MAX_BITS} bits, not {bits}")
        return bits

    def _typed(self, shape: tuple[int, ...], acc_bits: int) -> TensorType:
        if self.step is None:
            return TensorType(shape, acc_bits, signed=True)
        return TensorType(shape, self.step.bits, self.step.signed)


@dataclass(frozen=True, eq=False)
class Dense(_Weighted):
    """``acc[o] = bias[o] + Σ_j T[a_j, w_oj]`` over a vector; assignments are ``(O, N)``. Without a step: raw sums."""

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``."""
        shape = self.weights.assignments.shape
        require(len(shape) == 2, f"assignments of a dense layer must have shape (O, N), not {shape}")
        require(len(x.shape) == 1, f"input of a dense layer must be a vector (put a flatten before it), not {x}")
        require(shape[1] == x.size, f"assignments must have {x.size} terms like the input, not {shape[1]}")
        return self._typed((self.outputs,), self.accumulator_bits(x))


@dataclass(frozen=True, eq=False)
class Conv2d(_Weighted):
    """Cross-correlation over ``(H, W, C)``; assignments are ``(O, kh, kw, C / groups)``; padding inserts code 0."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.weights.assignments.shape
        require(len(shape) == 4, f"assignments of a convolution must have shape (O, kh, kw, C/groups), not {shape}")
        require(max(shape[1:3]) <= MAX_KERNEL,
                f"kernel must be at most {MAX_KERNEL} x {MAX_KERNEL}, not {shape[1]} x {shape[2]}")
        object.__setattr__(self, "stride", pair(self.stride, "stride", 1, MAX_KERNEL))
        object.__setattr__(self, "padding", pair(self.padding, "padding", 0, MAX_KERNEL - 1))
        check_padding(self.padding, self.kernel)
        object.__setattr__(self, "groups", integer(self.groups, "groups", 1, self.outputs))
        require(self.outputs % self.groups == 0,
                f"groups must divide the {self.outputs} output channels, not {self.groups}")

    @property
    def kernel(self) -> Pair:
        """``(kh, kw)``."""
        return self.weights.assignments.shape[1:3]

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``."""
        require(len(x.shape) == 3, f"input of a convolution must be a map (H, W, C), not {x}")
        channels = self.weights.assignments.shape[3] * self.groups
        require(x.channels == channels,
                f"assignments must cover the input's {x.channels} channels, not {channels} ({self.groups} groups)")
        out_h, out_w = window_extents(x, self.kernel, self.stride, self.padding)
        return self._typed((out_h, out_w, self.outputs), self.accumulator_bits(x))


@dataclass(frozen=True, eq=False)
class Flatten:
    """A map as a vector, channel last: element ``(y, x, c)`` becomes ``(y * W + x) * C + c``."""

    name: str
    input: str

    def __post_init__(self) -> None:
        check_node(self.name, self.input)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``."""
        return TensorType((x.size,), x.bits, x.signed)


MAX_TOP = 32
"""Most indices that an output may give."""


@dataclass(frozen=True, eq=False)
class Output:
    """Where results leave: ``scores`` in order, the index of the largest (``argmax``), or of the k largest (``topk``, k a
    number, the largest first). The lower index comes first on a tie.
    """

    name: str
    input: str
    kind: str = "scores"

    def __post_init__(self) -> None:
        check_node(self.name, self.input)
        require(self.kind in ("scores", "argmax") or self.top > 0,
                f"output kind must be scores, argmax or top1 to top{MAX_TOP}, not {self.kind!r}")

    @property
    def top(self) -> int:
        """How many indices of the largest scores it gives, in order; 0 for scores and argmax."""
        found = re.fullmatch(r"top([1-9][0-9]?)", self.kind)
        return int(found[1]) if found and int(found[1]) <= MAX_TOP else 0

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``."""
        require(len(x.shape) == 1, f"input of an output must be a vector (put a flatten before it), not {x}")
        if self.kind == "scores":
            return x
        require(self.top <= x.size, f"output kind must be top{x.size} at most for {x.size} scores, not {self.kind}")
        return TensorType((self.top or 1,), max(1, (x.size - 1).bit_length()))


WeightNode = Dense | Conv2d
Node = Input | Dense | Conv2d | MaxPool2d | AvgPool2d | Add | Requantize | Flatten | Output
