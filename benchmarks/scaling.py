"""Compile the train step for slices of TPUs; write docs/scaling.json and the tables.

    python -m benchmarks.scaling --cell v5e-8/weak --cell v5e-8/recipe
    python -m benchmarks.scaling

The first compiles two cells anew, minutes each, needs libtpu and no TPU. Both replace
the blocks of docs/scaling.md by what docs/scaling.json holds.
"""

import argparse
import json
import math
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks.demo import write_block
from vireid_jax.config import default_config, validate
from vireid_jax.planning import ahead
from vireid_jax.planning.compiled import Collective, Facts
from vireid_jax.planning.hardware import IMAGES_PER_CORE, SLICES, find_slice
from vireid_jax.planning.needs import PUBLISHED
from vireid_jax.planning.roofline import Estimate, Load, estimate
from vireid_jax.run.environment import commit

ROOT = Path(__file__).parents[1]
DOCUMENT, NUMBERS = ROOT / "docs/scaling.md", ROOT / "docs/scaling.json"
IMAGES = 4  # K
PAIRS_PER_CHIP = 8
RECIPE_PAIRS = 32  # P = 8, K = 4
ROWS = {
    "weak": ("v5e-1", "v5e-4", "v5e-8", "v5e-16", "v5e-64", "v5e-256", "v6e-8"),
    "recipe": ("v5e-1", "v5e-4", "v5e-8", "v5e-32"),
}


def config_of(pairs: int) -> ConfigDict:
    """Return the recipe of configs/sysu_mm01.py in bfloat16, of `pairs` a step."""
    c = default_config()
    c.data.name = "sysu_mm01"
    c.model.students = ("conv2", "conv3", "conv4")
    c.model.granularities = (2, 3, 6)
    c.model.dtype = "bfloat16"
    c.batch.images = IMAGES
    c.batch.identities = pairs // IMAGES
    return c


def pairs_of(cell: str) -> int:
    """Return the pairs of a step in the cell `SLICE/BATCH`."""
    name, _, batch = cell.partition("/")
    if batch not in ROWS:
        raise SystemExit(f"error: {cell!r} is no cell; give SLICE/weak or SLICE/recipe")
    return RECIPE_PAIRS if batch == "recipe" else PAIRS_PER_CHIP * SLICES[name].chips


def compile_cell(cell: str) -> dict[str, Any]:
    """Compile one cell; return what docs/scaling.json keeps of it."""
    where, config = find_slice(cell.partition("/")[0]), config_of(pairs_of(cell))
    identities = PUBLISHED[config.data.name].identities
    facts = ahead.compile_for(where, validate(config), identities, (0, 0))
    return describe(facts)


def describe(facts: Facts) -> dict[str, Any]:
    """Say what a cell's numbers are from."""
    versions = {name: metadata.version(name) for name in ("jax", "libtpu")}
    made = {"commit": commit(), "date": date.today().isoformat()}
    return {"facts": facts.to_json(), **made, "versions": versions}


def load_of(pairs: int) -> Load:
    """Return what the hosts supply: two uint8 images and two labels a pair."""
    size = tuple(config_of(pairs).data.size)
    return Load(2 * pairs, 2 * pairs * (math.prod(size) * 3 + 4), "none")


def facts_of(cell: str, cells: dict[str, Any]) -> tuple[Facts | None, str]:
    """Return a cell's facts, and "compiled", or "between" for an interpolated one."""
    if cell in cells:
        return Facts.from_json(cells[cell]["facts"]), "compiled"
    name, _, batch = cell.partition("/")
    kind, chips = name.partition("-")[0], SLICES[name].chips
    if batch == "recipe" and pairs_of(cell) == PAIRS_PER_CHIP * chips:
        return facts_of(f"{name}/weak", cells)  # it is the same program
    known = {
        SLICES[n].chips: Facts.from_json(found["facts"])
        for n, found in ((c.partition("/")[0], cells[c]) for c in cells)
        if n.startswith(kind) and f"{n}/{batch}" in cells
    }
    below = max((n for n in known if 1 < n < chips), default=0)
    above = min((n for n in known if n > chips), default=0)
    if batch != "weak" or not below or not above:
        return None, ""
    share = (chips - below) / (above - below)
    return between(known[below], known[above], share, chips), "between"


def between(low: Facts, high: Facts, share: float, chips: int) -> Facts:
    """Interpolate all numbers of two programs, linear in the number of chips."""
    mix = lambda a, b: round(a + share * (b - a))
    found = {}
    for name, number in low.to_json().items():
        if isinstance(number, int | float):
            found[name] = mix(number, getattr(high, name))
    none = Collective()
    kinds = low.collectives | high.collectives
    collectives = {
        kind: Collective(
            *map(
                mix,
                low.collectives.get(kind, none),
                high.collectives.get(kind, none),
            )
        )
        for kind in kinds
    }
    named = found | {"devices": chips, "platform": low.platform}
    return Facts(**named | {"collectives": collectives})


