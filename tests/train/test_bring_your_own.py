"""The examples of docs/bring-your-own-model.md, as they stand there."""

import ast
import re
from pathlib import Path

import pytest
import torch

DOC = Path(__file__).parents[2] / "docs" / "bring-your-own-model.md"


@pytest.fixture(scope="module")
def blocks():
    found = re.findall(r"^```python\n(.*?)^```$", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == 3
    return found


def test_the_plain_loop_and_the_check(blocks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for block in blocks[:2]:
        exec(compile(block, str(DOC), "exec"), names)  # the document's own code, which the reader is told to run
    *figures, comparison = capsys.readouterr().out.splitlines()
    accuracy = {name: float(value) for name, value in map(str.split, figures)}
    assert accuracy["float"] > 0.9 and accuracy["quantised"] > 0.9
    assert accuracy["integers"] == pytest.approx(accuracy["quantised"], abs=0.005)
    assert re.fullmatch(r"integer model == torch model on (\d+)/397 samples, ties (\d+)", comparison)
    assert Path("trained.npz").is_file()


def test_a_checkpoint_goes_into_a_network_quantised_from_other_weights(blocks, tmp_path, monkeypatch):
    import lutq_train

    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    exec(compile(blocks[0].split("\ntorch.manual_seed")[0], str(DOC), "exec"), names)
    x = torch.rand(32, 1, 8, 8)
    first, second = names["Net"](), names["Net"]()
    for model, example in ((first, x), (second, torch.rand(2, 1, 8, 8))):
        lutq_train.quantize(model, weight_levels=8, example=example)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(x), second.eval()(x))


def test_the_lightning_example_is_python(blocks):
    hooks = {node.name for node in ast.walk(ast.parse(blocks[2])) if isinstance(node, ast.FunctionDef)}
    assert {"training_step", "on_train_batch_end"} <= hooks
