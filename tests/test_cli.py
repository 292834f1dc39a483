"""The frame of the command line: commands found by file, one line for a mistake, quick help, tidy output."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from lutq_hw import cli, modelfile
from lutq_hw.errors import InputError, LutqError, ModelError, PlanError, ToolError
from lutq_hw.network import Codebook, Dense, Flatten, Input, Network, Output, Shift, TensorType
from lutq_hw.progress import SILENT, TextProgress
from lutq_hw.table import bar, table

ROOT = Path(__file__).parents[1]


def lutq(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "lutq_hw", *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False, **options)  # type: ignore[call-overload]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = Network("small", (
        Input("image", TensorType((2, 2, 1), 4), np.arange(256) >> 4),
        Flatten("flat", "image"),
        Dense("fc", "flat", Codebook([[0, 1, 2, 2], [2, 2, 1, 0]], [-1, 0, 2]), [1, -1], Shift(1, 4, signed=True)),
        Output("class", "fc", "argmax"),
    ), {"accuracy": 0.5, "recipe": "by hand"})
    modelfile.save(network, tmp_path / "m.npz")
    return tmp_path / "m.npz"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (20, 2, 2)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels, labels=np.arange(20) % 2)
    return tmp_path / "images.npz"


# --- the frame


def test_every_command_follows_the_convention() -> None:
    names = cli.commands()
    assert {"golden", "show"} <= set(names)
    cli.parser(names)
    for name in names:
        module = sys.modules[f"lutq_hw.cli.{name}"]
        assert module.HELP and module.HELP[0].islower() and not module.HELP.endswith("."), name
        assert module.__doc__ and f"python -m lutq_hw {name}" in module.__doc__, name


def test_help_is_quick_and_teaches() -> None:
    def processor_seconds() -> float:  # not the clock on the wall, which other processes move too
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    begin = processor_seconds()
    done = lutq("--help")
    assert done.returncode == 0 and "show a network" in done.stdout
    assert processor_seconds() - begin < 0.5
    text = lutq("golden", "--help").stdout
    assert "--images FILE" in text and "python -m lutq_hw golden --model" in text


def test_listing_the_commands_imports_nothing_heavy() -> None:
    code = ("import sys, lutq_hw.cli as cli; cli.parser(cli.commands()); "
            "print({'numpy', 'amaranth', 'torch', 'cocotb', 'serial'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.stdout == "set()\n", done.stderr


def test_version_and_usage() -> None:
    assert lutq("--version").stdout == "lutq 0.1.0\n"
    for arguments in ((), ("nonsense",), ("show",), ("golden", "--model", "x", "--images", "y", "--count", "0")):
        done = lutq(*arguments)
        assert done.returncode == 2 and "error:" in done.stderr and "Traceback" not in done.stderr
    assert "argument --count: must be a positive integer, not '0'" in done.stderr


def command(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let ``show`` raise ``error``."""
    def fail(_: object) -> int:
        raise error

    module = types.SimpleNamespace(HELP="x", __doc__="x", configure=lambda parser: None, run=fail)
    monkeypatch.setattr(cli, "import_module", lambda name: module)


@pytest.mark.parametrize("error, status, line", [
    (InputError("images must be there"), 2, "lutq: images must be there\n"), (ModelError("a"), 2, "lutq: a\n"),
    (PlanError("b"), 2, "lutq: b\n"), (LutqError("c"), 2, "lutq: c\n"),
    (ToolError("yosys: exit 3"), 1, "lutq: yosys: exit 3\n"),
    (KeyboardInterrupt(), 130, "lutq: interrupted\n"),
])
def test_mistakes_are_one_line(error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    command(monkeypatch, error)
    assert cli.main(["show"]) == status
    assert capsys.readouterr() == ("", line)


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["show"])


def test_a_reader_that_leaves(model: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "lutq_hw", "show", "--model", str(model)], cwd=ROOT, stdout=write,
                          stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


# --- show


