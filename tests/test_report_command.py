"""Errors for runs that the report cannot show, or not beside each other."""

import json
import shutil
import sys

import pytest
from report_runs import ROWS, about_of, metrics_of, run_of, split_of

from vireid_jax.evaluate.compare_runs import queries_path, write_queries
from vireid_jax.evaluate.test_split import write_report
from vireid_jax.report import __main__ as command
from vireid_jax.report import collect
from vireid_jax.report.build import write
from vireid_jax.report.collect import check_comparable


def workdir_of(folder, **changed):
    """Write what an evaluated run leaves beside its checkpoints."""
    folder.mkdir()
    test = split_of(**changed)
    path = folder / "eval.json"
    write_queries(queries_path(path), test.results, ROWS.filename, "same")
    write_report(test.results, about_of(), path)
    (folder / "config.json").write_text(json.dumps(about_of()["config"]))
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, metrics_of())))
    return folder


@pytest.fixture
def refused(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "set_up", lambda: None)

    def refuse(*arguments):
        monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            command.main()
        message = str(caught.value.code)
        assert message.startswith("error: ")
        assert "\n" not in message
        return message.removeprefix("error: ").replace(str(tmp_path), "DIR")

    return refuse


def test_a_folder_without_an_evaluated_run_is_refused(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "DIR/empty is not the workdir" in refused("--workdir", tmp_path / "empty")
    run = workdir_of(tmp_path / "run")
    foreign = '{"run": {"features": "f.npz"}, "results": []}'
    (run / "eval.json").write_text(foreign)
    assert "of a training run" in refused("--workdir", run)
    (run / "eval.json").unlink()
    words = "was interrupted before its first checkpoint; to resume it"
    assert words in refused("--workdir", run)


def test_flags_that_make_no_sense_are_refused(refused, tmp_path):
    run = workdir_of(tmp_path / "run")
    three = [x for n in "abc" for x in ("--workdir", tmp_path / n)]
    assert "3 times; give one run, or two" in refused(*three)
    out = tmp_path / "no/such.html"
    assert "there is no folder" in refused("--workdir", run, "--out", out)
    words = "DIR/run is a folder; name a file: DIR/run/report.html"
    assert words in refused("--workdir", run, "--out", run)


def test_a_missing_extra_is_named(refused, tmp_path, monkeypatch):
    run = workdir_of(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "pip install 'vireid-jax[report]'" in refused("--workdir", run)


def test_two_workdirs_without_checkpoints_are_still_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "costs", lambda *_: {"Steps": "20"})
    runs = [workdir_of(tmp_path / "a"), workdir_of(tmp_path / "b", noise=1.0)]
    size = write(runs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert size == len(text.encode())
    assert text.count("there is no checkpoint in") == 2
    assert '<section id="difference"' in text
    shutil.rmtree(tmp_path / "b")
    workdir_of(tmp_path / "b")
    write_queries(
        queries_path(tmp_path / "b/eval.json"),
        split_of().results,
        ROWS.filename,
        "other",
    )
    with pytest.raises(ValueError, match="tested on different images"):
        write(runs, tmp_path / "report.html")


def test_two_workdirs_that_do_not_belong_together_are_refused(
    refused, tmp_path, monkeypatch
):
    monkeypatch.setattr(collect, "costs", lambda *_: {})
    runs = [workdir_of(tmp_path / name) for name in "ab"]
    both = [x for run in runs for x in ("--workdir", run)]
    path = runs[1] / "eval.json"
    text = path.read_text()
    path.write_text(text.replace("regdb/infrared-to-", "regdb/thermal-to-"))
    message = refused(*both)
    assert "DIR/a and DIR/b differ in their protocols: ['regdb/infrared" in message
    assert message.endswith("python -m vireid_jax.report --workdir DIR/a")
    path.write_text(text)
    queries_path(path).unlink()
    assert "DIR/b/eval.queries.npz is missing; to write it" in refused(*both)
    assert not (runs[0] / "report.html").exists()


def test_runs_of_other_code_or_another_test_are_not_mixed():
    one = run_of()
    other_code = about_of()
    other_code["environment"]["packages"]["vireid-jax"] = "0.2.0"
    other_commit = about_of()
    other_commit["environment"]["commit"] = "def"
    other = lambda label, value: [r | {label: value} for r in one.results]
    check_comparable(one, run_of("runs/two"))
    for changed, words in (
        ({"about": other_code}, "their version of vireid-jax: '0.1.0' and '0.2.0'"),
        ({"about": other_commit}, "runs/one and runs/two .* commit: 'abc' and 'def'"),
        ({"results": one.results[:1]}, "their protocols: "),
        ({"results": other("dataset", "llcm")}, "their dataset by regdb/"),
        ({"results": other("selection", "best")}, "selection by .*: 'last' and 'best'"),
        ({"results": other("reranking", "k")}, "reranking by .*: 'none' and 'k'"),
        ({"results": other("flip", False)}, "their flip by .*: True and False"),
        ({"results": other("feature", "part")}, "feature by .*: 'all' and 'part'"),
    ):
        with pytest.raises(ValueError, match=words):
            check_comparable(one, run_of("runs/two", **changed))
