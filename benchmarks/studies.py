"""Keep a study's results in docs/results, and write docs/results.md from what is kept.

    python -m benchmarks.studies --workdir runs/sharing
    python -m benchmarks.studies

Of each finished run what its tests gave is kept, a few hundred kilobytes. Copied to a
workdir, that is enough for `python -m vireid_jax.ablate` of the same commit to go on
with the rows that are missing. Both commands then replace the blocks of
docs/results.md, one a study, and the figures.
"""

import argparse
import json
import shutil
from pathlib import Path

from benchmarks.demo import ROOT, write_block
from vireid_jax.ablate.figure import svg
from vireid_jax.ablate.study import read_study
from vireid_jax.ablate.table import RESULTS, find, markdown, read_results

KEPT, DOCUMENT = ROOT / "docs/results", ROOT / "docs/results.md"


def keep(workdir: Path) -> None:
    """Copies a study's lines, and of each run what `ablate.table` reads."""
    lines = read_results(workdir)
    if not lines:
        raise SystemExit(f"error: {workdir} has no {RESULTS}; give a study's --workdir")
    folder = KEPT / lines[0]["study"]
    for line in lines:
        run = Path(line["row"]) / f"seed_{line['seed']}"
        (folder / run).mkdir(parents=True, exist_ok=True)
        for name in line["results"]:
            queries = run / f"{name}.queries.npz"
            shutil.copyfile(workdir / queries, folder / queries)
            found = json.loads((workdir / run / f"{name}.json").read_text())
            text = json.dumps({"results": found["results"]}, indent=1)
            (folder / run / f"{name}.json").write_text(text + "\n")
    shutil.copyfile(workdir / RESULTS, folder / RESULTS)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Write docs/results.md.")
    parser.add_argument("--workdir", type=Path, action="append", default=[])
    for workdir in parser.parse_args().workdir:
        keep(workdir)
    for folder in sorted(path for path in KEPT.iterdir() if path.is_dir()):
        baseline = read_study(ROOT / f"configs/ablations/{folder.name}.py").baseline
        (KEPT / f"{folder.name}.svg").write_text(svg(find(folder, baseline), baseline))
        picture = f"![differences of Rank-1](results/{folder.name}.svg)"
        block = f"{picture}\n\n{markdown(folder, baseline)}"
        write_block(DOCUMENT, folder.name, block.strip())


if __name__ == "__main__":
    main()
