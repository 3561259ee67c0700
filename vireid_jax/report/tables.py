"""The tables of a report, as texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vireid_jax.config import default_config, flat, with_defaults
from vireid_jax.evaluate.compare_runs import compare
from vireid_jax.report.collect import EvaluatedRun


class Table(NamedTuple):
    """Rows of texts; the first column heads its row."""

    caption: str
    head: list[str]
    rows: list[list[str]]


def percent(value: float) -> str:
    """Write a fraction in percent, as all tables do."""
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


def label_words(result: dict[str, Any]) -> str:
    """Describe in a sentence what an entry of eval.json measures: all its labels."""
    return f"{result['dataset']}, {test_words(result)}; {_feature_words(result)}."


def test_words(result: dict[str, Any]) -> str:
    """Describe the queries, the gallery and the trials of an entry of eval.json."""
    trials, draws = len(result["trials"]), result["draws"]
    parts = [
        result["direction"],
        result["mode"] and f"{result['mode']} mode",
        result["shots"] and f"{result['shots']}-shot",
        f"{trials} trial" + "s" * (trials != 1),
        f"draws {draws}" if draws != "none" else "",
        f"{result['queries']:,} queries ({result['valid_queries']:,} valid) against"
        f" {result['gallery']:,} images",
    ]
    return ", ".join(filter(None, parts))


def _feature_words(result: dict[str, Any]) -> str:
    flip = {True: "image and mirror summed", False: "no mirror", None: "mirror unknown"}
    reranking = result["reranking"]
    parts = [f"feature {result['feature']}", flip[result["flip"]]]
    parts.append("no re-ranking" if reranking == "none" else reranking)
    if result["epoch"] is not None:
        parts += [f"epoch {result['epoch']:g}", result["selection"]]
    return ", ".join(filter(None, parts))


def origin_words(runs: Sequence[EvaluatedRun]) -> str:
    """Describe the data set, feature and epoch of a figure without a protocol."""
    results = [run.own_results[0] for run in runs]
    words = [f"Test split of {r['dataset']}; {_feature_words(r)}." for r in results]
    return _of_each(words)


def _of_each(sentences: Sequence[str]) -> str:
    """Join what is true of each run; one sentence if it is the same of both."""
    if len(set(sentences)) == 1:
        return sentences[0]
    return " ".join(f"{'AB'[i]}: {words}" for i, words in enumerate(sentences))


def results(runs: Sequence[EvaluatedRun]) -> list[dict[str, Any]]:
    """List protocols with their results: the runs', then the baselines of the first."""
    titles = ["this network"] if len(runs) == 1 else ["Run A", "Run B"]
    groups = []
    for name in [result["protocol"] for result in runs[0].own_results]:
        own = [r for run in runs for r in run.own_results if r["protocol"] == name]
        rows = [r | {"title": title} for title, r in zip(titles, own, strict=True)]
        for result in runs[0].results:
            if result["protocol"] == name and result["baseline"]:
                rows.append(result | {"title": result["feature"].replace("_", " ")})
        rows = [{"intervals": {}, "deviation": {}} | row for row in rows]
        words = _of_each([label_words(result) for result in own])
        groups.append({"protocol": name, "words": words, "rows": rows})
    return groups


def trials(runs: Sequence[EvaluatedRun]) -> list[Table]:
    """Make a table of each trial's metrics, of each protocol with several."""
    tables = []
    for number, run in enumerate(runs):
        letter = f", run {'AB'[number]}" if len(runs) > 1 else ""
        for result in run.own_results:
            numbered = zip(result["trials"], result["by_trial"], strict=True)
            rows = [[f"trial {n}", *map(percent, r.values())] for n, r in numbered]
            if len(rows) > 1:
                title = f"{result['protocol']}{letter}, percent"
                tables.append(Table(title, ["", *result["metrics"]], rows))
    return tables


def side_by_side(
    title: str, runs: Sequence[EvaluatedRun], columns: Sequence[dict[str, str]]
) -> Table:
    """Make a table of a column of named texts for each run."""
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "-") for column in columns)] for name in names]
    heads = ["This run"] if len(runs) == 1 else ["Run A", "Run B"]
    return Table(title, ["", *heads], rows)


def origin(runs: Sequence[EvaluatedRun]) -> Table:
    """Make a table of what made each run: config, data, code, machine."""
    columns, default = [], flat(default_config())
    for run in runs:
        about, environment = run.about, run.about["environment"]
        packages, config = environment["packages"], _config(run).items()
        changed = [f"{key}={x!r}" for key, x in config if x != default.get(key)]
        column = {
            "Workdir": run.name,
            "Checkpoint": f"step {about['step']:,}, epoch {about['epoch']:g}",
            "vireid-jax": f"{packages['vireid-jax']}, commit {environment['commit']}",
            "Python, jax": f"{environment['python']}, {packages['jax']}",
            "Training data": about["data"]["title"],
            "Its fingerprint": about["data"]["fingerprint"][:16],
            "Config, where it is not the default": "\n".join(changed),
        }
        columns.append(column)
    return side_by_side("Where it comes from", runs, columns)


def _config(run: EvaluatedRun) -> dict[str, Any]:
    return flat(with_defaults(run.about["config"]))


def config_differences(runs: Sequence[EvaluatedRun]) -> Table:
    """List the keys of the config in which two runs differ."""
    columns = [{key: repr(x) for key, x in _config(run).items()} for run in runs]
    table = side_by_side("Keys of the config that differ", runs, columns)
    return table._replace(rows=[row for row in table.rows if row[1] != row[2]])


def differences(one: Path, other: Path) -> Table:
    """Test whether two runs differ: `vireid_jax.evaluate.compare_runs`, as texts.

    Raise UserError where they were tested on other images or queries.
    """
    table = compare(one, other)
    columns = [list(map(str, column.cells)) for column in table.columns]
    head = [str(column.header) for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(str(table.caption).replace("\n", "; "), head, rows)
