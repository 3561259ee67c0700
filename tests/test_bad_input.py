"""What a user can do wrong, and what is said: the bad value, the legal ones, what next.

The table in docs/reliability.md is made of what these tests got. `make docs` writes it;
the last test here compares it.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
from test_data_faults import RECORDS, image, rewrite, set_image, set_number

import vireid_jax
from vireid_jax import models
from vireid_jax import train as training
from vireid_jax.checkpoint import Checkpoints
from vireid_jax.errors import one_line_errors
from vireid_jax.protocols import get_protocols
from vireid_jax.stopping import Stop
from vireid_jax.train import train
from vireid_jax.workdir import claimed

# Slow: several runs, each of which XLA compiles.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("compiled_once", "small_network"),
]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "reliability.md"
SAID: dict[str, str] = {}
"""What was done wrong -> what was said, by the tests that have run."""


def normalise(text, folder):
    """Takes out of a message what is another on each machine."""
    text = text.replace(str(ROOT) + "/", "").replace(str(folder), "DIR")
    text = re.sub(r"[\d,.]+ (Mi?B)\b", r"N \1", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "HASH", text)
    text = re.sub(r"process \d+ on \S+", "process N on HOST", text)
    # Where a chunk of records begins changes from process to process: so does the order
    # in which protobuf writes the features of an example.
    text = re.sub(r"\b[1-9]\d{4}\b", "N", text)
    text = re.sub(r"thermal_[\w+]+", "VARIANT", text)
    return text.replace("|", "\\|")  # it will stand in a table


@pytest.fixture
def refuses(tmp_path):
    """Calls an action that must end with one line that holds all `words`."""

    def check(title, action, *words):
        with pytest.raises(SystemExit) as caught, one_line_errors():
            action()
        message = caught.value.code
        assert message.startswith("error: ")
        text = normalise(message.removeprefix("error: "), tmp_path)
        assert "\n" not in text
        for word in words:
            assert word in text, (word, text)
        SAID[title] = text

    return check


@contextlib.contextmanager
def unchanged(folder):
    """Checks that no file of `folder` changes, comes or goes."""
    files = lambda: {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "log.txt"  # which tells of the refusal
    }
    before = files()
    yield
    assert files() == before


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
    train(small_run.config_of(data), workdir)
    return workdir


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to spoil."""
    return shutil.copytree(finished, tmp_path / "run")


# --- The command line and the config --------------------------------------------------