def table(batch: str, cells: dict[str, Any]) -> str:
    """Write one table: a row a slice."""
    lines = [
        "| slice | pairs | program | instructions | memory | link bandwidth |"
        " link latency | step | images/s | a chip | held |",
        "|---|---:|---|" + "---:|" * 8,
    ]
    for name in ROWS[batch]:
        facts, known = facts_of(f"{name}/{batch}", cells)
        if facts is None:
            continue
        pairs = pairs_of(f"{name}/{batch}")
        found = estimate(facts, SLICES[name], load_of(pairs))
        times = (found.terms[t] for t in ("instructions", "memory"))
        links = (found.terms[t] for t in ("link bandwidth", "link latency"))
        rate, chips = found.images_per_second, SLICES[name].chips
        numbers = [f"{1000 * t:.1f}" for t in (*times, *links, found.seconds)]
        numbers += [f"{rate:,.0f}", f"{rate / chips:,.0f}"]
        numbers += [f"{facts.memory / 1e9:.2f}"]
        lines.append(f"| {name} | {pairs} | {known} | {' | '.join(numbers)} |")
    lacking = [n for n in ROWS[batch] if facts_of(f"{n}/{batch}", cells)[0] is None]
    if lacking:
        flags = " ".join(f"--cell {name}/{batch}" for name in lacking)
        lines += ["", f"Not compiled yet: `python -m benchmarks.scaling {flags}`."]
    return "\n".join(lines)


def collectives_table(cells: dict[str, Any]) -> str:
    """Write how many collectives there are, and what they carry."""
    lines = [
        "| slice | all-reduces | of them under 64 KiB | MB | all-gathers | MB |"
        " others | sent by a chip, MB |",
        "|---|" + "---:|" * 7,
    ]
    for name in ROWS["weak"]:
        facts, known = facts_of(f"{name}/weak", cells)
        if facts is None or known != "compiled" or not facts.collectives:
            continue
        none = Collective()
        reduce = facts.collectives.get("all-reduce", none)
        gather = facts.collectives.get("all-gather", none)
        others = sum(c.count for c in facts.collectives.values())
        others -= reduce.count + gather.count
        found = estimate(facts, SLICES[name], load_of(8)).terms["link bandwidth"]
        sent = found * SLICES[name].chip.links * SLICES[name].ring_share
        lines.append(
            f"| {name} | {reduce.count} | {reduce.small} | {reduce.bytes / 1e6:.1f} |"
            f" {gather.count} | {gather.bytes / 1e6:.1f} | {others} |"
            f" {sent / 1e6:.0f} |"
        )
    return "\n".join(lines)


def input_table(cells: dict[str, Any]) -> str:
    """Write what a host must supply, and what its cores can decode at best."""
    lines = [
        "| slice | chips a host | cores a host | images/s wanted of a host |"
        " cores that decode them | MB/s to its chips |",
        "|---|" + "---:|" * 5,
    ]
    for name in ROWS["weak"]:
        facts, _ = facts_of(f"{name}/weak", cells)
        if facts is None:
            continue
        where, load = SLICES[name], load_of(pairs_of(f"{name}/weak"))
        found: Estimate = estimate(facts, where, load)
        wanted = found.images_per_second / where.hosts
        cores = wanted / IMAGES_PER_CORE["none"]
        sent = load.bytes / found.seconds / where.hosts
        lines.append(
            f"| {name} | {where.chips_per_host} | {where.cores_per_host} |"
            f" {wanted:,.0f} | {cores:.1f} | {sent / 1e6:.0f} |"
        )
    return "\n".join(lines)


def origin(cells: dict[str, Any]) -> str:
    """Name the versions and commits behind the cells, and the time they took."""
    unique = lambda values: ", ".join(sorted(set(values)))
    versions = (f"{k} {v}" for c in cells.values() for k, v in c["versions"].items())
    commits = unique(str(cell["commit"]) for cell in cells.values())
    minutes = sum(c["facts"]["compile_seconds"] for c in cells.values()) / 60
    return (
        f"{len(cells)} programs, compiled in {minutes:.0f} minutes by"
        f" {unique(versions)} from commit `{commits}`"
        f" ({unique(c['date'] for c in cells.values())}). Written by `python -m"
        " benchmarks.scaling`."
    )


def write(cells: dict[str, Any]) -> None:
    """Replace the blocks of the document."""
    for batch in ROWS:
        write_block(DOCUMENT, batch, table(batch, cells))
    write_block(DOCUMENT, "collectives", collectives_table(cells))
    write_block(DOCUMENT, "input", input_table(cells))
    write_block(DOCUMENT, "origin", origin(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", action="append", default=[])
    arguments = parser.parse_args()
    cells = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    for cell in arguments.cell:
        cells[cell] = compile_cell(cell)
        NUMBERS.write_text(json.dumps(dict(sorted(cells.items())), indent=1) + "\n")
    write(cells)


if __name__ == "__main__":
    main()
