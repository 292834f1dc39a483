"""Three products and their sum as one table: for binary weights and activations on FPGAs with luts of six inputs."""

from __future__ import annotations

from .merged_tables import MergedTables


class MergedTriples(MergedTables):
    """Every three lanes look the sum of their products up: with two values and activations of 1 bit, a bit of it is one LUT6.

    The adder tree begins with a third of the operands. On luts of four inputs a table of six address bits is several luts
    deep, and pairs (`MergedTables`) are smaller.
    """

    name = "merged-triples"
    needs = "a dictionary of 2 values, and activations of 1 bit"
    group = 3
    rewriting = 0.9
