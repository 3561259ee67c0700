"""Several runs beside each other: a paired test of two, the mean of many.

An evaluation writes each query's metrics into `eval.queries.npz` beside `eval.json`.
"""

import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from vireid_jax.protocols.protocol import Rows
from vireid_jax.protocols.result import Result
from vireid_jax.protocols.uncertainty import (
    FEW,
    identity_interval,
    sign_flip_test,
    weighted_mean,
)
from vireid_jax.run.console import plain_table
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import replace_bytes

QUERY_METRICS = ("Rank-1", "mAP", "mINP")

Queries = dict[str, np.ndarray]  # by names as `write_queries` gives them

# --- Each query's metrics, written and read -------------------------------------------


def queries_path(path: Path) -> Path:
    """Return where the queries' metrics are, beside the JSON of `path`."""
    return path.with_suffix(".queries.npz")


def write_queries(
    path: Path, results: Sequence[Result], filename: Sequence[str], data: str
) -> None:
    """Write each query's metrics by each protocol; `data` is the split's fingerprint.

    Arrays are named `PROTOCOL/filename`, `/identity`, `/trials` (in how many the query
    is valid), `/Rank-1`, `/mAP`, `/mINP`; `/reranking` is a text.
    """
    arrays = {"data": np.array(data)}
    for result in results:
        queries, name = result.queries, result.labels.protocol
        if queries is None:  # of a baseline
            continue
        arrays[f"{name}/filename"] = np.array([filename[row] for row in queries.row])
        arrays[f"{name}/identity"] = queries.identity
        arrays[f"{name}/trials"] = queries.trials
        arrays[f"{name}/reranking"] = np.array(result.labels.reranking)
        for metric, values in queries.values.items():
            arrays[f"{name}/{metric}"] = values
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    replace_bytes(path, buffer.getvalue())


