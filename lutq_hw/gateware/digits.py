"""Constants as sums and differences of powers of two."""

from __future__ import annotations

import itertools


def signed_digits(value: int) -> list[tuple[int, int]]:
    """``(sign, shift)`` of the fewest powers of two whose sum is ``value`` (non-adjacent form), lowest first."""
    digits = []
    shift = 0
    while value:
        if value & 1:
            sign = 2 - (value & 3)
            digits.append((sign, shift))
            value -= sign
        value >>= 1
        shift += 1
    return digits


def adder_luts(factor: int, bits: int) -> int:
    """Adder bits of a multiplication by ``factor`` whose result has ``bits``; below the digits summed so far one is free."""
    pairs = itertools.pairwise(reversed(signed_digits(factor)))
    return sum(max(0, bits - (earlier if sign > 0 else shift)) for (_, earlier), (sign, shift) in pairs)


def fewest_luts(factor: int) -> list[tuple[int, int]]:
    """``(sign, shift)`` of powers of two whose sum is a positive ``factor``, lowest first, for the fewest luts.

    An addend costs an adder; one that is subtracted is complemented besides, since carry chains take operands as they are.
    """
    plain = [(1, shift) for shift in range(factor.bit_length()) if factor >> shift & 1]
    signed = signed_digits(factor)
    return plain if len(plain) < len(signed) + sum(sign < 0 for sign, _ in signed) else signed


def scale_luts(factor: int, bits: int) -> int:
    """Luts of a multiplication by a positive ``factor`` modulo ``2**bits``, with `fewest_luts`."""
    pairs = itertools.pairwise(reversed(fewest_luts(factor)))
    return sum(max(0, bits - (earlier if sign > 0 else shift)) + (sign < 0) * max(0, bits - shift)
               for (_, earlier), (sign, shift) in pairs)


def scale_ffs(factor: int, bits: int) -> int:
    """Registers of the same: an adder's result in each level, and the sum itself as long as it is needed."""
    _, *shifts = (shift for _, shift in reversed(fewest_luts(factor)))
    return sum(max(0, bits - shift) for shift in shifts) + bits * max(0, len(shifts) - 1)
