"""What a user can do wrong with a run: its workdir, its training, its checkpoints."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
from refusals import unchanged

import vireid_jax
from vireid_jax import models
from vireid_jax import train as training
from vireid_jax.run.files import claimed
from vireid_jax.train import train_run
from vireid_jax.training.checkpoint import Checkpoints

# Slow: several runs, each of which XLA compiles.
pytestmark = [
    pytest.mark.mistakes("training"),
    pytest.mark.slow,
    pytest.mark.usefixtures("compiled_once", "small_network"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def config(data):
    return small_run.config_of(data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data, compiled_once, small_network):
    """A finished run."""
    workdir = tmp_path_factory.mktemp("finished")
    train_run(small_run.config_of(data), workdir)
    return workdir


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to spoil."""
    return shutil.copytree(finished, tmp_path / "run")


# --- The workdir ----------------------------------------------------------------------


def test_a_run_of_another_config(refuses, run, config):
    config.schedule.epochs = 2.0
    config.optimizer.name = "sgd"
    config.data.threads = 1  # changes no number, and may differ
    with unchanged(run):
        said = refuses(
            "the workdir of another config's run",
            lambda: train_run(config, run),
            "config.optimizer.name is 'sgd', was 'adamw'",
            "config.schedule.epochs is 2.0, was 1.0",
            "another --workdir",
        )
    assert "threads" not in said


def test_a_run_goes_on_under_a_release_with_more_keys(run, config):
    path = run / "config.json"
    stored = json.loads(path.read_text())
    del stored["model"]["separate_norm"]  # as if it had come later
    path.write_text(json.dumps(stored))
    assert train_run(config, run)
    stored["model"]["neck_norm"] = 3
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"config\.json cannot be read .*another"):
        train_run(config, run)


def test_other_data_under_the_same_name(refuses, run, config, tmp_path, monkeypatch):
    real = training.open_split

    def without_first_row(*arguments):
        records = real(*arguments)
        return records.select(np.arange(1, len(records)))

    monkeypatch.setattr(training, "open_split", without_first_row)
    with unchanged(run):
        refuses(
            "other data than the run began with",
            lambda: train_run(config, run),
            "fingerprint HASH",
            "step 6",
            "config.data.dir",
        )


def test_two_processes_on_one_workdir(refuses, run, config):
    with claimed(run), unchanged(run):
        refuses(
            "two processes on one workdir",
            lambda: train_run(config, run),
            "process N on HOST is training in DIR/run",
            "another --workdir",
        )


def test_a_lock_ends_with_its_process(run, config):
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import sys; from vireid_jax.run.files import claimed\n"
         "with claimed(sys.argv[1]): print('mine', flush=True); sys.stdin.read()",
         str(run)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "mine\n"
    with pytest.raises(ValueError, match=f"process {holder.pid} on"), claimed(run):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with claimed(run) as folder:
        assert folder == run


