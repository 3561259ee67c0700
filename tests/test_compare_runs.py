"""Runs beside each other: paired tests of two, means of many, and refusals."""

import functools
import json

import numpy as np
import pytest
from rich.console import Console
from splits import regdb

from vireid_jax.evaluate import compare_runs
from vireid_jax.evaluate.compare_runs import compare, queries_path, summarise
from vireid_jax.evaluate.test_split import choose_protocols, write_report
from vireid_jax.protocols import KReciprocal, evaluate, get_protocols

ROWS = regdb(identities=15, images=3)


def make_run(folder, dataset="regdb/trial_1", noise=0.5, seed=0, **options):
    """Write what an evaluation of a run leaves in its workdir."""
    data, rerank = options.get("data", "0" * 64), options.get("rerank")
    selection = options.get("selection", "last")
    folder.mkdir()
    rng = np.random.default_rng(seed)
    features = np.eye(15)[ROWS.identity] + noise * rng.standard_normal((90, 15))
    protocols = get_protocols(dataset)
    results = [
        evaluate(p, ROWS, features, reranking=rerank, selection=selection)
        for p in protocols
    ]
    path = folder / "eval.json"
    compare_runs.write_queries(queries_path(path), results, ROWS.filename, data)
    write_report(results, {}, path)
    return results


