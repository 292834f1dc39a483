"""The golden model of time: in which clock cycle every word of every stream moves. Pure Python, no hardware.

Cycle c is the c-th rising clock edge after reset (the first is 0); a word moves at an edge where ``valid`` and ``ready`` are
both high. Each timer below is the specification of one kind of stage: `LayerTimer` of ``gateware.layer``, and so on. Time
depends on shapes, plan and stalls only, never on data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from .errors import PlanError
from .geometry import WindowGeometry
from .joins import AveragePool, Fifo, Fork, Join, Requantizer
from .output import OutputStage
from .pipeline import Argmax, Gearbox, Layer, Pipeline, Pool, Stage, TopK

READ_LATENCY = 3
"""Enabled cycles between the decision to read a word and its arrival at the MAC unit: address, memory, alignment."""

POOL_LATENCY = 1
"""Enabled cycles from there to a pool's maximum."""

Stall = Callable[[int], bool]


class Timer(Protocol):
    """One stage with one input. `ready` may depend on the output's ready, nothing else may."""

    @property
    def at_rest(self) -> bool:
        """Whether a step changes nothing as long as no word comes or goes."""
        ...

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
    the decision to do so. In the first ``startup`` cycles the pipeline does not move.
    """

    def __init__(self, geometry: WindowGeometry, latency: int, ends: Sequence[bool], release: int, startup: int = 0):
        self.startup = startup
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
        if self.startup:
            self.startup -= 1
        elif enable:
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


def dense_reads(geometry: WindowGeometry, latency: int, startup: int = 0) -> WindowTimer:
    """Timer of a `gateware.window.WindowReader` and a pipeline of ``latency`` behind it."""
    return WindowTimer(geometry, READ_LATENCY + latency, geometry.ends, release=1, startup=startup)


def window_timer(layer: Layer) -> WindowTimer:
    """Timer of a layer's reader and MAC unit."""
    reads = layer.nonzero
    if reads is None:
        return dense_reads(layer.window, layer.unit.latency, layer.unit.startup)
    return WindowTimer(layer.window, reads.read_latency + layer.unit.latency, reads.ends, release=reads.release_delay)


class OutputTimer:
    """An output stage that works on one word at a time (`gateware.serial`); alone it is the timer of a requantise."""

    def __init__(self, stage: OutputStage):
        self.interval, self.delay, self.cut = stage.interval, stage.delay, stage.cut
        self.ends = (False, *reversed(stage.ends))  # by the number of cycles that are left
        self.left = 0  # cycles still needed for the word it holds
        self.results = 0  # words in its skid buffer
        self.pending = False  # a word on its way there, out of a memory or registers

    @property
    def at_rest(self) -> bool:
        return self.left == 0 and not self.pending

    @property
    def valid(self) -> bool:
        return self.results > 0

    @property
    def moves(self) -> bool:
        """Whether the word that it holds comes a cycle nearer to its end."""
        return self.results < 2 or not (self.pending if self.cut else self.ends[self.left])

    def ready(self, o_ready: bool) -> bool:
        return self.left == 0 or (self.left == 1 and self.moves)

    def step(self, i_valid: bool, o_ready: bool) -> None:
        free, moves = self.results < 2, self.moves
        slice_end = self.ends[self.left]
        accept = i_valid and (self.left == 0 or (self.left == 1 and moves))
        done = self.pending if self.delay else slice_end
        self.results += (done and free) - (o_ready and self.results > 0)
        if moves if self.cut else free:
            self.pending = slice_end
        if accept:
            self.left = self.interval
        elif self.left and moves:
            self.left -= 1