def read_npz(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Read arrays; raise UserError if missing, damaged or with Python objects."""
    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy}")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError:
        raise
    except Exception as error:  # of a damaged file numpy raises almost anything
        raise UserError(f"{path} is damaged or has Python objects; {remedy}") from error


def fingerprint(rows: Rows) -> str:
    """Hash file name, identity, camera and modality of all rows, in any order."""
    columns = (rows.filename, rows.identity, rows.camera, rows.modality)
    lines = sorted("\t".join(map(str, row)) for row in zip(*columns, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_queries(run: Path) -> Queries:
    """Read each query's metrics of a run; raise UserError if missing or damaged."""
    path = queries_path(_eval_json(run))
    arrays = read_npz(path, _remedy(run))
    keys = ("identity", "filename", "trials", "reranking", *QUERY_METRICS)
    names = {f"{name}/{key}" for name in _protocols(arrays) for key in keys}
    if missing := {"data", *names} - arrays.keys():
        raise UserError(f"{path} has no {min(missing)}; {_remedy(run)}")
    return arrays


def _eval_json(run: Path) -> Path:
    """Return the JSON of a workdir, or of a file that `--out` named."""
    if not run.exists():
        raise UserError(f"there is no {run}; give a run's workdir, or a file of --out")
    return run / "eval.json" if run.is_dir() else run


def _remedy(run: Path) -> str:
    command = "python -m vireid_jax.evaluate"
    if run.is_dir():
        return f"to write it: {command} --workdir {run}"
    return f"give the same {command} --workdir or --features again, with --out {run}"


def _protocols(arrays: Queries) -> list[str]:
    end = "/identity"
    return [name.removesuffix(end) for name in arrays if name.endswith(end)]


# --- Two runs -------------------------------------------------------------------------


def compare(one: Path, other: Path) -> Table:
    """Test whether two runs differ, on the same queries: a table, in percent.

    The difference is the second run's metric minus the first's; p is of a sign-flip
    test by identity, the interval of a bootstrap by identity. Raise UserError where the
    runs were tested on other images or by no common protocol.
    """
    first, second = read_queries(one), read_queries(other)
    names, others = _protocols(first), _protocols(second)
    if not (common := [name for name in names if name in others]):
        raise UserError(
            f"{one} was tested by {names} and {other} by {others}: no protocol in"
            " common. Evaluate both with the same --protocol"
        )
    labels = ("filename", "identity", "trials")
    for key in ("data", *(f"{name}/{label}" for name in common for label in labels)):
        if not np.array_equal(first[key], second[key]):
            raise UserError(
                f"{one} and {other} were tested on different images (by their {key});"
                " queries must be the same to be paired. Evaluate both again"
            )
    columns = ("A", "B", "B - A", "95 % interval", "p")
    table = plain_table(f"A: {one}\nB: {other}", *columns)
    for name in common:
        a, b = (arrays[f"{name}/reranking"] for arrays in (first, second))
        heading = name if a == b else f"{name}, reranking A {a}, B {b}"
        table.add_row(heading, style="bold")
        identity, weight = first[f"{name}/identity"], first[f"{name}/trials"]
        for metric in QUERY_METRICS:
            a, b = first[f"{name}/{metric}"], second[f"{name}/{metric}"]
            low, high = identity_interval(b - a, identity, weight=weight)
            means = [f"{100 * weighted_mean(x, weight):.2f}" for x in (a, b, b - a)]
            interval = f"{100 * low:.2f} to {100 * high:.2f}"
            p = f"{sign_flip_test(b - a, identity, weight=weight):.4f}"
            table.add_row(f"  {metric}", *means, interval, p)
    table.caption = "interval and p are over identities, not over training seeds"
    people = min(len(set(first[f"{name}/identity"])) for name in common)
    if people < FEW:
        table.caption += f"\nof {people} identities only: the interval is too narrow"
    if alone := sorted(set(names) ^ set(others)):
        table.caption += f"\ntested in one run alone: {', '.join(alone)}"
    return table


# --- Many runs ------------------------------------------------------------------------


def summarise(runs: Sequence[Path]) -> Table:
    """Average several runs, such as RegDB's ten trials: a table, in percent.

    Raise UserError where a run is given twice, two runs are of one RegDB trial, or of
    other protocols, data sets, re-rankings or selections.
    """
    results: dict[str, dict[Path, dict[str, Any]]] = {}  # by protocol, then by run
    paths = [_eval_json(run).resolve() for run in runs]
    for run, path in zip(runs, paths, strict=True):
        if paths.count(path) > 1:
            raise UserError(f"{run} is given twice; a mean takes each run once")
        for result in _read_results(run):
            results.setdefault(_without_trial(result["protocol"]), {})[run] = result
    for protocol, by_run in results.items():
        if missing := [str(run) for run in runs if run not in by_run]:
            raise UserError(
                f"{', '.join(missing)} has no result by {protocol}, which others have;"
                " give runs that were tested by the same protocols"
            )
        _check_mean(protocol, by_run)
    metrics = list(result["metrics"])
    table = plain_table("Metrics in percent", *metrics)
    percent = lambda values: [f"{100 * value:.2f}" for value in values]
    for protocol, by_run in results.items():
        table.add_row(protocol, style="bold")
        rows = [[r["metrics"][name] for name in metrics] for r in by_run.values()]
        for (run, result), row in zip(by_run.items(), rows, strict=True):
            trial = result["protocol"].removeprefix(protocol).lstrip("/")
            table.add_row(f"  {run} {trial}".rstrip(), *percent(row))
        table.add_row("  mean", *percent(np.mean(rows, axis=0)))
        if len(rows) > 1:
            table.add_row("  deviation", *percent(np.std(rows, axis=0, ddof=1)))
    names = [r["protocol"] for by_run in results.values() for r in by_run.values()]
    trials = [name.rpartition("/trial_")[2] for name in names if "/trial_" in name]
    missing = [trial for trial in range(1, 11) if str(trial) not in trials]
    if trials and missing:
        table.caption = f"published numbers are means of ten trials; missing: {missing}"
    return table


def _read_results(run: Path) -> list[dict[str, Any]]:
    path = _eval_json(run)
    try:
        document = json.loads(path.read_text())
        return [one for one in document["results"] if not one["baseline"]]
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {_remedy(run)}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no results of an evaluation") from error


def _without_trial(name: str) -> str:
    return re.sub(r"/trial_\d+$", "", name)


def _check_mean(protocol: str, by_run: dict[Path, dict[str, Any]]) -> None:
    """Raise UserError unless runs were tested alike, and each trial is of one run."""
    trials: dict[str, Path] = {}
    (run, first), *_ = by_run.items()
    for other, result in by_run.items():
        for label in ("dataset", "reranking", "selection", "flip"):
            a, b = (_without_trial(str(r.get(label))) for r in (first, result))
            if a != b:
                raise UserError(
                    f"by {protocol}, {label} is {a!r} in {run} and {b!r} in {other};"
                    " a mean is of runs that were tested alike"
                )
        name = result["protocol"]
        if name != protocol and name in trials:
            raise UserError(
                f"{trials[name]} and {other} are both of {name}; give each trial once"
            )
        trials[name] = other
