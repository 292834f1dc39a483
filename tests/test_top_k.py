# amaranth: UnusedElaboratable=no
"""Outputs of the k largest scores: the stage, the model file, what commands say, what the board shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from stream_helpers import never, stalls, transfer

from lutq_hw import cli, modelfile
from lutq_hw.gateware.host import HostLink
from lutq_hw.gateware.top_k import TopKStage
from lutq_hw.model_schema import version_of
from lutq_hw.network import Codebook, Dense, Flatten, Input, ModelError, Network, Output, TensorType
from lutq_hw.streams import StreamFormat


@pytest.mark.parametrize(("signed", "words", "count"), [(True, 7, 3), (False, 5, 5), (True, 2, 1), (True, 1, 1)])
@pytest.mark.parametrize("often", [0.0, 0.5])
def test_stage_equals_a_stable_sort(signed: bool, words: int, count: int, often: float):
    rng = np.random.default_rng(words)
    frames = rng.integers(-2 if signed else 0, 3, (30, words))  # few values: many ties
    bits = max(1, (words - 1).bit_length())
    stage = TopKStage(bits=3, is_signed=signed, words=words, index_bits=bits, count=count)
    order = np.argsort(-frames, axis=1, kind="stable")[:, :count]
    expected = StreamFormat(TensorType((count,), bits), count).pack(order)
    put, get = (stalls(often, 1), stalls(often, 2)) if often else (never(), never())
    sent, received = transfer(stage, (frames.reshape(-1) & 7).tolist(), len(frames), put_stalls=put, get_stalls=get)
    assert received.payloads == expected
    if not often:
        assert received.cycles == [cycle + 1 for cycle in sent.cycles[words - 1::words]]


def network(kind: str = "top2") -> Network:
    x = TensorType((2, 2, 1), 3)
    weights = Codebook(np.arange(12).reshape(3, 4) % 3, [-1, 0, 1])
    return Network("ranked", (Input("image", x), Flatten("flat", "image"), Dense("fc", "flat", weights),
                              Output("class", "fc", kind)))


def test_model_file_keeps_it(tmp_path: Path):
    path = tmp_path / "m.npz"
    modelfile.save(network(), path)
    again = modelfile.load(path)
    assert again.output.kind == "top2" and again.digest == network().digest != network("top3").digest
    record = {"kind": "output", "name": "class", "inputs": ["fc"], "result": "top2"}
    assert version_of(record) == 2 and version_of(record | {"result": "argmax"}) == 1


def test_no_more_indices_than_scores():
    with pytest.raises(ModelError, match=r"output kind must be top3 at most for 3 scores, not top4$"):
        network("top4")


def test_commands_give_both_accuracies(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    net = network()
    modelfile.save(net, tmp_path / "m.npz")
    images = np.random.default_rng(1).integers(0, 8, (6, 2, 2, 1)).astype(np.uint8)
    values = images.reshape(6, 4) @ np.array([-1, 0, 1])[net.weighted[0].weights.assignments.T]
    ranked = np.argsort(-values, axis=1, kind="stable")
    labels = np.where(np.arange(6) < 2, ranked[:, 0], np.where(np.arange(6) < 5, ranked[:, 1], ranked[:, 2]))
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    command = ["golden", "--model", str(tmp_path / "m.npz"), "--images", str(tmp_path / "images.npy"), "--labels",
               str(tmp_path / "labels.npy"), "--output", str(tmp_path / "out.npy")]
    assert cli.main(command) == 0
    assert "accuracy 33.33 % (2 of 6)\ntop-2 accuracy 83.33 % (5 of 6)" in capsys.readouterr().out
    assert np.load(tmp_path / "out.npy").tolist() == ranked[:, :2].tolist()
    assert cli.main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["correct"], report["top"], report["correct_top"]) == (2, 2, 5)


def test_the_board_shows_the_first():
    x, y = StreamFormat(TensorType((4,), 3), 1), StreamFormat(TensorType((2,), 2), 2)
    link = HostLink(x, y, digest=bytes(32), divisor=8, ranked=True)
    assert link.is_class and len(link.show.number) == 2
