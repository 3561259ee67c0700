"""Several runs beside each other: a paired test of two, the mean of many.

An evaluation leaves each query's metrics beside its numbers: `eval.queries.npz` beside
`eval.json`.
"""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from vireid_jax.protocols.result import Result
from vireid_jax.protocols.uncertainty import identity_interval, sign_flip_test
from vireid_jax.workdir import replace_bytes

METRICS = ("Rank-1", "mAP", "mINP")

# --- Each query's metrics, written and read -------------------------------------------


def queries_path(path: Path) -> Path:
    """Returns where the queries' metrics stand, beside the JSON of `path`."""
    return path.with_suffix(".queries.npz")


def write_queries(
    path: Path, results: Sequence[Result], filename: Sequence[str], data: str
) -> None:
    """Writes each query's metrics by each protocol; `data` is the split's fingerprint.

    Arrays are named `PROTOCOL/filename`, `/identity`, `/Rank-1`, `/mAP`, `/mINP`.
    """
    arrays = {"data": np.array(data)}
    for result in results:
        queries, name = result.queries, result.labels.protocol
        arrays[f"{name}/filename"] = np.array([filename[row] for row in queries.row])
        arrays[f"{name}/identity"] = queries.identity
        for metric, values in queries.values.items():
            arrays[f"{name}/{metric}"] = values
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_bytes(path, buffer.getvalue())


def _read_queries(run: Path) -> dict[str, np.ndarray]:
    path = queries_path(_eval_json(run))
    if not path.is_file():
        raise ValueError(
            f"{path} is missing; to write it: python -m vireid_jax.evaluate --workdir"
            f" {run}"
        )
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _eval_json(run: Path) -> Path:
    return run / "eval.json" if run.is_dir() else run


# --- Two runs -------------------------------------------------------------------------


def compare(one: Path, other: Path) -> Table:
    """Tests whether two runs differ, on the same queries: a table, in percent.

    The difference is the second run's less the first's; p is of a sign-flip test by
    identity, the interval of a bootstrap by identity. Raises ValueError where the runs
    were tested on other images or by no common protocol.
    """
    first, second = _read_queries(one), _read_queries(other)
    if first["data"] != second["data"]:
        raise ValueError(
            f"{one} and {other} were tested on different images (fingerprints"
            f" {str(first['data'])[:12]} and {str(second['data'])[:12]}); queries must"
            " be the same to be paired"
        )
    names = [_protocols(arrays) for arrays in (first, second)]
    common = [name for name in names[0] if name in names[1]]
    if not common:
        raise ValueError(
            f"{one} was tested by {names[0]} and {other} by {names[1]}: no protocol in"
            " common. Evaluate both with the same --protocol"
        )
    table = Table(title=f"A: {one}  B: {other}", box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for column in ("A", "B", "B - A", "95 % interval", "p"):
        table.add_column(column, justify="right")
    for name in common:
        table.add_row(name, style="bold")
        identity = first[f"{name}/identity"]
        for metric in METRICS:
            a, b = first[f"{name}/{metric}"], second[f"{name}/{metric}"]
            low, high = identity_interval(b - a, identity)
            means = (np.nanmean(a), np.nanmean(b), np.nanmean(b - a))
            table.add_row(
                f"  {metric}",
                *(f"{100 * x:.2f}" for x in means),
                f"{100 * low:.2f} to {100 * high:.2f}",
                f"{sign_flip_test(b - a, identity):.4f}",
            )
    table.caption = "of these queries' identities; another training seed is not in it"
    return table


def _protocols(arrays: dict[str, np.ndarray]) -> list[str]:
    return [
        name.removesuffix("/identity") for name in arrays if name.endswith("/identity")
    ]


# --- Many runs ------------------------------------------------------------------------


def summarise(runs: Sequence[Path]) -> Table:
    """Averages several runs, such as RegDB's ten trials: a table, in percent.

    Raises ValueError where two runs are of one RegDB trial, or of other protocols.
    """
    rows: dict[str, dict[Path, dict[str, Any]]] = {}
    for run in runs:
        for result in _read_results(run):
            rows.setdefault(_without_trial(result["protocol"]), {})[run] = result
    for protocol, found in rows.items():
        lacking = [str(run) for run in runs if run not in found]
        if lacking:
            raise ValueError(
                f"{', '.join(lacking)} has no result by {protocol}, which others have;"
                " give runs that were tested by the same protocols"
            )
        _check_trials(protocol, found)
    return _summary_table(rows)


def _read_results(run: Path) -> list[dict[str, Any]]:
    path = _eval_json(run)
    try:
        document = json.loads(path.read_text())
        return [one for one in document["results"] if not one["baseline"]]
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} is missing; to write it: python -m vireid_jax.evaluate --workdir"
            f" {run}"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no results of an evaluation") from error


def _without_trial(protocol: str) -> str:
    return re.sub(r"/trial_\d+$", "", protocol)


def _check_trials(protocol: str, found: dict[Path, dict[str, Any]]) -> None:
    trials: dict[str, Path] = {}
    for run, result in found.items():
        name = result["protocol"]
        if name != protocol and name in trials:
            raise ValueError(
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
