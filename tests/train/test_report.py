"""Reports of runs and logs for TensorBoard: what is read from run folders, what is shown, and what is refused."""

import base64
import importlib.util
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lutq_hw.errors import InputError
from lutq_train import cli, recipe, report, tensorboard
from lutq_train.report import page, plots
from lutq_train.report.tracks import tracks


def layer(dictionary, usage):
    share = np.array(usage) / sum(usage)
    return {"entropy": round(float(-(share * np.log2(share)).sum()), 4), "dictionary": dictionary, "usage": usage}


def epochs(floats=2, quantized=3, *, wanted=3, held=True, kept=False):
    """Metrics as fit writes them: test accuracy at the ends of the float epochs and of ``wanted`` quantised ones."""
    entries = []
    for number in range(1, floats + quantized + 1):
        entry = {"epoch": number, "phase": "float" if number <= floats else "quantized", "loss": 1 / number}
        if held:
            entry["held_out_accuracy"] = (90 + number) / 100
        if number in (floats, floats + wanted):
            entry["test_accuracy"] = 0.97 if number == floats else 0.955
        if kept:
            entry["kept"] = 1 - 0.1 * number
        if number > floats:
            two, three = layer([-0.25, 0.25], [24, 8]), layer([-0.3, 0.0, 0.3], [8, 8, 16])
            entry["layers"] = {"conv1": layer([-0.5, 0.0, 0.25, 0.5], [8, 16, 4, 4]),
                               "fc": two if number < 5 else three}
        entries.append(entry | {"seconds": 0.5})
    return entries


@pytest.fixture
def make(tmp_path):
    """``make("a/run", entries, "seed=3")``: a run folder of the digits recipe, 2 float and 3 quantised epochs."""

    def make_run(name, entries, *overrides):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        plan = recipe.load("digits", ("training.float_epochs=2", "training.quantized_epochs=3", "weights.entries=4",
                                      *overrides))
        (folder / "recipe.toml").write_text(recipe.dumps(plan))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return folder

    return make_run


def test_what_a_run_says(make):
    run, = report.read([make("run", epochs(), "seed=7", "layers.fc.activation_bits=8")])
    entropies = [1.75, 1.5]
    assert run.finished and run.levels == {"conv1": 4, "fc": 4}
    assert run.row() == {
        "run": "run", "recipe": "digits", "dataset": "digits", "network": "cnn", "weights": "lutq power_of_two",
        "activations": "lsq", "weight_levels": [4], "activation_bits": [4, 8], "float_accuracy": 0.97,
        "quantized_accuracy": 0.955, "held_out_accuracy": 0.95, "kept": None, "entropy": sum(entropies) / 2,
        "epochs": 5, "epochs_planned": 5, "seconds": 2.5, "seed": 7}


@pytest.mark.parametrize("pattern, expected", [
    ("first", {"conv1": 9, "fc": 4}), ("last", {"conv1": 4, "fc": 9}), ("conv*", {"conv1": 9, "fc": 4})])
def test_levels_of_layers_with_options_of_their_own(make, pattern, expected):
    run, = report.read([make("run", epochs(), f'layers.{pattern}={{weight_levels = 9}}')])
    assert run.levels == expected and run.row()["weight_levels"] == [4, 9]


def test_labels_are_as_short_as_tells_apart(make):
    folders = [make(name, epochs()) for name in ("x/a/run", "x/b/run", "y/b/run", "other")]
    assert [run.label for run in report.read([*folders, folders[0]])] == ["a/run", "x/b/run", "y/b/run", "other"]