class PairTimer:
    """An output stage that works on two words, one of which is in front in each cycle; they change places after it.

    Only the word in front goes a step ahead. Words end in the order in which they came, so if one is there, the next takes
    the other place, and if two are, that of the one that ends.
    """

    def __init__(self, stage: OutputStage):
        self.steps = stage.steps
        self.front = self.other = 0  # steps still needed by the word in front, and by the other one
        self.results = 0  # words in its skid buffer
        self.pending = False  # a word on its way there

    @property
    def at_rest(self) -> bool:
        return self.front == self.other == 0 and not self.pending

    @property
    def valid(self) -> bool:
        return self.results > 0

    def ready(self, o_ready: bool) -> bool:
        place = self.front == 1 or not (self.front and self.other)
        return place and (self.results < 2 or not self.pending)

    def step(self, i_valid: bool, o_ready: bool) -> None:
        free, accept = self.results < 2, i_valid and self.ready(o_ready)
        moves = free or not self.pending
        self.results += (self.pending and free) - (o_ready and self.results > 0)
        if not moves:
            return
        self.pending = self.front == 1
        to_front = accept and self.front > 0 and not self.other
        self.front, self.other = self.other, max(0, self.front - 1)
        if to_front:
            self.front = self.steps
        elif accept:
            self.other = self.steps


def output_timer(stage: OutputStage) -> OutputTimer | PairTimer:
    """The timer of an output stage."""
    return OutputTimer(stage) if stage.at_once == 1 else PairTimer(stage)


class LayerTimer:
    """Window reader and what sums its words as one pipeline, then the output stage: a weight layer or an average pool."""

    at_rest = False

    def __init__(self, window: WindowTimer, stage: OutputStage):
        self.window, self.output = window, output_timer(stage)

    @property
    def valid(self) -> bool:
        return self.output.results > 0

    def ready(self, o_ready: bool) -> bool:
        return self.window.filled != self.window.rows

    def step(self, i_valid: bool, o_ready: bool) -> None:
        window = self.window
        sums = bool(window.pipe & window.top)
        window.step(i_valid and window.filled != window.rows, not sums or self.output.ready(o_ready))
        output = self.output
        if sums or output.results or not output.at_rest:
            output.step(sums, o_ready)


class PoolTimer:
    """A max-pool: window reader and maximum as one pipeline, then a skid buffer."""

    at_rest = False

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

    at_rest = True

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

    at_rest = True

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

    at_rest = True

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


class FifoTimer:
    """`gateware.fifo`: a memory of ``depth`` words, and the register that it is read into."""

    @property
    def at_rest(self) -> bool:
        return self.stored == 0 or self.valid

    def __init__(self, depth: int):
        self.depth = depth
        self.stored = 0
        self.most = 0  # words ever stored, the one that comes included
        self.valid = False

    def ready(self, o_ready: bool) -> bool:
        return self.stored != self.depth

    def step(self, i_valid: bool, o_ready: bool) -> None:
        stored = self.stored
        push = i_valid and stored != self.depth
        read = stored > 0 and (o_ready or not self.valid)
        self.valid = read or (self.valid and not o_ready)
        if push and stored >= self.most:
            self.most = stored + 1
        self.stored = stored + push - read


class ForkTimer:
    """`gateware.fork`: each branch is offered a word until it has taken it."""

    at_rest = True

    def __init__(self, count: int):
        self.done = [False] * count

    def settle(self, ready: Sequence[bool]) -> bool:
        """One clock edge with a word at the input, which is ready if the result is true."""
        taken = [done or o_ready for done, o_ready in zip(self.done, ready, strict=True)]
        complete = all(taken)
        self.done = [False] * len(taken) if complete else taken
        return complete


