"""Compile the train step for slices of TPUs; write docs/scaling.json and the tables.

    python -m benchmarks.scaling --cell v5e-8/weak --cell v5e-8/recipe
    python -m benchmarks.scaling

The first compiles two cells again, minutes each; it needs libtpu and no TPU. Both write
the numbers of docs/scaling.json into the tables of docs/scaling.md.
"""

import argparse
import json
from dataclasses import asdict
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.demo import write_block
from vireid_jax.config import default_config, validate
from vireid_jax.planning.cost import Cost
from vireid_jax.planning.dry_run import PUBLISHED
from vireid_jax.planning.topology import MEMORY, chips_of, compile_for
from vireid_jax.run.environment import commit

ROOT = Path(__file__).parents[1]
DOCUMENT, NUMBERS = ROOT / "docs/scaling.md", ROOT / "docs/scaling.json"
IMAGES = 4  # K
# Image pairs of a step, P x K, on so many chips.
BATCHES = {"weak": lambda chips: 8 * chips, "recipe": lambda chips: 32}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute")


def compile_cell(cell: str) -> dict[str, Any]:
    """Compile the recipe of configs/sysu_mm01.py in bfloat16 for SLICE/BATCH."""
    name, _, batch = cell.partition("/")
    if batch not in BATCHES:
        raise SystemExit(f"error: unknown cell {cell!r}: SLICE/weak or SLICE/recipe")
    c = default_config()
    c.data.name = "sysu_mm01"
    c.model.students = ("conv2", "conv3", "conv4")
    c.model.granularities = (2, 3, 6)
    c.model.dtype = "bfloat16"
    c.batch.images = IMAGES
    c.batch.identities = BATCHES[batch](chips_of(name)) // IMAGES
    cost = compile_for(name, validate(c), PUBLISHED[c.data.name].identities, (0, 0))
    return {
        "cost": asdict(cost),
        "commit": commit(),
        "date": date.today().isoformat(),
        "versions": {name: metadata.version(name) for name in ("jax", "libtpu")},
    }


def table(batch: str, cells: dict[str, Any]) -> str:
    """Write the table of one batch: a row for each slice that was compiled for it."""
    lines = [
        "| slice | pairs | memory, GB | of the chip's | GFLOP | GB accessed |"
        f" {' | '.join(f'{kind} | MB' for kind in COLLECTIVES)} |",
        "|---|" + "---:|" * (5 + 2 * len(COLLECTIVES)),
    ]
    rows = []
    for cell, entry in cells.items():
        (name, _, own), cost = cell.partition("/"), Cost(**entry["cost"])
        pairs = BATCHES[batch](cost.devices)
        if BATCHES[own](cost.devices) == pairs:  # of one size both are one program
            rows.append((name.partition("-")[0], cost.devices, pairs, cost))
    for chip, chips, pairs, cost in sorted(rows, key=lambda row: row[:2]):
        numbers = [
            str(pairs),
            f"{cost.memory / 1e9:.2f}",
            f"{cost.memory / MEMORY[chip]:.0%}",
            f"{cost.flops / 1e9:.0f}",
            f"{cost.bytes_accessed / 1e9:.1f}",
        ]
        for kind in COLLECTIVES:
            of_kind = cost.collectives.get(kind, {"count": 0, "bytes": 0})
            numbers += [str(of_kind["count"]), f"{of_kind['bytes'] / 1e6:.1f}"]
        lines.append(f"| {chip}-{chips} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def origin(cells: dict[str, Any]) -> str:
    """Name the versions and commits behind the cells, and the compile time."""
    unique = lambda values: ", ".join(sorted(set(values)))
    versions = (f"{k} {v}" for c in cells.values() for k, v in c["versions"].items())
    minutes = sum(c["cost"]["compile_seconds"] for c in cells.values()) / 60
    return (
        f"{len(cells)} programs, compiled in {minutes:.0f} minutes by"
        f" {unique(versions)} from commit"
        f" `{unique(str(cell['commit']) for cell in cells.values())}`"
        f" ({unique(c['date'] for c in cells.values())}). Written by `python -m"
        " benchmarks.scaling`."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", action="append", default=[])
    cells = json.loads(NUMBERS.read_text())
    for cell in parser.parse_args().cell:
        cells[cell] = compile_cell(cell)
        NUMBERS.write_text(json.dumps(dict(sorted(cells.items())), indent=1) + "\n")
    for batch in BATCHES:
        write_block(DOCUMENT, batch, table(batch, cells))
    write_block(DOCUMENT, "origin", origin(cells))


if __name__ == "__main__":
    main()
