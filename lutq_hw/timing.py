"""The golden model of time: in which clock cycle every word of every stream moves. Pure Python, no hardware.

Cycle c is the c-th rising clock edge after reset (the first is 0); a word moves at an edge where ``valid`` and ``ready`` are
both high. Each timer below is the specification of one kind of stage: `LayerTimer` of ``gateware.layer``, and so on. Time
depends on shapes, plan and stalls only, never on data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from .geometry import WindowGeometry
from .pipeline import Argmax, Gearbox, Layer, Pipeline, Pool, Stage

READ_LATENCY = 3
"""Enabled cycles between the decision to read a word and its arrival at the MAC unit: address, memory, alignment."""

POOL_LATENCY = 1
"""Enabled cycles from there to a pool's maximum."""

Stall = Callable[[int], bool]


class Timer(Protocol):
    """One stage. `ready` may depend on the output's ready, nothing else may."""

    @property
    def valid(self) -> bool:
        """The output stream's valid."""
        ...

    def ready(self, o_ready: bool) -> bool:
        """The input stream's ready."""
        ...

    def step(self, i_valid: bool, o_ready: bool) -> None:
        """One clock edge."""
        ...


class WindowTimer:
    """A reader of windows, followed by a pipeline that moves with it, ``latency`` deep in all.

    Of one output pixel, ``ends`` says which words end a dot product. The memory is read ``release`` enabled cycles after
    the decision to do so.
    """

    def __init__(self, geometry: WindowGeometry, latency: int, ends: Sequence[bool], release: int):
        self.g = g = geometry
        self.rows, self.row_words, self.ends = g.buffer_rows, g.row_words, ends
        self.row_reads = g.out_shape[1] * len(ends)
        self.need, self.release = g.need, g.release
        self.gap = self.rest = g.gap  # cycles left in which nothing is read
        self.top = 1 << latency - 1
        self.mask = (1 << latency) - 1
        self.need_next = g.need_next
        self.filled = self.col = self.available = self.oy = self.read = 0
        self.pending = deque([0] * release)
        self.started = False
        self.pipe = 0  # bit k: the last word of a window entered the pipeline k + 1 enabled cycles ago

    def step(self, taken: bool, enable: bool) -> None:
        """One clock edge: a word came in if ``taken``, the pipeline moves if ``enable``."""
        available = self.available
        row_end = False
        if enable:
            # A row can be overwritten only after the memory access that follows the decision.
            self.filled -= self.pending.popleft()
            self.pending.append(0)
            if self.started and not self.rest:
                last = self.ends[self.read % len(self.ends)]
                self.pipe = (self.pipe << 1 | last) & self.mask
                self.rest = self.gap * last
                self.read += 1
                row_end = self.read == self.row_reads
            else:
                self.pipe = self.pipe << 1 & self.mask
                self.rest -= self.rest > 0
        if row_end:
            self.started = available >= self.need_next[self.oy]
            self.pending[-1] = self.release[self.oy]
            self.available -= self.release[self.oy]
            self.read = 0
            self.oy = (self.oy + 1) % len(self.need)
        elif not self.started:
            self.started = available >= self.need[self.oy]
        if taken:
            self.col += 1
            if self.col == self.row_words:
                self.col = 0
                self.filled += 1
                self.available += 1


def dense_reads(geometry: WindowGeometry, latency: int) -> WindowTimer:
    """Timer of a `gateware.window.WindowReader` and a pipeline of ``latency`` behind it."""
    return WindowTimer(geometry, READ_LATENCY + latency, geometry.ends, release=1)


def window_timer(layer: Layer) -> WindowTimer:
    """Timer of a layer's reader and MAC unit."""
    reads = layer.nonzero
    if reads is None:
        return dense_reads(layer.window, layer.unit.latency)
    return WindowTimer(layer.window, reads.read_latency + layer.unit.latency, reads.ends, release=reads.release_delay)


class LayerTimer:
    """A weight layer: window reader and MAC unit as one pipeline, then the output stage."""

    def __init__(self, layer: Layer):
        self.window = window_timer(layer)
        self.steps, self.interval, self.delay = layer.stage.steps, layer.stage.interval, layer.stage.delay
        self.left = 0  # cycles that the output stage still needs for the word it holds
        self.results = 0  # words in its skid buffer
        self.pending = False  # a word on its way there, out of a memory

    @property
    def valid(self) -> bool:
        return self.results > 0

    def ready(self, o_ready: bool) -> bool:
        return self.window.filled != self.window.rows

    def step(self, i_valid: bool, o_ready: bool) -> None:
        window = self.window
        taken = i_valid and window.filled != window.rows
        free = self.results < 2
        slice_end = self.left > 0 and (self.left - 1) % self.steps == 0
        accept = self.left == 0 or (self.left == 1 and free)
        sums = bool(window.pipe & window.top)
        window.step(taken, accept or not sums)
        done = self.pending if self.delay else slice_end
        self.results += (done and free) - (o_ready and self.results > 0)
        if free:
            self.pending = slice_end
        if accept and sums:
            self.left = self.interval
        elif self.left and (free or not slice_end):
            self.left -= 1


