"""Several processes train the same network: after every step all of them hold the same bits, for every method.

A group of processes runs this file once for all methods, writes what it found, and the tests look at that.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lutq_hw.errors import InputError

TESTS = Path(__file__).parent
TIMEOUT = 280


def python(*arguments, cwd):
    """Run Python on one thread without a GPU, with this source tree."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parents[1]), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True,
                          timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def measured(processes, folder, *names):
    python(__file__, processes, folder, *names, cwd=TESTS)
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return measured(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return measured(4, tmp_path_factory.mktemp("four"))


def check_fit(found):
    assert len(set(found["digests"])) == 1, "weights, dictionaries, assignments and scales must be equal on all processes"
    assert len(set(found["optimizers"])) == 1
    assert set(found["resumed"]) == set(found["digests"])
    assert found["files"] == [["checkpoint.pt", "metrics.jsonl", "recipe.toml", "run.json"],
                              *[[]] * (len(found["digests"]) - 1)], "the first process alone writes"
    assert found["accuracy"] > 0.5


def test_fit_with_two(case, two):
    check_fit(two[case]["fit"])


def check_loop(found):
    assert all(len(set(digests)) == 1 for digests in found["steps"]), "equal after every step"
    assert len({digests[0] for digests in found["steps"]}) == len(found["steps"]), "and moving"


def test_too_small_a_batch(two):
    text = ("training.batch must give each of 2 processes two images or more, but it is 3, and there are 250 to train "
            "on")
    assert two["refused"] == [text] * 2


def test_own_loop_with_two(case, two):
    check_loop(two[case]["loop"])


def test_four(tmp_path):
    found = measured(4, tmp_path, "lutq-lsq")
    check_fit(found["lutq-lsq"]["fit"])
    check_loop(found["lutq-lsq"]["loop"])


@pytest.mark.slow
def test_torchrun(tmp_path):
    """The command line as it is started on one machine."""
    short = ["--set", "training.float_epochs=1", "--set", "training.quantized_epochs=1"]
    out = python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "lutq_train", "fit",
                 "--recipe", "digits", *short, "--out", "run", "--json", cwd=tmp_path)
    assert json.loads(out)["epochs"] == 2
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_fit_with_four(case, four):
    check_fit(four[case]["fit"])


@pytest.mark.slow
def test_own_loop_with_four(case, four):
    check_loop(four[case]["loop"])


# What each process runs.


def digest(*states):
    """One text for all tensors of some state dicts."""
    sha = hashlib.sha256()
    for state in states:
        for name, value in sorted(state.items()):
            sha.update(f"{name} {value.dtype}".encode())
            sha.update(value.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


def optimizer_digest(optimizer):
    return digest(*({key: value for key, value in entry.items() if isinstance(value, torch.Tensor)}
                    for entry in optimizer.state_dict()["state"].values()))


def gathered(value):
    from torch import distributed

    found = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def fit(case, folder):
    """`fit` of the tiny recipe, with a stop and a second start in the middle of the quantised epochs."""
    from conftest import make_data, make_recipe

    from lutq_train import loop, run

    data = make_data()
    plan = make_recipe(case, training={"float_epochs": 1, "quantized_epochs": 3})
    state = run.create(folder, plan, data)
    images = loop.Images(data, plan)
    while state.epoch < state.epochs:
        loop.run_epoch(state, images)
        if state.epoch == 2:
            run.save(folder, state)
    again = run.restore(folder, plan, data)
    while again.epoch < again.epochs:
        loop.run_epoch(again, images)
    files = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return {"digests": gathered(digest(state.model.state_dict())), "resumed": gathered(digest(again.model.state_dict())),
            "optimizers": gathered(optimizer_digest(state.optimizer)), "files": gathered(files),
            "accuracy": state.metrics[-1]["held_out_accuracy"]}


def own_loop(case, folder):
    """A user's loop around DistributedDataParallel; each process starts from other weights and sees other data."""
    from conftest import make_recipe
    from torch import distributed, nn
    from torch.nn.functional import cross_entropy

    import lutq_train

    plan, rank = make_recipe(case), distributed.get_rank()
    torch.manual_seed(rank)
    model = plan.model.build((6, 6, 1), 4)
    x, labels = torch.rand(64, 1, 6, 6), torch.randint(0, 4, (64,))
    lutq_train.quantize(model, plan.weights, activations=plan.activation_options, example=x)
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1, momentum=0.9)
    steps = []
    for step in range(6):
        lutq_train.progress(model, step / 6)
        optimizer.zero_grad()
        cross_entropy(parallel(x), labels).backward()
        optimizer.step()
        lutq_train.update(parallel.module)
        # Running means and variances are each process's own until the next forward: so has PyTorch made it.
        own = {name: value for name, value in model.state_dict().items()
               if not name.endswith(("running_mean", "running_var"))}
        steps.append(gathered(digest(own)))
    if rank == 0:
        lutq_train.export(model, folder / "model.npz", example=x)
    return {"steps": steps}


def refused():
    """What a batch of three images for several processes is answered."""
    from conftest import make_data, make_recipe

    from lutq_train import loop

    with pytest.raises(InputError) as caught:
        loop.begin(make_recipe(training={"batch": 3}), make_data())
    return str(caught.value)


def work(rank, processes, folder, names):
    """Fit and loop of the named cases, or of all; the first process writes the findings."""
    from conftest import cases
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    found = {}
    for case in names or cases():
        place = folder / f"{case}-{rank}"  # a folder for each process: only the first may make its own
        found[case] = {"fit": fit(case, place), "loop": own_loop(case, folder)}
    found["refused"] = gathered(refused())
    distributed.destroy_process_group()
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))


def main(processes, folder, *names):
    """Start the processes as forks of this one, which has imported everything, also what optimisers import late."""
    import torch._dynamo
    import torch.multiprocessing

    import lutq_train.run  # noqa: F401

    torch.multiprocessing.start_processes(work, (int(processes), Path(folder), names), int(processes),
                                          start_method="fork")


if __name__ == "__main__":
    main(*sys.argv[1:])
