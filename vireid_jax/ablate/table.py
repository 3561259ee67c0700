"""What a study found: each row's mean over seeds, and its difference from a baseline.

Differences are paired: by seed, and within a seed by query. Their intervals are over
seeds and identities at once, so that they speak about other seeds and other people.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vireid_jax.evaluate.compare_runs import read_queries
from vireid_jax.protocols.uncertainty import crossed_interval
from vireid_jax.run.errors import UserError

RESULTS = "results.jsonl"
TEST = "eval"  # the name of a config's own test set
CODE = ("commit", "processor", "packages")  # one table is of one of each
METRICS = ("Rank-1", "mAP")


class Setting(NamedTuple):
    """A test set, by the name of the file with its results, and a protocol."""

    name: str
    protocol: str

    def __str__(self) -> str:
        """Writes it as a heading; the config's own test set needs no name."""
        return self.protocol + f", {self.name}" * (self.name != TEST)

    def of(self, line: dict[str, Any], metric: str) -> float:
        """Returns a metric of a run's line, in percent."""
        results = line["results"][self.name]
        (result,) = [r for r in results if r["protocol"] == self.protocol]
        return 100 * result["metrics"][metric]


class Difference(NamedTuple):
    """A paired difference and its 95% interval, in percent points."""

    value: float
    low: float
    high: float


class Row(NamedTuple):
    """What one row's runs gave in one test: by metric, in percent."""

    name: str
    values: dict[str, list[float]]  # of each seed
    differences: dict[str, Difference]  # from the baseline; {} where there are none

    @property
    def seeds(self) -> int:
        """Counts the runs."""
        return len(self.values[METRICS[0]])


def read_results(workdir: Path) -> list[dict[str, Any]]:
    """Reads the lines of a study's finished runs; [] where there are none yet."""
    path = workdir / RESULTS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def find(workdir: Path, baseline: str) -> dict[Setting, list[Row]]:
    """Reads a study's finished runs, and compares each row with the baseline.

    Raises UserError where the runs were made by different code or tested differently.
    """
    lines = read_results(workdir)
    _check_alike(lines, workdir)
    tests = [
        Setting(name, result["protocol"])
        for name, results in lines[0]["results"].items()
        for result in results
    ]
    rows = list(dict.fromkeys(line["row"] for line in lines))
    return {
        test: [_row(row, baseline, test, lines, workdir) for row in rows]
        for test in tests
    }


def markdown(workdir: Path, baseline: str) -> str:
    """Writes the table of a study's finished runs, in percent, for each test.

    Raises UserError as `find` does.
    """
    found = []
    for test, rows in find(workdir, baseline).items():
        metrics = " | ".join(METRICS)
        less = " | ".join(f"{metric} less `{baseline}`" for metric in METRICS)
        found += [f"### {test}", "", f"| | seeds | {metrics} | {less} |"]
        found += ["|---|---:|" + "---:|" * 4, *map(_line, rows), ""]
    return "\n".join([*found, _about(read_results(workdir)), ""])


def _check_alike(lines: Sequence[dict[str, Any]], workdir: Path) -> None:
    first = lines[0]
    for line in lines[1:]:
        for key in ("study", *CODE):
            if line[key] != first[key]:
                raise UserError(
                    f"{workdir}: {first['row']}, seed {first['seed']} has {key}"
                    f" {first[key]!r}, and {line['row']}, seed {line['seed']} has"
                    f" {line[key]!r}; one table is of one code on one machine. Give"
                    " another --workdir"
                )


def _row(
    row: str,
    baseline: str,
    test: Setting,
    lines: Sequence[dict[str, Any]],
    workdir: Path,
) -> Row:
    mine = {line["seed"]: line for line in lines if line["row"] == row}
    theirs = {line["seed"] for line in lines if line["row"] == baseline}
    seeds = sorted(mine)
    values = {m: [test.of(mine[seed], m) for seed in seeds] for m in METRICS}
    common = [seed for seed in seeds if seed in theirs]
    if row == baseline or not common:
        return Row(row, values, {})
    differences = {
        metric: _difference(workdir, test, metric, row, baseline, common)
        for metric in METRICS
    }
    return Row(row, values, differences)


def _difference(
    workdir: Path,
    test: Setting,
    metric: str,
    row: str,
    baseline: str,
    seeds: Sequence[int],
) -> Difference:
    """Returns the mean difference over seeds and queries, and its interval."""
    differences = []
    for seed in seeds:
        a, b = (
            read_queries(workdir / name / f"seed_{seed}" / f"{test.name}.json")
            for name in (row, baseline)
        )
        if a["data"] != b["data"]:
            raise UserError(
                f"{workdir}: {row} and {baseline} were tested on different images with"
                f" seed {seed}; give another --workdir"
            )
        key = f"{test.protocol}/{metric}"
        differences.append(100 * (a[key] - b[key]))
    found = crossed_interval(
        np.stack(differences),
        a[f"{test.protocol}/identity"],
        a[f"{test.protocol}/trials"],
    )
    return Difference(*found)


def _line(row: Row) -> str:
    """Writes a row of the table."""
    cells = [f"`{row.name}`", str(row.seeds)]
    for values in row.values.values():
        spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.1f}{spread}")
    for metric in METRICS:
        found = row.differences.get(metric)
        cells.append(
            f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
            if found
            else ""
        )
    return "| " + " | ".join(cells) + " |"


def _about(lines: Sequence[dict[str, Any]]) -> str:
    first = lines[0]
    seconds = np.median([line["seconds"] for line in lines])
    return (
        f"Means over seeds ± standard deviation; differences with 95% intervals over"
        f" seeds and identities. {len(lines)} runs of {seconds:.0f} s (median), commit"
        f" {first['commit']}, {first['processor']}, jax {first['packages']['jax']}."
    )
