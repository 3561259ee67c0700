"""Several runs beside each other: a paired test of two, the mean of many.

An evaluation leaves each query's metrics beside its numbers: `eval.queries.npz` beside
`eval.json`.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from vireid_jax.protocols.protocol import Rows
from vireid_jax.protocols.result import Result
from vireid_jax.protocols.uncertainty import (
    FEW,
    identity_interval,
    sign_flip_test,
    weighted_mean,
)
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import replace_bytes

METRICS = ("Rank-1", "mAP", "mINP")

# --- Each query's metrics, written and read -------------------------------------------


def queries_path(path: Path) -> Path:
    """Returns where the queries' metrics stand, beside the JSON of `path`."""
    return path.with_suffix(".queries.npz")


def write_queries(
    path: Path, results: Sequence[Result], filename: Sequence[str], data: str
) -> None:
    """Writes each query's metrics by each protocol; `data` is the split's fingerprint.

    Arrays are named `PROTOCOL/filename`, `/identity`, `/trials` (in how many the query
    is valid), `/Rank-1`, `/mAP`, `/mINP`; `/reranking` is a text.
    """
    arrays = {"data": np.array(data)}
    for result in results:
        queries, name = result.queries, result.labels.protocol
        arrays[f"{name}/filename"] = np.array([filename[row] for row in queries.row])
        arrays[f"{name}/identity"] = queries.identity
        arrays[f"{name}/trials"] = queries.trials
        arrays[f"{name}/reranking"] = np.array(result.labels.reranking)
        for metric, values in queries.values.items():
            arrays[f"{name}/{metric}"] = values
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_bytes(path, buffer.getvalue())


