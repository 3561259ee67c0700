"""The report of a run on disk: its embeddings are read, ranked and checked."""

import json
from types import SimpleNamespace

import jax
import pytest
import small_run
from rich.console import Console

import vireid_jax.evaluate.test_split
from vireid_jax.embed.embedder import Embedder
from vireid_jax.evaluate.test_split import evaluate_test_split
from vireid_jax.models.build import init_variables
from vireid_jax.report import collect
from vireid_jax.report.build import write
from vireid_jax.run.errors import UserError
from vireid_jax.training.run_info import RunInfo

pytestmark = pytest.mark.usefixtures("small_network")
ENVIRONMENT = {
    "python": "3.11",
    "processor": "a processor",
    "machine": "x86_64",
    "devices": ["cpu"],
    "commit": None,
    "packages": {"vireid-jax": "0.1.0", "jax": "0.10.2"},
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An untrained network, and the workdir that evaluating it leaves."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = small_run.config_of(folder / "data")
    model = small_run.Small(6)
    variables = jax.jit(lambda: init_variables(model, jax.random.key(0)))()
    about = RunInfo(
        config=json.loads(config.to_json_best_effort()),
        num_classes=6,
        step=6,
        epoch=1.0,
        data={"title": "walkers:train", "fingerprint": "0" * 64},
        environment=ENVIRONMENT,
    )
    options = {"size": (64, 32), "batch_size": 16, "about": about}
    network = Embedder(model, variables, **options)
    (folder / "run").mkdir()
    path = folder / "run/eval.json"
    results = evaluate_test_split(
        network,
        config,
        about=about,
        selection="last",
        path=path,
        console=Console(quiet=True),
    )
    return SimpleNamespace(
        network=network, workdir=folder / "run", about=about, results=results
    )


@pytest.fixture
def run(evaluated, monkeypatch):
    """The same; its network takes the place of a checkpoint."""
    monkeypatch.setattr(collect, "load", lambda _: evaluated.network)
    monkeypatch.setattr(collect, "last_checkpoint", lambda _: evaluated.about.to_json())
    return evaluated


def test_the_embeddings_of_the_evaluation_are_shown(run, tmp_path):
    write([run.workdir], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    for name in ("cmc", "distances", "maps", "cameras", "ranks-1", "ranks-2"):
        assert f'<figure id="{name}"' in text
    assert "Activation maps: this network has no map &#39;conv5&#39;." in text
    assert "Training curves: " in text  # nothing was logged
    for result in run.results:
        assert f"{100 * result.mAP:.1f}" in text
        if result.labels.baseline:
            assert result.labels.feature.replace("_", " ") in text


def test_a_data_set_that_cannot_be_opened_leaves_figures_out(
    run, tmp_path, monkeypatch
):
    def refuse(*_):
        raise UserError("the release is\nnot here.")

    monkeypatch.setattr(vireid_jax.evaluate.test_split, "open_split", refuse)
    write([run.workdir], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "the images cannot be read: the release is not here.</li>" in text
    assert '<figure id="cmc"' not in text
    assert f"{100 * run.results[0].mAP:.1f}<small" in text


def test_missing_embeddings_or_other_numbers_are_refused(run, tmp_path):
    document = run.workdir / "eval.json"
    features = document.with_suffix(".features.npz")
    before = {path: path.read_bytes() for path in (document, features)}
    try:
        with_other = json.loads(document.read_text())
        with_other["results"][0]["metrics"]["mAP"] += 0.1
        document.write_text(json.dumps(with_other))
        with pytest.raises(ValueError, match=r"has mAP .* and its embeddings"):
            write([run.workdir], tmp_path / "report.html")
        features.unlink()
        with pytest.raises(ValueError, match=r"vireid_jax\.evaluate --workdir"):
            write([run.workdir], tmp_path / "report.html")
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    assert not (tmp_path / "report.html").exists()
