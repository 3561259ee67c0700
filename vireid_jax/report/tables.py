"""The tables of a report, as texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid_jax.compare_runs import compare
from vireid_jax.config import changed_keys, with_defaults
from vireid_jax.report.collect import Run
from vireid_jax.report.figures import Table, percent

Cell = dict[str, str]


def words(result: Any) -> str:
    """Says in a sentence what a `Result` measures: all of its labels."""
    one = {**vars(result.labels)}
    return label_words(one)


def label_words(one: dict[str, Any]) -> str:
    """Says in a sentence what an entry of eval.json measures."""
    trials = len(one["trials"])
    parts = [one["dataset"], one["protocol"], one["direction"]]
    if one["mode"]:
        parts.append(f"{one['mode']} mode")
    if one["shots"]:
        parts.append(f"{one['shots']} shot")
    parts.append(f"{trials} trial" + "s" * (trials != 1))
    if one["draws"] != "none":
        parts.append(f"draws {one['draws']}")
    parts.append(
        f"{one['queries']:,} queries ({one['valid_queries']:,} valid) against"
        f" {one['gallery']:,} images"
    )
    return f"{', '.join(parts)}; {_feature_words(one)}."


def _feature_words(one: dict[str, Any]) -> str:
    flip = {True: "image and mirror summed", False: "no mirror", None: "mirror unknown"}
    parts = [f"feature {one['feature']}", flip[one["flip"]]]
    ranking = "no re-ranking" if one["reranking"] == "none" else one["reranking"]
    parts.append(ranking)
    if one["epoch"] is not None:
        selection = f", {one['selection']}" if one["selection"] else ""
        parts.append(f"epoch {one['epoch']:g}{selection}")
    return ", ".join(parts)


def origin_words(result: Any) -> str:
    """Says of which data set, feature and epoch a figure without a protocol is."""
    one = {**vars(result.labels)}
    return f"Test split of {one['dataset']}; {_feature_words(one)}."


def results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Lists protocols with rows of cells: each a value, and how far it is trusted."""
    groups = []
    for one in runs[0].own_results:
        rows = []
        for number, run in enumerate(runs):
            for entry in run.results:
                if entry["protocol"] == one["protocol"] and not entry["baseline"]:
                    letter = f"{'AB'[number]}: " if len(runs) > 1 else ""
                    rows.append(_row(f"{letter}this network", entry, baseline=False))
        rows += [
            _row(entry["feature"], entry, baseline=True)
            for entry in runs[0].results
            if entry["protocol"] == one["protocol"] and entry["baseline"]
        ]
        groups.append(
            {
                "protocol": one["protocol"],
                "metrics": list(one["metrics"]),
                "words": label_words(one),
                "rows": rows,
            }
        )
    return groups


def _row(title: str, entry: dict[str, Any], baseline: bool) -> dict[str, Any]:
    cells: list[Cell] = []
    for name, value in entry["metrics"].items():
        interval, deviation = (entry.get(k, {}) for k in ("intervals", "deviation"))
        cell = {"value": percent(value), "interval": "", "deviation": ""}
        if name in interval:
            low, high = interval[name]
            cell["interval"] = f"{percent(low)} to {percent(high)}"
        if name in deviation:
            cell["deviation"] = f"± {percent(deviation[name])}"
        cells.append(cell)
    return {"title": title.replace("_", " "), "cells": cells, "baseline": baseline}


def trials(runs: Sequence[Run]) -> list[Table]:
    """Makes a table of each trial's metrics, of each protocol with several."""
    found = []
    for number, run in enumerate(runs):
        letter = f", run {'AB'[number]}" if len(runs) > 1 else ""
        for one in run.own_results:
            if len(one["by_trial"]) < 2:
                continue
            rows = [
                [f"trial {trial}", *(percent(value) for value in metrics.values())]
                for trial, metrics in zip(one["trials"], one["by_trial"], strict=True)
            ]
            head = ["", *one["metrics"]]
            found.append(Table(f"{one['protocol']}{letter}, percent", head, rows))
    return found


def costs(runs: Sequence[Run]) -> Table:
    """Puts what the runs cost beside each other."""
    names = list(dict.fromkeys(name for run in runs for name in run.costs))
    rows = [[name, *(run.costs.get(name, "-") for run in runs)] for name in names]
    return Table("Cost", ["", *_titles(runs)], rows)


def origin(runs: Sequence[Run]) -> Table:
    """Says what made each run: config, data, code, machine."""
    columns = []
    for run in runs:
        about, here = run.about, run.about["environment"]
        packages = here["packages"]
        columns.append(
            {
                "Workdir": run.name,
                "Checkpoint": f"step {about['step']:,}, epoch {about['epoch']:g}",
                "vireid-jax": f"{packages['vireid-jax']}, commit {here['commit']}",
                "Python, jax": f"{here['python']}, {packages['jax']}",
                "Training data": about["data"]["title"],
                "Its fingerprint": about["data"]["fingerprint"][:16],
                "Config, where it is not the default": changed_keys(
                    with_defaults(about["config"])
                ),
            }
        )
    rows = [[name, *(str(c[name]) for c in columns)] for name in columns[0]]
    return Table("Where it comes from", ["", *_titles(runs)], rows)


def _titles(runs: Sequence[Run]) -> list[str]:
    if len(runs) == 1:
        return ["This run"]
    return [f"Run {letter}" for letter, _ in zip("AB", runs, strict=True)]


def differences(one: Path, other: Path) -> Table:
    """Tests whether two runs differ: `vireid_jax.compare_runs`, as texts.

    Raises ValueError where they were tested on other images or queries.
    """
    found = compare(one, other)
    columns = [[str(cell) for cell in column.cells] for column in found.columns]
    head = [str(column.header) for column in found.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(str(found.caption).replace("\n", "; "), head, rows)
