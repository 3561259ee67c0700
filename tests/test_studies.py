"""`python -m benchmarks.studies`, and what it wrote into docs/."""

import csv
import json
import re
import sys

import numpy as np
import pytest

from benchmarks import studies
from vireid_jax.ablate.study import read_study
from vireid_jax.ablate.table import RESULTS, find, markdown, svg

NAMES = sorted(path.stem for path in studies.FOLDER.glob("*.csv"))
PROTOCOL, METRICS = "walkers/visible-to-infrared", ("Rank-1", "mAP", "mINP")
NUMBER = r"[+-]?\d+\.\d"


def finish_run(workdir, row, seed):
    """Leave what a study's finished run leaves, with random metrics of 12 queries."""
    rng = np.random.default_rng([len(row), seed])
    run, results = workdir / row / f"seed_{seed}", {}
    run.mkdir(parents=True)
    for test in ("eval", "shifted"):
        values = {metric: rng.random(12) for metric in METRICS}
        arrays = {"identity": np.arange(12) // 3, "trials": np.ones(12, int), **values}
        arrays |= {"filename": np.arange(12).astype(str), "reranking": np.array("none")}
        arrays = {f"{PROTOCOL}/{name}": array for name, array in arrays.items()}
        np.savez(run / f"{test}.queries.npz", data="same", **arrays)
        (run / f"{test}.json").write_text("{}")
        metrics = {metric: float(array.mean()) for metric, array in values.items()}
        results[test] = [{"protocol": PROTOCOL, "metrics": metrics}]
    line = {"study": "method", "row": row, "seed": seed, "results": results}
    line |= {"commit": "abc", "processor": "CPU", "packages": {"jax": "1"}}
    with (workdir / RESULTS).open("a") as file:
        file.write(json.dumps({**line, "seconds": 60.0}) + "\n")


@pytest.fixture
def workdir(tmp_path):
    for row, seed in (("baseline", 0), ("both", 0), ("baseline", 1), ("both", 1)):
        finish_run(tmp_path / "run", row, seed)
    return tmp_path / "run"


@pytest.fixture
def write_into(tmp_path, monkeypatch):
    """The command, with a docs folder of its own."""
    document = tmp_path / "results.md"
    document.write_text("before\n<!-- method -->\nold\n<!-- /method -->\nafter\n")
    monkeypatch.setattr(studies, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(studies, "DOCUMENT", document)

    def run(workdir):
        monkeypatch.setattr(sys, "argv", ["studies", "--workdir", str(workdir)])
        studies.main()
        return document.read_text()

    return run


def read_csv(name):
    with (studies.FOLDER / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_figure_and_metrics_are_written(workdir, write_into):
    text, table = write_into(workdir), markdown(workdir, "baseline").strip()
    picture = "![differences of Rank-1](results/method.svg)"
    block = f"<!-- method -->\n{picture}\n\n{table}\n<!-- /method -->"
    assert text == f"before\n{block}\nafter\n"
    assert table.count("| `both` | 2 |") == 2
    drawn = svg(find(workdir, "baseline"), "baseline")
    assert (studies.FOLDER / "method.svg").read_text() == drawn
    lines = list(map(json.loads, (workdir / RESULTS).read_text().splitlines()))
    for line, row in zip(lines, read_csv("method")[::2], strict=True):
        assert (row["row"], int(row["seed"])) == (line["row"], line["seed"])
        metrics = line["results"][row["test"]][0]["metrics"]
        assert {metric: float(row[metric]) for metric in METRICS} == metrics
        assert (row["commit"], row["processor"], row["jax"]) == ("abc", "CPU", "1")


def test_nothing_is_written_without_results_or_a_block(workdir, write_into, tmp_path):
    with pytest.raises(
        SystemExit, match=rf"^error: .* has no {RESULTS}; give a [^\n]*$"
    ):
        write_into(tmp_path / "docs")
    studies.DOCUMENT.write_text("nothing")
    with pytest.raises(SystemExit, match="has no block <!-- method -->"):
        write_into(workdir)
    assert studies.DOCUMENT.read_text() == "nothing"
    assert not studies.FOLDER.exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_agree_with_the_metrics_of_the_runs(name):
    baseline = read_study(studies.ROOT / f"configs/ablations/{name}.py").baseline
    text = studies.DOCUMENT.read_text()
    block = re.search(rf"<!-- {name} -->\n(.*)<!-- /{name} -->", text, re.DOTALL)[1]
    runs = {(r["row"], r["test"], r["protocol"], r["seed"]): r for r in read_csv(name)}
    checked = set()
    for heading, table in re.findall(r"### (.*)\n\n((?:\|.*\n)+)", block):
        protocol, _, test = heading.partition(", ")
        for line in table.splitlines()[2:]:
            row, count, *cells = [cell.strip(" `") for cell in line.split("|")[1:-1]]
            seeds = [
                key[3] for key in runs if key[:3] == (row, test or "eval", protocol)
            ]
            keys = [(test or "eval", protocol, seed) for seed in seeds]
            assert len(keys) == int(count)
            checked |= {(row, *key) for key in keys}
            for metric, value, difference in zip(
                ("Rank-1", "mAP"), cells[:2], cells[2:], strict=True
            ):
                ours, theirs = (
                    np.array([100 * float(runs[name, *key][metric]) for key in keys])
                    for name in (row, baseline)
                )
                assert value == f"{ours.mean():.1f} ± {ours.std(ddof=1):.1f}"
                assert bool(difference) == (row != baseline)
                if difference:
                    mean, low, high = map(float, re.findall(NUMBER, difference))
                    assert mean == pytest.approx((ours - theirs).mean(), abs=0.051)
                    assert low <= mean <= high
    assert checked == runs.keys()