def test_what_only_the_checkpoint_knows(make):
    metrics = epochs(floats=0, quantized=3)
    for entry in metrics:
        del entry["layers"]["fc"]["dictionary"], entry["layers"]["fc"]["usage"]  # more than 32 values
    folder = make("run", metrics, "training.float_epochs=0", "start=weights.npz")
    run, = report.read([folder])
    assert run.float_accuracy is None and run.entropy is None
    content = {"model": {"conv1.parametrizations.weight.original": torch.zeros(4, 2, 2, 2),
                         "norm.weight": torch.zeros(4),
                         "fc.parametrizations.weight.original": torch.zeros(12, 8)}, "start_accuracy": 0.91}
    torch.save(content, folder / "checkpoint.pt")
    run, = report.read([folder])
    assert run.float_accuracy == 0.91 and run.entropy == pytest.approx(1.75 / 4 + 3 * metrics[-1]["layers"]["fc"][
        "entropy"] / 4)
    (folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    assert report.read([folder])[0].float_accuracy is None


@pytest.mark.parametrize("rows, expected", [
    ([[-1, 1], [-1.5, 2]], [[-1, 1], [-1.5, 2]]),
    ([[-1, 0, 1], [-1, 1], [-1, 0, 1]], [[-1, 0, 1], [-1, math.nan, 1], [-1, 0, 1]]),
    ([[0, 1], None, [0.1, 1.1]], [[0, 1], [math.nan] * 2, [0.1, 1.1]]),
    ([[1], [0.2, 1.1, 3]], [[math.nan, 1, math.nan], [0.2, 1.1, 3]]),
    ([[0, 1, 2, 4], [0.9, 4.2], [0, 1, 2, 4]], [[0, 1, 2, 4], [math.nan, 0.9, math.nan, 4.2], [0, 1, 2, 4]]),
    ([[-2, -1, 0, 2], [-2, 0, 1, 2]], [[-2, 0, -1, 2], [-2, 0, 1, 2]]),  # one entry went from -1 to 1
    ([], np.zeros((0, 0))), ([None], np.zeros((1, 0)))])
def test_entries_keep_their_lines(rows, expected):
    np.testing.assert_array_equal(tracks(rows), expected)


@pytest.mark.parametrize("seed", range(5))
def test_every_value_is_on_exactly_one_line(seed):
    rng = np.random.default_rng(seed)
    rows = [sorted(rng.choice(12, rng.integers(1, 9), replace=False).tolist()) for _ in range(40)]
    found = tracks(rows)
    assert found.shape == (40, max(map(len, rows)))
    for line, row in zip(found, rows, strict=True):
        assert sorted(line[np.isfinite(line)].tolist()) == row


def pictures(page):
    return [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]


def test_page_of_many_runs(make, tmp_path):
    folders = [make("a/<run> & $x", epochs(), "seed=7"), make("b/<run> & $x", epochs(quantized=1, kept=True)),
               make("c", epochs(quantized=0)), make("d", epochs(), "dataset=mnist", "weights.constraint=free")]
    out = tmp_path / "deep" / "out"
    assert cli.main(["report", *map(str, folders), "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert sorted(path.name for path in out.iterdir()) == sorted([
        "report.html", "accuracy.png", "c-curves.png",
        *(f"{stem}-{kind}.png" for stem in ("a-run-x", "b-run-x", "d")
          for kind in ("curves", "entropy", "dictionaries", "usage"))])
    shown = pictures(page)
    assert all(content.startswith(b"\x89PNG") for content in shown)
    assert sorted(shown) == sorted(path.read_bytes() for path in out.glob("*.png"))
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "http" not in page and "<script" not in page
    assert "a/&lt;run&gt; &amp; $x" in page and "<run>" not in page
    assert "95.50 %" in page and "1 of 5" not in page and "3 of 5" in page and "unfinished: 2 of 5 epochs" in page
    assert "No quantised epoch yet" in page and "Not shown, because they are not finished" in page


def test_result_as_json(make, tmp_path, capsys):
    folder = make("run", epochs())
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["report"] == str(tmp_path / "out" / "report.html")
    assert [row["quantized_accuracy"] for row in result["runs"]] == [0.955]


def test_runs_that_are_hard_to_draw(make, tmp_path):
    diverged = [entry | {"loss": math.nan if entry["epoch"] < 5 else math.inf} for entry in epochs(held=False)]
    wide = epochs()
    for entry in wide:
        for name, found in entry.get("layers", {}).items():
            entry["layers"][name] = {"entropy": found["entropy"]}
    single = epochs(floats=0, quantized=1, wanted=1, held=False)
    single[0]["layers"] = {"fc": layer([0.0], [7])}
    names = {"diverged": diverged, "wide": wide, "single": single}
    page = report.write(report.read([make(name, entries) for name, entries in names.items()]), tmp_path / "out")
    assert "Dictionaries of more than 32 values are not kept in the metrics: conv1, fc." in page.read_text()


LACKS = ("{run} must be a run folder with recipe.toml and metrics.jsonl, but it has no {file}; make one with: "
         "python -m lutq_train fit --recipe NAME --out {run}")
EMPTY = "{run} has no finished epoch yet, so there is nothing to report; wait for one, or leave the run out"
LINE = "{run}/{file}, line 1: must be an epoch as fit writes it, with epoch, phase, loss, seconds, not "


@pytest.mark.parametrize("file, content, message", [
    ("recipe.toml", None, LACKS),
    ("metrics.jsonl", None, LACKS),
    ("metrics.jsonl", "", EMPTY),
    ("metrics.jsonl", '{"epoch": 1}\n', LINE + "'{{\"epoch\": 1}}'"),
    ("metrics.jsonl", "[1, 2]\n", LINE + "'[1, 2]'"),
    ("metrics.jsonl", "\x00", LINE + "'\\x00'"),
    ("metrics.jsonl", '{"layers": {"fc": {}}, "epoch": 1, "phase": "quantized", "loss": 1, "seconds": 1}\n',
     LINE + """'{{"layers": {{"fc": {{}}}}, "epoch": 1, "phas'"""),
    ("recipe.toml", "seed = ", "{run}/recipe.toml cannot be read: Invalid value (at end of document)"),
    ("recipe.toml", "sed = 1", "{run}/recipe.toml: key sed is unknown; the keys here are "
                               + ", ".join(recipe.Recipe.__dataclass_fields__))])
def test_runs_that_cannot_be_reported(make, capsys, tmp_path, file, content, message):
    folder = make("run", epochs())
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {message.format(run=folder, file=file)}\n"
    assert not (tmp_path / "out").exists()


def test_out_must_be_a_folder(make, tmp_path):
    runs = report.read([make("run", epochs())])
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match=f"^--out must be a folder to write the report into, and {file} is a file$"):
        report.write(runs, file)
    with pytest.raises(InputError, match=f"^--out must be a folder, and {file}/out cannot be made: Not a directory$"):
        report.write(runs, file / "out")


