"""What a user can do wrong with what was trained: evaluate, report, export, and so on.

Many more stand beside what they are mistakes of: test_extract.py, test_rank.py,
test_compare_runs.py, test_foreign_features.py, test_ablate.py, test_export.py.
"""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import ROOT, TABLES, rows

from vireid_jax.ablate.study import read_study, run_study
from vireid_jax.embed.feature_files import write_features
from vireid_jax.report import collect
from vireid_jax.run import environment
from vireid_jax.run.stopping import Stop

TESTS = Path(__file__).parent
RELEASED = TESTS / "golden" / "run_0_1_0"
STUDY = TESTS / "golden" / "study_0_1_0" / "results.jsonl"
PROTOCOL = "walkers/visible-to-infrared"


@pytest.fixture
def command(monkeypatch):
    """Call a command in this process."""

    def call(name, *arguments):
        module = importlib.import_module(f"vireid_jax.{name}")
        monkeypatch.setattr(module, "set_up", lambda: None)
        module.main([*map(str, arguments)])

    return call


@pytest.fixture
def released(tmp_path):
    """A copy of a run's checkpoint, to spoil, and what stands in it about the run."""
    run = shutil.copytree(RELEASED, tmp_path / "run")
    return run, run / "checkpoints" / "6" / "about" / "metadata"


@pytest.mark.mistakes("evaluation")
class TestEvaluate:
    @pytest.mark.parametrize(
        ("title", "given", "words"),
        [
            ("nothing to evaluate", "", "--workdir --features --compare --runs is"),
            (
                "features without a protocol",
                "--features f.npz",
                "--features needs --protocol NAME",
            ),
            (
                "a protocol that is none",
                f"--features f.npz --protocol {PROTOCOL[:-1]}",
                f"did you mean {PROTOCOL}",
            ),
            (
                "results into a folder that is not there",
                "--runs a b --out none/eval.json",
                "there is no folder",
            ),
        ],
    )
    def test_flags(self, title, given, words, command, refuses):
        refuses(title, lambda: command("evaluate.__main__", *given.split()), words)


@pytest.mark.mistakes("evaluation")
class TestReport:
    @pytest.fixture
    def report(self, command, monkeypatch):
        monkeypatch.setattr(collect, "costs", lambda *_: {})  # they take seconds

        def call(*workdirs):
            given = [x for workdir in workdirs for x in ("--workdir", workdir)]
            return lambda: command("report.__main__", *given)

        return call

    @pytest.fixture
    def evaluated(self, tmp_path):
        """Make a workdir with an evaluation, of a run changed as given."""
        about = json.loads((RELEASED / "checkpoints/6/about/metadata").read_text())

        def make(name, protocols=2, step=6, **changes):
            results = json.loads(STUDY.read_text())["results"]["eval"][:protocols]
            here = about["environment"] | changes
            run = about | {"environment": here, "step": step}
            document = {"run": run, "results": results}
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "eval.json").write_text(json.dumps(document))
            return tmp_path / name

        return make

    def test_a_folder_that_is_no_run_s(self, report, refuses, tmp_path):
        title = "a report of a folder that is not there"
        refuses(title, report(tmp_path / "none"), "there is no folder DIR/none")
        (tmp_path / "photos").mkdir()
        title = "a report of a folder that is no run's"
        refuses(title, report(tmp_path / "photos"), "is not the workdir of a run")

    def test_a_run_without_an_evaluation(self, report, refuses, released):
        run, metadata = released
        (run / "config.json").write_text("{}")
        refuses(
            "a report of a run without evaluation",
            report(run),
            "has no evaluation",
            "python -m vireid_jax.evaluate --workdir DIR/run",
        )
        metadata.write_text(
            json.dumps(json.loads(metadata.read_text()) | {"epoch": 0.5})
        )
        refuses(
            "a report of an interrupted run",
            report(run),
            "was interrupted at epoch 0.5 of 1; to resume",
        )
        (run / "eval.json").write_text("{")
        refuses(
            "a report of what is no evaluation",
            report(run),
            "is not the evaluation of a training run; to evaluate it: python -m",
        )

    def test_an_evaluation_of_another_checkpoint(
        self, report, refuses, released, evaluated
    ):
        refuses(
            "a report of a run that went on after its evaluation",
            report(evaluated("run", step=3)),
            "is of step 3, and the last checkpoint is of step 6; to evaluate it",
        )

    def test_runs_that_belong_into_no_one_table(self, report, refuses, evaluated):
        one = evaluated("run")
        newer = {"packages": {"vireid-jax": "0.2.0"}}
        for title, other, *words in (
            ("a run beside itself in a report", one, "given twice"),
            (
                "results of two versions in a report",
                evaluated("newer", **newer),
                "differ in their version of vireid-jax: '0.1.0' and '0.2.0'",
            ),
            (
                "results of two commits in a report",
                evaluated("changed", commit="0123456789ab"),
                "differ in their commit: 'HASH' and 'HASH'",
            ),
            (
                "results by different protocols in a report",
                evaluated("half", protocols=1),
                "differ in their protocols: ",
            ),
        ):
            refuses(title, report(one, other), *words)


