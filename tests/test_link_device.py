# amaranth: UnusedElaboratable=no
"""The host driver, against a simulated board with a real accelerator and against a device of a few lines of Python."""

import json
import os
import random
import threading

import numpy as np
import pytest

from lutq_hw import golden, modelfile
from lutq_hw.cli import main
from lutq_hw.errors import LinkError
from lutq_hw.gateware.accelerator import Accelerator
from lutq_hw.gateware.host import HostLink
from lutq_hw.link.device import Device
from lutq_hw.link.protocol import (
    AnswerCode,
    Command,
    FrameParser,
    Geometry,
    Identity,
    encode_frame,
    pack_result,
    unpack_frame,
)
from lutq_hw.link.rate import answer_bytes, frames_per_second, request_bytes
from lutq_hw.link.serial_port import SerialPort
from lutq_hw.link.simulated import SimulatedBoard
from lutq_hw.network import Codebook, Dense, Flatten, Input, Network, Output, TensorType, Thresholds
from lutq_hw.plan import LayerPlan, Plan


def small(seed: int = 0, kind: str = "scores") -> Network:
    """Two dense layers on a 3 x 3 image of 4 bits."""
    rng = np.random.default_rng(seed)
    return Network("small", (
        Input("image", TensorType((3, 3, 1), 4), encode=np.arange(256) >> 4),
        Flatten("flat", "image"),
        Dense("fc1", "flat", Codebook(rng.integers(0, 4, (6, 9)), [-4, -1, 1, 2]),
              step=Thresholds(np.sort(rng.integers(-60, 60, (6, 7)), axis=1), 3)),
        Dense("fc2", "fc1", Codebook(rng.integers(0, 4, (5, 6)), [-2, 0, 1, 8])),
        Output("scores", "fc2", kind),
    ))


def images(network: Network, count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *network.input.type.shape)).astype(np.uint8)


class PythonBoard:
    """A device behind a transport; its frames, in both directions, may be damaged or lost."""

    name = "python board"

    def __init__(self, network: Network, *, faults: float = 0.0, seed: int = 0, slots: int = 2, room: int = 99,
                 digest: bytes | None = None, wrong: int | None = None):
        self.network, self.faults, self.slots, self.room, self.wrong = network, faults, slots, room, wrong
        self.rng = random.Random(seed)
        self.digest = digest or bytes.fromhex(network.digest)[:8]
        self.parser = FrameParser()
        self.waiting: list[bytes] = []
        self.numbers: dict[bytes, int] = {}  # of frames in the order of their first arrival: a slow host sends some again

    def write(self, data: bytes) -> None:
        for head, payload in self.parser.frames(self.damaged(data), flush=True):
            self.answer(head & 0xF, head >> 4, payload)

    def damaged(self, data: bytes) -> bytes:
        if self.rng.random() >= self.faults:
            return data
        return self.rng.choice([b"", data[:-1], data[1:], bytes([*data[:5], data[5] ^ 4, *data[6:]])])

    def answer(self, command: int, tag: int, payload: bytes) -> None:
        x, y = self.network.input.type, self.network.types[self.network.output.name]
        if command == Command.RESET:
            self.waiting.clear()
            self.send(tag, AnswerCode.DONE)
        elif command == Command.IDENTIFY:
            identity = Identity(self.digest, self.slots, Geometry.of(x), Geometry.of(y), 8)
            self.send(tag, AnswerCode.IDENTITY, identity.encode())
        elif len(self.waiting) >= self.room:
            self.send(tag, AnswerCode.BUSY)
        else:
            result = golden.run(self.network, unpack_frame(payload, x)[None])[self.network.output.name]
            result = result + (self.numbers.setdefault(payload, len(self.numbers)) == self.wrong)
            self.send(tag, AnswerCode.RESULT, pack_result(result, y))

    def send(self, tag: int, code: AnswerCode, payload: bytes = b"") -> None:
        self.waiting.append(self.damaged(encode_frame(tag << 4 | code, payload)))

    def read(self) -> bytes:
        return self.waiting.pop(0) if self.waiting else b""

    def close(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["scores", "argmax"])
def test_a_real_accelerator_behind_the_simulated_link(kind):
    network = small(3, kind)
    plan = Plan(network.digest, (
        LayerPlan(node="fc1", unit="shared-products", pe=2, channels=3),
        LayerPlan(node="fc2", unit="shared-products", pe=1, channels=2, output="scores"),
    ))
    accelerator = Accelerator(network, plan)
    link = HostLink(accelerator.input_format, accelerator.output_format, digest=bytes.fromhex(network.digest),
                    divisor=4, timeout=512)
    board = SimulatedBoard(link, accelerator, patience=1500)
    device = Device(board, network)
    frames = images(network, 10)
    np.testing.assert_array_equal(device.infer(frames), golden.evaluate(network, frames))
    assert board.shown == golden.predictions(network, golden.evaluate(network, frames)).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_every_result_arrives_over_a_bad_line(seed):
    network = small(seed)
    device = Device(PythonBoard(network, faults=0.1, seed=seed), network, retries=9)
    frames, seen = images(network, 200), []
    np.testing.assert_array_equal(device.infer(frames, progress=seen.append), golden.evaluate(network, frames))
    assert device.retried > 0 and seen == sorted(seen) and seen[-1] == 200


def test_a_busy_board_gets_fewer_requests_at_a_time():
    network = small()
    device = Device(PythonBoard(network, room=3, slots=2), network)
    frames = images(network, 30)
    assert device.window == 8
    np.testing.assert_array_equal(device.infer(frames), golden.evaluate(network, frames))
    assert device.window == 2
    assert device.infer(frames[:0]).shape == (0, 5)


