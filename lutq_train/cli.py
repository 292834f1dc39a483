"""``python -m lutq_train COMMAND``: exit 0 when done, 1 if interrupted or not exact, 2 on bad input."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from lutq_hw import modelfile
from lutq_hw.cli import reader_left
from lutq_hw.coded import CODINGS
from lutq_hw.errors import InputError, LutqError
from lutq_hw.network import Network

from . import compression, datasets, distributed, loop, recipe, run, table, tensorboard, verify
from .export import network as to_network
from .terminal import Progress, counting

EXAMPLES = """examples:
  python -m lutq_train fit --recipe digits --out runs/digits
  python -m lutq_train fit --recipe mnist_cnn --data DIR --out runs/mnist --set training.quantized_epochs=10
  python -m lutq_train export --run runs/mnist --data DIR --out trained.npz
  python -m lutq_train report runs/* --out report
"""

FIT = """Train a recipe: float epochs, pruned ones if it has them, then epochs with dictionaries and few activation levels.

Press Ctrl-C to interrupt; the same command (or --resume) goes on after the last finished epoch and ends with exactly
the weights of an uninterrupted run. The run folder holds recipe.toml, run.json, metrics.jsonl and checkpoint.pt."""

EXPORT = """Write a finished run as an integer model file (.npz) for lutq_hw.

Batch norm and all scales are folded exactly into integer thresholds. The integer model is then evaluated on the whole
test set and compared with the quantised torch model, score by score; ties that floats cannot decide are counted."""

SIZES = """Print how small a model file is: as Choi, El-Khamy and Lee count it, as tables, and in bytes.

Huffman-coded indices, codebooks, code tables, positions of kept weights and all parameters outside codebooks count
(docs of lutq_train.compression). Product tables are those of table-based units; without a multiplication means that
every layer is a table, or has powers of two only."""

EVALUATE = """Compare the integer model of a finished run with the torch model on the whole test set; writes nothing."""

REPORT = """Write an HTML page about one run or many, with curves, dictionaries and a table, and its pictures as PNG files.

Runs may be unfinished. The page is report.html; it contains its pictures and needs nothing else."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = parser().parse_args(arguments)
    try:
        distributed.begin()
        status = options.command(options)
        sys.stdout.flush()
        return status
    except LutqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written in part, the same command starts again", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return reader_left()
    finally:
        distributed.end()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m lutq_train", description="Train networks with small dictionaries and export them as integers.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, call: Any, text: str, epilog: str, *, data: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text.splitlines()[0], description=text, epilog=epilog,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.set_defaults(command=call)
        if data:
            sub.add_argument("--data", metavar="DIR", help="folder with the data set's files, or its parent; default: "
                             "$LUTQ_DATA (digits needs none)")
        sub.add_argument("--json", action="store_true", help="print the result as one JSON object on standard output")
        return sub

    keys = textwrap.fill(", ".join(recipe.key_names()), width=110, initial_indent="  ", subsequent_indent="  ")
    known = ", ".join(f"{name} (base {base})" if base else name for name, base in recipe.bases().items())
    known = textwrap.fill(known, width=110, initial_indent="  ", subsequent_indent="  ")
    fit_parser = command("fit", fit, FIT, f"recipes:\n{known}\n\nkeys for --set:\n{keys}")
    fit_parser.add_argument("--recipe", metavar="NAME", help="a recipe's name, or the path of a .toml file")
    fit_parser.add_argument("--out", metavar="DIR", required=True, help="run folder, made when absent")
    fit_parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides",
                            help="change a value of the recipe, like training.float_epochs=4; may be repeated")
    fit_parser.add_argument("--resume", action="store_true", help="go on with the run in --out; no --recipe needed")
    fit_parser.add_argument("--export", metavar="FILE", help="then do what export does, into this model file (.npz)")
    fit_parser.add_argument("--coding", choices=CODINGS, default="none", help="of the exported file's assignments")
    fit_parser.add_argument("--tensorboard", metavar="DIR", help="log every epoch for TensorBoard into this folder")
    for name, call, text in (("evaluate", evaluate, EVALUATE), ("export", write, EXPORT)):
        sub = command(name, call, text, "")
        sub.add_argument("--run", metavar="DIR", required=True, help="run folder of a finished fit")
    sub.add_argument("--out", metavar="FILE", required=True, help="model file to write (.npz)")
    sub.add_argument("--coding", choices=CODINGS, default="none", help="of the assignments: huffman makes pruned and "
                     "skewed networks small")
    sub.add_argument("--no-verify", action="store_false", dest="verify",
                     help="do not evaluate the test set; the file then carries no integer accuracy")
    sub = command("sizes", sizes, SIZES, "", data=False)
    sub.add_argument("--model", metavar="FILE", required=True, help="model file (.npz)")
    sub = command("report", page, REPORT, "", data=False)
    sub.add_argument("runs", metavar="RUN", nargs="+", help="run folder of a fit, finished or not")
    sub.add_argument("--out", metavar="DIR", required=True, help="folder for the page and its pictures, made when absent")
    return top


def fit(options: argparse.Namespace) -> int:
    """Train, or go on training."""
    folder = Path(options.out)
    if options.export:
        _check_model_path("--export", Path(options.export))
    elif options.coding != "none":
        raise InputError("--coding is for the file that --export names; give that, too")
    logs = Path(options.tensorboard) if options.tensorboard and not distributed.rank() else None
    if logs is not None:
        tensorboard.check(logs)
    there = distributed.share(run.exists(folder))
    if options.resume or (options.recipe is None and there):
        plan = run.read_recipe(folder)
        if options.recipe or options.overrides:
            raise InputError("--resume goes on with the recipe in the run folder; leave out --recipe and --set")
    elif options.recipe is None:
        raise InputError(f"--recipe is missing; choose one of {', '.join(recipe.names())}, or the path of a .toml file")
    else:
        plan = recipe.load(options.recipe, tuple(options.overrides))
    dataset = datasets.load(plan.dataset, options.data)
    other = datasets.load(plan.data_from, options.data) if plan.data_from else None
    images = loop.Images(dataset, plan, distributed.device(), other)
    state = (run.restore(folder, plan, dataset, other) if there
             else run.create(folder, plan, dataset, options.data, other))
    progress = Progress(state.epochs, quiet=distributed.rank() > 0)
    if state.epoch and not distributed.rank():
        run.write_metrics(folder, state)
        where = "is finished" if state.epoch == state.epochs else f"goes on after epoch {state.epoch} of {state.epochs}"
        print(f"{folder} {where}", file=sys.stderr)
    try:
        with tensorboard.writing(logs, state.metrics) as log:
            while state.epoch < state.epochs:
                loop.run_epoch(state, images, progress.step)
                run.save(folder, state)
                progress.epoch(state.metrics[-1])
                log(state.metrics[-1])
    except KeyboardInterrupt:
        progress.clear()
        again = f" --data {options.data}" if options.data else ""
        print(f"interrupted; {run.epochs_done(folder)} of {state.epochs} epochs are kept. Go on with:\n"
              f"  python -m lutq_train fit --out {folder}{again} --resume", file=sys.stderr)
        return 1
    if distributed.rank():
        return 0
    if not (options.export and options.json):
        _report_fit(options, folder, state)
    if options.export:
        return write(argparse.Namespace(run=options.out, out=options.export, data=options.data, json=options.json,
                                        verify=True, coding=options.coding))
    return 0


def _report_fit(options: argparse.Namespace, folder: Path, state: loop.State) -> None:
    result = {"run": str(folder), "recipe": state.recipe.name, "epochs": state.epoch,
              "float_accuracy": state.float_accuracy, "quantized_accuracy": state.metrics[-1]["test_accuracy"],
              "seconds": round(sum(entry["seconds"] for entry in state.metrics), 2)}
    if options.json:
        print(json.dumps(result))
    else:
        before = "" if result["float_accuracy"] is None else f" (float {result['float_accuracy']:.2%})"
        print(f"{folder}: test accuracy {result['quantized_accuracy']:.2%}{before}, {result['seconds']:.0f} s of "
              "training")


def _finished(options: argparse.Namespace) -> tuple[loop.State, datasets.Dataset]:
    folder = Path(options.run)
    plan = run.read_recipe(folder)
    dataset = datasets.load(plan.dataset, options.data)
    state = run.restore(folder, plan, dataset)
    if state.epoch < state.epochs:
        raise InputError(f"{folder} has done {state.epoch} of {state.epochs} epochs; finish it with: "
                         f"python -m lutq_train fit --out {folder} --resume")
    return state, dataset


def _integer(state: loop.State, dataset: datasets.Dataset, info: dict[str, Any]) -> Network:
    images = loop.Images(dataset, state.recipe)
    example = images.input(images.test[0][:2])
    state.model.cpu()
    return to_network(state.model, example, name=state.recipe.name, codes=images.codes, info=info)


def _compare(state: loop.State, dataset: datasets.Dataset, network: Network) -> verify.Comparison:
    images = loop.Images(dataset, state.recipe)
    pixels, labels = images.test
    with counting(len(pixels)) as count:
        return verify.compare(state.model, network, images.batches(pixels), labels.numpy(), progress=count)


def evaluate(options: argparse.Namespace) -> int:
    """Compare the integer model of a run with its torch model."""
    state, dataset = _finished(options)
    return _report({"run": options.run}, _compare(state, dataset, _integer(state, dataset, {})), options)


def _check_model_path(option: str, path: Path) -> None:
    if path.suffix != ".npz":
        raise InputError(f"{option} must name a .npz file, not {path}")
    if not path.parent.is_dir():
        raise InputError(f"{option} must lie in a folder that exists, and {path.parent} does not")


def write(options: argparse.Namespace) -> int:
    """Write the model file of a run."""
    path = Path(options.out)
    _check_model_path("--out", path)
    state, dataset = _finished(options)
    info = {
        "recipe": state.recipe.name, "recipe_text": recipe.dumps(state.recipe), "seed": state.recipe.seed,
        "dataset": dataset.name, "dataset_sha256": dataset.digest, "float_accuracy": state.float_accuracy,
        "quantized_accuracy": state.metrics[-1]["test_accuracy"],
        "training_seconds": round(sum(entry["seconds"] for entry in state.metrics)),
        "torch": run.facts(Path(options.run))["torch"],
    }
    network = _integer(state, dataset, info)
    comparison = _compare(state, dataset, network) if options.verify else None
    if comparison is not None:
        if not comparison.exact:
            print(f"error: {comparison}, and {comparison.unexplained} samples differ without one; nothing was written",
                  file=sys.stderr)
            return 1
        network = replace(network, info={
            **network.info, "accuracy": comparison.accuracy, "test_images": comparison.samples,
            "test_correct": comparison.correct, "ties": comparison.ties})
    modelfile.save(network, path, coding=options.coding)
    return _report({"run": options.run, "model": options.out, "digest": network.digest}, comparison, options)


def _report(result: dict[str, Any], comparison: verify.Comparison | None, options: argparse.Namespace) -> int:
    if comparison is not None:
        result |= {"accuracy": comparison.accuracy, "samples": comparison.samples, "equal": comparison.equal,
                   "ties": comparison.ties, "tied_samples": comparison.tied_samples, "exact": comparison.exact}
    if options.json:
        print(json.dumps(result))
    else:
        print(result.get("model", result["run"]))
        if comparison is not None:
            print(f"  {comparison}\n  integer accuracy {comparison.accuracy:.2%} "
                  f"({comparison.correct} of {comparison.samples})")
    return 0 if comparison is None or comparison.exact else 1


def sizes(options: argparse.Namespace) -> int:
    """Print how small a model file is."""
    network = modelfile.load(options.model)
    found, tables, multiplied = compression.of_network(network), table.compactness(network), table.multiply_free(network)
    size = Path(options.model).stat().st_size
    if options.json:
        print(json.dumps({"model": options.model, "bits": found.total, "ratio": found.ratio, "kept": found.kept,
                          "entropy": found.entropy, "file_bytes": size, "largest_table": tables.largest,
                          "multiplying_layers": multiplied}))
        return 0
    print(found)
    print(f"the file itself takes {size:,} bytes\n\nproduct tables of activation levels x dictionary\n{tables}")
    print("no multiplication is left" if not multiplied else
          f"layers that multiply by something else than a power of two: {', '.join(multiplied)}")
    return 0


def page(options: argparse.Namespace) -> int:
    """Write the report about runs."""
    from . import report  # here: it imports matplotlib, which no other command needs

    runs = report.read([Path(folder) for folder in options.runs])
    path = report.write(runs, Path(options.out))
    print(json.dumps({"report": str(path), "runs": [run.row() for run in runs]}) if options.json else path)
    return 0
