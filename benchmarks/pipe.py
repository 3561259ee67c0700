"""A worker process that answers `run` over a pipe; both of its ends.

Ours and the rival's workers are the same to the one who times them. Only the standard
library is needed here, so that the rival's Python can import it. It is not run by hand.
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

# What a worker could inherit that changes how memory is given to it, or by which
# kernels numpy multiplies.
_DROPPED = ("GLIBC_TUNABLES", "LD_PRELOAD", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class WorkerError(Exception):
    """Says how a worker ended, by the line that names the exception."""


class Worker:
    """Starts a process and waits until it is prepared; then `run` runs it once."""

    def __init__(
        self, python: str, module: str, job: Job, environment: dict[str, str], log: Path
    ):
        """Runs `python -m module` for a job; `environment` is added to a plain one."""
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
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        self.close()

    def run(self) -> float:
        """Runs once; returns the seconds that the worker took."""
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        """Ends the process."""
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
    """Finds the line that names the exception; PyTorch adds advice below it."""
    lines = log.strip().splitlines() or ["it said nothing"]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (named or lines)[-1]


def serve(prepare: Prepare) -> None:
    """Prepares the job of the command line, tells facts, and runs when asked to.

    The process keeps to the first `threads` processors that it may use.
    """
    # Libraries print, too: what they write to standard output goes to the log.
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
    """Returns this process's environment without settings of allocator and kernels."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_") and name not in _DROPPED
    }


def peak_mib() -> float:
    """Returns the largest resident size of this process so far, in MiB.

    Linux's `ru_maxrss` starts at that of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