def command(*arguments, module="vireid_jax.main"):
    """Runs a command, and ends as it did."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1, done
    assert done.stdout == ""
    raise SystemExit(done.stderr.strip())


MAIN = ("--config=configs/demo.py", "--workdir=runs/never")
WRONG_COMMANDS = {
    "no such config file": (
        ("--config=configs/dem.py", "--workdir=runs/never"),
        ("configs/dem.py", "configs/demo.py"),
    ),
    "a key that is not one": (
        (*MAIN, "--config.model.nam=osnet_x0_5"),
        ("config.model.nam;", "did you mean config.model.name?"),
    ),
    "a data set option that is not one": (
        (*MAIN, "--config.data.options.trainids=3"),
        ("trainids", 'Did you mean "train_ids"'),
    ),
    "a value of the wrong type": (
        (*MAIN, "--config.batch.identities=many"),
        ("config.batch.identities", "'many'", "int()"),
    ),
    "a flag that is not one": (
        (*MAIN, "--max_minute=3"),
        ("'max_minute'", "max_minutes", "--help"),
    ),
    "keys without a config file": (
        ("--workdir=runs/never", "--config.seed=1"),
        ("--config FILE.py",),
    ),
}


@pytest.mark.parametrize("title", WRONG_COMMANDS)
def test_wrong_commands(title, refuses):
    arguments, words = WRONG_COMMANDS[title]
    refuses(title, lambda: command(*arguments), *words)
    assert not (ROOT / "runs" / "never").exists()


WRONG_FILES = {
    "a key that is not one, in a config file": ("c.model.nam = 'x'", '"name"'),
    "a wrong type, in a config file": ("c.batch.identities = 'x'", "<class 'int'>"),
    "a mistake in a config file": ("c.seed = sed", "'sed' is not defined"),
}


@pytest.mark.parametrize("title", WRONG_FILES)
def test_wrong_config_files(title, refuses, tmp_path):
    line, word = WRONG_FILES[title]
    file = tmp_path / "mine.py"
    file.write_text(
        "from vireid_jax.config import default_config\n\n\n"
        f"def get_config():\n    c = default_config()\n    {line}\n    return c\n"
    )
    action = lambda: command(f"--config={file}", f"--workdir={tmp_path / 'run'}")
    refuses(title, action, "DIR/mine.py, line 6", line, word)


WRONG_VALUES = {
    "unknown model": ("model.name", "osnet_x2", ("'osnet_x2'", "osnet_x0_25")),
    "unknown data set": ("data.name", "market", ("'market'", "walkers")),
    "unknown variant": ("data.options.variant", "uv", ("'uv'", "thermal, nir")),
    "unknown difficulty": ("data.options.difficulty", "x", ("'x'", "easy, mid, hard")),
    "image size the network cannot take": (
        "data.size",
        (64, 40),
        ("(64, 40)", "multiple of 16"),
    ),
    "more stripes than the map has rows": (
        "model.num_stripes",
        9,
        ("is 9", "0 to 4", "config.data.size"),
    ),
    "a student of a stage that has none": (
        "model.students",
        ("conv1",),
        ("'conv1'", "('conv2', 'conv3', 'conv4')"),
    ),
    "P larger than there are identities": (
        "batch.identities",
        99,
        ("P=99", "there are 6", "Lower config.batch.identities"),
    ),
    "all identities held out": (
        "data.validation_identities",
        9,
        ("config.data.validation_identities is 9", "1 to 8", "or 0"),
    ),
    "a probability above 1": ("augment.flip", 1.5, ("config.augment.flip", "0..1")),
    "a negative number": ("augment.pad", -1, ("config.augment.pad", "0 or larger")),
    "no such weights": ("model.pretrained", "none", ("'none'", "osnet_x0_25_walkers")),
}


@pytest.mark.parametrize("title", WRONG_VALUES)
def test_wrong_values(title, refuses, config, tmp_path):
    key, value, words = WRONG_VALUES[title]
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
        if key == "data.options.difficulty":
            config.data.options.difficulty = value
    refuses(title, lambda: train(config, tmp_path / "run"), *words)


def test_no_protocol(refuses):
    title = "a data set without a protocol"
    refuses(title, lambda: get_protocols("market/x"), "'market/x'", "walkers")


def test_no_time(refuses):
    title = "a time that is none"
    refuses(title, lambda: Stop(0), "--max_minutes is 0", "larger than 0")


# --- The workdir ----------------------------------------------------------------------


def test_a_run_of_another_config(refuses, run, config):
    config.schedule.epochs = 2.0
    config.optimizer.name = "sgd"
    config.data.threads = 1  # changes no number, and may differ
    with unchanged(run):
        refuses(
            "the workdir of another config's run",
            lambda: train(config, run),
            "config.optimizer.name is 'sgd', was 'adamw'",
            "config.schedule.epochs is 2.0, was 1.0",
            "another --workdir",
        )
    assert "threads" not in SAID["the workdir of another config's run"]


def test_a_run_goes_on_under_a_release_with_more_keys(run, config):
    path = run / "config.json"
    stored = json.loads(path.read_text())
    del stored["model"]["separate_norm"]  # as if it had come later
    path.write_text(json.dumps(stored))
    assert train(config, run)
    stored["model"]["neck_norm"] = 3
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"config\.json is no config \("):
        train(config, run)


def test_other_data_under_the_same_name(refuses, run, config, tmp_path, monkeypatch):
    real = training.open_split

    def without_first_row(*arguments):
        records = real(*arguments)
        return records.select(np.arange(1, len(records)))

    monkeypatch.setattr(training, "open_split", without_first_row)
    with unchanged(run):
        refuses(
            "other data than the run began with",
            lambda: train(config, run),
            "fingerprint HASH",
            "step 6",
            "config.data.dir",
        )


def test_two_processes_on_one_workdir(refuses, run, config):
    with claimed(run), unchanged(run):
        refuses(
            "two processes on one workdir",
            lambda: train(config, run),
            "process N on HOST is training in DIR/run",
            "another --workdir",
        )


def test_a_lock_ends_with_its_process(run, config):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from vireid_jax.workdir import claimed\n"
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
            lambda: train(config, locked / "run"),
            "DIR/theirs/run cannot be written to (Permission denied)",
        )


def test_a_workdir_that_is_a_file(refuses, config, tmp_path):
    (tmp_path / "file").touch()
    refuses(
        "a workdir that is a file",
        lambda: train(config, tmp_path / "file"),
        "DIR/file cannot be written to (File exists)",
    )


# --- The data (test_data_faults.py has many more) -----------------------------------


@pytest.fixture
def spoilt(data, config, tmp_path):
    """A copy of the prepared set: the folder, and a config that reads it."""
    train_split_of(config)  # so that it is there
    shutil.copytree(data, tmp_path / "data")
    config.data.dir = str(tmp_path / "data")
    (folder,) = (tmp_path / "data" / "walkers").glob("*/1.0.0")
    return folder


def train_split_of(config):
    return training.open_split(config, "train")


def spoil_image(folder):
    cut = lambda examples: set_image(examples[5], image(examples[5])[:700])
    rewrite(folder, cut)


def spoil_label(folder):
    rewrite(folder, lambda examples: set_number(examples[5], "identity", 1))


def spoil_records(folder):
    path = folder / RECORDS
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


SPOIL = {
    "a truncated image": (spoil_image, "is a truncated JPEG"),
    "data that do not match their manifest": (spoil_label, "identity was 0, is 1"),
    "a record file cut short": (spoil_records, f"{RECORDS} is damaged or cut short"),
    "a record file missing": (lambda f: (f / RECORDS).unlink(), "is missing"),
}


@pytest.mark.parametrize("title", SPOIL)
def test_spoilt_data(title, refuses, spoilt, config, tmp_path):
    spoil, words = SPOIL[title]
    spoil(spoilt)
    with unchanged(spoilt):
        refuses(title, lambda: train(config, tmp_path / "run"), words, "rm -r DIR/data")


def test_a_full_disk_while_drawing_data(refuses, config, small_disk, tmp_path):
    config.data.dir = str(small_disk(0.2))
    refuses(
        "a full disk while preparing data",
        lambda: train(config, tmp_path / "run"),
        "No space left on device",
        "--config.data.dir=DIR",
    )


# --- Training -------------------------------------------------------------------------


def test_a_loss_that_is_no_number(refuses, config, tmp_path, monkeypatch):
    rate = lambda _, step, __: 1e-3 if step < 3 else np.nan
    monkeypatch.setattr(training, "learning_rate", rate)
    refuses(
        "a loss that is not finite",
        lambda: train(config, tmp_path / "run"),
        "the loss is nan at step 6",
        "of step 3, is whole",
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
    greedy = lambda _, *, num_classes, **__: Greedy(num_classes)
    monkeypatch.setattr(models, "create", greedy)
    refuses(
        "too little memory for a step",
        lambda: train(config, tmp_path / "run"),
        "Out of memory",
        "Lower config.batch.identities",
    )


# --- Checkpoints ----------------------------------------------------------------------


def test_a_full_disk(refuses, config, small_disk):
    run = small_disk(1.12) / "run"
    refuses(
        "a full disk while saving",
        lambda: train(config, run),
        "no room for a checkpoint",
        "The last checkpoint, of step 3, is whole",
        "Free some space; the same command goes on",
    )
    assert vireid_jax.load(run).about["step"] == 3


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
    assert "The last checkpoint, of step 3, is whole" in line
    ballast.unlink()
    code, out, err = small_run.finish(small_run.start(*flags, **lying))
    assert code == 0, err
    assert "Going on from step 3 of 6" in out


def steps_of(run):
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir())


def test_a_half_deleted_checkpoint(refuses, run, config):
    shutil.rmtree(run / "checkpoints" / "6" / "optimizer" / "d")
    with unchanged(run):
        refuses(
            "the latest checkpoint is half-deleted",
            lambda: train(config, run),
            "step 6",
            "its optimizer is missing or damaged",
        )
    # An embedder does not need the optimizer.
    assert vireid_jax.load(run).about["step"] == 6
    shutil.rmtree(run / "checkpoints" / "6" / "model" / "d")
    with unchanged(run):
        refuses(
            "the checkpoint to evaluate is half-deleted",
            lambda: vireid_jax.load(run),
            "its model is missing or damaged",
        )


def test_a_checkpoint_that_is_not_there(refuses, run):
    with unchanged(run):
        refuses(
            "a checkpoint step that is not there",
            lambda: vireid_jax.load(run, 5),
            "no checkpoint of step 5",
            str(steps_of(run)),
        )


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


def test_a_checkpoint_of_another_network(refuses, run):
    path = run / "checkpoints" / "6" / "about" / "metadata"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "num_classes": 7}))
    with unchanged(run):
        refuses(
            "a checkpoint that does not fit the network",
            lambda: vireid_jax.load(run),
            "the first is params/head/classifier/kernel",
            "float32 (8, 6) there, float32 (8, 7) in this network",
        )


def test_opening_to_read_does_not_tidy_up_what_another_process_writes(run):
    half = run / "checkpoints" / "9.orbax-checkpoint-tmp"
    half.mkdir()
    with unchanged(run):
        checkpoints = Checkpoints(run, read_only=True)
        assert checkpoints.find("last") == 6
        checkpoints.close()
    assert half.exists()


# --- The table ------------------------------------------------------------------------


BEGIN, END = "<!-- bad input -->\n", "<!-- /bad input -->"
HEAD = "| What was done | What is said, after `error: ` |\n|---|---|\n"


def test_the_table_in_the_docs_is_what_was_said():
    before, begin, rest = DOCS.read_text().partition(BEGIN)
    old, end, after = rest.partition(END)
    assert begin
    assert end
    rows = [f"| {title} | {text} |\n" for title, text in SAID.items()]
    if os.environ.get("WRITE_DOCS"):
        DOCS.write_text(before + begin + HEAD + "".join(rows) + end + after)
    else:
        assert [row for row in rows if row not in old] == []