def test_other_commands_do_not_wait_for_matplotlib():
    code = ("import sys, lutq_train.cli; "
            "print(*(name for name in ('matplotlib', 'tensorboard', 'lutq_train.report') if name in sys.modules))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_without_matplotlib(monkeypatch, make, tmp_path, capsys):
    for name in [name for name in sys.modules if name.startswith("lutq_train.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("lutq_train.report")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["report", str(make("run", epochs())), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == ("error: the report needs the package matplotlib, which is not installed; "
                                       "install it with: pip install 'lutq[train]'\n")


FIT = ["fit", "--recipe", "digits", "--set", "training.float_epochs=1", "--set", "training.quantized_epochs=2",
       "--set", "training.holdout=100"]


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import HISTOGRAMS, EventAccumulator

    log = EventAccumulator(str(folder), size_guidance={HISTOGRAMS: 0})
    log.Reload()
    return log


def test_tensorboard_shows_every_epoch(tmp_path):
    out, logs = tmp_path / "run", tmp_path / "deep" / "logs"
    assert cli.main([*FIT, "--out", str(out), "--tensorboard", str(logs)]) == 0
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for _ in range(2):
        log = events(logs)
        assert sorted(log.Tags()["scalars"]) == ["accuracy/held_out", "accuracy/test", "entropy/conv1", "entropy/conv2",
                                                 "entropy/scores", "loss"]
        assert [(event.step, event.value) for event in log.Scalars("loss")] == [
            (entry["epoch"], pytest.approx(entry["loss"])) for entry in metrics]
        assert [event.step for event in log.Scalars("accuracy/test")] == [1, 3]
        assert [event.step for event in log.Histograms("dictionary/conv2")] == [2, 3]
        # The finished run again: what was logged comes once more and replaces the first.
        assert cli.main(["fit", "--out", str(out), "--tensorboard", str(logs)]) == 0
    assert len(list(logs.iterdir())) == 3


def test_histogram_has_one_bucket_for_each_entry(tmp_path):
    entries = [{"epoch": 1, "phase": "quantized", "loss": 1.0, "kept": 0.25, "layers": {
        "fc": layer([-0.5, 0.0, 1.0], [1, 2, 5]), "one": {"entropy": 0.0, "dictionary": [0.5], "usage": [3]},
        "wide": {"entropy": 5.5}}}]
    with tensorboard.writing(tmp_path, entries):
        pass
    log = events(tmp_path)
    found = log.Histograms("dictionary/fc")[0].histogram_value
    assert (found.min, found.max, found.num, found.sum, found.sum_squares) == (-0.5, 1.0, 8, 4.5, 5.25)
    assert found.bucket_limit == [-0.25, 0.5, 1.5] and found.bucket == [1, 2, 5]
    assert log.Histograms("dictionary/one")[0].histogram_value.bucket_limit == [1.0]
    assert log.Scalars("entropy/wide")[0].value == 5.5 and log.Scalars("kept")[0].value == 0.25
    assert log.Tags()["histograms"] == ["dictionary/fc", "dictionary/one"]


def test_tensorboard_that_is_not_installed(tmp_path, monkeypatch, capsys):
    assert importlib.util.find_spec("tensorboard") is not None  # it is among the packages for tests
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert cli.main([*FIT, "--out", str(tmp_path / "run"), "--tensorboard", str(tmp_path / "logs")]) == 2
    assert capsys.readouterr().err == ("error: --tensorboard needs the package tensorboard, which is not installed; "
                                       "install it with: pip install 'lutq[tensorboard]'\n")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_folder_that_is_a_file(tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    assert cli.main([*FIT, "--out", str(tmp_path / "run"), "--tensorboard", str(file)]) == 2
    assert capsys.readouterr().err == f"error: --tensorboard must be a folder, and {file} cannot be made: File exists\n"
    assert not Path(tmp_path / "run").exists()


def test_methods_side_by_side(make, tmp_path):
    runs = report.read([make("a", epochs()), make("b", epochs())])
    plan = replace(runs[1].recipe, weights=recipe.WEIGHTS["syq"]())
    runs[1] = replace(runs[1], recipe=plan)
    assert runs[1].levels == {"conv1": 3, "fc": 3} and runs[1].row()["weights"] == "syq channel"
    assert report.write(runs, tmp_path / "out").read_text().count("<img") == 9


def test_names_of_near_points_do_not_lie_upon_each_other():
    axes = Figure().subplots()
    axes.set(xlim=(0, 4), ylim=(0.9, 1))
    plots._names(axes, [(2, 0.95, "one"), (2, 0.95, "two"), (1.99, 0.951, "three"), (3.5, 0.95, "far")])
    heights = {text.get_text(): text.get_position()[1] + plots.NAME_POINTS * (text.xy[1] - 0.9) / 0.1
               for text in axes.texts}
    near = sorted(heights.pop(name) for name in ("one", "two", "three"))
    assert min(b - a for a, b in pairwise(near)) >= 0.99 * plots.NAME[1] * plots.NAME_POINTS
    assert heights["far"] == pytest.approx(0.5 * plots.NAME_POINTS)  # nothing in its way


def test_the_page_has_a_dark_form_and_pictures_that_scroll(tmp_path):
    assert "prefers-color-scheme: dark" in page.STYLE and "color-scheme: light dark" in page.STYLE
    element = page._Pictures(tmp_path).add("x", b"png", "a <picture>")
    assert element.startswith('<div class="wide"><img alt="a &lt;picture&gt;"') and element.endswith("</div>")
