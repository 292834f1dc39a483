"""Training without the original data: the quantised network learns the outputs of the float one on any other images.

QIL (CVPR 2019, section 4.3) minimises the mean squared difference of the two networks' outputs; labels are not needed.

    teacher = Teacher(model)                    # before the model is quantised
    lutq_train.quantize(model, ...)
    loss = teacher.loss(x, model(x))            # in place of the cross-entropy with labels
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional


class Teacher:
    """A copy of ``model`` as it is now, in evaluation mode, that nothing trains any more."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Tensor:
        """What the copied network gives for the batch ``x``."""
        return self.model(x)

    def loss(self, x: Tensor, outputs: Tensor) -> Tensor:
        """Mean squared difference between ``outputs``, the student's for the batch ``x``, and the teacher's; a scalar."""
        return functional.mse_loss(outputs, self.outputs(x))
