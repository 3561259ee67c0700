"""The results of a study: means over seeds, and differences from a baseline.

The figure is written as SVG without a plotting library: a dozen lines and dots.

Differences are paired: by seed, and within a seed by query. Their intervals are over
seeds and identities at once, so they include the variation over both.
"""

import json
from collections.abc import Sequence
from html import escape
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

# Of the figure; readable on light and dark pages.
WIDTH, NAMES, ROW, HEAD, FOOT = 640, 150, 22, 30, 40
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}"
    ".zero{stroke:#888;stroke-dasharray:4 3}.interval{stroke:#0072b2;stroke-width:2}"
    "circle{fill:#0072b2}.grid{stroke:#8884}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.interval{stroke:#56b4e9}"
    "circle{fill:#56b4e9}}"
)

Difference = tuple[float, float, float]
"""A paired difference and the ends of its 95% interval, in percent points."""


class Setting(NamedTuple):
    """A test set, by the name of the file with its results, and a protocol."""

    name: str
    protocol: str

    def __str__(self) -> str:
        """Return a heading; the config's own test set needs no name."""
        return self.protocol + f", {self.name}" * (self.name != TEST)


class StudyRow(NamedTuple):
    """One row's metrics in one test, in percent."""

    name: str
    values: dict[str, list[float]]  # by metric: of each seed
    differences: dict[str, Difference]  # from the baseline; {} where there are none


def read_results(workdir: Path) -> list[dict[str, Any]]:
    """Read the lines of a study's finished runs; [] if there are none yet."""
    path = workdir / RESULTS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_same(
    workdir: Path, lines: Sequence[dict[str, Any]], keys: Sequence[str]
) -> None:
    """Raise UserError unless all results are of one code on one machine."""
    for line in lines:
        for key in keys:
            if line[key] != lines[0][key]:
                raise UserError(
                    f"{workdir} has runs with {key} {lines[0][key]!r}, and now it is"
                    f" {line[key]!r}; one table is of one code on one machine. Give"
                    " another --workdir"
                )


def find(workdir: Path, baseline: str) -> dict[Setting, list[StudyRow]]:
    """Read a study's finished runs, and compare each row with the baseline.

    Raise UserError where the runs are of different code or test images.
    """
    lines = read_results(workdir)
    first = lines[0]
    check_same(workdir, lines, ("study", *CODE))
    by_row: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        by_row.setdefault(line["row"], {})[line["seed"]] = line["results"]
    settings = [
        Setting(name, result["protocol"])
        for name, results in first["results"].items()
        for result in results
    ]
    rows: dict[Setting, list[StudyRow]] = {setting: [] for setting in settings}
    for setting in settings:
        for row, by_seed in by_row.items():
            seeds = sorted(by_seed)
            metrics = [
                result["metrics"]
                for seed in seeds
                for result in by_seed[seed][setting.name]
                if result["protocol"] == setting.protocol
            ]
            values = {m: [100 * of_seed[m] for of_seed in metrics] for m in METRICS}
            common = [seed for seed in seeds if seed in by_row.get(baseline, ())]
            differences = {}
            if row != baseline and common:
                differences = _differences(workdir, setting, row, baseline, common)
            rows[setting].append(StudyRow(row, values, differences))
    return rows


def _differences(
    workdir: Path, setting: Setting, row: str, baseline: str, seeds: list[int]
) -> dict[str, Difference]:
    """Return, by metric, the mean difference over seeds and queries."""
    pairs = []
    for seed in seeds:
        file = f"seed_{seed}/{setting.name}.json"
        pair = [read_queries(workdir / name / file) for name in (row, baseline)]
        if pair[0]["data"] != pair[1]["data"]:
            raise UserError(
                f"{workdir}: {row} and {baseline} were tested on different images with"
                f" seed {seed}; give another --workdir"
            )
        pairs.append(pair)
    of = lambda queries, name: queries[f"{setting.protocol}/{name}"]
    identity, trials = (of(pairs[-1][0], name) for name in ("identity", "trials"))
    differences = {}
    for metric in METRICS:
        percent = [100 * (of(a, metric) - of(b, metric)) for a, b in pairs]
        differences[metric] = crossed_interval(np.stack(percent), identity, trials)
    return differences


def markdown(workdir: Path, baseline: str) -> str:
    """Write the table of a study's finished runs, in percent, for each test.

    Raise UserError as `find` does.
    """
    lines = []
    for setting, rows in find(workdir, baseline).items():
        metrics = " | ".join(METRICS)
        less = " | ".join(f"{metric} less `{baseline}`" for metric in METRICS)
        lines += [f"### {setting}", "", f"| | seeds | {metrics} | {less} |"]
        lines += ["|---|---:|" + "---:|" * 4, *map(_line, rows), ""]
    results = read_results(workdir)
    first, seconds = results[0], np.median([line["seconds"] for line in results])
    lines.append(
        f"Means over seeds ± standard deviation; differences with 95% intervals over"
        f" seeds and identities. {len(results)} runs of {seconds:.0f} s (median),"
        f" commit {first['commit']}, {first['processor']}, jax"
        f" {first['packages']['jax']}.\n"
    )
    return "\n".join(lines)


def _line(row: StudyRow) -> str:
    """Write a row of the table."""
    cells = [f"`{row.name}`", str(len(row.values[METRICS[0]]))]
    for values in row.values.values():
        spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.1f}{spread}")
    for metric in METRICS:
        difference = row.differences.get(metric)
        text = "{:+.1f} ({:+.1f} to {:+.1f})"
        cells.append(text.format(*difference) if difference else "")
    return "| " + " | ".join(cells) + " |"


def svg(rows: dict[Setting, list[StudyRow]], baseline: str) -> str:
    """Draw the differences of Rank-1, in percent points, a block for each test."""
    blocks = {
        setting: [(r.name, r.differences["Rank-1"]) for r in of_test if r.differences]
        for setting, of_test in rows.items()
    }
    ends = [x for block in blocks.values() for _, d in block for x in d[1:]]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    x_of = lambda value: NAMES + (value - low) / (high - low) * (WIDTH - NAMES - 10)

    drawn, top = [], 0
    for setting, block in blocks.items():
        drawn.append(_text(8, top + 20, str(setting), "start"))
        for number, (name, difference) in enumerate(block):
            y = top + HEAD + (number + 0.5) * ROW
            x, start, end = map(x_of, difference)
            words = "{:+.1f} ({:+.1f} to {:+.1f})".format(*difference)
            drawn.append(_text(NAMES - 8, y + 4, name, "end"))
            drawn.append(
                f"<g><title>{escape(name)}: {words}</title>"
                f'<path class="interval" d="M{start:.1f} {y:.1f}H{end:.1f}"/>'
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>'
            )
        top += HEAD + len(block) * ROW
    for value in (low + margin, 0.0, high - margin):
        style, x = "grid" if value else "zero", x_of(value)
        drawn.append(f'<path class="{style}" d="M{x:.1f} {HEAD - 6}V{top}"/>')
        drawn.append(_text(x, top + 16, f"{value:+.1f}" if value else "0", "middle"))
    words = f"Rank-1, percent points more than {baseline}; 95% intervals"
    drawn.append(_text((NAMES + WIDTH) / 2, top + 34, words, "middle"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + FOOT}"'
        f' role="img" aria-label="{escape(words)}"><style>{STYLE}</style>'
        f"{''.join(drawn)}</svg>\n"
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    attributes = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {attributes}>{escape(words)}</text>"
