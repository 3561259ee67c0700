"""The tables of a report, as texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid_jax.config import default_config, flat, with_defaults
from vireid_jax.evaluate.compare_runs import compare
from vireid_jax.report.collect import Run
from vireid_jax.report.figures import Table, percent

Cell = dict[str, str]


def words(result: Any) -> str:
    """Says in a sentence what a `Result` measures: all of its labels."""
    return label_words(vars(result.labels))


def label_words(one: dict[str, Any]) -> str:
    """Says in a sentence what an entry of eval.json, under its protocol, measures."""
    return f"{one['dataset']}, {test_words(one)}; {_feature_words(one)}."


def test_words(one: dict[str, Any]) -> str:
    """Says who is looked for among whom, and how often."""
    trials = len(one["trials"])
    parts = [one["direction"]]
    if one["mode"]:
        parts.append(f"{one['mode']} mode")
    if one["shots"]:
        parts.append(f"{one['shots']}-shot")
    parts.append(f"{trials} trial" + "s" * (trials != 1))
    if one["draws"] != "none":
        parts.append(f"draws {one['draws']}")
    parts.append(
        f"{one['queries']:,} queries ({one['valid_queries']:,} valid) against"
        f" {one['gallery']:,} images"
    )
    return ", ".join(parts)


def _feature_words(one: dict[str, Any]) -> str:
    flip = {True: "image and mirror summed", False: "no mirror", None: "mirror unknown"}
    parts = [f"feature {one['feature']}", flip[one["flip"]]]
    ranking = "no re-ranking" if one["reranking"] == "none" else one["reranking"]
    parts.append(ranking)
    if one["epoch"] is not None:
        selection = f", {one['selection']}" if one["selection"] else ""
        parts.append(f"epoch {one['epoch']:g}{selection}")
    return ", ".join(parts)


def origin_words(runs: Sequence[Run]) -> str:
    """Says of which data set, feature and epoch a figure without a protocol is."""
    ours = [run.own_results[0] for run in runs]
    return _of_each(
        [f"Test split of {one['dataset']}; {_feature_words(one)}." for one in ours]
    )


def _of_each(sentences: Sequence[str]) -> str:
    """Joins what is to be said of each run; says it once where it is the same."""
    if len(set(sentences)) == 1:
        return sentences[0]
    return " ".join(f"{'AB'[i]}: {words}" for i, words in enumerate(sentences))


def results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Lists protocols with rows of cells: each a value, and how far it is trusted."""
    groups = []
    for one in runs[0].own_results:
        rows, told = [], []
        for number, run in enumerate(runs):
            for entry in run.own_results:
                if entry["protocol"] == one["protocol"]:
                    title = f"Run {'AB'[number]}" if len(runs) > 1 else "this network"
                    rows.append(_row(title, entry, baseline=False))
                    told.append(label_words(entry))
        rows += [
            _row(entry["feature"], entry, baseline=True)
            for entry in runs[0].results
            if entry["protocol"] == one["protocol"] and entry["baseline"]
        ]
        groups.append(
            {
                "protocol": one["protocol"],
                "metrics": list(one["metrics"]),
                "words": _of_each(told),
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
                "Config, where it is not the default": _changed_keys(run),
            }
        )
    rows = [[name, *(str(c[name]) for c in columns)] for name in columns[0]]
    return Table("Where it comes from", ["", *_titles(runs)], rows)


def _changed_keys(run: Run) -> str:
    """Lists what differs from the default config, one key a line."""
    default, given = flat(default_config()), _config(run)
    changed = (key for key in given if given[key] != default.get(key))
    return "\n".join(f"{key}={given[key]!r}" for key in changed)


def _config(run: Run) -> dict[str, Any]:
    return flat(with_defaults(run.about["config"]))


def config_differences(runs: Sequence[Run]) -> Table:
    """Lists the keys of the config in which two runs differ."""
    one, other = map(_config, runs)
    rows = [
        [key, *(repr(config.get(key, "-")) for config in (one, other))]
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    ]
    return Table("Keys of the config that differ", ["", *_titles(runs)], rows)


def _titles(runs: Sequence[Run]) -> list[str]:
    if len(runs) == 1:
        return ["This run"]
    return [f"Run {letter}" for letter, _ in zip("AB", runs, strict=True)]


def differences(one: Path, other: Path) -> Table:
    """Tests whether two runs differ: `vireid_jax.evaluate.compare_runs`, as texts.

    Raises UserError where they were tested on other images or queries.
    """
    found = compare(one, other)
    columns = [[str(cell) for cell in column.cells] for column in found.columns]
    head = [str(column.header) for column in found.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(str(found.caption).replace("\n", "; "), head, rows)
