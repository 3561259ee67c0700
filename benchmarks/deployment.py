"""Measure exported networks of every width and writes the table of docs/deployment.md.

    python -m benchmarks.deployment
    python -m benchmarks.deployment --checkpoint runs/demo

exports `osnet_x1_0` to `osnet_x0_25` with random weights and times them in each runtime
and precision, the largest against the rival of `benchmarks/rival` as PyTorch exports it
(`make bench-env`). With --checkpoint a second table has the loss of int8 for a trained
network, and the time of a process to its first embedding. Takes minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.cases import Case
from benchmarks.demo import write_block
from benchmarks.pairs import check_outputs, paired_ratio
from benchmarks.pipe import ROOT

NETWORKS = ("osnet_x1_0", "osnet_x0_75", "osnet_x0_5", "osnet_x0_25")
SIZE = (256, 128)
COUNTS = (1, 8)
RIVAL = ROOT / ".venv-bench" / "bin" / "python"
DOCS = ROOT / "docs" / "deployment.md"
_CALIBRATION = 16  # images of noise: with random weights only the time matters

# A process that computes one embedding; it prints the seconds since `load`.
_FIRST = """
import sys, time
import numpy as np
import vireid_jax

start = time.perf_counter()
embedder = vireid_jax.load(sys.argv[1])
embedder.embed(np.zeros((1, 128, 64, 3), np.uint8), "infrared")
print(time.perf_counter() - start)
"""

Run = Callable[[list[np.ndarray]], Any]


class Timed(NamedTuple):
    """A network in a runtime: seconds of each round, by the number of images."""

    network: str
    title: str
    size: int  # bytes
    seconds: dict[int, list[float]]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deployment")
    add = parser.add_argument
    add("--checkpoint", type=Path, help="of a network trained on walkers")
    add("--data_dir", type=Path, help="of its images; default: as in its config")
    add("--threads", type=int, default=1, help="processors to use")
    add("--rounds", type=int, default=20)
    add("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    add("--rival", type=Path, default=RIVAL, help="a Python with torch and onnxscript")
    add("--docs", type=Path, default=DOCS, help="the page with the block")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))[: arguments.threads]
        os.sched_setaffinity(0, mine)  # before any runtime counts them
    from vireid_jax.run.runtime import set_up

    set_up()
    timed = [
        row
        for network in arguments.networks
        for row in measure(network, arguments.rival, arguments.rounds)
    ]
    blocks = [table(timed), against_the_rival(timed)]
    if arguments.checkpoint:
        blocks.append(trained_table(arguments.checkpoint, arguments.data_dir))
        blocks.append(start_up(arguments.checkpoint))
    blocks.append(conditions(arguments.rounds))
    block = "\n\n".join(filter(None, blocks))
    print(block)
    write_block(arguments.docs, "deployment", block)


# --- Measuring ------------------------------------------------------------------------


def measure(network: str, rival: Path, rounds: int) -> list[Timed]:
    """Export a network with random weights, and time all its files in turn.

    The rival takes part with the first network only.
    """
    from benchmarks.ours import batch_of, config_of, variables_of, write_given
    from vireid_jax.embed.embedder import Embedder
    from vireid_jax.export.formats import quantise, write
    from vireid_jax.export.runtimes import in_onnxruntime, open_files
    from vireid_jax.models.build import create_model

    job = Case(network, *SIZE, max(COUNTS)).job("eval")
    model = create_model(config_of(job), job["classes"])
    variables = variables_of(model)
    embedder = Embedder(
        model,
        variables,
        size=SIZE,
        flip=False,
        batch_size=max(COUNTS),
        modalities=["visible"],
    )
    images = batch_of(job, max(COUNTS))["visible"]
    noise = np.random.default_rng(1).integers(0, 256, (_CALIBRATION, *SIZE, 3))
    expected = {"embeddings": embedder.embed(images, "visible")}
    runs: dict[str, tuple[Run, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        written = {
            format: write(embedder, format, folder, "separate", {})
            for format in ("onnx", "jax")
        }
        small = quantise(written["onnx"], {"visible": noise.astype(np.uint8)})
        for format, files in (*written.items(), ("onnx", small)):
            for target in open_files(format, files):
                (path,) = files.paths.values()
                (run,) = target.runs.values()
                runs[str(target)] = run, path.stat().st_size
                if files.precision == "float32":
                    outputs = {"embeddings": target.embed(images, "visible")}
                    check_outputs(expected, outputs, str(target))
        if network == NETWORKS[0] and rival.exists():
            given, path = folder / "given.safetensors", folder / "rival.onnx"
            write_given(str(given), variables, batch_of(job, max(COUNTS)))
            export_rival(rival, job | {"given": str(given), "path": str(path)})
            run = in_onnxruntime(path, ("visible",))
            check_outputs(expected, {"embeddings": run([images])[0]}, "the rival")
            runs[rival_title()] = run, path.stat().st_size
        seconds = in_turn(
            {title: run for title, (run, _) in runs.items()}, images, rounds
        )
    return [
        Timed(network, title, size, seconds[title]) for title, (_, size) in runs.items()
    ]


def first_embedding(checkpoint: Path, cache: Path) -> tuple[float, float]:
    """Start a process; return seconds from `load` to an embedding, and in total."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _FIRST, str(checkpoint)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout), time.perf_counter() - start


