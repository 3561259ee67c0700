"""Kill training with SIGKILL at random moments, and compare where it ends.

    python -m benchmarks.kills [--kills 50] [--seed 0]

trains a short demo without interruption, then repeatedly with the process killed at a
random moment and restarted, until it has been killed 50 times. Every run that ends must
have the same parameters, optimizer state, log rows and test results as the first, bit
for bit. Writes the table of docs/reliability.md; about half an hour on two cores.
"""

import argparse
import collections
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from benchmarks.demo import write_block
from vireid_jax.run.environment import environment

ROOT = Path(__file__).parents[1]
FLAGS = {
    "data.options.train_ids": 80,
    "data.options.test_ids": 20,
    "data.validation_identities": 10,
    "schedule.epochs": 3.0,
    "eval.every_epochs": 0.5,
    "log.every_steps": 4,
}
TIMED = {"seconds", "steps_per_second", "images_per_second"}
PHASES = {
    "start": "imports, data, restoring",
    "train": "compiling, the stream, a step, or validation",
    "save": "a save under way",
    "test": "the test at the end",
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wait(start(folder, "compile"))  # and draws the data
        began = time.monotonic()
        wait(start(folder, "whole"))
        life = time.monotonic() - began
        expected = end_of(folder / "whole")
        hits, ends, run = [], [], 0
        while len(hits) < arguments.kills or not ends or ends[-1] is None:
            if not ends or ends[-1] is not None:
                ends.append(None)
                run += 1
            workdir = folder / f"run{run}"
            process = start(folder, workdir.name)
            limit = draw.uniform(0, life) if len(hits) < arguments.kills else None
            try:
                process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                hits.append(phase_of(workdir))
                print(f"kill {len(hits)}: run {run}, {PHASES[hits[-1]]}", flush=True)
            else:
                if process.returncode:
                    raise SystemExit(f"run {run} failed; see {workdir}/log.txt")
                ends[-1] = end_of(workdir) == expected
                print(f"run {run} ended; equal: {ends[-1]}", flush=True)
    block = describe(hits, ends, life, arguments.seed)
    print(block)
    write_block(ROOT / "docs" / "reliability.md", "kills", block)
    if not all(ends):
        raise SystemExit("error: a killed run differs from the undisturbed one")


def start(folder: Path, name: str) -> subprocess.Popen:
    """Start or resume a run."""
    command = [sys.executable, "-m", "vireid_jax.main", "--config=configs/demo.py"]
    command += [f"--workdir={folder / name}", f"--config.data.dir={folder / 'data'}"]
    command += [f"--config.{key}={value}" for key, value in FLAGS.items()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, **quiet)


def wait(process: subprocess.Popen) -> None:
    """Wait for an undisturbed run."""
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors.decode())


def phase_of(workdir: Path) -> str:
    """Return the phase in which a run was killed, from its files."""
    if list(workdir.glob("checkpoints/*.orbax-checkpoint-tmp")):
        return "save"
    log = workdir / "log.txt"
    story = log.read_text().rpartition(" --- ")[2] if log.exists() else ""
    if "'epoch': 3.0" in story or re.search(r"from step (\d+) of \1,", story):
        return "test"
    return "train" if " Training " in story else "start"


def end_of(workdir: Path) -> list:
    """Return everything that finished runs are compared by."""
    step = max(int(p.name) for p in (workdir / "checkpoints").glob("[0-9]*"))
    sha = hashlib.sha256()
    for item in ("model", "optimizer"):
        folder = workdir / "checkpoints" / str(step) / item
        tree = ocp.tree.to_flat_dict(ocp.StandardCheckpointer().restore(folder))
        for name in sorted(tree):
            sha.update(f"{name}".encode() + np.asarray(tree[name]).tobytes())
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    rows = [{k: v for k, v in row.items() if k not in TIMED} for row in rows]
    results = json.loads((workdir / "eval.json").read_text())["results"]
    return [step, sha.hexdigest(), rows, results]


def describe(hits: list[str], ends: list[bool], life: float, seed: int) -> str:
    """Write the result as Markdown: a table, then the conditions."""
    counts = collections.Counter(hits)
    lines = ["| killed in | times |", "|---|---:|"]
    lines += [f"| {text} | {counts[phase]} |" for phase, text in PHASES.items()]
    here = environment()
    lines += [
        f"| **in all** | **{len(hits)}** |",
        "",
        f"{len(ends)} runs finished despite these kills; {sum(map(bool, ends))} of them"
        " have the parameters, optimizer state, log rows and test results of an"
        f" undisturbed run, bit for bit. OSNet x0.25, {life:.0f} s a run, seed {seed},"
        f" {here['processor']}, Python {here['python']}, jax"
        f" {here['packages']['jax']}, commit `{here['commit']}`. Written by"
        " `python -m benchmarks.kills`.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
