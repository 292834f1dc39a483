"""Training of networks whose weights live in small dictionaries, by the methods of five papers.

A *dictionary* is the few values that the weights of a layer may take; the *assignments* say which one each takes.

    import lutq_train
    lutq_train.quantize(model, method="lutq", weight_levels=4, activation_bits=4, example=x)
    ...                        # the user's own loop, with lutq_train.update(model) after optimizer.step()
    lutq_train.export(model, "trained.npz", example=x)

    methods/    one file per method: weights, activations or both
    networks/   one file per family of networks         datasets/   one file per family of data sets
    recipes/    one TOML file per experiment, for ``python -m lutq_train fit``
"""

from .export import InputCodes, export
from .method import progress, update
from .quantize import LayerOptions, quantize

__all__ = ["InputCodes", "LayerOptions", "export", "progress", "quantize", "update"]