def fingerprint(rows: Rows) -> str:
    """Hashes file name, identity, camera and modality of all rows, in any order."""
    columns = (rows.filename, rows.identity, rows.camera, rows.modality)
    lines = sorted("\t".join(map(str, row)) for row in zip(*columns, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_queries(run: Path) -> dict[str, np.ndarray]:
    """Reads each query's metrics of a run, by names as `write_queries` gives them.

    Raises UserError where the file is missing or damaged.
    """
    path = queries_path(_eval_json(run))
    if not path.is_file():
        raise UserError(f"{path} is missing; {_again(run)}")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged; {_again(run)}") from error
    wanted = ("identity", "filename", "trials", "reranking", *METRICS)
    wanted = [f"{name}/{key}" for name in _protocols(arrays) for key in wanted]
    lacking = {"data", *wanted} - arrays.keys()
    if lacking:
        raise UserError(f"{path} lacks {min(lacking)}; {_again(run)}")
    return arrays


def _eval_json(run: Path) -> Path:
    """Finds the JSON of a workdir, or of a file that `--out` named."""
    if not run.exists():
        raise UserError(
            f"there is no {run}; give the workdir of a run, or a file that --out wrote"
        )
    return run / "eval.json" if run.is_dir() else run


def _again(run: Path) -> str:
    command = "python -m vireid_jax.evaluate"
    if run.is_dir():
        return f"to write it: {command} --workdir {run}"
    return f"give the same {command} --workdir or --features again, with --out {run}"


# --- Two runs -------------------------------------------------------------------------


def compare(one: Path, other: Path) -> Table:
    """Tests whether two runs differ, on the same queries: a table, in percent.

    The difference is the second run's less the first's; p is of a sign-flip test by
    identity, the interval of a bootstrap by identity. Raises UserError where the runs
    were tested on other images or by no common protocol.
    """
    first, second = read_queries(one), read_queries(other)
    if first["data"] != second["data"]:
        raise UserError(
            f"{one} and {other} were tested on different images (fingerprints"
            f" {str(first['data'])[:12]} and {str(second['data'])[:12]}); queries must"
            " be the same to be paired"
        )
    names = [_protocols(arrays) for arrays in (first, second)]
    common = [name for name in names[0] if name in names[1]]
    if not common:
        raise UserError(
            f"{one} was tested by {names[0]} and {other} by {names[1]}: no protocol in"
            " common. Evaluate both with the same --protocol"
        )
    table = Table(title=f"A: {one}\nB: {other}", box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for column in ("A", "B", "B - A", "95 % interval", "p"):
        table.add_column(column, justify="right")
    for name in common:
        _check_queries(name, first, second, one, other)
        reranking = [str(arrays[f"{name}/reranking"]) for arrays in (first, second)]
        differs = reranking[0] != reranking[1]
        heading = f"{name}, reranking A {reranking[0]}, B {reranking[1]}"
        table.add_row(heading if differs else name, style="bold")
        identity, weight = first[f"{name}/identity"], first[f"{name}/trials"]
        for metric in METRICS:
            a, b = first[f"{name}/{metric}"], second[f"{name}/{metric}"]
            low, high = identity_interval(b - a, identity, weight=weight)
            means = (weighted_mean(x, weight) for x in (a, b, b - a))
            table.add_row(
                f"  {metric}",
                *(f"{100 * x:.2f}" for x in means),
                f"{100 * low:.2f} to {100 * high:.2f}",
                f"{sign_flip_test(b - a, identity, weight=weight):.4f}",
            )
    table.caption = (
        "interval and p are over identities; another training seed is not in them"
    )
    people = min(len(set(first[f"{name}/identity"])) for name in common)
    if people < FEW:
        table.caption += f"\nof {people} identities only: the interval is too narrow"
    alone = sorted(set(names[0]) ^ set(names[1]))
    if alone:
        table.caption += f"\ntested in one run alone: {', '.join(alone)}"
    return table


def _check_queries(name, first, second, one, other) -> None:
    for key in ("filename", "identity", "trials"):
        a, b = first[f"{name}/{key}"], second[f"{name}/{key}"]
        if not np.array_equal(a, b):
            raise UserError(
                f"{one} and {other} have other queries by {name} (their {key});"
                " queries must be the same to be paired. Evaluate both again"
            )


def _protocols(arrays: dict[str, np.ndarray]) -> list[str]:
    return [
        name.removesuffix("/identity") for name in arrays if name.endswith("/identity")
    ]


# --- Many runs ------------------------------------------------------------------------


def summarise(runs: Sequence[Path]) -> Table:
    """Averages several runs, such as RegDB's ten trials: a table, in percent.

    Raises UserError where a run is given twice, two runs are of one RegDB trial, or
    of other protocols, data sets, re-rankings or selections.
    """
    rows: dict[str, dict[Path, dict[str, Any]]] = {}
    places = [_eval_json(run).resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{run} is given twice; a mean takes each run once")
        for result in _read_results(run):
            rows.setdefault(_without_trial(result["protocol"]), {})[run] = result
    for protocol, found in rows.items():
        lacking = [str(run) for run in runs if run not in found]
        if lacking:
            raise UserError(
                f"{', '.join(lacking)} has no result by {protocol}, which others have;"
                " give runs that were tested by the same protocols"
            )
        _check_same_test(protocol, found)
        _check_trials(protocol, found)
    return _summary_table(rows)


def _read_results(run: Path) -> list[dict[str, Any]]:
    path = _eval_json(run)
    try:
        document = json.loads(path.read_text())
        return [one for one in document["results"] if not one["baseline"]]
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {_again(run)}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no results of an evaluation") from error


def _without_trial(name: str) -> str:
    return re.sub(r"/trial_\d+$", "", name)


def _check_same_test(protocol: str, found: dict[Path, dict[str, Any]]) -> None:
    """Raises UserError unless all runs were tested on one data set and in one way."""
    (run, one), *others = found.items()
    for other, result in others:
        for label in ("dataset", "reranking", "selection", "flip"):
            a, b = (_without_trial(str(r.get(label))) for r in (one, result))
            if a != b:
                raise UserError(
                    f"by {protocol}, {label} is {a!r} in {run} and {b!r} in {other};"
                    " a mean is of runs that were tested alike"
                )


def _check_trials(protocol: str, found: dict[Path, dict[str, Any]]) -> None:
    trials: dict[str, Path] = {}
    for run, result in found.items():
        name = result["protocol"]
        if name != protocol and name in trials:
            raise UserError(
                f"{trials[name]} and {run} are both of {name}; a mean takes each trial"
                " once"
            )
        trials[name] = run


def _summary_table(rows: dict[str, dict[Path, dict[str, Any]]]) -> Table:
    some = next(iter(next(iter(rows.values())).values()))["metrics"]
    table = Table(title="Metrics in percent", box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for name in some:
        table.add_column(name, justify="right")
    for protocol, found in rows.items():
        table.add_row(protocol, style="bold")
        for run, result in found.items():
            values = (f"{100 * result['metrics'][name]:.2f}" for name in some)
            trial = result["protocol"].removeprefix(protocol).lstrip("/")
            table.add_row(f"  {run} {trial}".rstrip(), *values)
        every = np.array(
            [[r["metrics"][name] for name in some] for r in found.values()]
        )
        table.add_row("  mean", *(f"{100 * x:.2f}" for x in every.mean(0)))
        if len(every) > 1:
            spread = every.std(0, ddof=1)
            table.add_row("  deviation", *(f"{100 * x:.2f}" for x in spread))
    table.caption = _missing(rows)
    return table


def _missing(rows: dict[str, dict[Path, dict[str, Any]]]) -> str | None:
    """Says which of RegDB's ten trials no run has."""
    numbers = {
        int(match[1])
        for found in rows.values()
        for result in found.values()
        if (match := re.search(r"^regdb/.*/trial_(\d+)$", result["protocol"]))
    }
    missing = sorted(set(range(1, 11)) - numbers)
    if not numbers or not missing:
        return None
    return f"published numbers are means over ten trials; missing: {missing}"
