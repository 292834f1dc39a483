"""Nodes that work element by element: the sum of several results, and a step function on its own."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import check_name, check_node
from .steps import Step, check_step, result_type
from .tensor import TensorType, integer, require

MAX_INPUTS = 8
"""Most results that one `Add` sums."""

MAX_SHIFT = 31


@dataclass(frozen=True, eq=False)
class Add:
    """``acc = Σ_i code_i << shifts_i``, element by element: the join of a residual network.

    Parameters
    ----------
    inputs
        Names of 2 to 8 nodes; a name may be given more than once.
    shifts
        Left shift of each input, 0 to 31: scales that differ by powers of two meet exactly. Empty means all 0.
    step
        As that of a weight layer, ``acc`` to code.
    """

    name: str
    inputs: tuple[str, ...]
    shifts: tuple[int, ...] = ()
    step: Step | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        names = tuple(self.inputs) if isinstance(self.inputs, list | tuple) else ()
        require(len(names) > 0 and all(isinstance(name, str) for name in names),
                f"inputs must be the names of nodes, not {self.inputs!r}")
        require(2 <= len(names) <= MAX_INPUTS, f"inputs must name 2 to {MAX_INPUTS} nodes, not {len(names)}")
        require(isinstance(self.shifts, list | tuple) and len(self.shifts) in (0, len(names)),
                f"shifts must be one integer for each of {len(names)} inputs, not {self.shifts!r}")
        shifts = tuple(integer(s, "shift", 0, MAX_SHIFT) for s in self.shifts) or (0,) * len(names)
        check_step(self.step, optional=True)
        object.__setattr__(self, "inputs", names)
        object.__setattr__(self, "shifts", shifts)

    def sum_range(self, *types: TensorType) -> tuple[int, int]:
        """Smallest and largest sum for inputs of these types, in order."""
        pairs = list(zip(types, self.shifts, strict=True))
        return sum(x.min << s for x, s in pairs), sum(x.max << s for x, s in pairs)

    def output(self, *types: TensorType) -> TensorType:
        """Type of the result for inputs of these types; without a step the smallest that holds `sum_range`."""
        require(len(types) == len(self.inputs), f"add must have {len(self.inputs)} input types, not {len(types)}")
        for name, x in zip(self.inputs, types, strict=True):
            require(x.shape == types[0].shape,
                    f"inputs of an add must have one shape, not {types[0]} of {self.inputs[0]} and {x} of {name}")
        return result_type(self.step, types[0].shape, *self.sum_range(*types))


@dataclass(frozen=True, eq=False)
class Requantize:
    """``code = step(code)``, element by element, for codes of any width: a step function without a layer before it."""

    name: str
    input: str
    step: Step

    def __post_init__(self) -> None:
        check_node(self.name, self.input)
        check_step(self.step)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output(self, x: TensorType) -> TensorType:
        """Type of the result for input type ``x``."""
        return result_type(self.step, x.shape, x.min, x.max)
