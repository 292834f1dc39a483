"""The nodes of the DAG. A node knows its parameters and derives its output type from its input type."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .codebook import Codebook
from .steps import Shift, Step, Thresholds
from .tensor import (
    MAX_BITS,
    MAX_CODE_BITS,
    Ints,
    TensorType,
    index,
    integer,
    integers,
    magnitude,
    require,
    signed_bits,
)

Pair = tuple[int, int]
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z")


def _check_name(name: Any) -> None:
    require(isinstance(name, str) and bool(NAME.match(name)),
            f"node name must be a letter followed by letters, digits and underscores, not {name!r}")


def _check_node(name: Any, source: Any) -> None:
    _check_name(name)
    require(isinstance(source, str), f"input must be the name of a node, not {source!r}")


def _pair(value: Any, what: str, low: int, high: int) -> Pair:
    both = tuple(map(index, value)) if isinstance(value, list | tuple) else (index(value),) * 2
    good = tuple(n for n in both if n is not None and low <= n <= high)
    require(len(both) == len(good) == 2, f"{what} must be two integers from {low} to {high}, not {value!r}")
    return good[0], good[1]


def _window(x: TensorType, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Extents of a window operation's output."""
    out = []
    for axis, size, k, s, p in zip("HW", x.map_shape, kernel, stride, padding, strict=False):
        require(k <= size + 2 * p, f"kernel must be at most the padded input ({axis} = {size + 2 * p}), not {k}")
        out.append((size + 2 * p - k) // s + 1)
    return out[0], out[1]


@dataclass(frozen=True, eq=False)
class Input:
    """Where images enter.

    ``encode`` maps a uint8 pixel to a code, 256 entries; without it the caller supplies codes of ``type`` directly.
    """

    name: str
    type: TensorType
    encode: Any = None

    def __post_init__(self) -> None:
        _check_name(self.name)
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
        _check_node(self.name, self.input)
        require(isinstance(self.weights, Codebook), f"weights must be a Codebook, not {type(self.weights).__name__}")
        require(self.step is None or isinstance(self.step, Thresholds | Shift),
                f"step must be Thresholds, Shift or None, not {type(self.step).__name__}")
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
        require(max(shape[1:3]) <= 64, f"kernel must be at most 64 x 64, not {shape[1]} x {shape[2]}")
        object.__setattr__(self, "stride", _pair(self.stride, "stride", 1, 64))
        object.__setattr__(self, "padding", _pair(self.padding, "padding", 0, 63))
        for p, k in zip(self.padding, self.kernel, strict=True):
            require(p < k, f"padding must be smaller than the kernel {self.kernel}, not {self.padding}")
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
        out_h, out_w = _window(x, self.kernel, self.stride, self.padding)
        return self._typed((out_h, out_w, self.outputs), self.accumulator_bits(x))


@dataclass(frozen=True, eq=False)
class MaxPool2d:
    """Maximum over windows, channel by channel; padding never wins."""

    name: str
    input: str
    kernel: Pair
    stride: Pair | None = None
    padding: Pair = (0, 0)

    def __post_init__(self) -> None:
        _check_node(self.name, self.input)
        object.__setattr__(self, "kernel", _pair(self.kernel, "kernel", 1, 64))
        stride = self.kernel if self.stride is None else self.stride
        object.__setattr__(self, "stride", _pair(stride, "stride", 1, 64))
        object.__setattr__(self, "padding", _pair(self.padding, "padding", 0, 63))
        for p, k in zip(self.padding, self.kernel, strict=True):
            require(p < k, f"padding must be smaller than the kernel {self.kernel}, not {self.padding}")

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``."""
        require(len(x.shape) == 3, f"input of a max-pool must be a map (H, W, C), not {x}")
        assert self.stride is not None
        out_h, out_w = _window(x, self.kernel, self.stride, self.padding)
        return TensorType((out_h, out_w, x.channels), x.bits, x.signed)


@dataclass(frozen=True, eq=False)
class Flatten:
    """A map as a vector, channel last: element ``(y, x, c)`` becomes ``(y * W + x) * C + c``."""

    name: str
    input: str

    def __post_init__(self) -> None:
        _check_node(self.name, self.input)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``."""
        return TensorType((x.size,), x.bits, x.signed)


@dataclass(frozen=True, eq=False)
class Output:
    """Where results leave: every score in order, or the index of the largest (the lowest index wins a tie)."""

    name: str
    input: str
    kind: str = "scores"

    def __post_init__(self) -> None:
        _check_node(self.name, self.input)
        require(self.kind in ("scores", "argmax"), f"output kind must be scores or argmax, not {self.kind!r}")

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``."""
        require(len(x.shape) == 1, f"input of an output must be a vector (put a flatten before it), not {x}")
        if self.kind == "argmax":
            return TensorType((1,), max(1, (x.size - 1).bit_length()))
        return x


WeightNode = Dense | Conv2d
Node = Input | Dense | Conv2d | MaxPool2d | Flatten | Output
