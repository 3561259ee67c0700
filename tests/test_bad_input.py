"""What a user can do wrong before a run: the command line, the config, the data."""

import shutil

import pytest
import small_run
from data_sets import RECORDS, image, rewrite, set_image, set_number
from refusals import ROOT, command, unchanged

from vireid_jax import train as training
from vireid_jax.protocols import get_protocols
from vireid_jax.run.stopping import Stop
from vireid_jax.train import train_run

# Slow: many processes, each with the start of jax.
pytestmark = [
    pytest.mark.mistakes("training"),
    pytest.mark.slow,
    pytest.mark.usefixtures("small_network"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def config(data):
    return small_run.config_of(data)


# --- The command line and the config --------------------------------------------------


MAIN = ("--config=configs/demo.py", "--workdir=runs/never")
WRONG_COMMANDS = {
    "no such config file": (
        ("--config=configs/dem.py", "--workdir=runs/never"),
        ("configs/dem.py", "did you mean demo?", "regdb"),
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
        ("give --config NAME or FILE.py",),
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
        ("P=99", "6 have them", "Lower config.batch.identities"),
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
    refuses(title, lambda: train_run(config, tmp_path / "run"), *words)


def test_no_protocol(refuses):
    title = "a data set without a protocol"
    refuses(title, lambda: get_protocols("market/x"), "'market/x'", "walkers")


def test_no_time(refuses):
    title = "a time that is none"
    refuses(title, lambda: Stop(0), "--max_minutes is 0", "larger than 0")


# --- The data (test_data_faults.py has many more) -------------------------------------


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
        refuses(
            title, lambda: train_run(config, tmp_path / "run"), words, "rm -r DIR/data"
        )


def test_a_full_disk_while_drawing_data(refuses, config, small_disk, tmp_path):
    config.data.dir = str(small_disk(0.2))
    refuses(
        "a full disk while preparing data",
        lambda: train_run(config, tmp_path / "run"),
        "No space left on device",
        "--config.data.dir=DIR",
    )
