"""Training from end to end on a tiny world: files, going on, evaluation, errors.

One run is made for all tests. Its checkpoint of step 3 is copied away as it is written:
what a run leaves behind that is killed right after.
"""

import json
import math
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from python_process import run_python
from small_run import config_of

import vireid_jax
from vireid_jax import train as training
from vireid_jax.embed.embedder import Embedder
from vireid_jax.evaluate.test_split import open_split
from vireid_jax.train import train_run
from vireid_jax.training.checkpoint import BEST_METRIC, Checkpoints

# Slow: XLA compiles a whole training step, again in each process that is started.
pytestmark = pytest.mark.slow

FEATURES = ["global", "chance", "colour histogram", "silhouette"]
CONFIG_FILE = "from vireid_jax.config import default_config as get_config\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    """A run of 6 steps, what stood on disk after 3 of them, and where data lie."""
    folder = tmp_path_factory.mktemp("train")
    whole, part = folder / "whole", folder / "part"
    config = config_of(folder / "data")
    save = Checkpoints.save

    def save_and_copy(self, state, about, metrics):
        save(self, state, about, metrics)
        if int(state.step) == 3:
            self.wait()
            shutil.copytree(whole, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_copy)
        results = train_run(config, whole)
    return SimpleNamespace(config=config, whole=whole, part=part, results=results)


def rows_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def untimed(rows):
    timed = {"seconds", "steps_per_second", "images_per_second"}
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def test_config_and_environment_are_in_the_workdir(run):
    config = json.loads((run.whole / "config.json").read_text())
    assert config["model"]["name"] == "osnet_x0_25"
    assert config["data"]["size"] == [64, 32]
    found = json.loads((run.whole / "environment.json").read_text())
    assert found["packages"]["jax"] == jax.__version__
    assert len(found["devices"]) == 1


def test_metrics_are_json_lines(run):
    rows = rows_of(run.whole)
    # Every second step, and before each checkpoint.
    steps = [(row["step"], row["kind"]) for row in rows]
    assert [step for step, kind in steps if kind == "train"] == [2, 3, 4, 6]
    assert steps[2] == (3, "validation")
    assert steps[5:] == [(6, "validation")]
    for row in rows:
        values = [value for name, value in row.items() if name != "kind"]
        assert all(math.isfinite(value) for value in values)
        assert row["epoch"] == round(row["step"] / 6, 3)
        if row["kind"] == "train":
            names = {"loss", "loss/identity", "loss/metric", "loss/infonce"}
            names |= {"accuracy", "gradient_norm", "learning_rate"}
            assert names | {"steps_per_second", "images_per_second"} <= row.keys()
            speed = row["images_per_second"] / row["steps_per_second"]
            assert speed == pytest.approx(8)  # 2 x P x K
        else:
            assert 0 < row[BEST_METRIC] <= 1


def test_eval_json_names_what_it_measured(run):
    document = json.loads((run.whole / "eval.json").read_text())
    assert document["run"]["step"] == 6
    assert document["run"]["config"]["batch"]["identities"] == 2
    assert len(document["run"]["data"]["fingerprint"]) == 64
    results = document["results"]
    seen = {(r["direction"], r["feature"]) for r in results}
    directions = ("visible-to-infrared", "infrared-to-visible")
    assert seen == {(d, f) for d in directions for f in FEATURES}
    for result in results:
        assert result["dataset"] == "walkers/thermal"
        assert result["protocol"] == f"walkers/{result['direction']}"
        assert result["queries"] == result["valid_queries"] == result["gallery"] == 24
        assert result["baseline"] == (result["feature"] != "global")
        assert {"Rank-1", "Rank-5", "Rank-10", "Rank-20", "mAP", "mINP"} == set(
            result["metrics"]
        )
        assert all(0 < value <= 1 for value in result["metrics"].values())
        if not result["baseline"]:
            assert (result["epoch"], result["selection"]) == (1.0, "last")
            assert result["flip"]
    assert [r.to_json() for r in run.results] == results


def test_the_latest_and_the_best_checkpoint_are_there(run):
    scores = {
        row["step"]: row[BEST_METRIC]
        for row in rows_of(run.whole)
        if row["kind"] == "validation"
    }
    checkpoints = Checkpoints(run.whole, read_only=True)
    assert checkpoints.find("last") == 6
    assert scores[checkpoints.find("best")] == max(scores.values())
    about = checkpoints.about(6)
    assert about["metrics"][BEST_METRIC] == scores[6]
    assert about["num_classes"] == 6  # 3 of 9 are held out
    checkpoints.close()


@pytest.fixture(scope="module")
def resumed(run):
    """The killed run, taken up again; a dying process had logged more than it saved."""
    with (run.part / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "kind": "train", "loss": 123}\n{"step": 5, "ki')
    train_run(run.config, run.part)
    return run.part


def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(run, resumed):
    one, two = (vireid_jax.load(workdir).variables for workdir in (run.whole, resumed))
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert untimed(rows_of(resumed)) == untimed(rows_of(run.whole))
    results = [
        json.loads((workdir / "eval.json").read_text())["results"]
        for workdir in (run.whole, resumed)
    ]
    assert results[0] == results[1]


def steps_of(workdir):
    return {int(path.name) for path in (workdir / "checkpoints").iterdir()}


def test_evaluating_alone_gives_the_same_numbers(run, compiled_once, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.whole, copy)
    expected = json.loads((copy / "eval.json").read_text())
    (copy / "eval.json").unlink()
    (copy / "config.json").unlink()  # the checkpoint holds it
    flags = ("--workdir", copy)
    done = run_python("-m", "vireid_jax.evaluate", *flags, env=compiled_once)
    assert done.returncode == 0, done.stderr
    assert "walkers/infrared-to-visible" in done.stdout
    assert done.stderr == ""
    found = json.loads((copy / "eval.json").read_text())
    assert found["results"] == expected["results"]
    assert found["run"]["step"] == 6
    assert found["run"]["data"] == expected["run"]["data"]


def test_a_finished_run_only_evaluates_again(run, monkeypatch):
    before = rows_of(run.whole)
    monkeypatch.setattr(training, "evaluate_test_split", lambda *_, **__: run.results)
    assert train_run(run.config, run.whole) is run.results
    assert rows_of(run.whole) == before


# --- The embedder ---------------------------------------------------------------------


def test_a_loaded_network_embeds_what_it_is_given(run):
    embedder = vireid_jax.load(str(run.whole))
    assert isinstance(embedder, Embedder)
    assert embedder.about.step == 6
    # 3 people held out, 4 images of each modality: 12 x 12 pairs, less 3 x 16.
    assert embedder.about.thresholds["visible-infrared"]["pairs"] == 96
    records = open_split(run.config, "test")
    visible = np.flatnonzero(records.modality == 0)[:17]  # one batch and one image
    images = records.images(visible, (64, 32))
    found = embedder.embed(images, "visible")
    assert found.shape == (17, 128)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    # No matter which others it shares a batch with.
    alone = embedder.embed(images[16:], "visible")
    np.testing.assert_allclose(found[16:], alone, atol=1e-5)
    of_split = embedder.embed_records(records)
    np.testing.assert_allclose(of_split[visible], found, atol=1e-5)
    infrared = np.flatnonzero(records.modality == 1)[:3]
    found = embedder.embed(records.images(infrared, (64, 32)), "infrared")
    np.testing.assert_allclose(of_split[infrared], found, atol=1e-5)
    assert embedder.embed(images[:0], "visible").shape[0] == 0

    with pytest.raises(ValueError, match=r"'thermal'.*visible"):
        embedder.embed(images, "thermal")
    with pytest.raises(
        ValueError, match=r"images are \(64, 32, 3\); give \[images, height"
    ):
        embedder.embed(images[0], "visible")


def test_a_network_loads_from_any_folder_of_its_run(run):
    step = max(steps_of(run.whole))
    folders = [run.whole, run.whole / "checkpoints"]
    folders.append(run.whole / "checkpoints" / str(step))
    for folder in folders:
        assert vireid_jax.load(folder).about.step == step
    assert vireid_jax.load(run.whole, "best").about.step in steps_of(run.whole)


# --- Errors ---------------------------------------------------------------------------


def test_commands_end_with_one_line(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG_FILE)
    arguments = [f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    arguments += ["--config.data.name=walkers", "--config.model.name=osnet"]
    missing = [f"--workdir={tmp_path / 'nowhere'}"]
    for module, flags, word in (
        ("vireid_jax.main", arguments, "'osnet'"),
        ("vireid_jax.evaluate", missing, "nowhere"),
    ):
        done = run_python("-m", module, *flags)
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: ")
        assert word in line