@contextlib.contextmanager
def as_nobody():
    """Drops root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_workdir_that_cannot_be_written_to(refuses, config, tmp_path):
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(0o755)
    locked = tmp_path / "theirs"
    locked.mkdir(mode=0o555)
    with as_nobody():
        refuses(
            "a workdir that cannot be written to",
            lambda: train_run(config, locked / "run"),
            "--workdir DIR/theirs/run",
            "Permission denied",
        )


def test_a_workdir_that_is_a_file(refuses, config, tmp_path):
    (tmp_path / "file").touch()
    refuses(
        "a workdir that is a file",
        lambda: train_run(config, tmp_path / "file"),
        "--workdir DIR/file",
        "File exists",
    )


# --- Training -------------------------------------------------------------------------


def test_a_loss_that_is_no_number(refuses, config, tmp_path, monkeypatch):
    rate = lambda _, step, __: 1e-3 if step < 3 else np.nan
    monkeypatch.setattr(training, "learning_rate", rate)
    refuses(
        "a loss that is not finite",
        lambda: train_run(config, tmp_path / "run"),
        "the loss is nan at step 6",
        "of step 3, is complete",
        "learning_rate",
    )
    variables = vireid_jax.load(tmp_path / "run").variables
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(variables))


class Greedy(small_run.Small):
    """Asks for more memory than any machine has."""

    def __call__(self, images, *rest, **options):
        row = images.mean() * jnp.arange(2**30)
        wish = jnp.sort(jnp.sin(row[:, None] + jnp.arange(2**15)))
        return super().__call__(images + wish.mean(), *rest, **options)


def test_out_of_memory(refuses, config, tmp_path, monkeypatch):
    greedy = lambda *_, num_classes, **__: Greedy(num_classes)
    monkeypatch.setattr(models, "create", greedy)
    refuses(
        "too little memory for a step",
        lambda: train_run(config, tmp_path / "run"),
        "Out of memory",
        "Lower config.batch.identities",
    )


# --- Checkpoints ----------------------------------------------------------------------


def test_a_full_disk(refuses, config, small_disk):
    run = small_disk(1.12) / "run"
    refuses(
        "a full disk while saving",
        lambda: train_run(config, run),
        "no room for a checkpoint",
        "The last checkpoint, of step 3, is complete",
        "Free some space",
    )
    assert vireid_jax.load(run).about.step == 3


def test_a_disk_that_is_full_though_it_said_otherwise(data, small_disk, compiled_once):
    """As with a quota: only writing tells. Then space is made, and the run goes on."""
    disk = small_disk(0.6)
    run, ballast = disk / "run", disk / "ballast"
    ballast.write_bytes(bytes(350 * 2**10))
    flags = (run, f"--config.data.dir={data}")
    lying = {"LIE": "1", **compiled_once}
    code, _, err = small_run.finish(small_run.start(*flags, **lying))
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "no room for a checkpoint" in line
    assert "The last checkpoint, of step 3, is complete" in line
    ballast.unlink()
    code, out, err = small_run.finish(small_run.start(*flags, **lying))
    assert code == 0, err
    assert "Resuming from step 3 of 6" in out


def steps_of(run):
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir())


def test_a_half_deleted_checkpoint(refuses, run, config):
    shutil.rmtree(run / "checkpoints" / "6" / "optimizer" / "d")
    with unchanged(run):
        refuses(
            "the latest checkpoint is half-deleted",
            lambda: train_run(config, run),
            "step 6",
            "its optimizer is missing or damaged",
        )
    # An embedder does not need the optimizer.
    assert vireid_jax.load(run).about.step == 6


@pytest.mark.mistakes("checkpoints")
def test_a_half_deleted_model(refuses, run):
    shutil.rmtree(run / "checkpoints" / "6" / "model" / "d")
    with unchanged(run):
        refuses(
            "the checkpoint to evaluate is half-deleted",
            lambda: vireid_jax.load(run),
            "its model is missing or damaged",
        )


@pytest.mark.mistakes("checkpoints")
def test_a_checkpoint_that_is_not_there(refuses, run):
    with unchanged(run):
        refuses(
            "a checkpoint step that is not there",
            lambda: vireid_jax.load(run, 5),
            "no checkpoint of step 5",
            str(steps_of(run)),
        )


@pytest.mark.mistakes("checkpoints")
def test_a_workdir_without_checkpoints(refuses, tmp_path):
    refuses(
        "a workdir without checkpoints",
        lambda: vireid_jax.load(tmp_path),
        "no checkpoint in DIR",
        "python -m vireid_jax.main",
    )
    assert not list(tmp_path.iterdir())
    refuses(
        "a workdir that is not there",
        lambda: vireid_jax.load(tmp_path / "nowhere"),
        "DIR/nowhere is not a folder",
    )


def test_a_checkpoint_of_another_network(refuses, run, config, monkeypatch):
    wider = lambda *_, num_classes, **__: small_run.Small(num_classes, features=16)
    monkeypatch.setattr(models, "create", wider)
    with unchanged(run):
        refuses(
            "a checkpoint that does not fit the network",
            lambda: train_run(config, run),
            "the checkpoint of step 6 in DIR/run/checkpoints is of another network",
            " in this network",
        )


def test_opening_to_read_does_not_tidy_up_what_another_process_writes(run):
    half = run / "checkpoints" / "9.orbax-checkpoint-tmp"
    half.mkdir()
    with unchanged(run):
        checkpoints = Checkpoints(run, read_only=True)
        assert checkpoints.find("last") == 6
        checkpoints.close()
    assert half.exists()
