"""Which baud rate a clock can make, and what it is worth in frames."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import LinkError
from ..network import Network
from .protocol import OVERHEAD, frame_bytes, result_bytes

STANDARD = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 921_600, 460_800, 230_400, 115_200,
            57_600, 38_400, 19_200, 9_600)
"""Rates that about every adapter has, fastest first (adapters stop at 3 Mbaud, if not before)."""

FTDI_HZ = 12_000_000
"""The FT2232H divides this by any multiple of 1/8 (FTDI application note AN_120)."""

MAX_ERROR = 0.015
"""The receiver stands 2 %; the rest is left to the oscillators."""


@dataclass(frozen=True)
class Baud:
    """A rate for the host and the divisor for the device that comes closest.

    Parameters
    ----------
    baud
        What the host's port is set to.
    divisor
        Clock cycles of a bit in the device.
    error
        Relative difference of the device's rate.
    """

    baud: int
    divisor: int
    error: float


def pick_baud(clock_hz: float, *, max_baud: int = STANDARD[0], min_divisor: int = 4, ftdi: bool = True) -> Baud:
    """The fastest rate within `MAX_ERROR` that a device with this clock and its host can agree on.

    Parameters
    ----------
    clock_hz
        The device's clock.
    max_baud
        Fastest rate that the board's adapter can do.
    min_divisor
        Fewest clock cycles of a bit.
    ftdi
        The adapter is an FT2232H or similar: besides `STANDARD`, ``FTDI_HZ / (n / 8)`` will do.

    Raises
    ------
    LinkError
        If no rate fits: the clock is too slow.
    """
    eighths = range(8 * FTDI_HZ // max_baud, 8 * FTDI_HZ // STANDARD[-1]) if ftdi else ()
    rates = [rate for rate in (*STANDARD, *(round(8 * FTDI_HZ / n) for n in eighths)) if rate <= max_baud]
    for rate in sorted(set(rates), key=lambda rate: (-rate, rate not in STANDARD)):
        divisor = round(clock_hz / rate)
        error = clock_hz / max(divisor, 1) / rate - 1
        if divisor >= min_divisor and abs(error) <= MAX_ERROR:
            return Baud(rate, divisor, error)
    raise LinkError(f"clock must be at least {min_divisor} times the slowest baud rate ({STANDARD[-1]}), "
                    f"not {clock_hz:g} Hz")


def request_bytes(network: Network) -> int:
    """Bytes on the line for one frame to the device."""
    return OVERHEAD + frame_bytes(network.input.type)


def answer_bytes(network: Network) -> int:
    """Bytes on the line for one result from the device."""
    return OVERHEAD + result_bytes(network.types[network.output.name])


def frames_per_second(baud: float, network: Network) -> float:
    """Frames that the link carries in a second; both directions run at once, ten bits to a byte."""
    return baud / 10 / max(request_bytes(network), answer_bytes(network))
