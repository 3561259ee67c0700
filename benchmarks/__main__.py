"""Measure vireid_jax against PyTorch, numpy and plain loops.

    make bench-env                               # once: PyTorch, into .venv-bench
    python -m benchmarks                         # everything, about half an hour
    python -m benchmarks --only train,eval --json bench.json
    python -m benchmarks --from bench.json --write_docs
    python -m benchmarks --quick                 # small cases, seconds a part

Both sides get the same weights and images, and their outputs are compared before they
are timed. Without .venv-bench only vireid_jax is measured. docs/performance.md explains
the numbers; --write_docs writes them there.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import cases, duel
from benchmarks.demo import write_block
from benchmarks.pairs import OutputsError
from benchmarks.pipe import ROOT, WorkerError
from benchmarks.report import TITLES, Results, busy, markdown, show

PARTS = ("train", "eval", "input", "ranking", "search", "compile", "profile")
RIVAL = ROOT / ".venv-bench" / "bin" / "python"
DOCS = ROOT / "docs" / "performance.md"
NO_RIVAL = "No PyTorch at {}: `make bench-env` installs it. Measuring vireid_jax alone."


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=parts, default=PARTS, help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parser.add_argument("--from", type=Path, dest="source", help="results to read")
    parser.add_argument("--write_docs", action="store_true", help=f"into {DOCS.name}")
    parser.add_argument("--quick", action="store_true", help="small cases, few rounds")
    parser.add_argument("--rounds", type=int, help="default 7; with --quick 2")
    parser.add_argument("--threads", type=int, default=2, help="of each worker")
    parser.add_argument("--rival", type=Path, default=RIVAL, help="a Python with torch")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (2 if options.quick else 7)
    return options


def parts(text: str) -> tuple[str, ...]:
    """Split `train,eval`; raise argparse's error for an unknown part."""
    names = tuple(text.split(","))
    if unknown := set(names) - set(PARTS):
        values = ", ".join(PARTS)
        raise argparse.ArgumentTypeError(f"{min(unknown)!r}; valid values: {values}")
    return names


def main() -> None:
    """Run the command."""
    arguments = read_arguments()
    console, log = Console(highlight=False), Console(stderr=True, highlight=False)
    if arguments.source:
        results = json.loads(arguments.source.read_text())
    else:
        try:
            results = measure(arguments, log)
        except (OutputsError, WorkerError) as error:
            raise SystemExit(f"error: {error}") from error
    if not console.is_terminal:
        console.width = 150  # one line per row in a file or pipe
    show(results, console)
    if arguments.write_docs:
        write_docs(results)
        log.print(f"wrote {DOCS}")


def write_docs(results: Results) -> None:
    """Write the tables into the documentation, unless they are unreliable."""
    if results["quick"]:
        raise SystemExit("error: --quick is no measurement; nothing was written")
    if reason := busy(results):
        raise SystemExit(f"error: nothing was written. {reason}")
    write_block(DOCS, "bench", markdown(results))


def measure(arguments: argparse.Namespace, log: Console) -> Results:
    """Measure the chosen parts, one after the other."""
    rival = str(arguments.rival) if arguments.rival.is_file() else None
    compared = {"train", "eval"} & set(arguments.only)
    if compared and rival is None:
        log.print(NO_RIVAL.format(arguments.rival), soft_wrap=True)
    results: Results = {
        "machine": machine(arguments.threads),
        "versions": {},
        "allocators": cases.ALLOCATORS,
        "quick": arguments.quick,
        "rounds": arguments.rounds,
    }
    with tempfile.TemporaryDirectory() as folder:
        ring = duel.Ring(Path(folder), rival, arguments.rounds, arguments.threads)
        for part in arguments.only:
            log.print(f"{part} ...")
            results[part] = MEASURES[part](ring, arguments.quick, log)
            results["versions"] = versions(results)
            if arguments.json:  # after each part, in case the run is stopped
                arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return results


def networks(task: str):
    """Return a function that measures a task of networks."""

    def run(ring: duel.Ring, quick: bool, log: Console) -> list[duel.Row]:
        rows = []
        for case in cases.QUICK if quick else cases.FULL:
            for row in duel.networks(ring, task, case):
                rows.append(row)
                log.print(f"  {row['case']}, {row['allocator']}, {row['rival_name']}")
        return rows

    return run


def search(ring: duel.Ring, quick: bool, _: Console) -> list[duel.Row]:
    case = cases.QUICK_SEARCH if quick else cases.FULL_SEARCH
    return list(duel.search(ring, case))


def compile_times(ring: duel.Ring, quick: bool, _: Console) -> duel.Row:
    case = cases.WHOLE_METHOD_QUICK if quick else cases.WHOLE_METHOD
    return duel.compile_times(ring, case)


def command(module: str, when_quick: tuple[str, ...] = ()):
    """Return a function that runs another benchmark and reads the JSON it prints."""

    def run(_: duel.Ring, quick: bool, __: Console) -> dict[str, Any]:
        options = when_quick if quick else ()
        done = subprocess.run(
            [sys.executable, "-m", module, *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise WorkerError(f"{module}: {done.stderr.strip().splitlines()[-1]}")
        return json.JSONDecoder().raw_decode(done.stdout)[0]

    return run


MEASURES = {
    "train": networks("train"),
    "eval": networks("eval"),
    "input": command("benchmarks.input", ("--seconds", "0.2")),
    "ranking": command("benchmarks.ranking", ("--small",)),
    "search": search,
    "compile": compile_times,
    "profile": command("benchmarks.profile", ("--quick",)),
}


def machine(threads: int) -> dict[str, Any]:
    """Describe the machine and the commit."""
    from vireid_jax.run.environment import commit, processor

    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "memory_gib": pages * size / 2**30,
        "python": platform.python_version(),
        "commit": commit(),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
    }


def versions(results: Results) -> dict[str, str]:
    """Return the versions that the workers reported."""
    rows = [row for part in TITLES for row in results.get(part, ())]
    facts = [row.get(f"{side}_facts", {}) for row in rows for side in ("ours", "rival")]
    facts.append(results.get("compile", {}).get("cold", {}))
    names = ("jax", "jaxlib", "numpy", "torch")
    return {n: f[n] for n in names for f in facts if n in f}


if __name__ == "__main__":
    main()
