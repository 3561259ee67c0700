"""The table of a study: each row's mean over seeds, and its difference from a baseline.

Differences are paired: by seed, and within a seed by query. Their intervals are over
seeds and identities at once, so that they speak about other seeds and other people.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vireid_jax.compare import read_queries
from vireid_jax.protocols.uncertainty import crossed_interval

RESULTS = "results.jsonl"
CODE = ("commit", "processor", "packages")  # one table is of one of each
METRICS = ("Rank-1", "mAP")


def read_results(workdir: Path) -> list[dict[str, Any]]:
    """Reads the lines of a study's finished runs; [] where there are none yet."""
    path = workdir / RESULTS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def markdown(workdir: Path, baseline: str) -> str:
    """Writes the table of a study's finished runs, in percent, for each protocol.

    Raises ValueError where the runs were made by different code or tested differently.
    """
    lines = read_results(workdir)
    _check_alike(lines, workdir)
    rows = list(dict.fromkeys(line["row"] for line in lines))
    found = []
    for protocol in (result["protocol"] for result in lines[0]["results"]):
        found += [f"### {protocol}", "", _header(baseline), "|---|---:|" + "---:|" * 4]
        for row in rows:
            found.append(_row(row, baseline, protocol, lines, workdir))
        found.append("")
    return "\n".join([*found, _about(lines), ""])


def _check_alike(lines: Sequence[dict[str, Any]], workdir: Path) -> None:
    first = lines[0]
    for line in lines[1:]:
        for key in ("study", *CODE):
            if line[key] != first[key]:
                raise ValueError(
                    f"{workdir}: {first['row']}, seed {first['seed']} has {key}"
                    f" {first[key]!r}, and {line['row']}, seed {line['seed']} has"
                    f" {line[key]!r}; one table is of one code on one machine. Give"
                    " another --workdir"
                )


def _header(baseline: str) -> str:
    metrics = " | ".join(METRICS)
    less = " | ".join(f"{metric} less `{baseline}`" for metric in METRICS)
    return f"| | seeds | {metrics} | {less} |"


def _row(
    row: str,
    baseline: str,
    protocol: str,
    lines: Sequence[dict[str, Any]],
    workdir: Path,
) -> str:
    mine = {line["seed"]: line for line in lines if line["row"] == row}
    theirs = {line["seed"]: line for line in lines if line["row"] == baseline}
    seeds = sorted(mine)
    cells = [f"`{row}`", str(len(seeds))]
    for metric in METRICS:
        values = [100 * _metric(mine[seed], protocol, metric) for seed in seeds]
        spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.1f}{spread}")
    common = [seed for seed in seeds if seed in theirs]
    for metric in METRICS:
        if row == baseline or not common:
            cells.append("")
            continue
        value, low, high = _difference(workdir, protocol, metric, row, baseline, common)
        cells.append(f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})")
    return "| " + " | ".join(cells) + " |"


def _metric(line: dict[str, Any], protocol: str, metric: str) -> float:
    (result,) = [r for r in line["results"] if r["protocol"] == protocol]
    return result["metrics"][metric]


def _difference(
    workdir: Path,
    protocol: str,
    metric: str,
    row: str,
    baseline: str,
    seeds: Sequence[int],
) -> tuple[float, float, float]:
    """Returns the mean difference over seeds and queries, and its interval."""
    differences = []
    for seed in seeds:
        a, b = (
            read_queries(workdir / name / f"seed_{seed}") for name in (row, baseline)
        )
        if a["data"] != b["data"]:
            raise ValueError(
                f"{workdir}: {row} and {baseline} were tested on different images with"
                f" seed {seed}; give another --workdir"
            )
        key = f"{protocol}/{metric}"
        differences.append(a[key] - b[key])
    return crossed_interval(
        np.stack(differences), a[f"{protocol}/identity"], a[f"{protocol}/trials"]
    )


def _about(lines: Sequence[dict[str, Any]]) -> str:
    first = lines[0]
    seconds = np.median([line["seconds"] for line in lines])
    return (
        f"Means over seeds ± standard deviation; differences with 95% intervals over"
        f" seeds and identities. {len(lines)} runs of {seconds:.0f} s (median), commit"
        f" {first['commit']}, {first['processor']}, jax {first['packages']['jax']}."
    )