SHOWN = """\
small
digest {digest}
file of {size:,} bytes, format version 1

layer  kind     window  output    weights  MACs  K  bits/weight  entropy  coding  bytes  acc bits  step
-----  -------  ------  --------  -------  ----  -  -----------  -------  ------  -----  --------  -------
image  input            2x2x1 u4
flat   flatten          4 u4
fc     dense            2 s4            8     8  3            2     1.50  raw         8         7  shift 1
class  output           1 u1
-----  -------  ------  --------  -------  ----  -  -----------  -------  ------  -----  --------  -------
total                                   8     8            2.00     1.50              8

fc: dictionary -1 0 2
  -1  2   25.0 %  ####################
   0  2   25.0 %  ####################
   2  4   50.0 %  ########################################

info
  accuracy: 0.5
  recipe: "by hand"
"""


def test_show_as_text(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "--model", str(model)]) == 0
    assert capsys.readouterr() == (
        SHOWN.format(digest=modelfile.load(model).digest, size=model.stat().st_size), "")


def test_show_as_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "--json", "--model", str(model)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["weights"], shown["macs"], shown["entropy"]) == ("small", 8, 8, 1.5)
    assert shown["info"] == {"accuracy": 0.5, "recipe": "by hand"}
    dense = shown["layers"][2]
    assert (shown["file_bytes"], shown["version"]) == (model.stat().st_size, 1)
    assert (dense["coding"], dense["index_bytes"]) == ("raw", 8)
    assert dense["dictionary"] == [[-1, 0, 2]] and dense["usage"] == [2, 2, 4] and dense["accumulator_bits"] == 7