@pytest.mark.mistakes("evaluation")
def test_a_study_of_another_commit(refuses, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "commit", lambda: "0123456789ab")
    shutil.copy(STUDY, tmp_path)
    study = read_study(ROOT / "configs/ablations/method.py")
    refuses(
        "a study in the workdir of another commit's",
        lambda: run_study(study, 3, tmp_path, Stop()),
        "has runs with commit 'HASH', and now it is 'HASH'",
        "another --workdir",
    )


@pytest.mark.mistakes("images")
class TestImages:
    @pytest.fixture
    def images(self, tmp_path):
        (tmp_path / "images").mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (60, 30, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / "a.jpg")
        return tmp_path / "images"

    @pytest.fixture
    def extract(self, command, images, tmp_path):
        def call(checkpoint, modality, *more):
            given = ["--checkpoint", checkpoint, "--modality", modality, *more]
            given += ["--images", images, "--out", tmp_path / "a.npz"]
            return lambda: command("extract", *given)

        return call

    def test_a_truncated_image(self, extract, images, refuses, tmp_path):
        path = images / "a.jpg"
        path.write_bytes(path.read_bytes()[:-60])
        refuses(
            "a truncated image, with `--unreadable refuse`",
            extract(RELEASED, "visible", "--unreadable", "refuse"),
            "a.jpg is a truncated JPEG",
            "nothing was written",
        )
        assert not (tmp_path / "a.npz").exists()

    def test_a_modality_that_cannot_be(self, extract, refuses, released):
        title = "an unknown modality"
        refuses(title, extract(RELEASED, "thermal"), "choose from visible, infrared")
        run, metadata = released
        about = json.loads(metadata.read_text())
        about["config"]["data"]["second_side"] = "visible"
        metadata.write_text(json.dumps(about))
        refuses(
            "a modality that the checkpoint has no stream for",
            extract(run, "infrared"),
            "modality is 'infrared'; valid values",
            "['visible']",
        )

    @pytest.mark.mistakes("checkpoints")
    def test_a_checkpoint_of_another_network(self, extract, refuses, released):
        run, metadata = released
        about = json.loads(metadata.read_text())
        about["config"]["model"]["name"] = "osnet_x0_5"
        metadata.write_text(json.dumps(about))
        refuses(
            "a checkpoint whose arrays are another network's",
            extract(run, "visible"),
            "the variables are not those of this network",
        )

    def test_a_gallery_of_another_dimension(self, command, images, refuses, tmp_path):
        about = {"network": "0" * 64, "modality": "visible", "folder": "", "dim": 8}
        gallery = tmp_path / "day.npz"
        write_features(gallery, ["a.jpg"], np.ones((1, 8), np.float32), about)
        given = ["--checkpoint", RELEASED, "--gallery", gallery]
        given += ["--query", images / "a.jpg", "--query_modality", "infrared"]
        refuses(
            "a gallery of another dimension",
            lambda: command("rank", *given),
            "has embeddings of 8 numbers",
            "this checkpoint's, of 384, is HASH",
        )


@pytest.mark.mistakes("export")
class TestExport:
    def test_an_unknown_format(self, command, refuses):
        given = ["--checkpoint", "run", "--out", "model", "--format", "tflite"]
        action = lambda: command("export.__main__", *given)
        refuses("an unknown format", action, "'tflite' (choose from onnx, jax")

    def test_streams_that_are_not_there(self, command, refuses, released, tmp_path):
        run, metadata = released
        about = json.loads(metadata.read_text())
        about["config"]["data"]["second_side"] = "visible"
        metadata.write_text(json.dumps(about))
        given = ["--checkpoint", run, "--out", tmp_path / "model"]
        given += ["--format", "onnx", "--streams", "both"]
        refuses(
            "both streams of a checkpoint that has one",
            lambda: command("export.__main__", *given),
            "the network was trained on visible images alone",
        )


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_the_docs_is_some_test_s(table):
    """What no test does any more leaves the docs, by `make docs`."""
    sources = "".join(path.read_text() for path in TESTS.glob("test_*.py"))
    titles = [row.split(" | ")[0].removeprefix("| ") for row in rows(table)]
    assert titles
    assert [title for title in titles if f'"{title}"' not in sources] == []
