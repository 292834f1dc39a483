"""The host driver: asks a board, real or simulated, and does not give up at the first damaged frame."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .. import golden
from ..errors import LinkError
from ..network import Network, TensorType
from ..network.tensor import Ints
from .protocol import (
    DIGEST_BYTES,
    OVERHEAD,
    TAGS,
    Answer,
    AnswerCode,
    AnswerParser,
    Command,
    Geometry,
    Identity,
    encode_request,
    pack_frames,
    result_bytes,
    unpack_result,
)

RETRIES = 4
WINDOW = 8
"""Requests under way at most; half of the tags, so that a late answer never meets a new request of its tag."""

ANSWERS_BYTES = 4096
"""What the system keeps for a port while nobody reads: answers under way must fit."""


class Transport(Protocol):
    """Bytes to and from a device."""

    name: str
    """What error messages call it."""

    def write(self, data: bytes) -> None:
        """Sends all of ``data``."""

    def read(self) -> bytes:
        """What has come since the last call, at least one byte; nothing if none comes for a while."""
        ...

    def close(self) -> None:
        """Ends the connection."""


class Device:
    """A board that runs ``network``.

    Parameters
    ----------
    transport
        How to reach it.
    network
        What it should hold; the first request to infer checks that it does.
    retries
        How often a request is sent again before it is given up.
    """

    def __init__(self, transport: Transport, network: Network, *, retries: int = RETRIES):
        self.transport, self.network, self.retries = transport, network, retries
        self.window = WINDOW
        self.retried = 0
        """Requests so far that had to be sent again."""
        self._x, self._y = network.input.type, network.types[network.output.name]
        self._result_bytes = result_bytes(self._y)
        self._parser = AnswerParser(max(self._result_bytes, Identity.SIZE))
        self._tag = 0
        self._identity: Identity | None = None

    def identify(self) -> Identity:
        """What the board says about itself.

        Raises
        ------
        LinkError
            If it does not answer, or speaks another version of the protocol.
        """
        return Identity.decode(self._ask(Command.IDENTIFY, AnswerCode.IDENTITY).payload)

    def reset(self) -> None:
        """Makes the board forget the frames under way; leaves it idle.

        Raises
        ------
        LinkError
            If it does not answer.
        """
        self._ask(Command.RESET, AnswerCode.DONE)

    def check(self) -> Identity:
        """The board's identity, after a reset, if it holds this network.

        Raises
        ------
        LinkError
            If it holds another one, or does not answer.
        """
        self.reset()
        identity, digest = self.identify(), self.network.digest[:2 * DIGEST_BYTES]
        if identity.digest.hex() != digest:
            raise LinkError(f"{self.transport.name}: the board must hold the network {digest}, "
                            f"not {identity.digest.hex()}; build this model and program the board with it")
        for what, found, wanted in (("take", identity.input, self._x), ("give", identity.output, self._y)):
            if not found.matches(wanted):
                raise LinkError(f"{self.transport.name}: the board must {what} {Geometry.of(wanted)} for a frame, "
                                f"not {found}; build this model and program the board with it")
        self._identity = identity
        return identity

    def infer(self, images: Any, *, progress: Callable[[int], object] | None = None) -> Ints:
        """Results of ``images``, several requests under way at a time.

        Damaged, lost and refused requests are sent again, each at most ``retries`` times.

        Parameters
        ----------
        images
            As `golden.encode` takes them: pixels if the network's input has a table for them, otherwise codes.
        progress
            Called with the number of results so far, whenever some have come.

        Returns
        -------
        ``(N, *output shape)`` int64.

        Raises
        ------
        LinkError
            If the board holds another network, does not answer, or refuses a frame again and again.
        """
        batch = _Batch(pack_frames(golden.encode(self.network, images), self._x), self._y)
        identity = self._identity or self.check()
        self.window = max(1, min(self.window, ANSWERS_BYTES // (OVERHEAD + self._result_bytes)))
        while batch.todo or batch.pending:
            while batch.todo and len(batch.pending) < self.window:
                index, tag = batch.todo.popleft(), self._next_tag(batch.pending)
                batch.pending[tag] = index
                self.transport.write(encode_request(Command.INFER, tag, batch.payloads[index]))
            answers = self._receive()
            if answers is None:
                self.reset()
                for index in reversed(batch.pending.values()):
                    self._again(batch, index, "it did not answer in time")
                batch.pending.clear()
                continue
            for answer in answers:
                self._take(batch, answer, identity.slots)
            if progress is not None:
                progress(batch.done)
        return batch.results

    def _take(self, batch: _Batch, answer: Answer, slots: int) -> None:
        index = batch.pending.pop(answer.tag, None)
        if index is None:
            return  # of a request that was given up, or a complaint about no request in particular
        if answer.code == AnswerCode.RESULT and len(answer.payload) == self._result_bytes:
            batch.results[index] = unpack_result(answer.payload, self._y)
            batch.done += 1
        elif answer.code == AnswerCode.BUSY and self.window > slots:
            self.window = max(slots, self.window // 2)
            batch.todo.appendleft(index)
            self.retried += 1
        else:
            self._again(batch, index, answer.code.sentence)

    def _again(self, batch: _Batch, index: int, reason: str) -> None:
        batch.attempts[index] += 1
        self.retried += 1
        if batch.attempts[index] > self.retries:
            raise LinkError(f"{self.transport.name}: the board gave no result for frame {index} in {self.retries + 1} "
                            f"attempts, at last because {reason}; check the cable and the baud rate")
        batch.todo.appendleft(index)

    def _next_tag(self, taken: Any) -> int:
        while True:
            self._tag = (self._tag + 1) % TAGS
            if self._tag not in taken:
                return self._tag

    def _receive(self) -> list[Answer] | None:
        """The answers in the bytes that came; None if none came for a while."""
        data = self.transport.read()
        if data:
            return self._parser.feed(data)
        return self._parser.flush() or None

    def _ask(self, command: Command, wanted: AnswerCode) -> Answer:
        """Sends a request without payload until its answer comes; other answers are dropped."""
        reason = "nothing came back"
        for _ in range(self.retries + 1):
            tag = self._next_tag(())
            self.transport.write(encode_request(command, tag))
            while (answers := self._receive()) is not None:
                for answer in answers:
                    if (answer.tag, answer.code) == (tag, wanted):
                        return answer
                    if answer.code.is_error:
                        reason = answer.code.sentence
        raise LinkError(f"{self.transport.name}: no board answered {command.name.lower()} in {self.retries + 1} "
                        f"attempts ({reason}); check the port, the baud rate and that the board is programmed")


class _Batch:
    """Frames on their way."""

    def __init__(self, payloads: list[bytes], y: TensorType):
        self.payloads = payloads
        self.results = np.empty((len(payloads), *y.shape), np.int64)
        self.todo = deque(range(len(payloads)))
        self.pending: dict[int, int] = {}  # index by tag, oldest first
        self.attempts: Counter[int] = Counter()
        self.done = 0
