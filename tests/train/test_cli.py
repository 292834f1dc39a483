"""The command line from recipe to model file, on data that a small network learns at once."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from lutq_hw import golden, golden_fast, modelfile
from lutq_train import cli, datasets, loop, recipe


@pytest.fixture
def call(tmp_path, monkeypatch, capsys, tiny_data, tiny_recipe):
    """``call("fit", ...)`` in an empty folder that holds tiny.toml: (exit code, standard output, standard error)."""
    monkeypatch.setitem(datasets.DATASETS, "tiny", lambda folder: tiny_data)
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(recipe.dumps(tiny_recipe))

    def run_command(*arguments):
        capsys.readouterr()
        return cli.main(list(arguments)), *capsys.readouterr()

    return run_command


RECIPES = ", ".join(recipe.names())
FIT = ("fit", "--recipe", "tiny.toml", "--out", "runs/tiny")


def weights(folder):
    content = torch.load(Path(folder) / "checkpoint.pt", weights_only=True)
    return content["model"] | {f"optimizer.{i}.{key}": value for i, state in content["optimizer"]["state"].items()
                               for key, value in state.items()}


def interrupt_at(monkeypatch, epoch):
    """Ctrl-C in the middle of ``epoch`` (from 0)."""
    original = cli.Progress.step

    def step(self, now, done, loss):
        original(self, now, done, loss)
        if now == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.Progress, "step", step)


def test_from_recipe_to_model_file(call):
    code, out, err = call(*FIT, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["run"] == "runs/tiny" and result["epochs"] == 4 and result["quantized_accuracy"] > 0.9
    assert [line.split("  ")[0] for line in err.splitlines()] == [f"epoch {n}/4" for n in range(1, 5)]
    assert sorted(path.name for path in Path("runs/tiny").iterdir()) == [
        "checkpoint.pt", "metrics.jsonl", "recipe.toml", "run.json"]
    entries = [json.loads(line) for line in Path("runs/tiny/metrics.jsonl").read_text().splitlines()]
    assert [entry["phase"] for entry in entries] == ["float", "float", "quantized", "quantized"]

    code, out, _ = call("export", "--run", "runs/tiny", "--out", "tiny.npz")
    assert code == 0
    assert out.splitlines()[1] == "  integer model == torch model on 200/200 samples, ties 0"
    network = modelfile.load("tiny.npz")
    assert network.info["accuracy"] == result["quantized_accuracy"] and network.info["test_images"] == 200
    assert network.info["float_accuracy"] == result["float_accuracy"]
    assert recipe.load("tiny.toml") == recipe.parse(tomllib.loads(network.info["recipe_text"]), "")
    assert set(network.info["scales"]) == {"image", "conv1", "fc1", "scores"}
    assert network.types["output"].shape == (4,)

    code, out, _ = call("evaluate", "--run", "runs/tiny", "--json")
    assert code == 0 and json.loads(out)["exact"] and json.loads(out)["equal"] == 200


def test_a_resumed_run_ends_with_the_same_weights(call, monkeypatch):
    assert call(*FIT)[0] == 0
    for epoch in range(4):
        folder = f"runs/stopped{epoch}"
        with monkeypatch.context() as patch:
            interrupt_at(patch, epoch)
            code, out, err = call(*FIT[:-1], folder)
        assert (code, out) == (1, "")
        assert err.splitlines()[-2:] == [f"interrupted; {epoch} of 4 epochs are kept. Go on with:",
                                         f"  python -m lutq_train fit --out {folder} --resume"]
        again = ("fit", "--out", folder, "--resume") if epoch % 2 else (*FIT[:-1], folder)
        assert call(*again)[0] == 0
        expected, found = weights("runs/tiny"), weights(folder)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_finished_run_is_not_trained_again(call):
    call(*FIT)
    before, metrics = Path("runs/tiny/checkpoint.pt").read_bytes(), Path("runs/tiny/metrics.jsonl")
    text = metrics.read_text()
    metrics.write_text(text.splitlines()[0] + "\n")  # as if killed between writing the two files
    code, out, err = call(*FIT)
    assert code == 0 and "test accuracy" in out
    assert err == "runs/tiny is finished\n" and metrics.read_text() == text
    assert Path("runs/tiny/checkpoint.pt").read_bytes() == before


def test_a_network_of_one_layer(call, monkeypatch):
    """No activation, no batch norm: the phase is known from the epoch, not from the layers."""
    fit = FIT
    for key in ("channels", "kernels", "strides", "paddings", "hidden"):
        fit += ("--set", f"model.{key}=[]")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        assert call(*fit)[0] == 1
    assert call(*fit)[0] == 0
    code, out, _ = call("export", "--run", "runs/tiny", "--out", "tiny.npz")
    assert code == 0 and "200/200 samples" in out


@pytest.mark.parametrize("changes", [
    ("training.pruned_epochs=1", "pruning.ratio=0.5", "weights.zero=true", "training.distill=0.5"),
    ("weights.method=syq", "weights.entries=3", "activations.method=qil", "layers.last.method=lutq"),
    ("model.name=mlp", "model.hidden=[6]", "weights.method=tbnu", "weights.entries=7", "norm=power_of_two"),
    ("weights.method=hessian", "weights.entries=9", "weights.clustering=ecsq", "weights.lam=0.001")])
def test_other_ways_of_training(call, changes):
    text = Path("tiny.toml").read_text()
    for table, key in (("weights", "weights.method"), ("model", "model.name")):
        if any(change.startswith(key) for change in changes):
            text = "\n\n".join(part for part in text.split("\n\n") if not part.startswith(f"[{table}]"))
    Path("tiny.toml").write_text(text)
    sets = [word for change in changes for word in ("--set", change)]
    code, out, _ = call(*FIT, *sets, "--export", "tiny.npz", "--json")
    result = json.loads(out)
    assert code == 0 and result["exact"] and result["samples"] == 200
    network = modelfile.load("tiny.npz")
    assert network.info["accuracy"] == result["accuracy"] > 0.5 and network.digest == result["digest"]
    assert network.info["recipe_text"] == Path("runs/tiny/recipe.toml").read_text()
    code, out, _ = call("sizes", "--model", "tiny.npz", "--json")
    assert code == 0 and json.loads(out)["ratio"] > 1
    if "pruning.ratio=0.5" in changes:
        assert json.loads(out)["kept"] <= 0.51


def test_a_dictionary_without_a_zero_cannot_be_pruned(call):
    """Refused before the float epochs, which may take hours."""
    assert call(*FIT, "--set", "pruning.ratio=0.5", "--set", "weights.zero=false") == (
        2, "", ("error: conv1: a layer that is pruned must have a dictionary with a zero, and this one of the method lutq "
                "has none; choose options with a zero, or do not prune\n"))
    assert not Path("runs").exists()


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_training_that_diverges_ends_with_a_sentence(call, monkeypatch, epoch):
    right = loop._loss
    monkeypatch.setattr(loop, "_loss", lambda state, *arguments, **more: right(state, *arguments, **more) * (
        torch.nan if state.epoch == epoch else 1))
    phase = "float" if epoch < 2 else "quantized"
    code, out, err = call(*FIT)
    assert (code, out) == (2, "") and err.splitlines()[-1] == (
        f"error: the loss of epoch {epoch + 1} must be a finite number, not nan: the training has diverged; take a lower "
        f"training.{phase}_rate than {0.02 if epoch < 2 else 0.01} in a new run")
    assert len(Path("runs/tiny/metrics.jsonl").read_text().splitlines()) == epoch


def test_unfinished_runs_are_not_exported(call, monkeypatch):
    interrupt_at(monkeypatch, 1)
    call(*FIT)
    assert call("export", "--run", "runs/tiny", "--out", "tiny.npz") == (
        2, "", ("error: runs/tiny has done 1 of 4 epochs; finish it with: python -m lutq_train fit --out runs/tiny "
               "--resume\n"))
    assert not Path("tiny.npz").exists()


def test_a_wrong_export_is_refused(call, monkeypatch):
    call(*FIT)
    right = golden_fast.FastNetwork.run
    monkeypatch.setattr(golden_fast.FastNetwork, "run", lambda self, codes: {
        name: values + (name == "output") for name, values in right(self, codes).items()})
    code, out, err = call("export", "--run", "runs/tiny", "--out", "tiny.npz")
    assert (code, out) == (1, "")
    assert err == ("error: integer model == torch model on 0/200 samples, ties 0, and 200 samples differ without one; "
                   "nothing was written\n")
    assert not Path("tiny.npz").exists()
    assert call("export", "--run", "runs/tiny", "--out", "tiny.npz", "--no-verify")[0] == 0
    assert "accuracy" not in modelfile.load("tiny.npz").info


@pytest.mark.parametrize("arguments, text", [
    (("fit", "--out", "x"), f"--recipe is missing; choose one of {RECIPES}, or the path of a .toml file"),
    (("fit", "--recipe", "nothing", "--out", "x"),
     f"recipe 'nothing' does not exist; choose one of {RECIPES}, or give the path of a .toml file"),
    (("fit", "--resume", "--out", "x"), ("x must be a run folder with a checkpoint.pt; make one with: "
                                        "python -m lutq_train fit --recipe NAME --out x")),
    (("fit", "--recipe", "tiny.toml", "--out", "."), ". must be new, empty or a run folder, but it holds tiny.toml"),
    (("fit", "--recipe", "tiny.toml", "--out", "tiny.toml"), "tiny.toml cannot be made a run folder: File exists"),
    (("fit", "--recipe", "tiny.toml", "--out", "x", "--set", "training.holdout=300"),
     "training.holdout must leave images to train on, not keep 300 of 300"),
    (("fit", "--recipe", "tiny.toml", "--out", "x", "--set", "model.kernels=[9]"),
     "model.kernels[0] must fit its input, not leave a map of 0 x 0"),
    (("fit", "--recipe", "tiny.toml", "--out", "x", "--set", "start=weights.npz"),
     ("start must be a file of weights, as it stands or in the data folder, and weights.npz is not; give the folder that "
      "holds it with --data or in LUTQ_DATA")),
    (("fit", "--recipe", "tiny.toml", "--out", "x", "--set", "start=tiny.toml"), None),
    (("fit", "--recipe", "tiny.toml", "--out", "x", "--set", "dataset=nothing"), None),
    (("fit", "--recipe", "tiny.toml", "--out", "x", "--set", "pruning.ratio=2"),
     "tiny.toml: pruning.ratio must be from 0 to 0.999, not 2.0"),
    (("fit", "--recipe", "tiny.toml", "--out", "x", "--set", "layers.conv2.entries=3"),
     "override 'conv2' must fit a layer; the layers are conv1, fc1, scores"),
    (("fit", "--recipe", "tiny.toml", "--out", "x", "--coding", "huffman"),
     "--coding is for the file that --export names; give that, too"),
    (("fit", "--recipe", "tiny.toml", "--out", "x", "--export", "model.onnx"),
     "--export must name a .npz file, not model.onnx"),
    (("sizes", "--model", "tiny.toml"), None),
    (("export", "--run", "x", "--out", "y.npz"), ("x must be a run folder with a checkpoint.pt; make one with: "
                                                 "python -m lutq_train fit --recipe NAME --out x")),
])
def test_mistakes(call, arguments, text, monkeypatch):
    monkeypatch.delenv("LUTQ_DATA", raising=False)
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    assert text is None or err == f"error: {text}\n"
    assert not Path("x").exists() or not list(Path("x").iterdir())


def test_mistakes_with_a_run(call, tiny_data, monkeypatch):
    call(*FIT)
    changed = (*FIT, "--set", "training.float_epochs=3")
    assert call(*changed) == (2, "", ("error: runs/tiny holds a run of another recipe (training.float_epochs is 2, not "
                                      "3); choose another --out, or leave out --recipe and --set to go on with this "
                                      "one\n"))
    assert call(*FIT, "--resume") == (2, "", ("error: --resume goes on with the recipe in the run folder; leave out "
                                             "--recipe and --set\n"))
    assert call("export", "--run", "runs/tiny", "--out", "model.onnx") == (
        2, "", "error: --out must name a .npz file, not model.onnx\n")
    assert call("export", "--run", "runs/tiny", "--out", "no/model.npz") == (
        2, "", "error: --out must lie in a folder that exists, and no does not\n")
    checkpoint = Path("runs/tiny/checkpoint.pt")
    whole = checkpoint.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\x80\x04K\x01."):
        checkpoint.write_bytes(damaged)
        code, out, err = call("export", "--run", "runs/tiny", "--out", "model.npz")
        assert (code, out) == (2, "") and err.startswith("error: runs/tiny/checkpoint.pt ") and err.count("\n") == 1
    checkpoint.write_bytes(whole)
    content = torch.load(checkpoint, weights_only=True)
    for key, value in (("recipe", 1), ("epoch", "4"), ("metrics", None), ("model", []), ("optimizer", None)):
        torch.save(content | {key: value}, checkpoint)
        assert call("fit", "--out", "runs/tiny", "--resume") == (
            2, "", (f"error: runs/tiny/checkpoint.pt must hold {key} as fit writes it; this one is damaged: remove the "
                    "folder and start again\n"))
    content["model"].pop("fc1.parametrizations.weight.original")
    torch.save(content, checkpoint)
    assert call("fit", "--out", "runs/tiny", "--resume") == (
        2, "", ("error: runs/tiny/checkpoint.pt does not fit its recipe: Error(s) in loading state_dict for "
                'QuantizedSequential: Missing key(s) in state_dict: "fc1.parametrizations.weight.original"\n'))
    checkpoint.write_bytes(whole)
    tiny_data.test_labels[0] ^= 1
    tiny_data.__dict__.pop("digest", None)
    assert call("evaluate", "--run", "runs/tiny") == (
        2, "", "error: runs/tiny was trained on other tiny data than --data holds; give the data it began with\n")


def test_help_teaches(capsys):
    for arguments, words in ((["--help"], "examples:"), (["fit", "--help"], "training.float_epochs"),
                             (["export", "--help"], "folded exactly")):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 0 and words in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 2


def test_learning_rate_warms_up_and_falls_to_zero():
    assert loop.rate(0, 2.0) == 0 and loop.rate(1, 2.0) == 0
    assert loop.rate(0.025, 2.0) == 1 and 1.9 < loop.rate(0.06, 2.0) < 2


def test_digits_interrupted_by_a_signal_resumed_and_exported(tmp_path, capsys):
    """The real thing on the real data: SIGINT, no traceback, resume, export, integer model equal on all test images."""
    folder, model = str(tmp_path / "run"), str(tmp_path / "digits.npz")
    fit = [sys.executable, "-m", "lutq_train", "fit", "--recipe", "digits", "--out", folder,
           "--set", "training.float_epochs=12", "--set", "training.quantized_epochs=8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(fit, cwd=Path(cli.__file__).parents[1], env=environment, stderr=subprocess.PIPE,
                          text=True) as process:
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert first.startswith("epoch 1/20") and process.returncode == 1
    assert "Traceback" not in rest and rest.endswith(f"fit --out {folder} --resume\n")

    assert cli.main(["fit", "--out", folder, "--resume", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert cli.main(["export", "--run", folder, "--out", model, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["samples"], result["exact"]) == (360, True) and result["equal"] + result["tied_samples"] >= 360
    assert result["accuracy"] == trained["quantized_accuracy"] >= 0.94
    digits, network = datasets.load("digits"), modelfile.load(model)
    scores = golden.evaluate(network, digits.test_images)
    assert golden.accuracy(network, scores, digits.test_labels) == result["accuracy"]


def test_a_reader_that_leaves():
    read, write = os.pipe()
    os.close(read)
    root = Path(cli.__file__).parents[1]
    done = subprocess.run([sys.executable, "-m", "lutq_train", "sizes", "--model", str(root / "examples" / "digits.npz")],
                          cwd=root, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
