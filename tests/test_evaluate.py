"""An evaluation from the embedder to the files it leaves, with a tiny network."""

import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small_run
from rich.console import Console

import vireid_jax.evaluate.__main__
from vireid_jax.embed.embedder import Embedder
from vireid_jax.evaluate.__main__ import evaluate_features, evaluate_workdir
from vireid_jax.evaluate.compare_runs import compare, fingerprint, queries_path
from vireid_jax.evaluate.test_split import (
    choose_protocols,
    evaluate_test_split,
    open_split,
    read_test_features,
)
from vireid_jax.models.build import init_variables
from vireid_jax.protocols import KReciprocal
from vireid_jax.training.run_info import RunInfo


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """What evaluating an untrained network leaves, and what it was evaluated on."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = small_run.config_of(folder / "data")
    model = small_run.Small(6)
    variables = jax.jit(lambda: init_variables(model, jax.random.key(0)))()
    network = Embedder(model, variables, size=(64, 32), batch_size=16)

    def evaluate(name, **options):
        path = folder / name / "eval.json"
        about = RunInfo(config={}, num_classes=6, step=6, epoch=1.0)
        path.parent.mkdir()
        options = {"about": about, "selection": "last", "path": path, **options}
        quiet = Console(quiet=True)
        return evaluate_test_split(network, config, console=quiet, **options)

    records = open_split(config, "test")
    return SimpleNamespace(
        folder=folder,
        evaluate=evaluate,
        results=evaluate("run"),
        records=records,
        features=network.embed_records(records),
    )


def json_of(path):
    return json.loads((path / "eval.json").read_text())["results"]


def test_what_is_written_is_what_is_returned(tested):
    found = json_of(tested.folder / "run")
    assert [result.to_json() for result in tested.results] == found
    for one in found:
        if one["baseline"]:
            assert "intervals" not in one
            continue
        for name, (low, high) in one["intervals"].items():
            assert low <= one["metrics"][name] <= high
    with np.load(queries_path(tested.folder / "run/eval.json")) as queries:
        name = found[0]["protocol"]
        assert queries[f"{name}/mAP"].mean() == pytest.approx(tested.results[0].mAP)
        names = set(queries[f"{name}/filename"])
    visible = np.flatnonzero(tested.records.modality == 0)
    assert names == {tested.records.filename[row] for row in visible}


def test_the_embeddings_are_read_for_the_step_and_the_images_they_are_of(tested):
    run, records = tested.folder / "run", tested.records
    found = read_test_features(run, records, 6)
    np.testing.assert_array_equal(found, tested.features)
    others = records.select(np.arange(4))
    for given in ((run, records, 3), (run, others, 6), (run / "no", others, 6)):
        with pytest.raises(ValueError, match=r"features\.npz .*vireid_jax\.evaluate"):
            read_test_features(*given)


@pytest.fixture(scope="module")
def exported(tested):
    """The features that the run left, and what the command makes of them."""
    (tested.folder / "file").mkdir()
    names = [f"walkers/{d}" for d in ("visible-to-infrared", "infrared-to-visible")]
    arguments = Namespace(
        features=tested.folder / "run/eval.features.npz",
        protocol=names,
        permutations=None,
        rerank=False,
        out=tested.folder / "file" / "eval.json",
    )
    evaluate_features(arguments, Console(quiet=True))
    return tested.folder / "file"


def test_exported_features_give_the_same_numbers(tested, exported):
    ours = [one for one in json_of(tested.folder / "run") if not one["baseline"]]
    theirs = json_of(exported)
    for key in ("metrics", "by_trial", "intervals", "queries", "gallery"):
        assert [one[key] for one in theirs] == [one[key] for one in ours]


def test_files_of_features_can_be_compared(tested, exported):
    assert compare(exported, exported / "eval.json").row_count == 8
    with pytest.raises(ValueError, match="different images"):
        compare(exported, tested.folder / "run")  # whose images are known, too


def test_a_fingerprint_knows_every_column_and_no_order(tested):
    r = tested.records
    columns = ("identity", "camera", "modality")
    rows = {name: getattr(r, name) for name in columns} | {"filename": r.filename}
    found = fingerprint(SimpleNamespace(**rows))
    back = {name: x[::-1] for name, x in rows.items()}
    assert fingerprint(SimpleNamespace(**back)) == found
    for name in columns:
        changed = rows | {name: rows[name] + (np.arange(len(r)) == 3)}
        assert fingerprint(SimpleNamespace(**changed)) != found


def test_only_the_plain_evaluation_replaces_a_runs_result(tested, monkeypatch):
    """So that `--compare` and `--runs` never meet another checkpoint unawares."""
    found = []
    about = RunInfo(small_run.config_of("data").to_dict(), num_classes=6)
    test_split = vireid_jax.evaluate.test_split
    monkeypatch.setattr(test_split, "load", lambda *_: SimpleNamespace(about=about))
    evaluate = lambda *_, path, **__: found.append(path) or []
    monkeypatch.setattr(test_split, "evaluate_test_split", evaluate)
    plain = {"which": "last", "protocol": [], "feature": None, "rerank": False}
    plain |= {"permutations": None, "workdir": Path("run"), "out": None}
    names = ["walkers/visible-to-infrared"]
    out = Path("out.json")
    for changed in (
        {},
        {"which": "best"},
        {"which": "3"},
        {"rerank": True},
        {"feature": "global"},
        {"protocol": names},
        {"which": "best", "out": out},
    ):
        evaluate_workdir(Namespace(**plain | changed), Console(quiet=True))
    assert found == [Path("run/eval.json"), None, None, None, None, None, out]


def test_a_named_protocol_keeps_the_data_set_s_name(tested):
    names = ["walkers/infrared-to-visible"]
    results = tested.evaluate(
        "named",
        protocols=choose_protocols(names, None, "walkers/thermal"),
        reranking=KReciprocal(k1=4),
    )
    labels = [r.labels for r in results if not r.labels.baseline]
    assert [(one.protocol, one.dataset) for one in labels] == [
        ("walkers/infrared-to-visible", "walkers/thermal")
    ]
    assert "k1=4" in labels[0].reranking