def test_show_has_every_kind_of_node(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(ROOT / "tests" / "data" / "model_v1_all.npz")
    assert cli.main(["show", "--model", path, "--histogram"]) == 0
    text = capsys.readouterr().out
    for piece in ("3x2 s2x1 p1x0", "2x2 p0x1 g4", "2x3 s1x2 p1", "3 thresholds, 2 channels descending",
                  "hidden: product table 1x4x3 (subgroups x levels x entries)", "(subgroup 0 of 2)"):
        assert piece in text
    assert cli.main(["show", "--model", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][5]["table"] == [1, 4, 3]


def test_show_draws_small_dictionaries_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = Network("wide", (Input("image", TensorType((40,), 1)),
                               Dense("fc", "image", Codebook([range(40)], range(40))), Output("out", "fc")))
    modelfile.save(network, tmp_path / "m.npz")
    cli.main(["show", "--model", str(tmp_path / "m.npz")])
    assert "#" not in capsys.readouterr().out
    cli.main(["show", "--model", str(tmp_path / "m.npz"), "--histogram"])
    assert capsys.readouterr().out.count("2.5 %") == 40


def test_show_of_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.npz").write_text("hello, this is not a model file")
    done = lutq("show", "--model", str(tmp_path / "m.npz"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"lutq: {tmp_path}/m.npz: must be a .npz archive (its end is missing or damaged)\n"


# --- golden


def test_golden_reports_the_accuracy(model: Path, images: Path, tmp_path: Path,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    base = ["golden", "--model", str(model), "--images", str(images), "--json"]
    assert cli.main([*base, "--output", str(tmp_path / "o.npy")]) == 0
    fast = json.loads(capsys.readouterr().out)
    assert cli.main([*base, "--exact", "--output", str(tmp_path / "e.npy")]) == 0
    exact = json.loads(capsys.readouterr().out)
    output = np.load(tmp_path / "o.npy")
    assert output.shape == (20, 1) and (output == np.load(tmp_path / "e.npy")).all()
    right = int((output[:, 0] == np.arange(20) % 2).sum())
    for report in (fast, exact):
        assert (report["images"], report["available"], report["correct"]) == (20, 20, right)
        assert report["accuracy"] == right / 20 and report["digest"] == modelfile.load(model).digest


def test_golden_as_text(model: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["golden", "--model", str(model), "--images", str(images), "--count", "30", "--layers"]) == 0
    out, err = capsys.readouterr()
    assert "the file holds 20 images, fewer than --count 30\n" in out and "accuracy " in out
    assert "layer  type      min  max" in out and out.count("\nflat ") == 1
    assert err.startswith("golden ...\ngolden: 20 images, ")


def test_golden_uses_the_first_images(model: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["golden", "--model", str(model), "--images", str(images), "--count", "3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["available"]) == (3, 20)


def test_golden_refuses_wrong_images(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "i.npy", np.zeros((5, 3, 3), np.uint8))
    assert cli.main(["golden", "--model", str(model), "--images", str(tmp_path / "i.npy")]) == 2
    sentence = "images must be 2x2x1 like the input of the network, not 3x3x1"
    assert capsys.readouterr() == ("", f"lutq: {tmp_path}/i.npy: {sentence}\n")


def test_golden_says_where_it_cannot_write(model: Path, images: Path, tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "no" / "o.npy"
    assert cli.main(["golden", "--model", str(model), "--images", str(images), "--output", str(target)]) == 2
    assert capsys.readouterr().err.endswith(f"lutq: {target}: cannot be written (No such file or directory)\n")


# --- tables and progress


def test_table_aligns_numbers_to_the_right() -> None:
    assert table(["name", "count", "share", "note"], [["a", 1234567, "5.0 %", "x"], ["long name", 1, "12.5 %", None]],
                 ["total", 1234568, None, None]) == (
        "name           count   share  note\n"
        "---------  ---------  ------  ----\n"
        "a          1,234,567   5.0 %  x\n"
        "long name          1  12.5 %\n"
        "---------  ---------  ------  ----\n"
        "total      1,234,568")


def test_table_of_other_cells() -> None:
    assert table(["x", "y"], [[0.123456, "-"], [12345.6, 3]]) == (
        "        x  y\n---------  -\n   0.1235  -\n1.235e+04  3")
    assert table(["only", "header"], []) == "only  header\n----  ------"
    assert table(["flag"], [[True], ["7x7"]]) == "flag\n----\nTrue\n7x7"
    with pytest.raises(ValueError, match=r"^row must have 2 cells like the header, not 1$"):
        table(["a", "b"], [["c"]])


def test_bars() -> None:
    assert [bar(value, 10, 20) for value in (0, 0.01, 5, 10)] == ["", "#", "#" * 10, "#" * 20]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.05, 1.0, 2.0, 2.0])
    monkeypatch.setattr("lutq_hw.progress.time.monotonic", lambda: next(clock))
    stream = Terminal()
    with TextProgress(stream).stage("evaluate", 1000, "images") as stage:
        stage.update(100)  # too soon to be worth showing
        stage.update(250)
        stage.note = "all well"
    line = "evaluate: 250 of 1,000 images, 3 s left"
    assert stream.getvalue() == (
        f"\revaluate ...\r{line}\r" + "evaluate: all well, 2.0 s".ljust(len(line)) + "\n")


def test_progress_elsewhere_is_two_lines() -> None:
    stream = io.StringIO()
    with TextProgress(stream).stage("route") as stage:
        stage.update(5)
    assert stream.getvalue() == "route ...\nroute: done, 0.0 s\n"
    with pytest.raises(ZeroDivisionError), TextProgress(stream).stage("place"):
        raise ZeroDivisionError
    assert stream.getvalue().endswith("place ...\nplace: stopped, 0.0 s\n")


def test_silent_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with SILENT.stage("anything", 5) as stage:
        stage.update(1)
    assert capsys.readouterr() == ("", "")


def test_terminated_like_interrupted():
    """`kill` and `timeout` let a command clean up, as Ctrl-C does."""
    code = ("import sys, time, lutq_hw.cli as cli, lutq_hw.cli.show as show\n"
            "def run(args):\n    print('running', flush=True)\n    time.sleep(60)\n"
            "show.run = run\nsys.exit(cli.main(['show', '--model', 'x.npz']))")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert errors == "lutq: interrupted\n"
    assert process.returncode == 130
