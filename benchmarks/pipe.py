"""A worker process that answers `run` over a pipe; both of its ends.

The workers of both sides have the same interface. This module needs only the standard
library, so that the rival's Python can import it.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Job = dict[str, Any]
Facts = dict[str, Any]
Prepare = Callable[[Job], tuple[Callable[[], Any], Facts]]

# Variables that change a worker's memory allocation or numpy's kernels.
_DROPPED = ("GLIBC_TUNABLES", "LD_PRELOAD", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class WorkerError(Exception):
    """A worker ended; the message is the line that names its exception."""


class Worker:
    """Start a process and wait until it is prepared; then `run` runs it once."""

    def __init__(
        self, python: str, module: str, job: Job, environment: dict[str, str], log: Path
    ):
        """Run `python -m module` for a job; add `environment` to a plain one."""
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", module, json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=plain_environment() | environment,
                text=True,
            )
        try:
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Worker":
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def run(self) -> float:
        """Run once; return the seconds that the worker took."""
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Facts:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise WorkerError(f"exit code {code}: {reason(self._log.read_text())}")
        answer = json.loads(line)
        self.peak_mib, self.cpu_seconds = answer["peak_mib"], answer["cpu_seconds"]
        return answer


def reason(log: str) -> str:
    """Find the line that names the exception; PyTorch adds advice below it."""
    lines = log.strip().splitlines() or ["no output"]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (named or lines)[-1]


def serve(prepare: Prepare) -> None:
    """Prepare the job of the command line, answer with facts, and run on request.

    The process uses only the first `threads` of its processors.
    """
    # Libraries print too: send their standard output to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))[: job["threads"]]
        os.sched_setaffinity(0, mine)

    def answer(facts: Facts) -> None:
        facts |= {"peak_mib": peak_mib(), "cpu_seconds": time.process_time()}
        print(json.dumps(facts), file=answers, flush=True)

    run, facts = prepare(job)
    answer(facts)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        answer({"seconds": time.perf_counter() - start})


def plain_environment() -> dict[str, str]:
    """Return this process's environment without settings of allocator and kernels."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_") and name not in _DROPPED
    }


def peak_mib() -> float:
    """Return the largest resident size of this process so far, in MiB.

    On Linux `ru_maxrss` starts with the parent's value, so read /proc instead.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