def timer(stage: Stage) -> Timer | ForkTimer:
    """The timer of ``stage``."""
    match stage:
        case Gearbox():
            if stage.input.lanes < stage.output.lanes:
                return CollectTimer(stage.output.lanes // stage.input.lanes)
            return SplitTimer(stage.input.lanes // stage.output.lanes)
        case Layer():
            return LayerTimer(window_timer(stage), stage.stage)
        case AveragePool():
            return LayerTimer(dense_reads(stage.window, POOL_LATENCY), stage.stage)
        case Join() | Requantizer():
            # An add: its inputs count as valid when all of them are, and are all ready when it takes their sum then.
            return output_timer(stage.stage)
        case Fork():
            return ForkTimer(stage.count)
        case Fifo():
            return FifoTimer(stage.depth)
        case Pool():
            return PoolTimer(stage)
        case Argmax() | TopK():
            return ArgmaxTimer(stage.input.words)
        case _:
            assert_never(stage)


@dataclass(frozen=True)
class Schedule:
    """Cycles in which words moved: ``times[s]`` over stream s of the pipeline, all frames in a row."""

    times: list[list[int]]
    words: list[int]
    """Words of one frame on each stream."""

    fills: Mapping[str, int]
    """Most words that the memory of each FIFO had to hold, by name of the stage."""

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
    PlanError
        If words stop moving although source and sink let them, because a FIFO in front of an add is too small.
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
    parts = [(one, inputs[0], outputs[0], inputs, outputs)
             for one, inputs, outputs in zip(timers, pipeline.inputs, pipeline.outputs, strict=True)]
    forks = [(one, source, outputs) for one, source, _, _, outputs in parts if isinstance(one, ForkTimer)]
    backwards = parts[::-1]
    entered, left = times[0], times[last]
    cycle = 0
    while len(left) < total_out:
        offered = offered or (len(entered) < total_in and not idle(cycle))
        valid[0] = offered
        ready[last] = not stall(cycle)
        # What is valid follows from registers, forwards through forks; then readiness travels backwards: two passes settle
        # the cycle. On the way back `valid` becomes that of the next cycle, once the reader has seen it. A stage at rest
        # that is offered nothing stays as it is; the readiness of a stream on which nothing is offered does not matter.
        for one, source, targets in forks:
            for target, done in zip(targets, one.done, strict=True):
                valid[target] = valid[source] and not done
        moved = False
        for one, source, target, sources, targets in backwards:
            o_ready = ready[target]
            given = o_ready and valid[target]
            if given:
                times[target].append(cycle)
                moved = True
            i_valid = valid[source]
            if len(sources) > 1:
                assert not isinstance(one, ForkTimer)
                i_valid = all(valid[source] for source in sources)
                taken = i_valid and one.ready(o_ready)
                for source in sources:
                    ready[source] = taken
            elif not i_valid and not given and one.at_rest:
                continue
            elif isinstance(one, ForkTimer):
                for target in targets[1:]:
                    if ready[target] and valid[target]:
                        times[target].append(cycle)
                        moved = True
                ready[source] = not i_valid or one.settle([ready[target] for target in targets])
                continue
            else:
                ready[source] = one.ready(o_ready)
            one.step(i_valid, o_ready)
            valid[target] = one.valid
        if offered and ready[0]:
            entered.append(cycle)
            offered = False
            moved = True
        if moved:
            quiet = 0
        elif ready[last] and (offered or len(entered) == total_in):
            quiet += 1
            if quiet > patience:
                raise PlanError(_deadlock(pipeline, timers, valid, cycle - quiet))
        cycle += 1
    fills = {stage.name: one.most for stage, one in zip(pipeline.stages, timers, strict=True) if isinstance(one, FifoTimer)}
    return Schedule(times, words, fills)


def _deadlock(pipeline: Pipeline, timers: Sequence[Timer | ForkTimer], valid: Sequence[bool], cycle: int) -> str:
    """Sentence about the FIFO that is full and holds up what its own add waits for."""
    writers = {number: k for k, outputs in enumerate(pipeline.outputs) for number in outputs}
    for stage, inputs in zip(pipeline.stages, pipeline.inputs, strict=True):
        if isinstance(stage, Join) and not all(valid[number] for number in inputs):
            for k, number in enumerate(inputs):
                writer = timers[writers[number]] if number in writers else None
                full = writer.stored == writer.depth if isinstance(writer, FifoTimer) else True
                if valid[number] and full:
                    depth = writer.depth if isinstance(writer, FifoTimer) else 0
                    return (f"layer {stage.name}: the FIFO at its input {k} must hold more than {depth} words, or no word "
                            f"moves any more after cycle {cycle} (deadlock); make the plan again")
    raise RuntimeError(f"pipeline is stuck after cycle {cycle} without a reason")
