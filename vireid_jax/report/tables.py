"""The tables of a report, as texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid_jax.config import default_config, flat, with_defaults
from vireid_jax.evaluate.compare_runs import compare
from vireid_jax.report.collect import EvaluatedRun
from vireid_jax.report.figures import Table, percent


def label_words(result: dict[str, Any]) -> str:
    """Describe in a sentence what an entry of eval.json measures: all its labels."""
    return f"{result['dataset']}, {test_words(result)}; {_feature_words(result)}."


def test_words(result: dict[str, Any]) -> str:
    """Describe the queries, the gallery and the trials of an entry of eval.json."""
    trials = len(result["trials"])
    parts = [result["direction"]]
    if result["mode"]:
        parts.append(f"{result['mode']} mode")
    if result["shots"]:
        parts.append(f"{result['shots']}-shot")
    parts.append(f"{trials} trial" + "s" * (trials != 1))
    if result["draws"] != "none":
        parts.append(f"draws {result['draws']}")
    parts.append(
        f"{result['queries']:,} queries ({result['valid_queries']:,} valid) against"
        f" {result['gallery']:,} images"
    )
    return ", ".join(parts)


def _feature_words(result: dict[str, Any]) -> str:
    flip = {True: "image and mirror summed", False: "no mirror", None: "mirror unknown"}
    reranking = result["reranking"]
    parts = [f"feature {result['feature']}", flip[result["flip"]]]
    parts.append("no re-ranking" if reranking == "none" else reranking)
    if result["epoch"] is not None:
        parts.append(f"epoch {result['epoch']:g}")
        parts += [result["selection"]] if result["selection"] else []
    return ", ".join(parts)


def origin_words(runs: Sequence[EvaluatedRun]) -> str:
    """Describe the data set, feature and epoch of a figure without a protocol."""
    results = [run.own_results[0] for run in runs]
    return _of_each(
        [f"Test split of {r['dataset']}; {_feature_words(r)}." for r in results]
    )


def _of_each(sentences: Sequence[str]) -> str:
    """Join what is true of each run; one sentence if it is the same of both."""
    if len(set(sentences)) == 1:
        return sentences[0]
    return " ".join(f"{'AB'[i]}: {words}" for i, words in enumerate(sentences))


def results(runs: Sequence[EvaluatedRun]) -> list[dict[str, Any]]:
    """List protocols with rows of cells: each a value, its interval and deviation."""
    groups = []
    for first in runs[0].own_results:
        name = first["protocol"]
        own = [r for run in runs for r in run.own_results if r["protocol"] == name]
        titles = ["this network"] if len(runs) == 1 else ["Run A", "Run B"]
        rows = [_row(title, r) for title, r in zip(titles, own, strict=True)]
        rows += [
            _row(r["feature"], r)
            for r in runs[0].results
            if r["protocol"] == name and r["baseline"]
        ]
        words = _of_each([label_words(result) for result in own])
        metrics = list(first["metrics"])
        groups.append(
            {"protocol": name, "metrics": metrics, "words": words, "rows": rows}
        )
    return groups


def _row(title: str, result: dict[str, Any]) -> dict[str, Any]:
    cells = []
    for name, value in result["metrics"].items():
        cell = {"value": percent(value), "interval": "", "deviation": ""}
        if name in result.get("intervals", {}):
            low, high = result["intervals"][name]
            cell["interval"] = f"{percent(low)} to {percent(high)}"
        if name in result.get("deviation", {}):
            cell["deviation"] = f"± {percent(result['deviation'][name])}"
        cells.append(cell)
    title = title.replace("_", " ")
    return {"title": title, "cells": cells, "baseline": result["baseline"]}


def trials(runs: Sequence[EvaluatedRun]) -> list[Table]:
    """Make a table of each trial's metrics, of each protocol with several."""
    tables = []
    for number, run in enumerate(runs):
        letter = f", run {'AB'[number]}" if len(runs) > 1 else ""
        for result in run.own_results:
            rows = [
                [f"trial {trial}", *map(percent, metrics.values())]
                for trial, metrics in zip(
                    result["trials"], result["by_trial"], strict=True
                )
            ]
            if len(rows) > 1:
                title = f"{result['protocol']}{letter}, percent"
                tables.append(Table(title, ["", *result["metrics"]], rows))
    return tables


def _side_by_side(
    title: str, runs: Sequence[EvaluatedRun], columns: Sequence[dict[str, str]]
) -> Table:
    """Make a table of a column of named texts for each run."""
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "-") for column in columns)] for name in names]
    heads = ["This run"] if len(runs) == 1 else ["Run A", "Run B"]
    return Table(title, ["", *heads], rows)


def costs(runs: Sequence[EvaluatedRun]) -> Table:
    """Make a table of what the runs cost."""
    return _side_by_side("Cost", runs, [run.costs for run in runs])


def origin(runs: Sequence[EvaluatedRun]) -> Table:
    """Make a table of what made each run: config, data, code, machine."""
    columns, default = [], flat(default_config())
    for run in runs:
        about, environment = run.about, run.about["environment"]
        packages = environment["packages"]
        changed = [
            f"{key}={value!r}"
            for key, value in _config(run).items()
            if value != default.get(key)
        ]
        columns.append(
            {
                "Workdir": run.name,
                "Checkpoint": f"step {about['step']:,}, epoch {about['epoch']:g}",
                "vireid-jax": f"{packages['vireid-jax']}, commit"
                f" {environment['commit']}",
                "Python, jax": f"{environment['python']}, {packages['jax']}",
                "Training data": about["data"]["title"],
                "Its fingerprint": about["data"]["fingerprint"][:16],
                "Config, where it is not the default": "\n".join(changed),
            }
        )
    return _side_by_side("Where it comes from", runs, columns)


def _config(run: EvaluatedRun) -> dict[str, Any]:
    return flat(with_defaults(run.about["config"]))


def config_differences(runs: Sequence[EvaluatedRun]) -> Table:
    """List the keys of the config in which two runs differ."""
    columns = [
        {key: repr(value) for key, value in _config(run).items()} for run in runs
    ]
    table = _side_by_side("Keys of the config that differ", runs, columns)
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
