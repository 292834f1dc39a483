"""Typed network: a DAG of integer layers. Build one from numpy arrays in a few lines::

    import numpy as np
    from lutq_hw.network import Codebook, Dense, Flatten, Input, Network, Output, TensorType, Thresholds

    net = Network("tiny", (
        Input("image", TensorType((8, 8, 1), bits=4)),
        Flatten("flat", "image"),
        Dense("fc1", "flat", Codebook(assignments=idx1, dictionary=[-4, -1, 0, 1, 4]),
              step=Thresholds(theta1, bits=4)),
        Dense("fc2", "fc1", Codebook(assignments=idx2, dictionary=[-2, -1, 1, 2])),
        Output("scores", "fc2"),
    ))

Everything is an integer, every object is frozen, and none can exist in a wrong state: a wrong argument raises
`ModelError` with one sentence. Imports numpy only.
"""

from ..errors import ModelError
from .codebook import Codebook
from .graph import Network
from .merge import Add, Requantize
from .nodes import Conv2d, Dense, Flatten, Input, Node, Output, WeightNode
from .pooling import AvgPool2d, MaxPool2d
from .steps import ActivationTable, Shift, Step, Thresholds
from .tensor import TensorType

__all__ = [
    "ActivationTable",
    "Add",
    "AvgPool2d",
    "Codebook",
    "Conv2d",
    "Dense",
    "Flatten",
    "Input",
    "MaxPool2d",
    "ModelError",
    "Network",
    "Node",
    "Output",
    "Requantize",
    "Shift",
    "Step",
    "TensorType",
    "Thresholds",
    "WeightNode",
]
