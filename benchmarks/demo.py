"""Run `make demo` in a fresh clone, and write its results into the README.

    python -m benchmarks.demo

clones the last commit into an empty folder, runs `make demo` there, and replaces the
README's block between `<!-- demo -->` and `<!-- /demo -->`. It needs git, make, about
ten minutes and 3 GB of disk.
"""

import json
import os
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COLUMNS = ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")


def main() -> None:
    """Run the command."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "vireid_jax"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache"}
        start = time.monotonic()
        subprocess.run(["make", "demo"], cwd=clone, env=environment, check=True)
        minutes = (time.monotonic() - start) / 60
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        document = json.loads((clone / "runs/demo/eval.json").read_text())
        metrics = (clone / "runs/demo/metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, metrics) if row["kind"] == "train"]
    block = describe(document, rows, minutes, peak)
    print(block)
    write_block(ROOT / "README.md", "demo", block)


def describe(
    document: dict[str, Any], rows: list[dict[str, Any]], minutes: float, peak: float
) -> str:
    """Write the results as Markdown: a table, then the conditions."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + "---:|" * len(COLUMNS)]
    for direction in dict.fromkeys(r["direction"] for r in document["results"]):
        lines.append(f"| **{direction.replace('-', ' ')}** |" + " |" * len(COLUMNS))
        for result in document["results"]:
            if result["direction"] == direction:
                values = (f"{100 * result['metrics'][name]:.1f}" for name in COLUMNS)
                name = result["feature"] if result["baseline"] else "this network"
                lines.append(f"| {name} | {' | '.join(values)} |")
    run, model = document["run"], document["results"][0]
    environment = run["environment"]
    lines += [
        "",
        f"Percent; {model['queries']} queries against {model['gallery']} images of "
        "identities never trained on, one trial, no re-ranking, embeddings of image "
        f"and mirror summed, last epoch ({model['epoch']:g}), seed "
        f"{run['config']['seed']}. "
        f"`make demo` took {minutes:.1f} minutes in all (training "
        f"{sum(row['seconds'] for row in rows) / 60:.1f}) and {peak:.1f} GiB, on "
        f"{os.cpu_count()} cores of {environment['processor']}, Python "
        f"{environment['python']}, jax {environment['packages']['jax']}, commit "
        f"`{environment['commit']}`. Written by `python -m benchmarks.demo`.",
    ]
    return "\n".join(lines)


def write_block(path: Path, name: str, block: str) -> None:
    """Replace the text between `<!-- name -->` and `<!-- /name -->`."""
    text, found = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
        lambda match: f"{match[1]}{block}\n{match[2]}",
        path.read_text(),
        flags=re.DOTALL,
    )
    if not found:
        raise SystemExit(f"error: {path} has no block <!-- {name} -->")
    path.write_text(text)


if __name__ == "__main__":
    main()