def text_of(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_two_runs_are_compared_on_the_same_queries(tmp_path):
    better = make_run(tmp_path / "a", noise=0.3)[0]
    worse = make_run(tmp_path / "b", noise=1.0, seed=1)[0]
    lines = text_of(compare(tmp_path / "b", tmp_path / "a")).splitlines()
    row = next(line for line in lines if "mAP" in line).split()
    assert [float(x) for x in row[1:3]] == pytest.approx(
        [100 * worse.mAP, 100 * better.mAP], abs=0.01
    )
    difference, low, high, p = (float(row[i]) for i in (3, 4, 6, 7))
    assert difference == pytest.approx(100 * (better.mAP - worse.mAP), abs=0.01)
    assert 0 < low < difference < high
    assert p < 0.01


def test_a_run_does_not_differ_from_itself(tmp_path):
    make_run(tmp_path / "a")
    for line in text_of(compare(tmp_path / "a", tmp_path / "a")).splitlines():
        if line.split()[:1] in (["Rank-1"], ["mAP"], ["mINP"]):
            assert line.split()[3:] == ["0.00", "0.00", "to", "0.00", "1.0000"]


@pytest.mark.mistakes("evaluation")
def test_what_cannot_be_paired_is_refused(refuses, tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", data="1" * 64)
    make_run(tmp_path / "c", dataset="walkers")
    for run in "def":
        (tmp_path / run).mkdir()
    whole = queries_path(tmp_path / "a/eval.json").read_bytes()
    queries_path(tmp_path / "e/eval.json").write_bytes(whole[:300])
    np.savez(queries_path(tmp_path / "f/eval.json"), mine=np.zeros(3))
    queries = "eval.queries.npz"
    for run, title, *words in (
        ("b", "runs tested on different images, to compare", "on different images"),
        ("c", "runs without a common protocol, to compare", "no protocol in common"),
        ("d", "a run without evaluation, to compare", f"{queries} is missing", "DIR/d"),
        ("e", "a damaged evaluation, to compare", f"{queries} is damaged", "DIR/e"),
        ("f", "some other file, to compare", f"{queries} has no data", "DIR/f"),
        ("g", "a run that is not there, to compare", "there is no DIR/g; give a run"),
    ):
        action = functools.partial(compare, tmp_path / "a", tmp_path / run)
        refuses(title, action, *words)


def test_a_comparison_names_what_differs(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", rerank=KReciprocal(k1=4))
    text = text_of(compare(tmp_path / "a", tmp_path / "b"))
    assert "trial_1, reranking A none, B k-reciprocal (paper) k1=4" in text
    path = queries_path(tmp_path / "b/eval.json")
    with np.load(path) as file:
        kept = {n: file[n] for n in file.files if "infrared-to-visible" not in n}
    np.savez(path, **kept)
    text = text_of(compare(tmp_path / "a", tmp_path / "b"))
    assert "tested in one run alone: regdb/infrared-to-visible/trial_1" in text
    np.savez(path, **kept | {"regdb/visible-to-infrared/trial_1/identity": np.ones(45)})
    with pytest.raises(ValueError, match=r"different images \(.*/identity\)"):
        compare(tmp_path / "a", tmp_path / "b")


def test_trials_are_averaged_and_the_missing_ones_named(tmp_path):
    runs = [tmp_path / f"run{trial}" for trial in (1, 3)]
    results = [
        make_run(run, f"regdb/trial_{trial}", noise=0.2 * trial)[0]
        for run, trial in zip(runs, (1, 3), strict=True)
    ]
    text = text_of(summarise(runs))
    lines = [line.split() for line in text.splitlines()]
    means = next(line for line in lines if line[:1] == ["mean"])
    values = np.array([list(result.headline().values()) for result in results])
    expected = [f"{100 * x:.2f}" for x in values.mean(0)]
    assert means[1:] == expected
    spread = next(line for line in lines if line[:1] == ["deviation"])
    assert spread[1:] == [f"{100 * x:.2f}" for x in values.std(0, ddof=1)]
    assert "missing: [2, 4, 5, 6, 7, 8, 9, 10]" in text


@pytest.mark.mistakes("evaluation")
def test_runs_that_have_no_mean_are_refused(refuses, tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "again", seed=3)
    make_run(tmp_path / "walkers", dataset="walkers")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/eval.json").write_text(json.dumps({"run": 1}))
    for run, title, words in (
        ("again", "one trial twice in a mean", "both of regdb/visible-to-infrared/t"),
        ("walkers", "runs by different protocols in a mean", "has no result by"),
        ("empty", "a run without evaluation in a mean", "is missing"),
        ("broken", "some other file in a mean", "holds no results"),
    ):
        action = functools.partial(summarise, [tmp_path / "a", tmp_path / run])
        refuses(title, action, words)


@pytest.mark.mistakes("evaluation")
def test_runs_that_were_tested_differently_have_no_mean(refuses, tmp_path):
    make_run(tmp_path / "thermal", dataset="walkers/thermal")
    make_run(tmp_path / "nir", dataset="walkers/nir")
    make_run(tmp_path / "rerank", dataset="walkers/thermal", rerank=KReciprocal(k1=4))
    make_run(tmp_path / "best", dataset="walkers/thermal", selection="best")
    one = tmp_path / "thermal"
    for run, title, *words in (
        ("nir", "two data sets in a mean", "is 'walkers/thermal' in", "'walkers/nir'"),
        ("best", "a last and a best checkpoint in a mean", "is 'last' in", "'best' in"),
        ("rerank", "re-ranking in a part of a mean", "is 'none' in", "'k-reciprocal"),
        ("thermal", "a run twice in a mean", "given twice"),
    ):
        refuses(title, functools.partial(summarise, [one, tmp_path / run]), *words)
    with pytest.raises(ValueError, match="given twice"):
        summarise([one, one / "eval.json"])


@pytest.mark.mistakes("evaluation")
def test_a_checkpoint_is_bound_to_its_trial_and_its_data_set(refuses):
    name = "regdb/infrared-to-visible/trial_3"
    (found,) = choose_protocols([name], None, "regdb/trial_3")
    assert found.name == name
    refuses(
        "the protocol of another RegDB trial",
        lambda: choose_protocols([name], None, "regdb/trial_4"),
        "of its test people. Valid values: ",
        "_4'",
    )
    refuses(
        "the protocol of another data set",
        lambda: choose_protocols([name], None, "llcm"),
        "on another data set",
    )
    name = "regdb/infrared-to-visible/trial_1"  # of a run that names no trial
    assert choose_protocols([name], None, "regdb")[0].name == name
    names = ["walkers/visible-to-infrared"]
    (found,) = choose_protocols(names, None, "walkers/nir")
    assert (found.name, found.dataset) == (names[0], "walkers/nir")
    names = ["sysu_mm01/indoor/multi"]
    assert choose_protocols(names, None, "sysu_mm01")[0].name == names[0]
