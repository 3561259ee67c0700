"""Write a finished study into the documentation.

    python -m benchmarks.studies --workdir runs/sharing

replaces the study's block of docs/results.md, its figure docs/results/sharing.svg and
docs/results/sharing.csv, which has each run's metrics, commit and machine. Intervals
need the metrics of each query, which stay in the workdir.
"""

import argparse
import csv
from pathlib import Path

from benchmarks.demo import ROOT, write_block
from vireid_jax.ablate.study import read_study
from vireid_jax.ablate.table import RESULTS, find, markdown, read_results, svg

FOLDER, DOCUMENT = ROOT / "docs/results", ROOT / "docs/results.md"


def write(workdir: Path) -> None:
    """Write the block, the figure and the CSV file of the study in `workdir`."""
    lines = read_results(workdir)
    if not lines:
        raise SystemExit(f"error: {workdir} has no {RESULTS}; give a study's --workdir")
    name = lines[0]["study"]
    baseline = read_study(ROOT / f"configs/ablations/{name}.py").baseline
    picture = f"![differences of Rank-1](results/{name}.svg)"
    table = markdown(workdir, baseline).strip()
    write_block(DOCUMENT, name, f"{picture}\n\n{table}")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.svg").write_text(svg(find(workdir, baseline), baseline))
    rows = [
        {
            "row": line["row"],
            "seed": line["seed"],
            "test": test,
            "protocol": result["protocol"],
            **result["metrics"],
            **{key: line[key] for key in ("seconds", "commit", "processor")},
            "jax": line["packages"]["jax"],
        }
        for line in lines
        for test, results in line["results"].items()
        for result in results
    ]
    with (FOLDER / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Write a study into docs/results.md.")
    parser.add_argument("--workdir", type=Path, action="append", required=True)
    for workdir in parser.parse_args().workdir:
        write(workdir)


if __name__ == "__main__":
    main()
