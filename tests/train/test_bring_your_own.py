"""The examples of docs/bring-your-own-model.md, as they stand there."""

import re
import sys
import types
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
    found = re.fullmatch(r"integer model == torch model on (\d+)/397 samples, ties (\d+)", comparison)
    assert found and sum(map(int, found.groups())) >= 397
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


class Trainer:
    """What the example needs of ``lightning.Trainer``, in its order; Lightning itself is no dependency."""

    def __init__(self, max_epochs, **options):
        self.max_epochs = max_epochs
        assert options == {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}

    def fit(self, module, loader):
        module.trainer, optimizer = self, module.configure_optimizers()
        for module.current_epoch in range(self.max_epochs):
            module.on_train_epoch_start()
            for number, batch in enumerate(loader):
                optimizer.zero_grad()
                loss = module.training_step(batch, number)
                loss.backward()
                optimizer.step()
                module.on_train_batch_end({"loss": loss.detach()}, batch, number)


def test_the_lightning_example(blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "lightning", types.SimpleNamespace(LightningModule=torch.nn.Module, Trainer=Trainer))
    names = {"__name__": "example"}
    exec(compile(blocks[0].split("\nmodel = train(")[0], str(DOC), "exec"), names)
    exec(compile(blocks[2].replace("epochs=15", "epochs=2").replace("max_epochs=5", "max_epochs=2"), str(DOC), "exec"), names)
    assert Path("lightning.npz").is_file()
    right = names["net"].eval()(names["test"]).argmax(1) == names["wanted"]
    assert right.float().mean() > 0.8