def export_rival(python: Path, job: dict[str, Any]) -> None:
    """Export the rival's graph with PyTorch."""
    command = [str(python), "-m", "benchmarks.rival.to_onnx", json.dumps(job)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: the rival was not exported: {done.stderr.strip()}")


def rival_title() -> str:
    """Return the rival's title, with the runtime that both use."""
    from vireid_jax.run.environment import version

    return f"the rival: PyTorch's export, onnxruntime {version('onnxruntime')}, float32"


def in_turn(
    runs: dict[str, Run], images: np.ndarray, rounds: int
) -> dict[str, dict[int, list[float]]]:
    """Time each once per round, after an unmeasured run, in alternating order."""
    seconds = {title: {count: [] for count in COUNTS} for title in runs}
    for count in COUNTS:
        inputs = [images[:count]]
        for index in range(rounds):
            for title in list(runs)[:: 1 if index % 2 else -1]:
                runs[title](inputs)
                start = time.perf_counter()
                runs[title](inputs)
                seconds[title][count].append(time.perf_counter() - start)
    return seconds


# --- Writing --------------------------------------------------------------------------


def table(timed: list[Timed]) -> str:
    """Write a row for each network, runtime and precision."""
    heads = [f"ms, {images_of(n)}" for n in COUNTS]
    lines = [f"| network | runtime, precision | MiB | {' | '.join(heads)} |"]
    lines.append("|---|---|---:|" + "---:|" * len(COUNTS))
    for row in timed:
        medians = (f"{1e3 * np.median(row.seconds[n]):.1f}" for n in COUNTS)
        size = f"{row.size / 2**20:.2f}"
        cells = (f"`{row.network}`", row.title, size, *medians)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def images_of(count: int) -> str:
    """Return `1 image`, `8 images`."""
    return f"{count} image{'s' if count > 1 else ''}"


def against_the_rival(timed: list[Timed]) -> str:
    """Return a sentence with the ratio of rival and ours in onnxruntime."""
    rows = [row for row in timed if row.network == NETWORKS[0]]
    rival = [row for row in rows if row.title == rival_title()]
    if not rival:
        return ""
    # Ours in the same runtime and precision.
    ours = next(row for row in rows if rival_title().endswith(row.title))
    ratios = []
    for count in COUNTS:
        ratio = paired_ratio(ours.seconds[count], rival[0].seconds[count])
        ratios.append(
            f"{ratio['value']:.3f} times ours for {images_of(count)} (95% interval"
            f" {ratio['low']:.3f} to {ratio['high']:.3f})"
        )
    return (
        f"The rival is the same `{NETWORKS[0]}` with the same weights, written in"
        " PyTorch, its norms folded, exported by `torch.onnx.export` and run in the"
        f" same onnxruntime in turn with ours; it takes {' and '.join(ratios)}."
    )


def trained_table(checkpoint: Path, data_dir: Path | None) -> str:
    """Export a trained network in int8, and return the table of its proof."""
    from vireid_jax.export.__main__ import export

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        proof = export(checkpoint, "onnx", out, int8=True, data_dir=data_dir)
        about = json.loads((out / "model.json").read_text())
    directions = list(proof["runs"][0]["walkers"])
    heads = [f"Rank-1, {d.replace('-', ' ')} | lost" for d in directions]
    lines = [f"| runtime, precision | {' | '.join(heads)} | mAP | features off by |"]
    lines.append("|---|" + "---:|" * (2 * len(directions) + 2))
    for run in proof["runs"]:
        cells = [f"{run['runtime']}, {run['precision']}"]
        for found in run["walkers"].values():
            lost = found["rank_1_lost"]
            cells += [f"{100 * found['exported']['Rank-1']:.2f}", f"{100 * lost:+.2f}"]
        maps = (f"{100 * f['exported']['mAP']:.2f}" for f in run["walkers"].values())
        cells += [" and ".join(maps), f"{run['largest_difference']:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    height, width = about["input"]["shape"][1:3]
    title = (
        f"A trained `{about['network']['name']}` at {height}x{width}, epoch"
        f" {about['epoch']:g}, on `{proof['walkers']}`; in percent, and points that"
        " were lost against the checkpoint in JAX (a minus is a gain):"
    )
    return "\n".join([title, "", *lines])


def start_up(checkpoint: Path, rounds: int = 5) -> str:
    """Measure a process to its first embedding, with an empty and a filled cache."""
    took = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            took.append([first_embedding(checkpoint, Path(cache)) for _ in range(2)])
    (cold, cold_all), (cached, cached_all) = np.median(took, axis=0)
    return (
        f"From `load` of that checkpoint to the first embedding in Python: {cold:.1f} s"
        f" with an empty compile cache, {cached:.1f} s with a filled one; with Python's"
        f" start and the imports {cold_all:.1f} s and {cached_all:.1f} s (medians of"
        f" {rounds})."
    )


def conditions(rounds: int) -> str:
    """Return a sentence with machine and conditions."""
    from vireid_jax.run.environment import commit, cores, processor

    return (
        f"Images of {SIZE[0]}x{SIZE[1]}, one stream without the mirror, random weights;"
        f" medians of {rounds} rounds in which all took turns, on {cores()} of"
        f" {os.cpu_count()} cores of {processor()}, commit `{commit()}`. Written by"
        " `python -m benchmarks.deployment`."
    )


if __name__ == "__main__":
    main()