class PoolTimer:
    """A max-pool: window reader and maximum as one pipeline, then a skid buffer."""

    def __init__(self, pool: Pool):
        self.window = dense_reads(pool.window, POOL_LATENCY)
        self.results = 0

    @property
    def valid(self) -> bool:
        return self.results > 0

    def ready(self, o_ready: bool) -> bool:
        return self.window.filled != self.window.rows

    def step(self, i_valid: bool, o_ready: bool) -> None:
        window = self.window
        done, free = bool(window.pipe & window.top), self.results < 2
        window.step(i_valid and window.filled != window.rows, free or not done)
        self.results += (done and free) - (o_ready and self.results > 0)


class CollectTimer:
    """``count`` words become one."""

    def __init__(self, count: int):
        self.count, self.have = count, 0

    @property
    def valid(self) -> bool:
        return self.have == self.count

    def ready(self, o_ready: bool) -> bool:
        return o_ready or self.have != self.count

    def step(self, i_valid: bool, o_ready: bool) -> None:
        ready = self.ready(o_ready)
        if self.have == self.count and o_ready:
            self.have = 0
        self.have += i_valid and ready


class SplitTimer:
    """One word becomes ``count``."""

    def __init__(self, count: int):
        self.count, self.left = count, 0

    @property
    def valid(self) -> bool:
        return self.left > 0

    def ready(self, o_ready: bool) -> bool:
        return self.left == 0 or (self.left == 1 and o_ready)

    def step(self, i_valid: bool, o_ready: bool) -> None:
        ready = self.ready(o_ready)
        if self.left and o_ready:
            self.left -= 1
        if i_valid and ready:
            self.left = self.count


class ArgmaxTimer:
    """A frame of ``words`` words becomes one."""

    def __init__(self, words: int):
        self.words, self.word = words, 0
        self.valid = False

    def ready(self, o_ready: bool) -> bool:
        return o_ready or not self.valid

    def step(self, i_valid: bool, o_ready: bool) -> None:
        if o_ready or not self.valid:
            self.valid = False
            if i_valid:
                self.word += 1
                if self.word == self.words:
                    self.word, self.valid = 0, True


def timer(stage: Stage) -> Timer:
    """The timer of ``stage``."""
    match stage:
        case Gearbox():
            if stage.input.lanes < stage.output.lanes:
                return CollectTimer(stage.output.lanes // stage.input.lanes)
            return SplitTimer(stage.input.lanes // stage.output.lanes)
        case Layer():
            return LayerTimer(stage)
        case Pool():
            return PoolTimer(stage)
        case Argmax():
            return ArgmaxTimer(stage.input.words)
        case _:
            assert_never(stage)


@dataclass(frozen=True)
class Schedule:
    """Cycles in which words moved: ``times[s]`` over stream s of the pipeline, all frames in a row."""

    times: list[list[int]]
    words: list[int]
    """Words of one frame on each stream."""

    @property
    def input(self) -> list[int]:
        """Cycles of the accelerator's input words."""
        return self.times[0]

    @property
    def output(self) -> list[int]:
        """Cycles of the accelerator's output words."""
        return self.times[-1]

    @property
    def latency(self) -> int:
        """Cycles from the first input word to the last output word of the first frame."""
        return self.output[self.words[-1] - 1] - self.input[0]

    @property
    def interval(self) -> int:
        """Cycles between the last two frames' last output words."""
        return self.output[-1] - self.output[-1 - self.words[-1]]


def never(cycle: int) -> bool:
    """No stall."""
    return False


def schedule(pipeline: Pipeline, frames: int, *, idle: Stall = never, stall: Stall = never) -> Schedule:
    """Time of every word while ``frames`` frames pass through ``pipeline``.

    Parameters
    ----------
    idle
        Whether the source does not offer a new word in a cycle (an offered word stays until it is taken).
    stall
        Whether the sink is not ready in a cycle.

    Raises
    ------
    RuntimeError
        If no word moves although source and sink let it: a deadlock, which is a bug.
    """
    timers = [timer(stage) for stage in pipeline.stages]
    last = len(pipeline.streams) - 1
    words = [stream.format.words for stream in pipeline.streams]
    times: list[list[int]] = [[] for _ in words]
    valid, ready = [False] * (last + 1), [False] * (last + 1)
    offered = False
    total_in, total_out = frames * words[0], frames * words[last]
    # A stage that nobody holds up finishes a frame, and moves words while it does, well within this time.
    patience = 1000 + 2 * max(getattr(stage, "interval", 0) for stage in pipeline.stages)
    quiet = 0
    forwards = [(one, inputs[0], outputs[0])
                for one, inputs, outputs in zip(timers, pipeline.inputs, pipeline.outputs, strict=True)]
    backwards = forwards[::-1]
    inputs, outputs = times[0], times[last]
    cycle = 0
    while len(outputs) < total_out:
        offered = offered or (len(inputs) < total_in and not idle(cycle))
        valid[0] = offered
        ready[last] = not stall(cycle)
        # Valid is known beforehand, readiness travels backwards combinationally: one pass settles the cycle.
        for one, _, target in forwards:
            valid[target] = one.valid
        moved = False
        for one, source, target in backwards:
            o_ready = ready[target]
            if o_ready and valid[target]:
                times[target].append(cycle)
                moved = True
            ready[source] = one.ready(o_ready)
            one.step(valid[source], o_ready)
        if offered and ready[0]:
            inputs.append(cycle)
            offered = False
            moved = True
        if moved:
            quiet = 0
        elif ready[last] and (offered or len(inputs) == total_in):
            quiet += 1
            if quiet > patience:
                raise RuntimeError(f"pipeline is stuck: {len(outputs)} of {total_out} words after {cycle} cycles")
        cycle += 1
    return Schedule(times, words)
