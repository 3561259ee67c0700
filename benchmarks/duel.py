"""Compare the outputs of our worker and a rival's, then time both in turn."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import ALLOCATORS, VARIANTS, Case, Search
from benchmarks.pairs import check_outputs, paired_ratio, summary
from benchmarks.pipe import Job, Worker, WorkerError

Row = dict[str, Any]
REST = 0.3  # s between runs: OpenMP's threads keep spinning after the rival's work


@dataclass(frozen=True)
class Ring:
    """The setting of a duel; `rival` is the rival's Python, None without one."""

    folder: Path
    rival: str | None
    rounds: int
    threads: int

    def start(self, side: str, python: str, module: str, job: Job, allocator: str):
        """Start the worker of a side, `ours` or `rival`."""
        outputs = {"outputs": str(self.folder / f"{side}.npz")}
        log = self.folder / f"{side}.log"
        job = job | outputs | {"threads": self.threads}
        return Worker(python, module, job, ALLOCATORS[allocator], log)

    def outputs(self, side: str) -> dict[str, np.ndarray]:
        """Read the outputs of a worker."""
        with np.load(self.folder / f"{side}.npz") as file:
            return dict(file)


def networks(ring: Ring, task: str, case: Case) -> Iterator[Row]:
    """Time training steps or embedding: our worker against each variant in turn.

    Only two workers exist at a time: more of a large network would not fit into memory.
    """
    job = case.job(task, given=str(ring.folder / "given.safetensors"))
    variants = VARIANTS[task] if ring.rival else (None,)
    for allocator in ALLOCATORS:
        about = {"task": task, "case": str(case), "allocator": allocator}
        with ring.start("ours", sys.executable, "benchmarks.ours", job, allocator) as w:
            for variant in variants:
                rival = (ring.rival, "benchmarks.rival", job | {"variant": variant})
                name = f"torch {variant}" if variant else None
                yield about | duel(ring, w, rival, name, allocator)


def search(ring: Ring, case: Search) -> Iterator[Row]:
    """Time the search of nearest rows against numpy, in the same Python."""
    allocator = "out of the box"
    about = {"task": "search", "case": str(case), "allocator": allocator}
    job = case.job()
    with ring.start("ours", sys.executable, "benchmarks.ours", job, allocator) as ours:
        rival = (sys.executable, "benchmarks.search", job)
        yield about | duel(ring, ours, rival, "numpy", allocator)


def duel(
    ring: Ring, ours: Worker, rival: tuple, name: str | None, allocator: str
) -> Row:
    """Time ours and a rival (if it has a `name`) in turn; return a row of results.

    If the rival fails, the row has its error. Raise OutputsError if outputs differ.
    """
    row = {"rival_name": name, "ours_facts": ours.facts}
    if name is None:
        before = Clock.now([ours])
        ours.run()
        seconds = [ours.run() for _ in range(ring.rounds)]
        row |= {"ours": summary(seconds), "ours_mib": ours.peak_mib}
        return row | {"others": before.others_share([ours])}
    try:
        other = ring.start("rival", *rival, allocator)
    except WorkerError as error:
        return row | {"failure": str(error)}
    with other:
        difference = check_outputs(ring.outputs("ours"), ring.outputs("rival"), name)
        before = Clock.now([ours, other])
        seconds = in_turn(ours, other, ring.rounds)
        return row | {
            "rival_facts": other.facts,
            "difference": difference,
            "ours": summary(seconds[0]),
            "rival": summary(seconds[1]),
            "ratio": paired_ratio(*seconds),
            "ours_mib": ours.peak_mib,
            "rival_mib": other.peak_mib,
            "others": before.others_share([ours, other]),
            "seconds": seconds,
        }


def in_turn(ours: Worker, rival: Worker, rounds: int) -> tuple[list[float], ...]:
    """Run both once unmeasured, then each once per round, beginning in turn."""
    ours.run(), rival.run()
    seconds = {ours: [], rival: []}
    for index in range(rounds):
        for side in (ours, rival) if index % 2 == 0 else (rival, ours):
            time.sleep(REST)
            seconds[side].append(side.run())
    return seconds[ours], seconds[rival]


@dataclass(frozen=True)
class Clock:
    """Seconds of wall time, of all busy processors, and of some workers."""

    wall: float
    busy: float
    workers: float

    @classmethod
    def now(cls, workers: list[Worker]) -> "Clock":
        """Read the clocks; `busy` is NaN except on Linux."""
        busy = float("nan")
        stat = Path("/proc/stat")
        if stat.exists():
            user, nice, system = map(int, stat.read_text().split()[1:4])
            busy = (user + nice + system) / os.sysconf("SC_CLK_TCK")
        return cls(time.perf_counter(), busy, sum(w.cpu_seconds for w in workers))

    def others_share(self, workers: list[Worker]) -> float | None:
        """Return the share of the processors that other processes used since then."""
        now = Clock.now(workers)
        others = (now.busy - self.busy) - (now.workers - self.workers)
        share = others / ((now.wall - self.wall) * os.cpu_count())
        return None if np.isnan(share) else float(np.clip(share, 0, 1))


def compile_times(ring: Ring, case: Case) -> Row:
    """Time a fresh process up to its first training step, cold and from the cache."""
    row = {"case": str(case)}
    job = case.job("compile")
    environment = {"JAX_COMPILATION_CACHE_DIR": str(ring.folder / "compiled")}
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "true"
    job |= {"threads": ring.threads}
    for state in ("cold", "cached"):
        start = time.perf_counter()
        log = ring.folder / "compile.log"
        with Worker(sys.executable, "benchmarks.ours", job, environment, log) as worker:
            seconds = time.perf_counter() - start
            row[state] = {**worker.facts, "seconds": seconds}
    return row
