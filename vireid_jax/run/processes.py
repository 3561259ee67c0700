"""Several processes of one run: how they meet, how they agree, how they end together.

Each process drives its own devices and reads its own share of each batch; jax moves the
rest. Process 0 alone writes files and prints.
"""

import contextlib
import hashlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from vireid_jax.run.errors import UserError
from vireid_jax.run.stopping import Stopped

HEARTBEAT_SECONDS = 100  # without one a process counts as dead; jax's default
CONNECT_SECONDS = 120  # to wait for the other processes at the start


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = CONNECT_SECONDS,
) -> str:
    """Join the processes of this run; return in words how they were found.

    Without the three arguments SLURM, Cloud TPU or Kubernetes decide, and where there
    is none of these, this is the only process. Call it before jax uses a device. Raise
    UserError for arguments that do not fit together. End the process with one line
    where the others do not come within `timeout` seconds.
    """
    flags = (coordinator, num_processes, process_id)
    alone = flags == (None, None, None)
    found = cluster()
    if alone and not found:
        return "one process"
    if not alone:
        _check(*flags)
    # jax's own service would take SIGTERM away from `stopping`, which saves and ends.
    jax.config.update("jax_enable_preemption_service", False)
    # When its time is up the runtime aborts with a page of C++: end the process before.
    timer = threading.Timer(timeout, _give_up, (*flags, timeout))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            *flags,
            cluster_detection_method=None if alone else "deactivate",
            initialization_timeout=2 * timeout + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    finally:
        timer.cancel()
    by = f"found by {found}" if alone else "given by flags"
    return f"{jax.process_count()} processes, {by}"


def cluster() -> str:
    """Name the system that started this process as one of several; "" if none did."""
    env = os.environ
    if "SLURM_JOB_ID" in env and int(env.get("SLURM_NTASKS", 1)) > 1:
        return "SLURM"
    if any(Path("/dev").glob("accel*")) or "TPU_WORKER_HOSTNAMES" in env:
        return "Cloud TPU"
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return "Kubernetes"
    return ""


def _check(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Raise UserError unless the three flags fit together."""
    if coordinator is None or num_processes is None or process_id is None:
        raise UserError(
            "give --coordinator HOST:PORT, --num_processes and --process_id together,"
            f" or none of them; they are {coordinator}, {num_processes}, {process_id}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(
            f"--coordinator is {coordinator!r}; give HOST:PORT of process 0, such as"
            " 10.0.0.1:1234"
        )
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id is {process_id}; valid values with --num_processes"
            f" {num_processes}: 0 to {num_processes - 1}"
        )


def _give_up(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    timeout: int,
) -> None:
    """End this process, which waits inside the runtime for the others."""
    who = "this process" if process_id is None else f"process {process_id}"
    sys.stderr.write(
        f"error: {who} waited {timeout} s at the coordinator {coordinator or ''}, and"
        f" not all of the {num_processes or ''} processes came. Start all of them with"
        " the same --coordinator, which is process 0's address, and the same"
        " --num_processes, each with its own --process_id\n"
    )
    sys.stderr.flush()
    os._exit(1)


def is_first() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def agree(facts: Mapping[str, str]) -> None:
    """Raise UserError, in every process, unless all have the same facts."""
    if jax.process_count() == 1:
        return
    digests = [hashlib.sha256(text.encode()).digest() for text in facts.values()]
    mine = np.frombuffer(b"".join(digests), np.uint8).reshape(len(facts), 32)
    everyones = multihost_utils.process_allgather(mine)
    for index, name in enumerate(facts):
        other = np.flatnonzero((everyones[:, index] != everyones[0, index]).any(-1))
        if len(other):
            raise UserError(
                f"process {other[0]} has another {name} than process 0; this is"
                f" process {jax.process_index()} with {facts[name][:200]}. Start all"
                " with the same command, code and data"
            )


def any_of(flag: bool) -> bool:
    """Return whether `flag` is set in at least one process; all must call this."""
    return bool(gather(np.array([flag])).any())


def gather(rows: np.ndarray) -> np.ndarray:
    """Stack all processes' arrays, in each of them, `[processes, *rows.shape]`."""
    if jax.process_count() == 1:
        return rows[None]
    return np.asarray(multihost_utils.process_allgather(rows))


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Run the body in process 0, and only then in the others.

    For work on files that may or may not be shared, such as preparing a data set.
    """
    wait = lambda: multihost_utils.sync_global_devices("process 0 goes first")
    if not is_first():
        wait()
    yield
    if is_first() and jax.process_count() > 1:
        wait()


@contextlib.contextmanager
def abort_all_on_error() -> Iterator[None]:
    """End this process at once on any error, so that the runtime ends the others.

    An ordinary exit would wait at a barrier that the others never reach.
    """
    try:
        yield
    except Stopped:  # all stop together
        raise
    except BaseException as error:
        if not jax.distributed.is_initialized() or jax.process_count() == 1:
            raise
        code = 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        elif isinstance(error.code, int):
            code = error.code
        else:
            sys.stderr.write(f"{error.code}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
