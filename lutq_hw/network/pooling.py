"""Nodes that reduce a window of a map to one value, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import MAX_KERNEL, Pair, check_node, check_padding, pair, window_extents
from .steps import Step, check_step, result_type
from .tensor import TensorType, require


@dataclass(frozen=True, eq=False)
class _Pool:
    name: str
    input: str
    kernel: Pair
    stride: Pair | None = None
    padding: Pair = (0, 0)

    def __post_init__(self) -> None:
        check_node(self.name, self.input)
        object.__setattr__(self, "kernel", pair(self.kernel, "kernel", 1, MAX_KERNEL))
        stride = self.kernel if self.stride is None else self.stride
        object.__setattr__(self, "stride", pair(stride, "stride", 1, MAX_KERNEL))
        object.__setattr__(self, "padding", pair(self.padding, "padding", 0, MAX_KERNEL - 1))
        check_padding(self.padding, self.kernel)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def _shape(self, x: TensorType, what: str) -> tuple[int, int, int]:
        require(len(x.shape) == 3, f"input of {what} must be a map (H, W, C), not {x}")
        assert self.stride is not None
        return (*window_extents(x, self.kernel, self.stride, self.padding), x.channels)


@dataclass(frozen=True, eq=False)
class MaxPool2d(_Pool):
    """Maximum over windows, channel by channel; padding never wins."""

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``."""
        return TensorType(self._shape(x, "a max-pool"), x.bits, x.signed)


@dataclass(frozen=True, eq=False)
class AvgPool2d(_Pool):
    """Sum over windows, channel by channel: ``acc = Σ code``; padding adds code 0.

    Nothing is divided. The average is this sum times ``1 / (kh * kw)``, a scale that folds into the step as every other
    scale does, or into the scale of the scores when there is no step.
    """

    step: Step | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_step(self.step, optional=True)

    def sum_range(self, x: TensorType) -> tuple[int, int]:
        """Smallest and largest sum of a window without padding; 0 lies between them."""
        size = self.kernel[0] * self.kernel[1]
        return size * x.min, size * x.max

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``; without a step the smallest that holds `sum_range`."""
        return result_type(self.step, self._shape(x, "an average pool"), *self.sum_range(x))