def test_a_board_with_another_network_is_refused():
    network, other = small(1), small(2)
    device = Device(PythonBoard(network, digest=bytes.fromhex(other.digest)[:8]), network)
    with pytest.raises(LinkError, match=f"^python board: the board must hold the network {network.digest[:16]}, "
                                        f"not {other.digest[:16]}; build this model and program the board with it$"):
        device.infer(images(network, 1))


def test_a_board_with_another_geometry_is_refused():
    network, other = small(1), small(1, "argmax")
    device = Device(PythonBoard(other, digest=bytes.fromhex(network.digest)[:8]), network)
    with pytest.raises(LinkError, match=r"^python board: the board must give 5 x s9 for a frame, not 1 x u3; "
                                        "build this model and program the board with it$"):
        device.check()


def test_silence_and_refusals_have_sentences():
    network = small()
    with pytest.raises(LinkError, match=r"^python board: no board answered reset in 3 attempts \(nothing came back\); "
                                        "check the port, the baud rate and that the board is programmed$"):
        Device(PythonBoard(network, faults=1.0, seed=4), network, retries=2).check()
    device = Device(PythonBoard(network, room=0, slots=8), network)
    with pytest.raises(LinkError, match=r"^python board: the board gave no result for frame 0 in 5 attempts, at last "
                                        "because it had no room for another frame; check the cable and the baud rate$"):
        device.infer(images(network, 1))


def test_rates():
    network = small()
    assert (request_bytes(network), answer_bytes(network)) == (7 + 5, 7 + 10)
    assert frames_per_second(3_000_000, network) == 300_000 / 17


@pytest.fixture
def pty_board():
    """Makes boards behind pseudo-terminals; returns the port's name."""
    masters = []

    def make(board: PythonBoard) -> str:
        master, slave = os.openpty()
        masters.append((master, slave))

        def serve():
            while True:
                try:
                    data = os.read(master, 4096)
                except OSError:
                    return
                for head, payload in board.parser.frames(data):
                    board.answer(head & 0xF, head >> 4, payload)
                while line := board.read():
                    os.write(master, line)

        threading.Thread(target=serve, daemon=True).start()
        return os.ttyname(slave)

    yield make
    for pair in masters:
        for descriptor in pair:
            os.close(descriptor)


@pytest.fixture
def files(tmp_path):
    """A model, and images with labels that golden gets right but for one."""
    network = small()
    frames = images(network, 40)
    labels = golden.predictions(network, golden.evaluate(network, frames))
    labels[3] = (labels[3] + 1) % 5
    modelfile.save(network, tmp_path / "model.npz")
    np.savez(tmp_path / "images.npz", images=frames, labels=labels)
    return network, ["--model", str(tmp_path / "model.npz"), "--images", str(tmp_path / "images.npz")]


def test_run_command(pty_board, files, capsys):
    network, options = files
    port = pty_board(PythonBoard(network))
    assert main(["run", *options, "--port", port, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["differ"], report["correct"], report["baud"]) == (40, 0, 39, 3_000_000)
    assert main(["run", *options, "--port", port, "--baud", "115200", "--count", "10"]) == 0
    out = capsys.readouterr().out
    assert f"on {port} at 115,200 baud\n10 images, " in out
    assert "accuracy 90.00 % (9 of 10)\nevery result equals golden\n" in out


def test_run_command_finds_a_wrong_result(pty_board, files, capsys):
    network, options = files
    assert main(["run", *options, "--port", pty_board(PythonBoard(network, wrong=7)), "--baud", "115200"]) == 1
    out = capsys.readouterr().out
    assert "39 of 40 results equal golden, 1 differ\nimage 7: board [" in out


def test_run_command_reads_the_rate_from_a_report(pty_board, files, tmp_path, capsys):
    network, options = files
    report = tmp_path / "report.json"
    report.write_text('{"link": {"baud": 460800}}')
    assert main(["run", *options, "--port", pty_board(PythonBoard(network)), "--report", str(report), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["baud"] == 460_800
    for wrong in ("{", "[]", '{"link": {"baud": "fast"}}', '{"link": {"baud": true}}'):
        report.write_text(wrong)
        assert main(["run", *options, "--port", "/dev/null", "--report", str(report)]) == 2
        assert capsys.readouterr().err == \
            f"lutq: {report}: must be the report.json of a build, with a baud rate of its link\n"


def test_ports_that_cannot_be_used(files, capsys, monkeypatch):
    _, options = files
    monkeypatch.setattr("serial.tools.list_ports.comports", list)
    assert main(["run", *options, "--port", "/dev/ttyNOWHERE", "--baud", "115200"]) == 2
    assert capsys.readouterr().err == (
        "lutq: port /dev/ttyNOWHERE cannot be opened at 115200 baud (No such file or directory); "
        "there is no serial port here: is the board plugged in?\n")
    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    with pytest.raises(LinkError, match=r"^pyserial is not installed; run: pip install 'lutq\[board\]'$"):
        SerialPort("/dev/ttyUSB1", 115200)


def test_no_board_at_any_usual_rate(pty_board, files, capsys, monkeypatch):
    network, options = files
    monkeypatch.setattr("lutq_hw.cli.run.PROBE_S", 0.001)
    port = pty_board(PythonBoard(network, faults=1.0, seed=4))
    monkeypatch.setattr(PythonBoard, "read", lambda self: b"")
    assert main(["run", *options, "--port", port]) == 2
    assert capsys.readouterr().err == (
        f"lutq: {port}: no board answered at 3000000 to 9600 baud; give the rate that build reported with --baud, "
        "and check the port and that the board is programmed\n")
