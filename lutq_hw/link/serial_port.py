"""A serial port as a transport, by pyserial."""

from __future__ import annotations

import os

from ..errors import LinkError


class SerialPort:
    """Bytes to and from a board.

    Parameters
    ----------
    port
        As the system names it, ``/dev/ttyUSB1`` for instance; or a URL that pyserial knows.
    baud
        Rate; the device's must be within 2 %.
    timeout_s
        How long `read` waits for a byte.

    Raises
    ------
    LinkError
        If pyserial is missing, or the port does not exist, is in use, or refuses the rate.
    """

    def __init__(self, port: str, baud: int, *, timeout_s: float = 0.5):
        try:
            import serial
        except ImportError:
            raise LinkError("pyserial is not installed; run: pip install 'lutq[board]'") from None
        self.name = port
        self._failure = serial.SerialException
        try:
            self._serial = serial.serial_for_url(port, baudrate=baud, timeout=timeout_s, write_timeout=10)
        except (serial.SerialException, ValueError, OSError) as error:
            raise LinkError(f"port {port} cannot be opened at {baud} baud ({_reason(error)}); {_available()}") from None
        try:
            # The FTDI driver otherwise collects bytes for 16 ms, many frames long.
            self._serial.set_low_latency_mode(True)
        except (AttributeError, NotImplementedError, ValueError, OSError):
            pass

    def write(self, data: bytes) -> None:
        """Sends all of ``data``."""
        try:
            self._serial.write(data)
        except (self._failure, OSError) as error:
            raise self._lost("taking", error) from None

    def read(self) -> bytes:
        """What has come, at least one byte; nothing after the timeout."""
        try:
            return self._serial.read(max(1, self._serial.in_waiting))
        except (self._failure, OSError) as error:
            raise self._lost("giving", error) from None

    def _lost(self, what: str, error: Exception) -> LinkError:
        return LinkError(f"port {self.name} stopped {what} bytes ({_reason(error)}); is the board still plugged in?")

    def close(self) -> None:
        """Gives the port back."""
        self._serial.close()


def _reason(error: Exception) -> str:
    """The system's words, without what pyserial repeats around them."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)


def _available() -> str:
    from serial.tools.list_ports import comports
    names = sorted(port.device for port in comports())
    return f"ports here: {', '.join(names)}" if names else "there is no serial port here: is the board plugged in?"
